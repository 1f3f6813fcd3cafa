//! What is counted for one version of a model: each fact once, for clients' statistics and for the page alike.

use super::histogram::Histogram;
use crate::proto;
use crate::sched::event::{Refusal, RunReason, Tally};
use crate::time::{MonoTime, nanos};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A count and the time that all of it took.
#[derive(Debug, Default)]
pub(super) struct Timed {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Timed {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(nanos(took), Relaxed);
    }

    /// The count, and nanoseconds.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.ns.load(Relaxed))
    }
}

/// How a request ended that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not accepted.
    Refused,
    /// Its deadline passed.
    Expired,
    /// The model reported an error.
    Failed,
    /// Its row ends the process that runs it, or did lately.
    Crashed,
    /// Its caller went away.
    Cancelled,
    /// It was no request that this model can be asked.
    Invalid,
}

impl End {
    pub(super) const ALL: [(Self, &'static str); 6] = [
        (Self::Refused, "refused"),
        (Self::Expired, "expired"),
        (Self::Failed, "failed"),
        (Self::Crashed, "crashed"),
        (Self::Cancelled, "cancelled"),
        (Self::Invalid, "invalid"),
    ];
}

/// The parts of a request's time that were spent on the batch which completed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// From its submission until its run began, less the gathering: in the queue, and in hand of a session.
    pub queue: Duration,
    /// Gathering the batch and handing it over.
    pub gather: Duration,
    /// The run itself.
    pub run: Duration,
    /// When the outputs were there.
    pub done: MonoTime,
}

impl Phases {
    /// The phases of a request that was submitted at `submitted` and whose last rows came with a batch of
    /// these times.
    ///
    /// They add up to the time from submission to outputs: a request of several batches waited for its last
    /// one, so the time of the others is in its queue; one that joined a run has only what was left of it.
    #[must_use]
    pub fn new(submitted: MonoTime, gather: Duration, run: Duration, done: MonoTime) -> Self {
        let left = done.since(submitted);
        let run = run.min(left);
        let gather = gather.min(left - run);
        Self { queue: left - run - gather, gather, run, done }
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// From its first check to its answer.
    pub took: Duration,
    /// When the answer was there.
    pub at: MonoTime,
    /// Whether that was within the model's latency target, if it has one.
    pub in_time: Option<bool>,
    /// How its rows were answered.
    pub tally: Tally,
    /// What a client calls inferences: rows of a model that batches, one for any other; without kept rows.
    pub inferences: u64,
    /// Of its batch, if it had one.
    pub phases: Option<Phases>,
    /// What making keys and looking them up took, if rows may be kept for it.
    pub lookup: Option<Duration>,
}

/// What the batches of one size cost in all.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    count: u64,
    gather_ns: u64,
    run_ns: u64,
    scatter_ns: u64,
}

/// The counts of one version of a model.
#[derive(Debug, Default)]
pub struct ModelMetrics {
    pub(super) model: String,
    pub(super) version: String,
    /// Answers from kept rows alone.
    pub(super) hit: Histogram,
    /// Answers that a run was needed for.
    pub(super) ran: Histogram,
    pub(super) queue: Histogram,
    pub(super) gather: Histogram,
    pub(super) run: Histogram,
    pub(super) scatter: Histogram,
    pub(super) misses: Timed,
    pub(super) inferences: AtomicU64,
    /// Answers that came within the model's latency target, and those that did not.
    pub(super) in_time: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) rows_hit: AtomicU64,
    pub(super) rows_joined: AtomicU64,
    /// Rows that went through shared bases: with a kept output, behind a running base, with a run of their own.
    pub(super) rows_based: [AtomicU64; 3],
    pub(super) rows_executed: AtomicU64,
    ends: [Timed; End::ALL.len()],
    shed: [AtomicU64; REFUSALS.len()],
    batches: [AtomicU64; REASONS.len()],
    pub(super) batches_failed: AtomicU64,
    pub(super) batch_rows: Histogram,
    sizes: Mutex<BTreeMap<u64, Size>>,
    pending: AtomicI64,
    /// When the last answer was there, on the daemon's clock.
    last_ns: AtomicU64,
}

/// Why requests are refused, as the page calls it, by [`refusal_number`].
pub(super) const REFUSALS: [&str; 9] =
    ["requests", "rows", "queue", "bytes", "waiters", "deadline", "draining", "no_stage", "target"];

const fn refusal_number(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::Requests { .. } => 0,
        Refusal::Rows { .. } => 1,
        Refusal::Queue { .. } => 2,
        Refusal::Bytes { .. } => 3,
        Refusal::Waiters { .. } => 4,
        Refusal::Infeasible { .. } => 5,
        Refusal::Draining => 6,
        Refusal::NoStage => 7,
        Refusal::Target { .. } => 8,
    }
}

/// Why batches are formed, as the page calls it, by the number of their [`RunReason`].
pub(super) const REASONS: [&str; 5] = ["idle", "full", "delay", "ahead", "suspect"];

