//! Cuts a model into the legs of a path: a base, perhaps bases within it, a head.
//!
//! Separate from finding because it works from names alone: what to cut may also come from a person's settings.
//!
//! # Invariants
//! A base's bytes depend on the base alone: names are given in canonical order, so every member of a family writes
//! the same. A head has the model's own outputs, by name and order. No leg refers to another file.

use super::compute::Estimates;
use super::content::Weights;
use super::dag::Dag;
use super::net::{Net, net};
use super::sketch::{Sketch, sketched};
use super::stage::Stage;
use super::write::{Names, Part, Writer, model_of, port, shape};
use crate::graph::proto::{GraphProto, ValueInfoProto};
use crate::graph::read::{Dim, MODEL_BYTES_MAX, Model, Port};
use crate::graph::rules::{Reason, Tensors, tensors};
use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What an input of a leg is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An input of the model, by its place in the model.
    Request(usize),
    /// An output of the leg below, by its place there.
    Below(usize),
}

/// One part of a model that was cut, as a model of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The model file.
    pub bytes: Bytes,
    /// What each of its inputs is fed with, in their order.
    pub inputs: Vec<Source>,
    /// How many outputs it has: the tensors of the cut in their order, or the model's own.
    pub outputs: usize,
    /// The digest of what it computes; for a head also of its outputs' names.
    pub digest: [u8; 32],
}

/// Cuts a model at these tensors, lowest cut first, into one leg more than there are cuts.
///
/// # Errors
/// A tensor at which this model cannot be cut, or what cannot be written.
///
/// # Cost
/// Two passes over the weights; each leg holds a copy of its own.
pub fn split(model: &Model, weights: &Weights<'_>, cuts: &[&[String]]) -> Result<Vec<Leg>, Reason> {
    let tensors = tensors(model).map_err(Reason::new)?;
    let net = net(model)?;
    let dag = Dag::new(&net, weights)?;
    let sketch = sketched(model, &net, dag, &tensors);
    let estimates = Estimates::new(model, &net, &tensors);
    let knife = Knife { model, net: &net, sketch: &sketch, tensors: &tensors, estimates };
    let cuts = cuts.iter().map(|cut| knife.locate(cut)).collect::<Result<Vec<_>, _>>()?;
    let mut legs = Vec::new();
    let mut below: &[u32] = &[];
    for cut in &cuts {
        legs.push(knife.leg(below, Some(cut), weights)?);
        below = cut;
    }
    legs.push(knife.leg(below, None, weights)?);
    Ok(legs)
}

struct Knife<'n, 'a> {
    model: &'a Model,
    net: &'n Net<'a>,
    sketch: &'n Sketch,
    tensors: &'n Tensors<'a>,
    estimates: Estimates<'n, 'a>,
}

impl Knife<'_, '_> {
    /// The values with these names, where the model can be cut.
    fn locate(&self, cut: &[String]) -> Result<Vec<u32>, Reason> {
        let ids: HashMap<&str, usize> =
            self.net.names.iter().enumerate().map(|(id, name)| (*name, id)).collect();
        let one = |name: &String| {
            let id = ids.get(name.as_str()).copied().filter(|_| !name.is_empty());
            let first = id.and_then(|id| self.sketch.dag.first.get(id).copied());
            let can = |id: &u32| {
                self.sketch.values.get(*id as usize).is_some_and(|v| v.row_bytes.is_some())
            };
            match first {
                Some(id) if can(&id) => Ok(id),
                Some(_) => Err(Reason::new(format!(
                    "it cannot be cut at '{name}': its rows are not known to lie along the first axis, or it is \
                     random or of no datatype of the protocol"
                ))),
                None => Err(Reason::new(format!("it cannot be cut at '{name}': nothing makes it"))),
            }
        };
        cut.iter().map(one).collect()
    }

    /// One leg; the head without a cut above it.
    fn leg(
        &self,
        below: &[u32],
        cut: Option<&Vec<u32>>,
        weights: &Weights<'_>,
    ) -> Result<Leg, Reason> {
        let dag = &self.sketch.dag;
        let ports = self.model.outputs();
        let targets = cut.unwrap_or(&dag.outputs);
        let own: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        let own = if cut.is_some() { Vec::new() } else { own };
        let stage = Stage::new(self.sketch, below, targets, &own);
        let mut names = Names::new(&own);
        let mut known = HashMap::new();
        let mut inputs = Vec::new();
        let mut graph = GraphProto { name: Some("graftd".to_owned()), ..GraphProto::default() };
        let value = |id: u32| stage.values.get(id as usize).copied().unwrap_or_default();
        for &leaf in &stage.inputs {
            let name = names.numbered("in", inputs.len());
            let at = leaf as usize;
            // Inputs come first among the values, in the model's order.
            known.insert(value(leaf), name.clone());
            inputs.push(Source::Request(at));
            graph.input.push(self.input(name, at)?);
        }
        for &(at, id) in &stage.below {
            let name = names.numbered("in", inputs.len());
            known.insert(value(id), name.clone());
            inputs.push(Source::Below(at));
            graph.input.push(self.carried(name, id)?);
        }
        let mut wanted = Vec::new();
        for (index, &target) in targets.iter().enumerate() {
            let name = match own.get(index) {
                Some(name) => (*name).to_owned(),
                None => names.numbered("out", index),
            };
            graph.output.push(match cut {
                Some(_) => self.carried(name.clone(), target)?,
                None => self.output(&name)?,
            });
            wanted.push((target, name));
        }
        let mut writer = Writer::new(names, weights);
        let part = Part { net: self.net, dag, values: &stage.values };
        writer.graph(part, known, &wanted, &mut graph)?;
        let model = model_of(graph, &writer.operators)?;
        if model.encoded_len() > MODEL_BYTES_MAX {
            return Err(Reason::new("a part of it would be larger than a model file can be"));
        }
        let bytes = model.encode_to_vec().into();
        Ok(Leg { bytes, inputs, outputs: wanted.len(), digest: stage.digest })
    }

    /// An input of the model as the input of a leg.
    fn input(&self, name: String, at: usize) -> Result<ValueInfoProto, Reason> {
        let kind = self.estimates.elem_type(at);
        let (Some(Port { dims, .. }), Some(kind)) = (self.model.inputs().get(at), kind) else {
            return Err(Reason::new("an input is of no type that could be written"));
        };
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).ok(),
            Dim::Named(_) | Dim::Unknown => None,
        };
        let batch = self.tensors.axes.get(at).copied().flatten();
        let dims = dims.as_ref().map(|dims| shape(dims.iter().map(size), batch));
        Ok(port(name, kind, dims))
    }

    /// A tensor of a cut as an input or output.
    fn carried(&self, name: String, id: u32) -> Result<ValueInfoProto, Reason> {
        let own = self.net.names.get(id as usize).copied().unwrap_or_default();
        let Some(kind) = self.estimates.elem_type(id as usize) else {
            return Err(Reason::new(format!("the type of '{own}' is not known")));
        };
        let dims = self.tensors.fixed(own);
        Ok(port(name, kind, dims.map(|dims| shape(dims.into_iter(), Some(0)))))
    }

    /// An output of the model, as the model declares it.
    fn output(&self, name: &str) -> Result<ValueInfoProto, Reason> {
        let found = self.model.graph().output.iter().find(|info| info.name() == name);
        let Some(info) = found else {
            return Err(Reason::new(format!("output '{name}' is not declared")));
        };
        Ok(ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: info.r#type.clone(),
            ..ValueInfoProto::default()
        })
    }
}
