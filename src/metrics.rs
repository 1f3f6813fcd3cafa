//! Counters and histograms, and their text form. One place per fact; the core reports, it does not count.

use crate::sched::Load;
use crate::sched::event::{Outcome, Refusal, RunReason};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum End {
    Ok,
    Refused,
    Expired,
    Failed,
    Crashed,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<EndLabels, Counter>,
    model_requests: Family<ModelLabels, Counter>,
    shed: Family<ReasonLabels, Counter>,
    rows_executed: Counter,
    rows_joined: Counter,
    rows_hit: Counter,
    batches: Family<ReasonLabels, Counter>,
    batches_failed: Counter,
    workers_died: Counter,
    request_seconds: Histogram,
    queue_seconds: Histogram,
    gather_seconds: Histogram,
    run_seconds: Histogram,
    scatter_seconds: Histogram,
    batch_rows: Histogram,
    queued_rows: Gauge,
    flights: Gauge,
    in_flight: Gauge,
    sessions_busy: Gauge,
    kept_rows: Gauge,
    kept_bytes: Gauge,
}

/// Bounds in seconds from 10 µs to 40 s, each 2.5 times the last or so.
const SECONDS: [f64; 20] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0,
];
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let seconds = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("graftd"),
            requests: Family::default(),
            model_requests: Family::default(),
            shed: Family::default(),
            rows_executed: Counter::default(),
            rows_joined: Counter::default(),
            rows_hit: Counter::default(),
            batches: Family::default(),
            batches_failed: Counter::default(),
            workers_died: Counter::default(),
            request_seconds: seconds(),
            queue_seconds: seconds(),
            gather_seconds: seconds(),
            run_seconds: seconds(),
            scatter_seconds: seconds(),
            batch_rows: Histogram::new(ROWS),
            queued_rows: Gauge::default(),
            flights: Gauge::default(),
            in_flight: Gauge::default(),
            sessions_busy: Gauge::default(),
            kept_rows: Gauge::default(),
            kept_bytes: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Inference requests by how they ended", self.requests.clone());
        r.register("model_requests", "Inference requests by model", self.model_requests.clone());
        r.register("requests_shed", "Requests refused at admission", self.shed.clone());
        r.register("rows_executed", "Rows run", self.rows_executed.clone());
        r.register("rows_joined", "Rows that joined a flight", self.rows_joined.clone());
        r.register("rows_hit", "Rows from the row store", self.rows_hit.clone());
        r.register("batches", "Batches by why they were formed", self.batches.clone());
        r.register("batches_failed", "Batches without outputs", self.batches_failed.clone());
        r.register("workers_died", "Worker processes that died", self.workers_died.clone());
        let phases = [
            ("request", "A request from its checks to its answer", &self.request_seconds),
            ("queue", "The oldest row of a batch in its queue", &self.queue_seconds),
            ("gather", "Gathering a batch and handing it over", &self.gather_seconds),
            ("run", "The run itself", &self.run_seconds),
            ("scatter", "Settling a batch and waking its waiters", &self.scatter_seconds),
        ];
        for (name, help, histogram) in phases {
            r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        r.register("batch_rows", "Rows of a batch", self.batch_rows.clone());
        r.register("queued_rows", "Rows in queues", self.queued_rows.clone());
        r.register("flights", "Rows that wait or run", self.flights.clone());
        r.register("requests_in_flight", "Requests that wait", self.in_flight.clone());
        r.register(
            "batches_in_hand",
            "Batches that sessions have in hand",
            self.sessions_busy.clone(),
        );
        r.register("kept_rows", "Rows in the row store", self.kept_rows.clone());
        let help = "Bytes of the row store, bookkeeping included";
        r.register("kept_bytes", help, self.kept_bytes.clone());
    }

    pub(crate) fn batch_started(
        &self,
        rows: usize,
        reason: RunReason,
        waited: Duration,
        gather: Duration,
    ) {
        let reason = match reason {
            RunReason::Idle => "idle",
            RunReason::Full => "full",
            RunReason::Delay => "delay",
            RunReason::Ahead => "ahead",
            RunReason::Suspect => "suspect",
        };
        self.batches.get_or_create(&ReasonLabels { reason }).inc();
        self.batch_rows.observe(rows as f64);
        self.queue_seconds.observe(waited.as_secs_f64());
        self.gather_seconds.observe(gather.as_secs_f64());
    }

    pub(crate) fn batch_done(&self, rows: usize, service: Duration) {
        self.rows_executed.inc_by(rows as u64);
        self.run_seconds.observe(service.as_secs_f64());
    }

    pub(crate) fn batch_failed(&self) {
        self.batches_failed.inc();
    }

    pub(crate) fn scattered(&self, took: Duration) {
        self.scatter_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn worker_died(&self) {
        self.workers_died.inc();
    }

    /// A request's caller went away before its end.
    pub(crate) fn request_cancelled(&self) {
        self.requests.get_or_create(&EndLabels { end: End::Cancelled }).inc();
    }

    /// A request had its end.
    pub(crate) fn request_ended(
        &self,
        model: &str,
        version: u64,
        outcome: &Outcome,
        took: Duration,
    ) {
        let labels = ModelLabels { model: model.to_owned(), version };
        self.model_requests.get_or_create(&labels).inc();
        let end = match outcome {
            Outcome::Complete(tally) => {
                self.rows_hit.inc_by(u64::from(tally.hit));
                self.rows_joined.inc_by(u64::from(tally.join));
                End::Ok
            }
            Outcome::Refused { refusal, .. } => {
                self.shed.get_or_create(&ReasonLabels { reason: refusal_label(refusal) }).inc();
                End::Refused
            }
            Outcome::Expired => End::Expired,
            Outcome::Failed(_) => End::Failed,
            Outcome::Crashed | Outcome::Quarantined => End::Crashed,
        };
        self.requests.get_or_create(&EndLabels { end }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads, with the gauges set to `load`.
    #[must_use]
    pub fn text(&self, load: Load) -> String {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.queued_rows, load.queued_rows as u64);
        set(&self.flights, load.flights as u64);
        set(&self.in_flight, load.requests as u64);
        set(&self.sessions_busy, load.batches as u64);
        set(&self.kept_rows, load.kept_rows as u64);
        set(&self.kept_bytes, load.kept_bytes);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn refusal_label(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Requests { .. } => "requests",
        Refusal::Rows { .. } => "rows",
        Refusal::Queue { .. } => "queue",
        Refusal::Bytes { .. } => "bytes",
        Refusal::Waiters { .. } => "waiters",
        Refusal::Infeasible { .. } => "deadline",
        Refusal::Draining => "draining",
        Refusal::NoStage => "no_stage",
    }
}