impl ModelMetrics {
    /// All counts at zero.
    #[must_use]
    pub fn new(model: &str, version: u64) -> Self {
        Self { model: model.to_owned(), version: version.to_string(), ..Self::default() }
    }

    /// A request was answered.
    pub fn answered(&self, request: &Answered) {
        self.last_ns.store(request.at.as_nanos(), Relaxed);
        if let Some(in_time) = request.in_time {
            let counter = if in_time { &self.in_time } else { &self.late };
            counter.fetch_add(1, Relaxed);
        }
        let Tally { hit, join, reuse, follow, recompute, .. } = request.tally;
        if hit > 0 {
            self.rows_hit.fetch_add(u64::from(hit), Relaxed);
        }
        let Some(phases) = request.phases else {
            return self.hit.observe(nanos(request.took));
        };
        self.ran.observe(nanos(request.took));
        self.rows_joined.fetch_add(u64::from(join), Relaxed);
        for (counter, rows) in self.rows_based.iter().zip([reuse, follow, recompute]) {
            if rows > 0 {
                counter.fetch_add(u64::from(rows), Relaxed);
            }
        }
        self.inferences.fetch_add(request.inferences, Relaxed);
        self.queue.observe(nanos(phases.queue));
        self.gather.observe(nanos(phases.gather));
        self.run.observe(nanos(phases.run));
        self.scatter.observe(nanos(request.at.since(phases.done)));
        if let Some(lookup) = request.lookup {
            self.misses.add(lookup);
        }
    }

    /// Answers within the model's latency target and past it; both zero for a model without one.
    #[must_use]
    pub fn on_time(&self) -> (u64, u64) {
        (self.in_time.load(Relaxed), self.late.load(Relaxed))
    }

    /// A request got no answer.
    pub fn ended(&self, end: End, took: Duration) {
        self.ends[end as usize].add(took);
    }

    /// A request was not accepted.
    pub fn refused(&self, refusal: &Refusal, took: Duration) {
        self.shed[refusal_number(refusal)].fetch_add(1, Relaxed);
        self.ended(End::Refused, took);
    }

    /// A request was accepted and waits for its first row to run.
    pub(crate) fn waits(&self) {
        self.pending.fetch_add(1, Relaxed);
    }

    /// A request that waited waits no more.
    pub(crate) fn waits_no_more(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    /// A batch was handed to a session.
    pub(crate) fn batch_started(&self, rows: usize, reason: RunReason) {
        self.batches[reason as usize].fetch_add(1, Relaxed);
        self.batch_rows.observe(rows as u64);
    }

    /// A batch has outputs.
    pub(crate) fn batch_done(&self, rows: usize, times: [Duration; 3]) {
        self.rows_executed.fetch_add(rows as u64, Relaxed);
        let [gather, run, scatter] = times.map(nanos);
        let mut sizes = self.sizes.lock();
        let size = sizes.entry(rows as u64).or_default();
        size.count += 1;
        size.gather_ns += gather;
        size.run_ns += run;
        size.scatter_ns += scatter;
    }

    /// How long its batches ran, all together.
    pub(super) fn ran_for(&self) -> Duration {
        Duration::from_nanos(self.sizes.lock().values().map(|size| size.run_ns).sum())
    }

    /// A batch has none.
    pub(crate) fn batch_failed(&self) {
        self.batches_failed.fetch_add(1, Relaxed);
    }

    /// Requests that ended so, and nanoseconds they took.
    pub(super) fn end(&self, end: End) -> (u64, u64) {
        self.ends[end as usize].get()
    }

    /// Refusals by reason.
    pub(super) fn shed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.into_iter().zip(&self.shed).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// Batches by reason.
    pub(super) fn batches(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.batches).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// Batches that have outputs.
    pub(super) fn executions(&self) -> u64 {
        self.sizes.lock().values().map(|size| size.count).sum()
    }

    /// Requests of whose own rows none was handed to a session yet.
    pub(super) fn pending(&self) -> i64 {
        self.pending.load(Relaxed)
    }

    /// Requests that were answered, and the time that half of them and all but a hundredth did not exceed.
    #[must_use]
    pub fn latency(&self) -> (u64, [Option<Duration>; 2]) {
        let all = self.ran.snapshot().merged(&self.hit.snapshot());
        let quantile = |share| all.quantile(share).map(Duration::from_nanos);
        (all.count, [quantile(0.5), quantile(0.99)])
    }

    /// Batches that have outputs, by their rows.
    #[must_use]
    pub fn batch_sizes(&self) -> BTreeMap<u64, u64> {
        self.sizes.lock().iter().map(|(&rows, size)| (rows, size.count)).collect()
    }

    /// Requests that got no answer.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.ends.iter().map(|end| end.get().0).sum()
    }

