//! Digests of values: equal digest, equal function of the same inputs.
//!
//! Separate from the graph because a digest needs no weights any more: what was read of a file once serves every
//! comparison, under whatever numbers the inputs have there.
//!
//! # Source
//! Ours: Merkle digests from the inputs down, and one round of colours from the outputs up (as in the
//! Weisfeiler-Leman refinement) to tell inputs apart by their use.

use super::content::{self, Weights};
use super::hash::{Digest, Fields};
use super::net::{Body, Def, Id, Net, Node};
use super::schema::commutes;
use crate::graph::proto::{AttributeProto, TensorProto, TypeValue, ValueInfoProto};
use crate::graph::rules::determinism::is_function;
use crate::graph::rules::{NodeLabel, Reason};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Source {
    /// An input, or for a body what it captures, by number.
    Leaf(u32),
    /// A constant with this digest.
    Constant(Digest),
    /// A node and which of its outputs.
    Made(u32, u32),
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    /// Digest of everything but the inputs.
    pub(super) op: Digest,
    pub(super) commutes: bool,
    /// Whether equal inputs give equal outputs.
    pub(super) is_function: bool,
    /// Captures last.
    pub(super) inputs: Vec<Option<u32>>,
}

/// A graph as digests see it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Dag {
    pub(super) values: Vec<Source>,
    pub(super) steps: Vec<Step>,
    pub(super) outputs: Vec<u32>,
    /// For each value the first that is equal to it; only those are read.
    pub(super) first: Vec<u32>,
}

/// The digests of a graph under some digests of its leaves.
#[derive(Debug)]
pub(super) struct Digests {
    pub(super) values: Vec<Digest>,
    pub(super) steps: Vec<Digest>,
}

