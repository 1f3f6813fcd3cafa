//! What is remembered of each model beside the catalogue: what was asked for, and what was tried.

use super::carried::Carried;
use crate::model::fingerprint::Fingerprint;
use crate::time::MonoTime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Mutex, Notify};

/// What an administrator wants of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nobody said: how models are controlled decides.
    #[default]
    Unsaid,
    Load,
    Unload,
}

/// The last try at loading a version.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The files as they were.
    pub mark: Fingerprint,
    /// Why they could not be loaded.
    pub problem: Option<String>,
    /// When it ended.
    pub at: SystemTime,
}

/// What is remembered of one model. Records stay, so that all who wait for a model wait for the same turn.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Held by whoever changes this model.
    pub turn: Arc<Mutex<()>>,
    /// Ends what goes on under the turn.
    pub stop: Arc<Notify>,
    pub wish: Wish,
    /// Files that came with a request and stand for those of the directory.
    pub carried: Option<Arc<Carried>>,
    pub attempts: BTreeMap<u64, Attempt>,
    /// Changed files that were seen and not tried yet.
    pub sighting: Option<Sighting>,
}

/// Files that changed, and since when they look so.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub files: BTreeMap<u64, Fingerprint>,
    pub since: MonoTime,
    /// Somebody sees to them.
    pub taken_up: bool,
}

impl Record {
    /// Whether these very files were tried.
    pub(super) fn tried(&self, seen: &BTreeMap<u64, Fingerprint>) -> bool {
        let same = |(version, mark): (&u64, &Fingerprint)| {
            self.attempts.get(version).is_some_and(|attempt| attempt.mark.still(mark))
        };
        self.attempts.len() == seen.len() && seen.iter().all(same)
    }
}

pub(super) type Books = parking_lot::Mutex<BTreeMap<String, Record>>;
