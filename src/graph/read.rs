//! From the bytes of a model file to a [`Model`]: its ports, its operators, the files it refers to.
//!
//! Separate from the rules because these are facts, true of the file whatever is later made of it, and a file
//! that fails here is refused rather than served with doubts.
//!
//! # Invariants
//! A [`Model`] has a graph, every port is a tensor of a datatype of the protocol, every external location has
//! passed [`check_location`](super::check_location), and the limits of `LIMITS` hold.

use super::error::GraphError;
use super::proto::{
    DimensionValue, GraphProto, ModelProto, TensorProto, TensorTypeProto, TypeValue, ValueInfoProto,
};
use super::survey::Survey;
use super::wire::{Limits, scan};
use crate::tensor::DataType;
use crate::text;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// Largest model file; protobuf itself ends here.
pub const MODEL_BYTES_MAX: usize = 2 << 30;

const LIMITS: Limits = Limits {
    nodes_max: 1_000_000,
    // Each may take a few hundred bytes of memory; the largest published graphs have some hundred thousand.
    items_max: 8_000_000,
    graph_depth_max: 16,
    // Below the decoder's own 100, above the 3 that each subgraph takes.
    message_depth_max: 64,
};

/// The size along an axis as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Varies; the model gives it a name.
    Named(String),
    /// Varies, nameless.
    Unknown,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis; none where not even their number is declared.
    pub dims: Option<Vec<Dim>>,
}

/// An operator by domain and name; the default domain is the empty text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operator {
    /// The domain, `ai.onnx` written as the empty text.
    pub domain: String,
    /// The operator's name.
    pub op_type: String,
}

/// A parsed model file and the facts read from it.
#[derive(Clone, Debug)]
pub struct Model {
    proto: ModelProto,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    external_files: BTreeSet<String>,
    operators: BTreeSet<Operator>,
    opsets: BTreeMap<String, i64>,
}

impl Model {
    /// What a request must bring: graph inputs that are not initialisers, in the model's order.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What an answer holds, in the model's order.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Files below the model's folder that hold weights, by the paths in the model.
    #[must_use]
    pub const fn external_files(&self) -> &BTreeSet<String> {
        &self.external_files
    }

    /// Every operator used in the graph, its subgraphs and functions.
    #[must_use]
    pub const fn operators(&self) -> &BTreeSet<Operator> {
        &self.operators
    }

    /// The imported version of each operator set, by domain (`ai.onnx` as the empty text).
    #[must_use]
    pub const fn opsets(&self) -> &BTreeMap<String, i64> {
        &self.opsets
    }

    /// The value of a metadata entry.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|entry| entry.key() == key).map(|entry| entry.value())
    }

    /// The parsed file.
    #[must_use]
    pub const fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The main graph.
    ///
    /// # Panics
    /// Never: [`read`] makes no model without one.
    #[must_use]
    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_deref().expect("read() refuses files without a graph")
    }
}

/// Reads a model file.
///
/// # Errors
/// The first reason why the file is not a model that can be served; see [`GraphError`].
///
/// # Cost
/// Weights stay slices of `bytes`, which live as long as the model. Two passes over the structure.
pub fn read(bytes: Bytes) -> Result<Model, GraphError> {
    if bytes.len() > MODEL_BYTES_MAX {
        return Err(GraphError::TooLarge { bytes: bytes.len(), limit: MODEL_BYTES_MAX });
    }
    scan(&bytes, LIMITS)?;
    let proto =
        ModelProto::decode(bytes).map_err(|error| GraphError::Malformed(error.to_string()))?;
    let graph = proto.graph.as_deref().ok_or(GraphError::NoGraph)?;
    let initialisers: BTreeSet<&str> = initialiser_names(graph).collect();
    let given = graph.input.iter().filter(|info| !initialisers.contains(info.name()));
    let inputs = ports("input", given)?;
    let outputs = ports("output", graph.output.iter())?;
    let mut survey = Survey::default();
    survey.graph(graph)?;
    for function in &proto.functions {
        survey.nodes(&function.node)?;
        for attribute in &function.attribute_proto {
            survey.attribute(attribute)?;
        }
    }
    let opsets = opsets(&proto.opset_import)?;
    let Survey { external_files, operators } = survey;
    Ok(Model { inputs, outputs, external_files, operators, opsets, proto })
}

