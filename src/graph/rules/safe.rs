//! Whether a model may run inside the daemon's own process.
//!
//! Separate because it is a list, kept as data: an operator is on it because no input can make it crash, hang or
//! take memory without bound, and each entry has a test.
//!
//! # Invariants
//! Every shape in the graph is known but for the number of rows, and every operator is on the list `SAFE`.
//!
//! # Source
//! reliability.md section 2: random requests to small models killed the process by integer division, by Gather
//! beyond its table, by kernels of size zero.

use super::batch::{BatchVerdict, batch_axes, interpreted};
use super::interpret::Scope;
use super::shapes::{BATCH, Item, Term};
use super::{NodeLabel, Reason};
use crate::graph::constant::elem;
use crate::graph::proto::{AttributeProto, NodeProto};
use crate::graph::read::{Model, domain};
use crate::tensor::DataType;
use std::collections::HashMap;

/// What an operator on the list asks for beyond known shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// All inputs are floats.
    Floats,
    /// All inputs are floats; those from the second on are constants.
    FloatsAndWeights,
    /// Data of any type; inputs from the second on are constants.
    Layout,
    /// Inputs of any type; the result is laid out by settings alone.
    Any,
    /// Whole numbers or floats become floats.
    ToFloat,
    /// Constant indices inside the table.
    Indices,
    /// No training.
    Inference,
}

/// The safe list.
const SAFE: [(&str, Ask); 66] = [
    ("Abs", Ask::Floats),
    ("Add", Ask::Floats),
    ("BatchNormalization", Ask::FloatsAndWeights),
    ("Cast", Ask::ToFloat),
    ("Ceil", Ask::Floats),
    ("Celu", Ask::Floats),
    ("Clip", Ask::Floats),
    ("Concat", Ask::Any),
    ("Constant", Ask::Any),
    ("Conv", Ask::FloatsAndWeights),
    ("Cos", Ask::Floats),
    ("Div", Ask::Floats),
    ("Dropout", Ask::Inference),
    ("Elu", Ask::Floats),
    ("Equal", Ask::Floats),
    ("Erf", Ask::Floats),
    ("Exp", Ask::Floats),
    ("Flatten", Ask::Any),
    ("Floor", Ask::Floats),
    ("Gather", Ask::Indices),
    ("Gelu", Ask::Floats),
    ("Gemm", Ask::Floats),
    ("Greater", Ask::Floats),
    ("GreaterOrEqual", Ask::Floats),
    ("GroupNormalization", Ask::FloatsAndWeights),
    ("HardSigmoid", Ask::Floats),
    ("HardSwish", Ask::Floats),
    ("Identity", Ask::Any),
    ("InstanceNormalization", Ask::FloatsAndWeights),
    ("LRN", Ask::Floats),
    ("LayerNormalization", Ask::FloatsAndWeights),
    ("LeakyRelu", Ask::Floats),
    ("Less", Ask::Floats),
    ("LessOrEqual", Ask::Floats),
    ("Log", Ask::Floats),
    ("LogSoftmax", Ask::Floats),
    ("LpNormalization", Ask::Floats),
    ("MatMul", Ask::Floats),
    ("Max", Ask::Floats),
    ("Mean", Ask::Floats),
    ("MeanVarianceNormalization", Ask::Floats),
    ("Min", Ask::Floats),
    ("Mish", Ask::Floats),
    ("Mul", Ask::Floats),
    ("Neg", Ask::Floats),
    ("PRelu", Ask::FloatsAndWeights),
    ("Pow", Ask::Floats),
    ("Reciprocal", Ask::Floats),
    ("Relu", Ask::Floats),
    ("Reshape", Ask::Layout),
    ("Round", Ask::Floats),
    ("Selu", Ask::Floats),
    ("Sigmoid", Ask::Floats),
    ("Sign", Ask::Floats),
    ("Sin", Ask::Floats),
    ("Slice", Ask::Layout),
    ("Softmax", Ask::Floats),
    ("Softplus", Ask::Floats),
    ("Softsign", Ask::Floats),
    ("Sqrt", Ask::Floats),
    ("Squeeze", Ask::Layout),
    ("Sub", Ask::Floats),
    ("Sum", Ask::Floats),
    ("Tanh", Ask::Floats),
    ("Transpose", Ask::Any),
    ("Unsqueeze", Ask::Layout),
];

