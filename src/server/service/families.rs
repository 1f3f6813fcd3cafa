//! Models that share a base, as `GET /v2/graftd/families` tells of those served and `graftd inspect` of files.

use super::Service;
use crate::digest::StageDigest;
use crate::driver::load::{FamilyFacts, MemberFacts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which models share what, and which share nothing. A reader passes over what it does not know, and has defaults
/// for what a daemon of another version does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Families {
    /// The outermost base of each family.
    pub families: Vec<Base>,
    /// Models in no family, or parts of them that might have been one.
    pub left: Vec<Left>,
}

/// A base and what stands on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Base {
    /// The beginning of its digest.
    pub base: String,
    /// Nodes of this base and of those below it.
    pub nodes: usize,
    /// Elements of the constants of this base and of those below it.
    pub parameters: u64,
    /// Bytes of this base alone: of its file, or, in a daemon, of the memory that loading it took.
    pub bytes: u64,
    /// Estimated bytes of a row across the cut; none where it is not known.
    pub bytes_per_row: Option<u64>,
    /// For each member the estimated share of its compute that lies in this base and below it.
    pub shares: BTreeMap<String, f64>,
    /// Models that stand on this base and on none above it.
    pub heads: Vec<Head>,
    /// Bases that stand on this one.
    pub bases: Vec<Self>,
    /// What sharing saves; of outermost bases alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Total>,
}

/// What is left of a model above its last base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// The model: in a daemon as `name:version`.
    pub model: String,
    /// Bytes of the head alone.
    pub bytes: u64,
    /// Bytes of the whole model.
    pub whole_bytes: u64,
    /// The whole model gave its memory back meanwhile; never of a file.
    pub rests: bool,
    /// The largest difference between base and head and the whole when they were tried, in parts of the answer's
    /// size; none of a file, where nothing is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// The same with base outputs stored as float16; none where they are stored as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded: Option<f64>,
}

/// The bytes of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Total {
    /// Of all its models, each whole.
    pub wholes: u64,
    /// Of its bases, each once, and heads.
    pub shared: u64,
    /// What need not be held: in a daemon, of models that rest alone.
    pub saved: u64,
}

/// What is in no family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// The models.
    pub members: Vec<String>,
    /// Why.
    pub why: String,
}

impl Families {
    /// The families of one model, or of one version of it, and why else it is in none.
    #[must_use]
    pub fn of(mut self, model: &str, version: Option<&str>) -> Self {
        let is_it = |label: &str| {
            label.rsplit_once(':').is_some_and(|(name, number)| {
                name == model && version.is_none_or(|version| version == number)
            })
        };
        self.families.retain(|base| base.shares.keys().any(|label| is_it(label)));
        self.left.retain(|left| left.members.iter().any(|label| is_it(label)));
        self
    }
}

impl Base {
    /// This base's heads, and those of all bases above it.
    #[must_use]
    pub fn all_heads(&self) -> Vec<&Head> {
        let above = self.bases.iter().flat_map(Self::all_heads);
        self.heads.iter().chain(above).collect()
    }

    /// Bytes of this base, of all above it, and of their heads.
    #[must_use]
    pub fn all_bytes(&self) -> u64 {
        let heads: u64 = self.heads.iter().map(|head| head.bytes).sum();
        self.bases.iter().map(Self::all_bytes).fold(self.bytes + heads, u64::saturating_add)
    }
}

impl Service {
    /// Which of the models that are served share what.
    #[must_use]
    pub fn families(&self) -> Families {
        let FamilyFacts { members, left } = self.repository.families();
        let all: Vec<&MemberFacts> = members.iter().collect();
        let mut families = bases(&all, 0);
        for family in &mut families {
            let heads = family.all_heads();
            let wholes = heads.iter().map(|head| head.whole_bytes).sum();
            let rest: u64 = heads.iter().filter(|it| it.rests).map(|head| head.whole_bytes).sum();
            let shared = family.all_bytes();
            family.total = Some(Total { wholes, shared, saved: rest.saturating_sub(shared) });
        }
        let left = left.into_iter().map(|(model, why)| Left { members: vec![model], why });
        Families { families, left: left.collect() }
    }
}

/// The bases so far up on the ways of these, each with what stands on it.
fn bases(members: &[&MemberFacts], depth: usize) -> Vec<Base> {
    let mut by_base: BTreeMap<StageDigest, Vec<&MemberFacts>> = BTreeMap::new();
    for member in members {
        if let Some(base) = member.bases.get(depth) {
            by_base.entry(base.digest).or_default().push(member);
        }
    }
    let base = |members: Vec<&MemberFacts>| {
        let facts = members.first()?.bases.get(depth)?;
        let share = |it: &&MemberFacts| Some((it.label.clone(), it.bases.get(depth)?.share));
        let last = members.iter().filter(|member| member.bases.len() == depth + 1);
        Some(Base {
            base: facts.digest.to_string(),
            nodes: facts.nodes,
            parameters: facts.parameters,
            bytes: facts.bytes,
            bytes_per_row: facts.bytes_per_row,
            shares: members.iter().filter_map(share).collect(),
            heads: last.map(|member| head(member)).collect(),
            bases: bases(&members, depth + 1),
            total: None,
        })
    };
    by_base.into_values().filter_map(base).collect()
}

fn head(member: &MemberFacts) -> Head {
    Head {
        model: member.label.clone(),
        bytes: member.head_bytes,
        whole_bytes: member.whole_bytes,
        rests: member.rests,
        difference: Some(member.difference),
        rounded: member.rounded,
    }
}
