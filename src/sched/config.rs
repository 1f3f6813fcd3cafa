//! The scheduler's limits, with their units.

use crate::id::DeviceId;
use crate::sched::cost::Learned;
use crate::sched::event::Store;
use crate::sched::quantile::Quantile;
use std::time::Duration;

/// Limits of the scheduler as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The devices and how many slots (cores, on a CPU) each has.
    pub devices: Vec<(DeviceId, u32)>,
    /// Requests in flight, at most.
    pub requests_max: usize,
    /// Rows accepted and not yet answered over all stages, at most; joined rows and hits do not count.
    pub rows_max: usize,
    /// Input bytes of those rows, at most.
    pub bytes_max: u64,
    /// Waiters of one flight, at most: joining would else get round the bound on rows.
    pub flight_waiters_max: usize,
    /// Bytes of kept rows, bookkeeping included; 0 keeps nothing.
    pub cache_bytes: u64,
    /// Bytes of kept base outputs, bookkeeping included; 0 keeps nothing.
    pub base_cache_bytes: u64,
    /// How much later a row of one priority level less counts as arrived.
    pub priority_step: Duration,
    /// The shortest time after which a run counts as hung.
    pub watchdog_floor: Duration,
    /// From asking a run to end until its process is ended.
    pub watchdog_grace: Duration,
    /// How long a row that ended a process is answered without running.
    pub quarantine_ttl: Duration,
    /// Rows in quarantine, at most; the oldest make room.
    pub quarantine_max: usize,
    /// How long an isolation session waits for more suspects.
    pub isolation_idle: Duration,
    /// How long the sessions of a stage that its rows can do without stay after their last run.
    pub rest_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            devices: vec![(DeviceId(0), 1)],
            requests_max: 16_384,
            rows_max: 131_072,
            bytes_max: 1 << 30,
            flight_waiters_max: 65_536,
            cache_bytes: 256 << 20,
            base_cache_bytes: 256 << 20,
            priority_step: Duration::from_millis(100),
            watchdog_floor: Duration::from_secs(10),
            watchdog_grace: Duration::from_millis(500),
            quarantine_ttl: Duration::from_secs(60),
            quarantine_max: 4_096,
            isolation_idle: Duration::from_secs(2),
            rest_after: Duration::from_secs(60),
        }
    }
}

/// What batches are formed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batching {
    /// As large as was seen to help, as those that wait can bear.
    #[default]
    Learned,
    /// All that waits once a session is free, whatever it costs.
    Eager,
}

/// How one stage is scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// The device its sessions run on.
    pub device: DeviceId,
    /// Rows of one batch, at most.
    pub batch_rows_max: usize,
    /// The fewest rows whose throughput is within 5 % of the best: more rows do not help.
    pub batch_rows_knee: usize,
    /// Batch sizes that the user prefers, ascending; a batch is cut down to one of them if it can.
    pub batch_rows_preferred: Vec<usize>,
    /// Rows that wait, at which more are refused; none for no bound of its own.
    pub queue_rows_max: Option<usize>,
    /// What batches are formed by.
    pub batching: Batching,
    /// The share of answers that are to be in time, where there is a time.
    pub quantile: Quantile,
    /// How long the oldest row may be held to fill a batch; zero never waits.
    pub queue_delay: Duration,
    /// Equal rows in flight may become one.
    pub join: bool,
    /// Output rows may be kept.
    pub store: bool,
    /// In which store they are kept.
    pub kept_in: Store,
    /// Bytes of one output row as they were found at load.
    pub output_bytes: u64,
    /// What is known of its costs before it serves.
    pub known: Vec<Learned>,
}

/// What changes of a stage's schedule when its sessions are set up in another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// Rows of one batch, at most.
    pub batch_rows_max: usize,
    /// The fewest rows whose throughput is within 5 % of the best.
    pub batch_rows_knee: usize,
    /// What is known of its costs.
    pub known: Vec<Learned>,
}

impl Default for StageConfig {
    fn default() -> Self {
        Self {
            device: DeviceId(0),
            batch_rows_max: 1,
            batch_rows_knee: 1,
            batch_rows_preferred: Vec::new(),
            batching: Batching::Learned,
            quantile: Quantile::default(),
            queue_rows_max: None,
            queue_delay: Duration::ZERO,
            join: true,
            store: true,
            kept_in: Store::Answers,
            output_bytes: 0,
            known: Vec::new(),
        }
    }
}