    /// The statistics that clients ask for; `epoch` is when the daemon's clock started, since 1970.
    #[must_use]
    pub fn statistics(&self, epoch: Duration) -> proto::ModelStatistics {
        let of = |histogram: &Histogram| {
            let found = histogram.snapshot();
            (found.count, found.sum)
        };
        let add = |(a, b): (u64, u64), (c, d): (u64, u64)| (a + c, b + d);
        let hit = of(&self.hit);
        let fail = self.ends.iter().map(Timed::get).fold((0, 0), add);
        let inference_stats = proto::InferStatistics {
            success: duration(add(hit, of(&self.ran))),
            fail: duration(fail),
            queue: duration(of(&self.queue)),
            compute_input: duration(of(&self.gather)),
            compute_infer: duration(of(&self.run)),
            compute_output: duration(of(&self.scatter)),
            cache_hit: duration(hit),
            cache_miss: duration(self.misses.get()),
        };
        let sizes = self.sizes.lock();
        let batch = |(&batch_size, size): (&u64, &Size)| proto::InferBatchStatistics {
            batch_size,
            compute_input: duration((size.count, size.gather_ns)),
            compute_infer: duration((size.count, size.run_ns)),
            compute_output: duration((size.count, size.scatter_ns)),
        };
        let batch_stats = sizes.iter().map(batch).collect();
        let last = Duration::from_nanos(self.last_ns.load(Relaxed));
        let last_ms = u64::try_from((epoch + last).as_millis()).unwrap_or(u64::MAX);
        proto::ModelStatistics {
            name: self.model.clone(),
            version: self.version.clone(),
            last_inference: if last.is_zero() { 0 } else { last_ms },
            inference_count: self.inferences.load(Relaxed),
            execution_count: sizes.values().map(|size| size.count).sum(),
            inference_stats: Some(inference_stats),
            batch_stats,
            ..proto::ModelStatistics::default()
        }
    }
}

fn duration((count, ns): (u64, u64)) -> Option<proto::StatisticDuration> {
    Some(proto::StatisticDuration { count, ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn at(us: u64) -> MonoTime {
        MonoTime::from_nanos(us * 1000)
    }

    #[test]
    fn phases_add_up_whatever_a_request_saw_of_its_batch() {
        let phases = |submitted| Phases::new(at(submitted), 3 * US, 50 * US, at(100));
        let whole = phases(10);
        assert_eq!([whole.queue, whole.gather, whole.run], [37 * US, 3 * US, 50 * US]);
        // It joined while the batch ran, and while it was being gathered.
        let joined = phases(80);
        assert_eq!(
            [joined.queue, joined.gather, joined.run],
            [Duration::ZERO, Duration::ZERO, 20 * US]
        );
        let joined = phases(48);
        assert_eq!([joined.queue, joined.gather, joined.run], [Duration::ZERO, 2 * US, 50 * US]);
    }

    #[test]
    fn statistics_hold_each_request_once() {
        let model = ModelMetrics::new("m", 3);
        assert_eq!(model.statistics(Duration::from_secs(9)).last_inference, 0);
        let ran = Answered {
            took: 120 * US,
            at: at(2000),
            in_time: Some(true),
            tally: Tally { hit: 1, whole: 4, ..Tally::default() },
            inferences: 4,
            phases: Some(Phases::new(at(1890), 3 * US, 50 * US, at(1990))),
            lookup: Some(5 * US),
        };
        let tally = Tally { hit: 2, ..Tally::default() };
        let hit = Answered { tally, phases: None, inferences: 0, took: 7 * US, ..ran };
        model.answered(&ran);
        model.answered(&Answered { in_time: Some(false), ..hit });
        assert_eq!(model.on_time(), (1, 1));
        model.batch_started(4, RunReason::Idle);
        model.batch_done(4, [3 * US, 50 * US, 6 * US]);
        model.batch_started(1, RunReason::Full);
        model.batch_failed();
        model.ended(End::Failed, 30 * US);
        model.refused(&Refusal::Draining, US);
        let found = model.statistics(Duration::from_secs(9));
        assert_eq!((found.name.as_str(), found.version.as_str()), ("m", "3"));
        assert_eq!((found.inference_count, found.execution_count), (4, 1));
        assert_eq!(found.last_inference, 9002);
        let stats = found.inference_stats.unwrap();
        let table = [
            (stats.success, 2, 127),
            (stats.fail, 2, 31),
            (stats.queue, 1, 47),
            (stats.compute_input, 1, 3),
            (stats.compute_infer, 1, 50),
            (stats.compute_output, 1, 10),
            (stats.cache_hit, 1, 7),
            (stats.cache_miss, 1, 5),
        ];
        for (found, count, us) in table {
            assert_eq!(found, duration((count, us * 1000)));
        }
        let [batch] = &found.batch_stats[..] else { panic!("{:?}", found.batch_stats) };
        assert_eq!((batch.batch_size, batch.compute_infer), (4, duration((1, 50_000))));
        assert_eq!(model.latency().0, 2);
        assert_eq!(model.failures(), 2);
    }
}
