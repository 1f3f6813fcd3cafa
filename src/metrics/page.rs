//! The page at `/metrics`: Triton's families under Triton's names, then our own.

use super::histogram::{Histogram, Snapshot};
use super::model::End;
use super::text::{Kind, Page};
use super::{Metrics, ModelMetrics, host};
use crate::sched::Load;
use crate::sched::cost::Learned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bounds of times: 8 µs to 34 s, in powers of two of a nanosecond.
const TIMES: std::ops::RangeInclusive<u32> = 13..=35;
/// Bounds of batch sizes: 1 to 256 rows.
const ROWS: std::ops::RangeInclusive<u32> = 0..=8;
const NANOS: f64 = 1e9;

/// One version of a model as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelScene {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// It answers.
    pub ready: bool,
    /// What its runs cost, by the rows of a batch.
    pub costs: Vec<Learned>,
    /// The same of the head that its rows go through above a base; nothing of a model without one.
    pub head_costs: Vec<Learned>,
}

/// What is so at the moment of asking, beside what was counted.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// How much there is to do.
    pub load: Load,
    /// Every version in the catalogue.
    pub models: Vec<ModelScene>,
    /// What runs of bases cost, by their digests.
    pub base_costs: BTreeMap<String, Vec<Learned>>,
    /// Worker processes that live.
    pub workers: usize,
    /// The budget of kept rows in bytes.
    pub kept_bytes_max: u64,
    /// The budget of kept base outputs in bytes.
    pub base_bytes_max: u64,
    /// When the daemon started, since 1970.
    pub started: Duration,
}

/// A number of a model.
type Number = fn(&ModelMetrics) -> u64;

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn micros(histogram: &Histogram) -> u64 {
    histogram.snapshot().sum / 1000
}

fn answered(counts: &ModelMetrics) -> Snapshot {
    counts.ran.snapshot().merged(&counts.hit.snapshot())
}

/// Triton's counters that have no labels but the model's. Its duration counters are in microseconds.
const TRITON: [(&str, &str, Number); 12] = [
    ("nv_inference_request_success", "Requests that were answered", |m| answered(m).count),
    ("nv_inference_count", "Inferences run: rows of models that batch, requests of others", |m| {
        of(&m.inferences)
    }),
    ("nv_inference_exec_count", "Batches run", ModelMetrics::executions),
    ("nv_inference_request_duration_us", "From a request's checks to its answer", |m| {
        answered(m).sum / 1000
    }),
    ("nv_inference_queue_duration_us", "Requests in queues", |m| micros(&m.queue)),
    ("nv_inference_compute_input_duration_us", "Gathering batches", |m| micros(&m.gather)),
    ("nv_inference_compute_infer_duration_us", "Runs", |m| micros(&m.run)),
    ("nv_inference_compute_output_duration_us", "Putting answers together", |m| micros(&m.scatter)),
    ("nv_cache_num_hits_per_model", "Requests answered from kept rows", |m| m.hit.snapshot().count),
    ("nv_cache_num_misses_per_model", "Requests that kept rows could not answer", |m| {
        m.misses.get().0
    }),
    ("nv_cache_hit_duration_per_model", "Requests answered from kept rows, us", |m| micros(&m.hit)),
    ("nv_cache_miss_duration_per_model", "Making keys and looking them up in vain, us", |m| {
        m.misses.get().1 / 1000
    }),
];

/// Our counters that have no labels but the model's.
const OWN: [(&str, &str, Number); 7] = [
    (
        "graftd_answers_in_time_total",
        "Answers within the latency target of a model that has one",
        |m| of(&m.in_time),
    ),
    ("graftd_answers_late_total", "Answers past the latency target of a model that has one", |m| {
        of(&m.late)
    }),
    ("graftd_rows_executed_total", "Rows run", |m| of(&m.rows_executed)),
    ("graftd_rows_joined_total", "Rows that joined a run", |m| of(&m.rows_joined)),
    ("graftd_rows_hit_total", "Rows answered from kept rows", |m| of(&m.rows_hit)),
    ("graftd_batches_failed_total", "Batches without outputs", |m| of(&m.batches_failed)),
    ("graftd_inferences_total", "Inferences run, as clients count them", |m| of(&m.inferences)),
];

/// Counters of a base, whose rows are not told by model: several have them in common.
const BASE: [(&str, &str, Number); 3] = [
    ("graftd_base_rows_executed_total", "Rows run by a base", |m| of(&m.rows_executed)),
    ("graftd_base_batches_total", "Batches run by a base", ModelMetrics::executions),
    ("graftd_base_batches_failed_total", "Batches of a base without outputs", |m| {
        of(&m.batches_failed)
    }),
];

/// A histogram of a model.
type Times = fn(&ModelMetrics) -> &Histogram;

const PHASES: [(&str, &str, Times); 4] = [
    ("graftd_queue_seconds", "Requests from submission until their run, less gathering", |m| {
        &m.queue
    }),
    ("graftd_gather_seconds", "Gathering a request's batch and handing it over", |m| &m.gather),
    ("graftd_run_seconds", "A request's run", |m| &m.run),
    ("graftd_scatter_seconds", "From a request's outputs to its answer", |m| &m.scatter),
];

