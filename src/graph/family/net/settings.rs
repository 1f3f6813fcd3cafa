//! What the settings of a node come to: those that a function's caller gave filled in, constants as tensors.
//!
//! Separate because it asks nothing of the graph around a node.

use super::Tensor;
use crate::graph::constant::elem;
use crate::graph::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::graph::rules::{NodeLabel, Reason};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// What holds for all nodes of a graph or function.
pub(super) struct Frame<'a> {
    pub(super) opsets: BTreeMap<String, i64>,
    pub(super) given: HashMap<&'a str, &'a AttributeProto>,
}

/// The settings of a node that hold no graph, those given by a function's caller filled in, sorted by name.
pub(super) fn settings<'a>(
    node: &'a NodeProto,
    frame: &Frame<'a>,
) -> Vec<(&'a str, &'a AttributeProto)> {
    let plain = |(_, value): &(&str, &AttributeProto)| value.g.is_none() && value.graphs.is_empty();
    let mut settings: Vec<_> = resolved(node, frame).filter(plain).collect();
    settings.sort_by_key(|(name, _)| *name);
    settings
}

pub(super) fn resolved<'a>(
    node: &'a NodeProto,
    frame: &Frame<'a>,
) -> impl Iterator<Item = (&'a str, &'a AttributeProto)> {
    node.attribute.iter().filter_map(|attribute| {
        let own = match attribute.ref_attr_name() {
            "" => Some(attribute),
            outer => frame.given.get(outer).copied(),
        };
        own.map(|own| (attribute.name(), own))
    })
}

/// The graphs that a node holds, sorted by the setting's name.
pub(super) fn graphs(node: &NodeProto) -> Result<Vec<(&str, &GraphProto)>, Reason> {
    if node.attribute.iter().any(|attribute| !attribute.graphs.is_empty()) {
        let label = NodeLabel(node);
        return Err(Reason::new(format!("{label} holds a list of graphs, which no operator has")));
    }
    let graphs = node.attribute.iter();
    let mut graphs: Vec<_> =
        graphs.filter_map(|attr| Some((attr.name(), attr.g.as_deref()?))).collect();
    graphs.sort_by_key(|(name, _)| *name);
    Ok(graphs)
}

/// The tensor of a Constant node.
pub(super) fn constant_of<'a>(
    domain: &str,
    node: &'a NodeProto,
    settings: &[(&str, &'a AttributeProto)],
) -> Result<Option<Tensor<'a>>, Reason> {
    if !domain.is_empty() || node.op_type() != "Constant" {
        return Ok(None);
    }
    let list = |count: usize| vec![i64::try_from(count).unwrap_or(i64::MAX)];
    let mut made = TensorProto::default();
    match settings {
        [("value", value)] if value.t.is_some() => {
            return Ok(value.t.as_deref().map(|tensor| Box::new(Cow::Borrowed(tensor))));
        }
        [("value_int", value)] => {
            (made.data_type, made.int64_data) = (Some(elem::INT64), vec![value.i()]);
        }
        [("value_ints", value)] => {
            (made.data_type, made.int64_data) = (Some(elem::INT64), value.ints.clone());
            made.dims = list(value.ints.len());
        }
        [("value_float", value)] => {
            (made.data_type, made.float_data) = (Some(elem::FLOAT), vec![value.f()]);
        }
        [("value_floats", value)] => {
            (made.data_type, made.float_data) = (Some(elem::FLOAT), value.floats.clone());
            made.dims = list(value.floats.len());
        }
        [("value_string", value)] => {
            let text = value.s.clone().unwrap_or_default();
            (made.data_type, made.string_data) = (Some(elem::STRING), vec![text]);
        }
        [("value_strings", value)] => {
            (made.data_type, made.string_data) = (Some(elem::STRING), value.strings.clone());
            made.dims = list(value.strings.len());
        }
        _ => {
            let label = NodeLabel(node);
            return Err(Reason::new(format!("{label} holds no tensor that can be compared")));
        }
    }
    Ok(Some(Box::new(Cow::Owned(made))))
}