/// Narrows an index; graphs are refused long before four thousand million values.
pub(super) fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Dag {
    /// Reads the constants and settings of a graph.
    ///
    /// # Cost
    /// One pass over all weights.
    pub(super) fn new(net: &Net<'_>, weights: &Weights<'_>) -> Result<Self, Reason> {
        let mut dag = Self::default();
        // A function brings its constants with every call.
        let mut seen: HashMap<*const TensorProto, Digest> = HashMap::new();
        for def in &net.values {
            dag.values.push(match def {
                Def::Input(index) => Source::Leaf(narrow(*index)),
                Def::Outer(slot) => Source::Leaf(narrow(net.inputs + slot)),
                Def::Constant(tensor) => Source::Constant(match seen.entry(&raw const ***tensor) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => *new.insert(content::digest(tensor, weights)?),
                }),
                Def::Made { node, output } => Source::Made(narrow(*node), narrow(*output)),
            });
        }
        for node in &net.nodes {
            dag.steps.push(step(node, weights)?);
        }
        dag.outputs = net.outputs.iter().map(|&id| narrow(id)).collect();
        dag.merge();
        Ok(dag)
    }

    /// Lets every reader of one of several equal values read the first.
    fn merge(&mut self) {
        let leaf = |source: &Source| match *source {
            Source::Leaf(leaf) => Some(leaf as usize + 1),
            _ => None,
        };
        let leaves = self.values.iter().filter_map(leaf).max().unwrap_or(0);
        let leaves: Vec<Digest> =
            (0..leaves).map(|at| Fields::new(b"leaf").count(at).finish()).collect();
        let digests = self.digests(&leaves, &HashMap::new());
        let mut firsts: HashMap<Digest, u32> = HashMap::new();
        let ids = digests.values.iter().enumerate();
        self.first =
            ids.map(|(id, digest)| *firsts.entry(*digest).or_insert_with(|| narrow(id))).collect();
        let first = |id: &mut u32| *id = self.first.get(*id as usize).copied().unwrap_or(*id);
        self.steps.iter_mut().flat_map(|step| step.inputs.iter_mut().flatten()).for_each(first);
        self.outputs.iter_mut().for_each(first);
    }

    /// The longest way from each value down to a leaf; zero for what is made of constants alone.
    pub(super) fn depths(&self) -> Vec<u32> {
        let mut depths: Vec<u32> = Vec::with_capacity(self.values.len());
        for (id, source) in self.values.iter().enumerate() {
            let below = self.maker(narrow(id)).map_or(&[][..], |step| &step.inputs);
            let below = below.iter().flatten().filter_map(|&id| depths.get(id as usize));
            let deepest = below.copied().max().unwrap_or(0);
            depths.push(match source {
                Source::Leaf(_) => 1,
                Source::Constant(_) => 0,
                Source::Made(..) if deepest == 0 => 0,
                Source::Made(..) => deepest.saturating_add(1),
            });
        }
        depths
    }

    /// The digest of every value, where leaves have these digests and some values are given.
    pub(super) fn digests(&self, leaves: &[Digest], given: &HashMap<u32, Digest>) -> Digests {
        let mut values: Vec<Digest> = Vec::with_capacity(self.values.len());
        let mut steps: Vec<Option<Digest>> = vec![None; self.steps.len()];
        for (id, source) in self.values.iter().enumerate() {
            let digest = match (given.get(&narrow(id)), *source) {
                (Some(digest), _) => *digest,
                (None, Source::Constant(digest)) => digest,
                (None, Source::Leaf(leaf)) => {
                    leaves.get(leaf as usize).copied().unwrap_or_default()
                }
                (None, Source::Made(at, output)) => {
                    let own = self.step_digest(at, &values, &mut steps);
                    let mut fields = Fields::new(b"value");
                    fields.digest(&own).number(i64::from(output)).finish()
                }
            };
            values.push(digest);
        }
        for at in 0..steps.len() {
            self.step_digest(narrow(at), &values, &mut steps);
        }
        Digests { values, steps: steps.into_iter().map(Option::unwrap_or_default).collect() }
    }

    fn step_digest(&self, at: u32, values: &[Digest], steps: &mut [Option<Digest>]) -> Digest {
        if let Some(Some(known)) = steps.get(at as usize) {
            return *known;
        }
        let Some(step) = self.steps.get(at as usize) else { return Digest::default() };
        let input = |input: &Option<u32>| input.and_then(|id| values.get(id as usize).copied());
        let mut inputs: Vec<Option<Digest>> = step.inputs.iter().map(input).collect();
        if step.commutes {
            inputs.sort_unstable();
        }
        let mut fields = Fields::new(b"node");
        fields.digest(&step.op).count(inputs.len());
        for input in &inputs {
            match input {
                Some(digest) => fields.number(1).digest(digest),
                None => fields.number(0),
            };
        }
        if !step.is_function {
            // Alike with nothing, not even with its own copy.
            fields.number(i64::from(at));
        }
        let digest = fields.finish();
        if let Some(slot) = steps.get_mut(at as usize) {
            *slot = Some(digest);
        }
        digest
    }

    /// Which values the targets are made of, down to those where the walk stops.
    pub(super) fn cone(&self, targets: &[u32], stops: &HashMap<u32, Digest>) -> Vec<bool> {
        let mut seen = vec![false; self.values.len()];
        let mut queue: Vec<u32> = targets.to_vec();
        while let Some(id) = queue.pop() {
            match seen.get_mut(id as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            if let (false, Some(step)) = (stops.contains_key(&id), self.maker(id)) {
                queue.extend(step.inputs.iter().flatten());
            }
        }
        seen
    }

    pub(super) fn maker(&self, id: u32) -> Option<&Step> {
        match self.values.get(id as usize)? {
            Source::Made(at, _) => self.steps.get(*at as usize),
            _ => None,
        }
    }

    /// How each leaf is used on the way to the targets: one digest a leaf, none for one that is not.
    pub(super) fn uses(
        &self,
        digests: &Digests,
        targets: &[u32],
        stops: &HashMap<u32, Digest>,
    ) -> HashMap<u32, Digest> {
        let cone = self.cone(targets, stops);
        let mut uses: Vec<Vec<Digest>> = vec![Vec::new(); self.values.len()];
        for (index, &target) in targets.iter().enumerate() {
            if let Some(uses) = uses.get_mut(target as usize) {
                uses.push(Fields::new(b"target").count(index).finish());
            }
        }
        let mut found = HashMap::new();
        // The outputs of a node stand side by side, so its last one is met first and all its users before.
        let mut pending: Option<(u32, Fields)> = None;
        for (id, source) in self.values.iter().enumerate().rev() {
            if !cone.get(id).copied().unwrap_or(false) {
                continue;
            }
            let mut own = uses.get_mut(id).map(std::mem::take).unwrap_or_default();
            own.sort_unstable();
            let mut context = Fields::new(b"uses");
            own.iter().for_each(|digest| {
                context.digest(digest);
            });
            let context = context.finish();
            match *source {
                Source::Leaf(leaf) => {
                    found.insert(leaf, context);
                }
                Source::Made(at, output) if !stops.contains_key(&narrow(id)) => {
                    let mut fields = match pending.take() {
                        Some((before, fields)) if before == at => fields,
                        _ => Fields::new(b"user"),
                    };
                    fields.number(i64::from(output)).digest(&context);
                    self.spread(at, &fields.finish(), digests, &mut uses);
                    pending = Some((at, fields));
                }
                Source::Made(..) | Source::Constant(_) => {}
            }
        }
        found
    }

    /// Tells the inputs of a node how they are used.
    fn spread(&self, at: u32, context: &Digest, digests: &Digests, uses: &mut [Vec<Digest>]) {
        let Some(step) = self.steps.get(at as usize) else { return };
        let own = digests.steps.get(at as usize).copied().unwrap_or_default();
        for (position, input) in step.inputs.iter().enumerate() {
            let position = if step.commutes { 0 } else { position };
            let mut fields = Fields::new(b"use");
            let digest = fields.digest(&own).digest(context).count(position).finish();
            if let Some(uses) = input.and_then(|id| uses.get_mut(id as usize)) {
                uses.push(digest);
            }
        }
    }

    /// The leaves that the targets use, in an order that names and places play no part in, where use tells them apart.
    pub(super) fn ordered_leaves<T: Ord>(
        &self,
        leaves: &[Digest],
        targets: &[u32],
        stops: &HashMap<u32, Digest>,
        tie: impl Fn(u32) -> T,
    ) -> Vec<u32> {
        let digests = self.digests(leaves, stops);
        let uses = self.uses(&digests, targets, stops);
        let mut order: Vec<u32> = uses.keys().copied().collect();
        order.sort_by_cached_key(|&leaf| {
            (leaves.get(leaf as usize).copied(), uses.get(&leaf).copied(), tie(leaf), leaf)
        });
        order
    }
}

