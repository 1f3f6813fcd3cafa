//! A stage as its digest sees it: which inputs it reads, in which order, and what it makes.
//!
//! Separate because finding and writing must agree: the digest of a base that was found is that of the base that is
//! written, from whichever member.

use super::dag::{Dag, narrow};
use super::hash::{Digest, Fields};
use super::inputs::label;
use super::sketch::Sketch;
use std::collections::HashMap;

/// A part of a model between two cuts.
#[derive(Debug)]
pub(super) struct Stage {
    /// The model's inputs that it reads, in canonical order.
    pub(super) inputs: Vec<u32>,
    /// The values below that it reads, by place in the cut below and number.
    pub(super) below: Vec<(usize, u32)>,
    /// The digest of each value it is made of, under the numbers of its inputs.
    pub(super) values: Vec<Digest>,
    /// The digest of the stage.
    pub(super) digest: Digest,
}

impl Stage {
    /// The stage that makes `targets` of the model's inputs and of `below`.
    pub(super) fn new(sketch: &Sketch, below: &[u32], targets: &[u32], names: &[&str]) -> Self {
        let dag = &sketch.dag;
        let holes = sketch.holes();
        let stops: HashMap<u32, Digest> =
            below.iter().enumerate().map(|(at, &id)| (id, place(at))).collect();
        let name = |leaf: u32| sketch.inputs.get(leaf as usize).map(|hole| hole.name.as_str());
        let inputs = dag.ordered_leaves(&holes, targets, &stops, name);
        let cone = dag.cone(targets, &stops);
        let reads = |id: &u32| cone.get(*id as usize).copied().unwrap_or(false);
        let read = below.iter().copied().enumerate().filter(|(_, id)| reads(id)).collect();
        let mut labels = holes.clone();
        for (number, &leaf) in inputs.iter().enumerate() {
            if let (Some(own), Some(hole)) =
                (labels.get_mut(leaf as usize), holes.get(leaf as usize))
            {
                *own = label(hole, number);
            }
        }
        let values = dag.digests(&labels, &stops).values;
        let mut fields = Fields::new(b"stage");
        fields.count(inputs.len()).count(below.len()).count(targets.len());
        for &target in targets {
            fields.digest(&values.get(target as usize).copied().unwrap_or_default());
        }
        for name in names {
            fields.bytes(name.as_bytes());
        }
        Self { inputs, below: read, values, digest: fields.finish() }
    }
}

fn place(at: usize) -> Digest {
    Fields::new(b"below").count(at).finish()
}

/// The first value with each of these digests.
pub(super) fn find(dag: &Dag, values: &[Digest], wanted: &[Digest]) -> Option<Vec<u32>> {
    let mut found: HashMap<&Digest, Option<u32>> = wanted.iter().map(|own| (own, None)).collect();
    for (id, digest) in values.iter().enumerate() {
        if let Some(slot @ None) = found.get_mut(digest) {
            *slot = dag.first.get(id).copied().or_else(|| Some(narrow(id)));
        }
    }
    wanted.iter().map(|digest| found.get(digest).copied().flatten()).collect()
}
