//! What finding families needs of one model, and no more: digests, estimates, no weights.
//!
//! Separate because a sketch outlives the file that it was made of: it can be kept on disk by the file's digest, so
//! that a restart neither parses nor hashes again.

use super::compute::Estimates;
use super::content::{Weights, count};
use super::dag::{Dag, Source, narrow};
use super::hash::{Digest, Fields};
use super::net::{Net, net};
use crate::graph::read::{Dim, Model, Port};
use crate::graph::rules::{Reason, Tensors, tensors};
use serde::{Deserialize, Serialize};

/// What finding needs of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sketch {
    pub(super) inputs: Vec<Hole>,
    pub(super) dag: Dag,
    /// Beside the values of the graph.
    pub(super) values: Vec<Tensor>,
    /// Beside the nodes of the graph.
    pub(super) steps: Vec<Cost>,
}

/// An input without its name and place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hole {
    /// Told only to choose between inputs that nothing else tells apart.
    pub(super) name: String,
    /// Datatype, fixed sizes, batch axis.
    pub(super) digest: Digest,
}

/// What is known of a value beyond its digest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tensor {
    /// Its name in the model, where it could be cut there.
    pub(super) name: String,
    /// Bytes of a row, where it could be cut there.
    pub(super) row_bytes: Option<u64>,
    /// Whether an output of the model is this value.
    pub(super) is_output: bool,
    /// Elements of a constant.
    pub(super) elements: u64,
    /// Whether it is made of an input.
    pub(super) is_live: bool,
}

/// What a node costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Zero for a node that no output needs, or that is made of constants alone.
    pub(super) flops: f64,
    pub(super) is_heavy: bool,
    /// Whether it is made of an input and an output needs it.
    pub(super) counts: bool,
    /// Whether nothing it is made of draws random numbers or keeps state.
    pub(super) is_function: bool,
}

impl Sketch {
    /// Estimated floating-point operations of one row through the whole model.
    #[must_use]
    pub fn flops(&self) -> f64 {
        self.steps.iter().map(|step| step.flops).sum()
    }

    pub(super) fn holes(&self) -> Vec<Digest> {
        self.inputs.iter().map(|hole| hole.digest).collect()
    }
}

/// Makes the sketch of a model. `weights` gives the bytes of an external tensor.
///
/// # Errors
/// Why the model can only be run whole.
///
/// # Cost
/// One pass over all weights, at the speed of BLAKE3; walks over the nodes.
pub fn sketch(model: &Model, weights: &Weights<'_>) -> Result<Sketch, Reason> {
    let tensors = tensors(model).map_err(Reason::new)?;
    let net = net(model)?;
    let dag = Dag::new(&net, weights)?;
    Ok(sketched(model, &net, dag, &tensors))
}

/// The sketch of a graph whose digests are known.
pub(super) fn sketched(model: &Model, net: &Net<'_>, dag: Dag, tensors: &Tensors<'_>) -> Sketch {
    let estimates = Estimates::new(model, net, tensors);
    let needed = dag.cone(&dag.outputs, &std::collections::HashMap::new());
    let mut values: Vec<Tensor> = Vec::with_capacity(net.values.len());
    let mut functions: Vec<bool> = Vec::with_capacity(net.values.len());
    for (id, (source, name)) in dag.values.iter().zip(&net.names).enumerate() {
        let step = dag.maker(narrow(id));
        let below = step.map_or(&[][..], |step| &step.inputs);
        let mut below = below.iter().flatten().map(|&id| id as usize);
        let is_live = matches!(source, Source::Leaf(_))
            || below.clone().any(|id| values.get(id).is_some_and(|value| value.is_live));
        let is_function = step.is_none_or(|step| step.is_function)
            && below.all(|id| functions.get(id).copied().unwrap_or(false));
        functions.push(is_function);
        let elements = net.constant(id).and_then(count).unwrap_or(0);
        let is_made = matches!(source, Source::Made(..));
        let can_cut =
            is_live && is_function && is_made && !name.is_empty() && tensors.is_rows(name);
        let row_bytes = estimates.row_bytes(id).filter(|_| can_cut);
        let name = row_bytes.map_or_else(String::new, |_| (*name).to_owned());
        values.push(Tensor { name, row_bytes, is_output: false, elements, is_live });
    }
    for &output in &dag.outputs {
        if let Some(value) = values.get_mut(output as usize) {
            value.is_output = true;
        }
    }
    let mut steps = vec![Cost::default(); dag.steps.len()];
    for (id, source) in dag.values.iter().enumerate() {
        let Source::Made(at, _) = *source else { continue };
        let (Some(cost), Some(node)) = (steps.get_mut(at as usize), net.nodes.get(at as usize))
        else {
            continue;
        };
        let live = values.get(id).is_some_and(|value| value.is_live);
        if live && needed.get(id).copied().unwrap_or(false) {
            let work = estimates.work(node);
            let is_function = functions.get(id).copied().unwrap_or(false);
            *cost = Cost { flops: work.flops, is_heavy: work.is_heavy, counts: true, is_function };
        }
    }
    let holes = model.inputs().iter().enumerate();
    let axis = |index: usize| tensors.axes.get(index).copied().flatten();
    let inputs = holes.map(|(index, port)| hole(port, axis(index))).collect();
    Sketch { inputs, dag, values, steps }
}

fn hole(port: &Port, batch: Option<usize>) -> Hole {
    let mut fields = Fields::new(b"input");
    fields.bytes(port.datatype.name().as_bytes());
    fields.number(batch.map_or(-1, |axis| i64::try_from(axis).unwrap_or(i64::MAX)));
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Dim::Named(_) | Dim::Unknown => -1,
    };
    match &port.dims {
        Some(dims) => fields.number(1).numbers(&dims.iter().map(size).collect::<Vec<_>>()),
        None => fields.number(0),
    };
    Hole { name: port.name.clone(), digest: fields.finish() }
}