/// Operators whose result is of another type than their first input.
const TRUTH: [&str; 5] = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];

/// Judges whether no input can make a model's run crash, hang or take memory without bound.
///
/// # Errors
/// The first node or input that is not known to be safe.
pub fn safe_in_process(model: &Model) -> Result<(), Reason> {
    let axes = match batch_axes(model) {
        BatchVerdict::Independent { inputs, .. } => inputs,
        BatchVerdict::None { .. } => vec![None; model.inputs().len()],
        BatchVerdict::Undecided { why, .. } | BatchVerdict::Mixes { why } => {
            return Err(Reason::new(format!("not every shape is known: {why}")));
        }
    };
    if !model.proto().functions.is_empty() {
        return Err(Reason::new("it defines functions, which are not on the safe list"));
    }
    let mut check = Check { scope: interpreted(model, &axes), types: HashMap::new(), opset: 0 };
    check.opset = model.opsets().get("").copied().unwrap_or(0);
    for port in model.inputs() {
        check.shape(&port.name).map_err(|why| Reason::new(format!("input {why}")))?;
        check.types.insert(&port.name, float(port.datatype));
    }
    let graph = model.graph();
    if !graph.sparse_initializer.is_empty() {
        return Err(Reason::new("it has sparse tensors, which are not on the safe list"));
    }
    for tensor in &graph.initializer {
        check.types.insert(tensor.name(), float_elem(tensor.data_type()));
    }
    for node in &graph.node {
        check.node(node).map_err(|why| Reason::new(format!("{}: {why}", NodeLabel(node))))?;
    }
    Ok(())
}

const fn float(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

const fn float_elem(elem_type: i32) -> bool {
    matches!(elem_type, elem::FLOAT | elem::FLOAT16 | elem::DOUBLE | elem::BFLOAT16)
}

struct Check<'a> {
    scope: Scope<'a, 'a>,
    /// Whether each tensor holds floats.
    types: HashMap<&'a str, bool>,
    opset: i64,
}

impl<'a> Check<'a> {
    fn node(&mut self, node: &'a NodeProto) -> Result<(), String> {
        let op = node.op_type();
        let listed = SAFE.iter().find(|(name, _)| *name == op && domain(node.domain()).is_empty());
        let Some(&(_, ask)) = listed else { return Err("it is not on the safe list".into()) };
        // Weights count too: a kernel of no elements hangs or kills.
        let named = node.input.iter().filter(|name| !name.is_empty());
        named.into_iter().try_for_each(|name| self.shape(name))?;
        let weights = matches!(ask, Ask::FloatsAndWeights | Ask::Layout | Ask::Indices);
        if matches!(ask, Ask::Floats | Ask::FloatsAndWeights) {
            self.floats(node)?;
        }
        if weights {
            self.constants(node)?;
        }
        match ask {
            Ask::Indices => self.indices(node)?,
            Ask::ToFloat => to_float(node)?,
            Ask::Inference => self.inference(node)?,
            Ask::Floats | Ask::FloatsAndWeights | Ask::Layout | Ask::Any => {}
        }
        windows(node)?;
        let output = match op {
            _ if TRUTH.contains(&op) => false,
            "Cast" => true,
            "Constant" => {
                let tensor = node.attr("value").and_then(|attr| attr.t.as_deref());
                let single = ["value_float", "value_floats"];
                tensor.is_some_and(|tensor| float_elem(tensor.data_type()))
                    || single.iter().any(|name| node.attr(name).is_some())
            }
            _ => node.input.first().is_some_and(|name| self.is_float(name)),
        };
        for (index, name) in node.output.iter().filter(|name| !name.is_empty()).enumerate() {
            self.shape(name)?;
            // The second output of Dropout is a mask.
            self.types.insert(name, output && (index == 0 || op != "Dropout"));
        }
        Ok(())
    }