impl Metrics {
    /// The text that Prometheus reads, format 0.0.4.
    ///
    /// # Cost
    /// A millisecond for a hundred models; holds no lock that requests need.
    #[must_use]
    pub fn text(&self, scene: &Scene) -> String {
        let models = self.models();
        let mut page = Page::default();
        triton(&mut page, &models);
        self.machine(&mut page);
        own_counters(&mut page, &models);
        own_histograms(&mut page, &models);
        of_bases(&mut page, &self.bases());
        self.daemon(&mut page, scene);
        page.finish()
    }

    fn machine(&self, page: &mut Page) {
        if let Some(share) = self.host.cpu_utilization() {
            page.family("nv_cpu_utilization", Kind::Gauge, "Busy share of all processors, 0 to 1");
            page.sample(&[], share);
        }
        if let Some((total, used)) = host::memory() {
            page.family("nv_cpu_memory_total_bytes", Kind::Gauge, "Memory of the machine");
            page.sample(&[], total);
            page.family("nv_cpu_memory_used_bytes", Kind::Gauge, "Memory in use");
            page.sample(&[], used);
        }
    }

    fn daemon(&self, page: &mut Page, scene: &Scene) {
        page.family("graftd_model_ready", Kind::Gauge, "Whether a version answers");
        for ModelScene { model, version, ready, .. } in &scene.models {
            let labels = [("model", model.as_str()), ("version", &version.to_string())];
            page.sample(&labels, u8::from(*ready));
        }
        costs(page, scene);
        let help = "Requests for models or versions that are not there, or cannot answer now";
        page.family("graftd_requests_unplaced_total", Kind::Counter, help);
        page.sample(&[("reason", "unknown")], of(&self.unknown));
        page.sample(&[("reason", "unavailable")], of(&self.unavailable));
        page.family("graftd_workers_died_total", Kind::Counter, "Worker processes that died");
        page.sample(&[], of(&self.workers_died));
        let lost = self.lost_lines.get().map_or(0, |lost| lost());
        let help = "Lines of the log that nobody read in time";
        page.family("graftd_log_lines_dropped_total", Kind::Counter, help);
        page.sample(&[], lost);
        let load = &scene.load;
        let gauges: [(&str, &str, u64); 14] = [
            ("graftd_queued_rows", "Rows in queues", load.queued_rows as u64),
            ("graftd_flights", "Rows that wait or run", load.flights as u64),
            ("graftd_held_bytes", "Input bytes of rows that wait or run", load.held_bytes),
            ("graftd_requests_in_flight", "Requests that wait", load.requests as u64),
            ("graftd_batches_in_hand", "Batches that sessions have", load.batches as u64),
            ("graftd_slots_used", "Device slots (cores) in use", u64::from(load.slots_used)),
            ("graftd_kept_rows", "Rows in the row store", load.kept_rows as u64),
            ("graftd_kept_bytes", "Bytes of the row store, all included", load.kept_bytes),
            ("graftd_kept_bytes_max", "What the row store may hold", scene.kept_bytes_max),
            ("graftd_base_rows", "Base outputs in their store", load.base_rows as u64),
            ("graftd_base_bytes", "Bytes of kept base outputs, all included", load.base_bytes),
            ("graftd_base_bytes_max", "What their store may hold", scene.base_bytes_max),
            ("graftd_workers", "Worker processes that live", scene.workers as u64),
            ("graftd_connections", "Open connections", self.connections()),
        ];
        for (name, help, value) in gauges {
            page.family(name, Kind::Gauge, help);
            page.sample(&[], value);
        }
        page.family("graftd_build_info", Kind::Gauge, "What runs here; the value says nothing");
        page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        let help = "When the daemon started, since 1970";
        page.family("process_start_time_seconds", Kind::Gauge, help);
        page.sample(&[], scene.started.as_secs_f64());
        if let Some(bytes) = host::resident_bytes(std::process::id()) {
            page.family("process_resident_memory_bytes", Kind::Gauge, "The daemon's own memory");
            page.sample(&[], bytes);
        }
    }
}

/// What was learned of runs; what never ran nor was measured has no lines.
fn costs(page: &mut Page, scene: &Scene) {
    let help = "What a run of so many rows takes, waiting excluded, as learned; quantile 0.5 is a moving average";
    page.family("graftd_run_cost_seconds", Kind::Gauge, help);
    for ModelScene { model, version, costs, head_costs, .. } in &scene.models {
        let version = version.to_string();
        for (stage, costs) in [("whole", costs), ("head", head_costs)] {
            let of = [("model", model.as_str()), ("version", &version), ("stage", stage)];
            costs.iter().for_each(|size| cost(page, &of, size));
        }
    }
    page.family("graftd_base_run_cost_seconds", Kind::Gauge, "The same of a base");
    for (base, costs) in &scene.base_costs {
        costs.iter().for_each(|size| cost(page, &[("base", base)], size));
    }
}

