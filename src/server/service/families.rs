//! Models that share a base, as `GET /v2/graftd/families` tells of those served and `graftd inspect` of files.

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