    fn is_float(&self, name: &str) -> bool {
        self.types.get(name).copied().unwrap_or(false)
    }

    fn floats(&self, node: &NodeProto) -> Result<(), String> {
        let named = node.input.iter().filter(|name| !name.is_empty());
        match named.into_iter().find(|name| !self.is_float(name)) {
            Some(name) => Err(format!("'{name}' is not of floats")),
            None => Ok(()),
        }
    }

    fn constants(&self, node: &NodeProto) -> Result<(), String> {
        let parameters = node.input.iter().skip(1).filter(|name| !name.is_empty());
        for name in parameters {
            let constant = self.scope.value(name).is_some_and(|value| {
                let numbers = value.items.as_deref();
                value.tensor.is_some()
                    || numbers.is_some_and(|items| items.iter().all(|i| i.value().is_some()))
            });
            if !constant {
                return Err(format!("'{name}' is not constant"));
            }
        }
        Ok(())
    }

    /// Every index is inside the axis that it picks from.
    fn indices(&self, node: &NodeProto) -> Result<(), String> {
        let [data, indices, ..] = node.input.as_slice() else {
            return Err("it has no index".into());
        };
        let dims =
            self.scope.value(data).and_then(|value| value.dims.as_deref()).unwrap_or_default();
        let axis = super::call::at(node.attr("axis").map_or(0, AttributeProto::i), dims.len());
        let size = axis.ok().and_then(|axis| dims.get(axis)).and_then(Item::value);
        let Some(size) = size else { return Err(format!("the size of '{data}' is not known")) };
        let items = self.scope.value(indices).and_then(|value| value.items.as_deref());
        let inside = |item: &Item| item.value().is_some_and(|index| index >= -size && index < size);
        match items {
            Some(items) if items.iter().all(inside) => Ok(()),
            Some(_) => Err(format!("an index in '{indices}' is outside 0..{size}")),
            None => Err(format!("the indices in '{indices}' are not known")),
        }
    }

    fn inference(&self, node: &NodeProto) -> Result<(), String> {
        let mode = node.input.get(2).filter(|name| !name.is_empty() && self.opset >= 12);
        let Some(mode) = mode else { return Ok(()) };
        match self.scope.value(mode).and_then(|value| value.item()).and_then(Item::value) {
            Some(0) => Ok(()),
            _ => Err("it may be in training mode".into()),
        }
    }

    /// Every axis has a known size of one and more, rows apart.
    fn shape(&self, name: &str) -> Result<(), String> {
        let dims = self.scope.value(name).and_then(|value| value.dims.as_deref());
        let Some(dims) = dims else { return Err(format!("the shape of '{name}' is not known")) };
        let fixed = |term: &Term| term.value().is_some_and(|size| size > 0);
        let known = |dim: &Item| {
            let term = dim.term();
            let rows = term.and_then(|term| term.over(&Term::symbol(BATCH)));
            term.is_some_and(fixed) || rows.as_ref().is_some_and(fixed)
        };
        match dims.iter().all(known) {
            true => Ok(()),
            false => Err(format!("'{name}' has shape {}", super::shapes::show(dims))),
        }
    }
}

/// A cast to floats; a cast of a float to a whole number has no defined result outside its range.
fn to_float(node: &NodeProto) -> Result<(), String> {
    let to = node.attr("to").map_or(0, AttributeProto::i);
    match i32::try_from(to) {
        Ok(to) if float_elem(to) => Ok(()),
        _ => Err("it does not cast to floats".into()),
    }
}

/// Windows, strides and groups of one and more, padding of zero and more.
fn windows(node: &NodeProto) -> Result<(), String> {
    let least = [
        ("kernel_shape", 1),
        ("strides", 1),
        ("dilations", 1),
        ("pads", 0),
        ("group", 1),
        ("num_groups", 1),
        ("size", 1),
    ];
    for (name, least) in least {
        let Some(attribute) = node.attr(name) else { continue };
        let single = attribute.i.iter();
        if attribute.ints.iter().chain(single).any(|&value| value < least) {
            return Err(format!("its {name} holds a number below {least}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
