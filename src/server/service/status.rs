//! How the daemon is, as `GET /v2/graftd/status` tells it and `graftd status` shows it.

use crate::driver::pool::{StageFacts, WorkerFacts};
use crate::metrics::resident_bytes;
use crate::sched::cost::Learned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the daemon is at one moment. A reader passes over what it does not know, and has defaults for what a
/// daemon of another version does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Whole seconds since it started.
    pub uptime_s: u64,
    /// It takes requests and has tried every model.
    pub ready: bool,
    /// Every version in the catalogue, by name and number.
    pub models: Vec<ModelStatus>,
    /// What runs of shared bases cost, by their digests.
    pub base_costs: BTreeMap<String, Vec<CostStatus>>,
    /// What looks like a model in the directory and is not taken, with the reason.
    pub passed_over: Vec<String>,
    /// The worker processes that live.
    pub workers: Vec<WorkerStatus>,
    /// Whole models whose rows go through shared bases and whose memory was given back meanwhile.
    pub resting: Vec<StageStatus>,
    /// How much there is to do.
    pub load: LoadNow,
    /// The limits in force.
    pub limits: Limits,
}

/// One version of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelStatus {
    /// The model.
    pub name: String,
    /// The version.
    pub version: u64,
    /// `ready`, `loading` or `unavailable`.
    pub state: String,
    /// Why it is unavailable, or how far its load is; else empty.
    pub reason: String,
    /// What was found at load, such as whether its rows are independent, by `graftd.rows` and other keys.
    pub findings: BTreeMap<String, String>,
    /// The largest batch that clients are told of; 0 for a model that does not batch.
    pub batch_rows_max: i32,
    /// Batches run so far, by their rows.
    pub batch_sizes: BTreeMap<u64, u64>,
    /// Requests answered.
    pub answered: u64,
    /// Requests without an answer, for whatever reason.
    pub failed: u64,
    /// What half of the answers took at most; none without any.
    pub p50_us: Option<u64>,
    /// What all but a hundredth took at most.
    pub p99_us: Option<u64>,
    /// Its latency target, and the share of its answers that it is for; none for a model without one.
    pub target: Option<TargetStatus>,
    /// Rows that wait for a session.
    pub queued_rows: usize,
    /// How long the first of them has waited.
    pub oldest_us: u64,
    /// What its runs cost, as learned, by the rows of a batch.
    pub costs: Vec<CostStatus>,
    /// The same of the head that its rows go through above a base; empty for a model without one.
    pub head_costs: Vec<CostStatus>,
}

/// How a model's answers hold its latency target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetStatus {
    /// The target.
    pub ms: u64,
    /// The share of its answers that are to be there by then.
    pub quantile: f64,
    /// Answers that were.
    pub in_time: u64,
    /// Answers that were not.
    pub late: u64,
}

/// What a run of so many rows costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostStatus {
    /// The rows.
    pub rows: usize,
    /// Runs that it was seen in, or that what was known before counts for.
    pub runs: u32,
    /// What a run takes on average, waiting excluded.
    pub mean_us: u64,
    /// What nineteen in twenty stay under.
    pub p95_us: u64,
    /// What all but about a hundredth stay under.
    pub p99_us: u64,
}

impl From<Learned> for CostStatus {
    fn from(learned: Learned) -> Self {
        let Learned { rows, runs, mean_ns, likely_ns, high_ns } = learned;
        let [mean_us, p95_us, p99_us] = [mean_ns, likely_ns, high_ns].map(|ns| ns.div_ceil(1_000));
        Self { rows, runs, mean_us, p95_us, p99_us }
    }
}

/// One worker process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// The model and version that it runs, as `name:version`, or the base and how much stands on it.
    pub model: String,
    /// The process.
    pub pid: u32,
    /// It runs suspect rows, apart from other traffic.
    pub apart: bool,
    /// Batches that it completed; the count wraps.
    pub batches: u32,
    /// Bytes of memory that it holds, shared ones included; 0 where the system does not say.
    pub rss_bytes: u64,
    /// What lives in it.
    pub stages: Vec<StageStatus>,
}

/// What a worker runs, or ran: a whole model, a base, or a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageStatus {
    /// A model and version as `name:version`, with `head` behind it for a head, or a base.
    pub name: String,
    /// Bytes that loading it took; of what rests, what it gave back.
    pub bytes: u64,
}

impl WorkerStatus {
    pub(super) fn new(pid: u32, facts: WorkerFacts) -> Self {
        let mut model = facts.stages.first().map(|stage| stage.label.clone()).unwrap_or_default();
        if facts.stages.len() > 1 {
            model.push_str(&format!(" and {} more", facts.stages.len() - 1));
        }
        Self {
            model,
            pid,
            apart: facts.apart,
            batches: facts.completed,
            rss_bytes: resident_bytes(pid).unwrap_or(0),
            stages: stages(facts.stages),
        }
    }
}

pub(super) fn stages(facts: impl IntoIterator<Item = StageFacts>) -> Vec<StageStatus> {
    let status = |StageFacts { label, bytes, .. }| StageStatus { name: label, bytes };
    facts.into_iter().map(status).collect()
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadNow {
    /// Requests that wait for an answer.
    pub requests: usize,
    /// Rows in queues.
    pub queued_rows: usize,
    /// Rows that wait or run.
    pub flights: usize,
    /// Their input bytes.
    pub held_bytes: u64,
    /// Batches that sessions have in hand.
    pub batches: usize,
    /// Device slots (cores, on a CPU) in use.
    pub slots_used: u32,
    /// Rows in the row store.
    pub kept_rows: usize,
    /// Its bytes, bookkeeping included.
    pub kept_bytes: u64,
    /// Bytes of kept base outputs, bookkeeping included.
    pub base_bytes: u64,
    /// Open connections.
    pub connections: u64,
}

/// The limits in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Device slots (cores, on a CPU).
    pub slots: u32,
    /// Requests in flight.
    pub requests: usize,
    /// Rows that wait or run.
    pub rows: usize,
    /// Their input bytes.
    pub held_bytes: u64,
    /// Bytes of the row store.
    pub kept_bytes: u64,
    /// Bytes of the store of base outputs.
    pub base_bytes: u64,
    /// How long a request waits that does not say; none for as long as it takes.
    pub timeout_ms: Option<u64>,
}