/// The names of a graph's initialisers, dense and sparse.
pub(super) fn initialiser_names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.filter_map(|sparse| sparse.values.as_ref()).map(TensorProto::name);
    graph.initializer.iter().map(TensorProto::name).chain(sparse)
}

/// A domain as this crate writes it: the default one is the empty text.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The version of each operator set.
pub(super) fn opsets(
    imports: &[super::proto::OperatorSetIdProto],
) -> Result<BTreeMap<String, i64>, GraphError> {
    let mut opsets = BTreeMap::new();
    for import in imports {
        let name = domain(import.domain());
        let before = opsets.insert(name.to_owned(), import.version());
        if before.is_some_and(|version| version != import.version()) {
            return Err(GraphError::OpsetTwice { domain: text::name(name) });
        }
    }
    Ok(opsets)
}

fn ports<'a>(
    side: &'static str,
    infos: impl Iterator<Item = &'a ValueInfoProto>,
) -> Result<Vec<Port>, GraphError> {
    let mut names = BTreeSet::new();
    let mut ports = Vec::new();
    for info in infos {
        let port = port(side, info)?;
        if !names.insert(info.name()) {
            return Err(GraphError::PortTwice { side, port: text::name(&port.name) });
        }
        ports.push(port);
    }
    Ok(ports)
}

fn port(side: &'static str, info: &ValueInfoProto) -> Result<Port, GraphError> {
    let name = info.name().to_owned();
    let what = match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => {
            let datatype = datatype(tensor.elem_type()).ok_or_else(|| GraphError::Datatype {
                side,
                port: text::name(&name),
                elem_type: elem_type_name(tensor.elem_type()),
            })?;
            return Ok(Port { name, datatype, dims: dims(tensor) });
        }
        Some(TypeValue::Sequence(_)) => "a sequence",
        Some(TypeValue::Map(_)) => "a map",
        Some(TypeValue::SparseTensor(_)) => "a sparse tensor",
        Some(TypeValue::Optional(_)) => "an optional value",
        None => "of no declared type",
    };
    Err(GraphError::NotTensor { side, port: text::name(&name), what })
}

fn dims(tensor: &TensorTypeProto) -> Option<Vec<Dim>> {
    let dim = |value: Option<&DimensionValue>| match value {
        Some(DimensionValue::Value(size)) => match usize::try_from(*size) {
            Ok(size) if size > 0 => Dim::Fixed(size),
            _ => Dim::Unknown,
        },
        Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Named(name.clone()),
        Some(DimensionValue::Param(_)) | None => Dim::Unknown,
    };
    let shape = tensor.shape.as_ref()?;
    Some(shape.dim.iter().map(|axis| dim(axis.value.as_ref())).collect())
}

/// The protocol's datatype for the schema's number.
#[must_use]
pub const fn datatype(elem_type: i32) -> Option<DataType> {
    Some(match elem_type {
        1 => DataType::Fp32,
        2 => DataType::Uint8,
        3 => DataType::Int8,
        4 => DataType::Uint16,
        5 => DataType::Int16,
        6 => DataType::Int32,
        7 => DataType::Int64,
        8 => DataType::Bytes,
        9 => DataType::Bool,
        10 => DataType::Fp16,
        11 => DataType::Fp64,
        12 => DataType::Uint32,
        13 => DataType::Uint64,
        16 => DataType::Bf16,
        _ => return None,
    })
}

fn elem_type_name(elem_type: i32) -> String {
    let name = match elem_type {
        0 => "undefined",
        14 => "complex64",
        15 => "complex128",
        17..=20 | 24 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        other => return format!("number {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
