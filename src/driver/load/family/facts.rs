//! What is told of families: which served models share what, and why others share nothing.
//!
//! Kept apart from the state that they are made from: that is held while models are proved, and nobody who asks
//! waits for that.

use super::{Level, State};
use crate::digest::StageDigest;
use crate::driver::load::Loader;
use crate::driver::pool::StageFacts;
use crate::id::StageId;
use crate::model::ModelSpec;
use std::collections::BTreeMap;

/// The families of the models that are served.
#[derive(Clone, Debug, Default)]
pub struct FamilyFacts {
    /// Models with a way through bases, by name and version.
    pub members: Vec<MemberFacts>,
    /// Models without one as `name:version`, and why.
    pub left: Vec<(String, String)>,
}

/// A model with a way through bases.
#[derive(Clone, Debug)]
pub struct MemberFacts {
    /// The model as `name:version`.
    pub label: String,
    /// The largest difference from the whole when it was tried, in parts of the answer's size.
    pub difference: f64,
    /// The same with base outputs rounded to FP16, where they are stored so.
    pub rounded: Option<f64>,
    /// Bytes that the sessions of its head took.
    pub head_bytes: u64,
    /// Bytes that the sessions of the whole model take or, where they rest, gave back.
    pub whole_bytes: u64,
    /// The whole model rests.
    pub rests: bool,
    /// Its bases, the lowest first.
    pub bases: Vec<BaseFacts>,
}

/// A base on a model's way.
#[derive(Clone, Debug)]
pub struct BaseFacts {
    /// The content of all that leads from the inputs to its output.
    pub digest: StageDigest,
    /// Bytes that its sessions took.
    pub bytes: u64,
    /// Estimated bytes of a row across the cut.
    pub bytes_per_row: Option<u64>,
    /// Nodes of it and of those below it.
    pub nodes: usize,
    /// Elements of the constants of it and of those below it.
    pub parameters: u64,
    /// The share of the model's compute in it and in those below it.
    pub share: f64,
}

/// What was last known of families; bytes are looked up when somebody asks.
#[derive(Debug, Default)]
pub(in crate::driver::load) struct Told {
    members: Vec<ToldMember>,
    left: BTreeMap<StageId, (String, String)>,
}

#[derive(Debug)]
struct ToldMember {
    label: String,
    difference: f64,
    rounded: Option<f64>,
    whole: StageId,
    head: StageId,
    bases: Vec<(StageId, StageDigest, Level)>,
}

pub(super) fn label(spec: &ModelSpec) -> String {
    format!("{}:{}", spec.name, spec.version)
}

impl Told {
    pub(super) fn new(state: &State, left: BTreeMap<StageId, (String, String)>) -> Self {
        let told = |(&whole, member): (&StageId, &super::Member)| {
            let levels = member.bases.iter().zip(&member.levels);
            let base = |(digest, level): (&[u8; 32], &Level)| {
                Some((state.bases.get(digest)?.stage, StageDigest(*digest), *level))
            };
            ToldMember {
                label: label(&member.spec),
                difference: member.difference,
                rounded: member.rounded,
                whole,
                head: member.head,
                bases: levels.filter_map(base).collect(),
            }
        };
        Self { members: state.members.iter().map(told).collect(), left }
    }
}

impl Loader {
    /// The families of the models that are served, as they were last found.
    #[must_use]
    pub fn families(&self) -> FamilyFacts {
        let workers = self.workers().into_iter().filter(|worker| !worker.apart);
        let stages: BTreeMap<StageId, StageFacts> =
            workers.flat_map(|worker| worker.stages).map(|facts| (facts.stage, facts)).collect();
        let bytes = |stage: &StageId| stages.get(stage).map_or(0, |facts| facts.bytes);
        let told = self.told.lock();
        let member = |member: &ToldMember| MemberFacts {
            label: member.label.clone(),
            difference: member.difference,
            rounded: member.rounded,
            head_bytes: bytes(&member.head),
            whole_bytes: bytes(&member.whole),
            rests: stages.get(&member.whole).is_some_and(|facts| facts.rests),
            bases: member
                .bases
                .iter()
                .map(|(stage, digest, level)| BaseFacts {
                    digest: *digest,
                    bytes: bytes(stage),
                    bytes_per_row: level.bytes_per_row,
                    nodes: level.nodes,
                    parameters: level.parameters,
                    share: level.share,
                })
                .collect(),
        };
        let mut members: Vec<MemberFacts> = told.members.iter().map(member).collect();
        members.sort_by(|a, b| a.label.cmp(&b.label));
        let mut left: Vec<(String, String)> = told.left.values().cloned().collect();
        left.sort();
        FamilyFacts { members, left }
    }
}