fn step(node: &Node<'_>, weights: &Weights<'_>) -> Result<Step, Reason> {
    let mut fields = Fields::new(b"operator");
    fields.bytes(node.domain().as_bytes()).bytes(node.op().as_bytes()).number(node.version);
    fields.count(node.outputs.len());
    for output in &node.outputs {
        fields.number(i64::from(output.is_some()));
    }
    for (name, value) in &node.attributes {
        fields.bytes(name.as_bytes()).digest(
            &setting(value, weights)
                .map_err(|why| Reason::new(format!("{}: {}", NodeLabel(node.proto), why.0)))?,
        );
    }
    let mut inputs: Vec<Option<u32>> = node.inputs.iter().map(|id| id.map(narrow)).collect();
    let mut is_all = is_function(node.domain(), node.op());
    for body in &node.bodies {
        let (digest, captures, function) = body_digest(body, weights)?;
        is_all &= function;
        fields.bytes(body.setting.as_bytes()).digest(&digest);
        inputs.extend(captures.into_iter().map(|id| Some(narrow(id))));
    }
    let commutes = commutes(node.domain(), node.op());
    Ok(Step { op: fields.finish(), commutes, is_function: is_all, inputs })
}

/// The digest of a body, what it captures in the order of the digest, and whether it is a function.
fn body_digest(body: &Body<'_>, weights: &Weights<'_>) -> Result<(Digest, Vec<Id>, bool), Reason> {
    let dag = Dag::new(&body.net, weights)?;
    let inputs = (0..body.net.inputs).map(|at| Fields::new(b"body input").count(at).finish());
    let mut leaves: Vec<Digest> = inputs.collect();
    leaves.resize(body.net.inputs + body.captures.len(), Fields::new(b"captured").finish());
    let none = HashMap::new();
    let order = dag.ordered_leaves(&leaves, &dag.outputs, &none, |leaf| leaf);
    let mut captures = Vec::new();
    for leaf in order {
        let slot = (leaf as usize).checked_sub(body.net.inputs);
        let Some(&outer) = slot.and_then(|slot| body.captures.get(slot)) else { continue };
        if let Some(label) = leaves.get_mut(leaf as usize) {
            *label = Fields::new(b"slot").count(captures.len()).finish();
        }
        captures.push(outer);
    }
    let digests = dag.digests(&leaves, &none);
    let mut fields = Fields::new(b"body");
    for info in body.graph.input.iter().chain(&body.graph.output) {
        fields.number(i64::from(tensor_type(info)));
    }
    fields.count(dag.outputs.len());
    for &output in &dag.outputs {
        fields.digest(&digests.values.get(output as usize).copied().unwrap_or_default());
    }
    Ok((fields.finish(), captures, dag.steps.iter().all(|step| step.is_function)))
}

/// The element type that a body declares for a port; zero where it declares none or no tensor.
pub(super) fn tensor_type(info: &ValueInfoProto) -> i32 {
    match info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => tensor.elem_type(),
        _ => 0,
    }
}

/// The digest of a setting's value: only what its type says it holds.
fn setting(value: &AttributeProto, weights: &Weights<'_>) -> Result<Digest, Reason> {
    let mut fields = Fields::new(b"setting");
    let kind = kind(value);
    fields.number(i64::from(kind));
    match kind {
        1 => fields.number(i64::from(value.f().to_bits())),
        2 => fields.number(value.i()),
        3 => fields.bytes(value.s()),
        4 => {
            let Some(tensor) = &value.t else {
                return Err(Reason::new(format!("setting '{}' holds no tensor", value.name())));
            };
            fields.digest(&content::digest(tensor, weights)?)
        }
        6 => value.floats.iter().fold(&mut fields, |f, v| f.number(i64::from(v.to_bits()))),
        7 => fields.numbers(&value.ints),
        8 => value.strings.iter().fold(&mut fields, |fields, text| fields.bytes(text)),
        _ => {
            let name = value.name();
            return Err(Reason::new(format!("setting '{name}' is of a kind that is not compared")));
        }
    };
    Ok(fields.finish())
}

/// The kind of a setting; old writers leave it out and fill one field.
pub(super) fn kind(value: &AttributeProto) -> i32 {
    match value.r#type() {
        0 if value.f.is_some() => 1,
        0 if value.i.is_some() => 2,
        0 if value.s.is_some() => 3,
        0 if value.t.is_some() => 4,
        0 if !value.floats.is_empty() => 6,
        0 if !value.ints.is_empty() => 7,
        0 if !value.strings.is_empty() => 8,
        kind => kind,
    }
}
