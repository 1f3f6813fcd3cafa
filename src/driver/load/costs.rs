//! Learned costs from start to start: kept by what was run and on what, so that a restart need not learn them again.

use super::Loader;
use crate::courtesy;
use crate::digest::StageDigest;
use crate::engine::onnx::SessionOptions;
use crate::id::StageId;
use crate::model::shelf::{Found, Shelf};
use crate::sched::cost::Learned;
use crate::sched::event::Event;
use crate::time::nanos;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Another number where what is kept has another layout, or means something else.
const KIND: &str = "costs1";
/// Batch sizes that are kept of a stage, at most.
const SIZES_MAX: usize = 32;

/// What is kept of stages that serve.
pub(super) type Kept = BTreeMap<StageId, Entry>;

/// A stage whose costs are kept: under which key, and what was written last.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    key: StageDigest,
    written: Vec<Learned>,
}

impl Loader {
    /// What is known of a stage's costs before it serves: what an earlier start learned, and of other sizes what was
    /// just measured on made-up rows.
    pub(super) fn known(&self, key: &StageDigest, measured: &[(usize, u64)]) -> Vec<Learned> {
        let mut known = read(&self.shelf, key).unwrap_or_default();
        known.truncate(SIZES_MAX);
        for &(rows, ns) in measured {
            if known.iter().all(|size| size.rows != rows) {
                known.push(Learned::measured(rows, Duration::from_nanos(ns)));
            }
        }
        known
    }

    /// What a stage's costs depend on: what it computes, how it is run, and on which machine.
    pub(super) fn cost_key(&self, content: &StageDigest, session: &SessionOptions) -> StageDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graftd costs 1\0").update(&content.0);
        // What cannot be written down is what no session was ever set up as.
        let session = postcard::to_stdvec(session).unwrap_or_default();
        let isolation = format!("{:?}", self.config.isolation);
        let library = library(&self.config.library);
        for text in [&session[..], isolation.as_bytes(), library.as_bytes(), processor().as_bytes()]
        {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        StageDigest(*hasher.finalize().as_bytes())
    }

    /// Has a stage's costs kept from now on.
    pub(super) fn keep_costs(&self, stage: StageId, key: StageDigest) {
        self.costs.lock().insert(stage, Entry { key, written: Vec::new() });
    }

    /// Writes down what was learned since the last time.
    ///
    /// # Cost
    /// A look under the scheduler's lock for each stage, and a small file for each that learned something.
    pub fn remember_costs(&self) {
        // Whoever loads meanwhile does not wait for the disk.
        let kept = self.costs.lock().clone();
        for (stage, entry) in kept {
            if let Some(learned) = self.news(stage, &entry) {
                write(&self.shelf, &entry.key, &learned);
                if let Some(entry) = self.costs.lock().get_mut(&stage) {
                    entry.written = learned;
                }
            }
        }
    }

    /// Lets a stage go once its last row is answered; what was learned of it is written down.
    pub fn retire(&self, stage: StageId) {
        self.forget_tunable(stage);
        self.put_costs_away(stage);
        self.driver.event(Event::StageRetired { stage });
    }

    /// Writes down what was learned of a stage, and keeps no more of it.
    pub(super) fn put_costs_away(&self, stage: StageId) {
        let entry = self.costs.lock().remove(&stage);
        if let Some(entry) = entry
            && let Some(learned) = self.news(stage, &entry)
        {
            let shelf = self.shelf.clone();
            let write = move || write(&shelf, &entry.key, &learned);
            if let Err(error) = courtesy::background("costs", write) {
                tracing::debug!("what was learned last is not kept: no thread ({error})");
            }
        }
    }

    /// What was learned of a stage and is not written down; what was only measured is measured again at the next load.
    fn news(&self, stage: StageId, entry: &Entry) -> Option<Vec<Learned>> {
        let mut learned = self.driver.costs(stage, SIZES_MAX)?;
        learned.retain(|size| size.runs > 0);
        (!learned.is_empty() && learned != entry.written).then_some(learned)
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

/// The library by its name, which says its version where nobody renamed it, and its length, which differs where they did.
fn library(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let length = std::fs::metadata(&path).map_or(0, |data| data.len());
    format!("{}, {length} bytes", path.file_name().unwrap_or_default().to_string_lossy())
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