fn cost(page: &mut Page, of: &[(&str, &str)], size: &Learned) {
    let rows = size.rows.to_string();
    for (quantile, ns) in [("0.5", size.mean_ns), ("0.95", size.likely_ns), ("0.99", size.high_ns)]
    {
        let labels = [of, &[("rows", &rows), ("quantile", quantile)]].concat();
        page.sample(&labels, ns as f64 / 1e9);
    }
}

fn triton(page: &mut Page, models: &[Arc<ModelMetrics>]) {
    for (name, help, number) in TRITON {
        counter(page, models, (name, help, number));
    }
    let help = "Requests without an answer, by whose fault it is";
    page.family("nv_inference_request_failure", Kind::Counter, help);
    let reasons: [(&str, &[End]); 4] = [
        ("REJECTED", &[End::Refused, End::Expired]),
        ("CANCELED", &[End::Cancelled]),
        ("BACKEND", &[End::Failed, End::Crashed]),
        ("OTHER", &[End::Invalid]),
    ];
    for counts in models {
        for (reason, ends) in reasons {
            let number: u64 = ends.iter().map(|&end| counts.end(end).0).sum();
            page.sample(&labels(counts, "reason", reason), number);
        }
    }
    let help = "Requests that wait for their first row to run";
    page.family("nv_inference_pending_request_count", Kind::Gauge, help);
    for counts in models {
        page.sample(&name(counts), counts.pending().max(0));
    }
}

fn own_counters(page: &mut Page, models: &[Arc<ModelMetrics>]) {
    for family in OWN {
        counter(page, models, family);
    }
    let help = "Rows that went through a shared base, by where its output came from";
    page.family("graftd_rows_based_total", Kind::Counter, help);
    for counts in models {
        for (route, rows) in ["reuse", "follow", "recompute"].into_iter().zip(&counts.rows_based) {
            page.sample(&labels(counts, "route", route), of(rows));
        }
    }
    page.family("graftd_requests_total", Kind::Counter, "Requests by how they ended");
    for counts in models {
        page.sample(&labels(counts, "end", "ok"), answered(counts).count);
        for (end, shown) in End::ALL {
            page.sample(&labels(counts, "end", shown), counts.end(end).0);
        }
    }
    page.family("graftd_requests_shed_total", Kind::Counter, "Requests refused at admission");
    for counts in models {
        counts.shed().for_each(|(reason, n)| page.sample(&labels(counts, "reason", reason), n));
    }
    page.family("graftd_batches_total", Kind::Counter, "Batches by why they were formed");
    for counts in models {
        counts.batches().for_each(|(reason, n)| page.sample(&labels(counts, "reason", reason), n));
    }
}

fn own_histograms(page: &mut Page, models: &[Arc<ModelMetrics>]) {
    let help = "Answered requests from their checks to their answers, run or from kept rows alone";
    page.family("graftd_request_seconds", Kind::Histogram, help);
    for counts in models {
        for (route, histogram) in [("run", &counts.ran), ("hit", &counts.hit)] {
            let labels = labels(counts, "route", route);
            page.histogram(&labels, &histogram.snapshot(), TIMES, NANOS);
        }
    }
    for (family, help, histogram) in PHASES {
        page.family(family, Kind::Histogram, help);
        for counts in models {
            page.histogram(&name(counts), &histogram(counts).snapshot(), TIMES, NANOS);
        }
    }
    page.family("graftd_batch_rows", Kind::Histogram, "Rows of a batch");
    for counts in models {
        page.histogram(&name(counts), &counts.batch_rows.snapshot(), ROWS, 1.0);
    }
}

fn of_bases(page: &mut Page, bases: &[Arc<ModelMetrics>]) {
    for (family, help, number) in BASE {
        page.family(family, Kind::Counter, help);
        for counts in bases {
            page.sample(&[("base", &counts.model)], number(counts));
        }
    }
    page.family("graftd_base_run_seconds_total", Kind::Counter, "Time that a base ran");
    for counts in bases {
        page.sample(&[("base", &counts.model)], counts.ran_for().as_secs_f64());
    }
    page.family("graftd_base_batch_rows", Kind::Histogram, "Rows of a batch of a base");
    for counts in bases {
        page.histogram(&[("base", &counts.model)], &counts.batch_rows.snapshot(), ROWS, 1.0);
    }
}

fn counter(page: &mut Page, models: &[Arc<ModelMetrics>], family: (&str, &str, Number)) {
    let (shown, help, number) = family;
    page.family(shown, Kind::Counter, help);
    for counts in models {
        page.sample(&name(counts), number(counts));
    }
}

fn name(counts: &ModelMetrics) -> [(&str, &str); 2] {
    [("model", &counts.model), ("version", &counts.version)]
}

fn labels<'a>(counts: &'a ModelMetrics, key: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
    [("model", &counts.model), ("version", &counts.version), (key, value)]
}
