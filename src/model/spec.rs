//! One version of a model as requests are checked against it.

use crate::digest::StageDigest;
use crate::graph::{Dim, Port};
use crate::id::StageId;
use crate::metrics::ModelMetrics;
use crate::model::config::{PLATFORM, Queue, Wire};
use crate::model::padding::Padding;
use crate::model::runs::RunsCell;
use crate::model::settings::Settings;
use crate::model::stage::StageName;
use crate::model::way::WayCell;
use crate::proto::ModelConfig;
use crate::request::{ModelMetadata, TensorMetadata};
use crate::tensor::DataType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis; none where the model does not say how many there are.
    pub dims: Option<Vec<Dim>>,
    /// The batch axis; none where the tensor belongs to every row alike.
    pub axis: Option<usize>,
    /// What the values of its last axis mean, by place; none where nobody says.
    pub labels: Option<Arc<[String]>>,
    /// Both shapes, where clients see another one than the model does.
    pub wire: Option<Wire>,
    /// It is not offered.
    pub hidden: bool,
}

/// An input or output of a model as its files have it, before its batch axis is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    /// The tensor as the model sees it, narrowed to what is declared.
    pub port: Port,
    /// Both shapes, where clients see another one than the model does.
    pub wire: Option<Wire>,
    /// What the values of its last axis mean.
    pub labels: Option<Arc<[String]>>,
    /// It is not offered.
    pub hidden: bool,
}

impl Face {
    /// A tensor that clients see as the model does.
    #[must_use]
    pub fn plain(port: &Port) -> Self {
        Self { port: port.clone(), wire: None, labels: None, hidden: false }
    }
}

/// Whether requests are cut into rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Rows do not influence each other: they are shared, kept and batched one by one.
    Independent {
        /// How that is known.
        how: String,
    },
    /// Each request runs as it came, as one row.
    Whole {
        /// Why.
        why: String,
    },
}

/// One version of a model.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// Every version of this model, oldest first.
    pub versions: Vec<u64>,
    /// The stage that answers it.
    pub stage: StageId,
    /// The content of that stage.
    pub digest: StageDigest,
    /// What that stage is called.
    pub called: Arc<StageName>,
    /// The inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Whether requests are cut into rows.
    pub rows: Rows,
    /// What the user set for this model.
    pub settings: Settings,
    /// What holds for requests that wait.
    pub queue: Queue,
    /// Sizes that are padded.
    pub padding: Option<Padding>,
    /// Rows of one request, at most; none where nothing is declared.
    pub request_rows_max: Option<usize>,
    /// The bytes of its settings files; zero without any.
    pub setup: [u8; 32],
    /// Why equal rows may give different answers; none where they may not.
    pub unshared: Option<String>,
    /// The batch axis of every output, as a batch needs it.
    pub output_axes: Arc<[Option<usize>]>,
    /// The same with no axis at all, for requests that run as they came.
    pub whole_axes: Arc<[Option<usize>]>,
    /// The configuration that holds, in the form that clients read.
    pub config: Arc<ModelConfig>,
    /// Where what happens to it is counted.
    pub counts: Arc<ModelMetrics>,
    /// What was found at load, to be shown.
    pub findings: BTreeMap<String, String>,
    /// Its way through shared bases, while there is one.
    pub way: WayCell,
    /// How its runs are spread over the cores now.
    pub runs: RunsCell,
}

impl TensorSpec {
    /// A port of the model with its batch axis.
    #[must_use]
    pub fn new(port: &Port, axis: Option<usize>) -> Self {
        let Port { name, datatype, dims } = port.clone();
        Self { name, datatype, dims, axis, labels: None, wire: None, hidden: false }
    }

    /// The same with what its files say of it.
    #[must_use]
    pub fn of(face: &Face, axis: Option<usize>) -> Self {
        let Face { port, wire, labels, hidden } = face.clone();
        Self { wire, labels, hidden, ..Self::new(&port, axis) }
    }

    /// The size along each axis as clients see it; none where nobody says how many there are.
    #[must_use]
    pub fn client_dims(&self) -> Option<&[Dim]> {
        self.wire.as_ref().map_or(self.dims.as_deref(), |wire| Some(&wire.client))
    }

    /// The shape as clients and metadata see it, -1 where a size varies.
    #[must_use]
    pub fn wire_shape(&self) -> Vec<i64> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Named(_) | Dim::Unknown => -1,
        };
        self.client_dims().map_or_else(|| vec![-1], |dims| dims.iter().map(size).collect())
    }

    fn metadata(&self) -> TensorMetadata {
        let (name, datatype) = (self.name.clone(), self.datatype);
        TensorMetadata { name, datatype, shape: self.wire_shape() }
    }
}

impl ModelSpec {
    /// What the model says of itself.
    #[must_use]
    pub fn metadata(&self) -> ModelMetadata {
        ModelMetadata {
            name: self.name.clone(),
            versions: self.versions.iter().map(u64::to_string).collect(),
            platform: PLATFORM.to_owned(),
            inputs: self.inputs.iter().map(TensorSpec::metadata).collect(),
            outputs: self.offered().map(TensorSpec::metadata).collect(),
            properties: self.findings.clone(),
        }
    }

    /// The outputs that can be asked for.
    pub fn offered(&self) -> impl Iterator<Item = &TensorSpec> {
        self.outputs.iter().filter(|output| !output.hidden)
    }

    /// Whether requests are cut into rows.
    #[must_use]
    pub fn cuts_rows(&self) -> bool {
        matches!(self.rows, Rows::Independent { .. })
    }
}
