//! What a stage is called where it is told what made an answer.

use crate::digest::StageDigest;
use std::sync::Arc;

/// Which part of a model a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What it has in common with others.
    Base,
    /// The rest of it.
    Head,
}

impl Part {
    /// The word that users see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Base => "base",
            Self::Head => "head",
        }
    }
}

/// A stage by part, name and content; it outlives the stage, as what that made may be kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageName {
    /// Which part of a model it runs.
    pub part: Part,
    /// The model as `name:version`; empty for a base, which is of no one model.
    pub model: String,
    /// Its content.
    pub digest: StageDigest,
}

impl StageName {
    /// The stage of a whole model.
    #[must_use]
    pub fn whole(model: &str, version: u64, digest: StageDigest) -> Arc<Self> {
        Arc::new(Self { part: Part::Whole, model: format!("{model}:{version}"), digest })
    }

    /// The stage of a base.
    #[must_use]
    pub fn base(digest: StageDigest) -> Arc<Self> {
        Arc::new(Self { part: Part::Base, model: String::new(), digest })
    }

    /// The stage of the head of this whole model.
    #[must_use]
    pub fn head(&self, digest: StageDigest) -> Arc<Self> {
        Arc::new(Self { part: Part::Head, model: self.model.clone(), digest })
    }
}
