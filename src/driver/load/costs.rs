//! Learned costs from start to start: kept by what was run and on what, so that a restart need not learn them again.

use super::own::Own;
use super::{Isolation, Loader};
use crate::digest::StageDigest;
use crate::id::StageId;
use crate::model::shelf::{Found, Shelf};
use crate::sched::cost::Learned;
use crate::time::nanos;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

/// Another number where what is kept has another layout, or means something else.
const KIND: &str = "costs1";
/// Batch sizes that are kept of a stage, at most.
const SIZES_MAX: usize = 32;

/// What is kept of stages that serve: under which key, and what was written last.
pub(super) type Kept = BTreeMap<StageId, (StageDigest, Vec<Learned>)>;

impl Loader {
    /// What is known of a stage's costs before it serves: what an earlier start learned, or else what was just measured
    /// on made-up rows.
    pub(super) fn known(&self, key: &StageDigest, measured: &[(usize, u64)]) -> Vec<Learned> {
        let fresh = || {
            let learned =
                |&(rows, ns): &(usize, u64)| Learned::measured(rows, Duration::from_nanos(ns));
            measured.iter().map(learned).collect()
        };
        read(&self.shelf, key).filter(|known| !known.is_empty()).unwrap_or_else(fresh)
    }

    /// What a stage's costs depend on: what it computes, how it is run, and on which machine.
    pub(super) fn cost_key(&self, own: &Own) -> StageDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graftd costs 1\0").update(&own.digest.0);
        let library = self.config.library.file_name().unwrap_or_default();
        let how = match self.config.isolation {
            Isolation::Worker => "worker",
            Isolation::Auto => "auto",
            Isolation::None => "none",
        };
        let session = &own.session;
        for text in [
            &format!("{:?}", session.provider),
            &format!("{} threads, {} lanes", session.threads, session.lanes),
            how,
            &library.to_string_lossy(),
            processor(),
        ] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        StageDigest(*hasher.finalize().as_bytes())
    }

    /// Has a stage's costs kept from now on.
    pub(super) fn keep_costs(&self, stage: StageId, key: StageDigest) {
        self.costs.lock().insert(stage, (key, Vec::new()));
    }

    /// Writes down what was learned since the last time.
    ///
    /// # Cost
    /// A look under the scheduler's lock for each stage, and a small file for each that learned something.
    pub fn remember_costs(&self) {
        let mut kept = self.costs.lock();
        kept.retain(|&stage, (key, written)| {
            let Some(learned) = self.driver.costs(stage, SIZES_MAX) else { return false };
            if !learned.is_empty() && learned != *written {
                write(&self.shelf, key, &learned);
                *written = learned;
            }
            true
        });
    }
}

fn read(shelf: &Shelf, key: &StageDigest) -> Option<Vec<Learned>> {
    let damaged = || {
        tracing::warn!("{KIND} {key} in --splits-dir is damaged; costs are learned anew");
        None
    };
    match shelf.get(KIND, key) {
        Found::Nothing => None,
        Found::Damaged => damaged(),
        Found::Entry(bytes) => postcard::from_bytes(&bytes).ok().or_else(damaged),
    }
}

fn write(shelf: &Shelf, key: &StageDigest, learned: &[Learned]) {
    let written = postcard::to_stdvec(learned).map_err(|error| error.to_string());
    let written =
        written.and_then(|bytes| shelf.put(KIND, key, &bytes).map_err(|error| error.to_string()));
    if let Err(why) = written {
        tracing::warn!("{KIND} {key} cannot be kept in --splits-dir: {why}");
    }
}

/// The processor's name, and how many cores of it may be used.
fn processor() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let facts = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let named = |line: &&str| line.starts_with("model name") || line.starts_with("CPU part");
        let name = facts.lines().find(named).unwrap_or_default().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        format!("{name}, {cores} cores")
    })
}

impl Learned {
    /// What one size is held to cost that was measured and never served.
    fn measured(rows: usize, took: Duration) -> Self {
        let ns = nanos(took);
        Self { rows, runs: 0, mean_ns: ns, likely_ns: ns, high_ns: ns }
    }
}
