//! One request's account: what is counted of it, and the line that it leaves in the log.
//!
//! A line at debug for each request, a warning for each problem. Refusals come in crowds, so they share a
//! warning a second.

use super::{Context, Service};
use crate::driver::Reply;
use crate::error::{ErrorKind, InferError};
use crate::metrics::{Answered, End, Phases};
use crate::model::ModelSpec;
use crate::model::check::Checked;
use crate::request::InferResponse;
use crate::sched::event::{Outcome, Refusal, Tally};
use crate::time::{MonoTime, micros};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Seconds between two warnings about refusals.
const QUIET: Duration = Duration::from_secs(1);

/// Refusals that nobody was warned of yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: AtomicU64,
    /// When there may be a warning again, on the daemon's clock.
    next_ns: AtomicU64,
}

impl Refusals {
    /// Counts a refusal; the number of those to be warned of, if it is time to.
    fn add(&self, now: MonoTime) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let (now, next) = (now, self.next_ns.load(Relaxed));
        if now.as_nanos() < next {
            return None;
        }
        let later = now.after(QUIET).as_nanos();
        let won = self.next_ns.compare_exchange(next, later, Relaxed, Relaxed).is_ok();
        won.then(|| self.count.swap(0, Relaxed))
    }
}

/// What is remembered of a reply once its rows have become an answer.
pub(super) struct Seen {
    outcome: Outcome,
    submitted: MonoTime,
    phases: Option<Phases>,
    pub(super) rows: usize,
    /// Its rows may be answered from kept ones.
    lookup: bool,
    /// What a client takes it for, if its model batches.
    batch: u64,
}

impl Seen {
    pub(super) fn new(reply: &Reply, checked: &Checked) -> Self {
        let Reply { outcome, submitted, phases, .. } = reply;
        let first = checked.inputs.tensors.first().and_then(|tensor| tensor.shape.first());
        Self {
            outcome: outcome.clone(),
            submitted: *submitted,
            phases: *phases,
            rows: checked.keys.len(),
            lookup: checked.options.sharing.lookup,
            batch: match *outcome {
                Outcome::Complete(tally) if !checked.whole => u64::from(tally.run()),
                _ => first.map_or(1, |&rows| rows as u64),
            },
        }
    }

    pub(super) fn tally(&self) -> Tally {
        match self.outcome {
            Outcome::Complete(tally) => tally,
            _ => Tally::default(),
        }
    }

    /// Inferences as clients count them: rows of a model that batches, requests of one that does not.
    fn inferences(&self, spec: &ModelSpec) -> u64 {
        match self.tally().run() {
            0 => 0,
            _ if spec.config.max_batch_size > 0 => self.batch,
            _ => 1,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.outcome, Outcome::Complete(_))
    }

    pub(super) fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Complete(_) => "ok",
            Outcome::Refused { .. } => "refused",
            Outcome::Expired => "expired",
            Outcome::Shed { .. } => "shed",
            Outcome::Failed(_) => "failed",
            Outcome::Crashed => "crashed",
            Outcome::Quarantined => "quarantined",
        }
    }
}

/// An account that is open.
#[derive(Clone, Copy)]
pub(super) struct Account<'a> {
    pub service: &'a Service,
    pub spec: &'a ModelSpec,
    pub context: Context,
    /// When the request came.
    pub start: MonoTime,
}

impl Account<'_> {
    /// The request was none that the model can be asked.
    pub(super) fn invalid(&self, id: &str, error: &InferError) {
        let took = self.service.driver.clock().now().since(self.start);
        self.spec.counts.ended(End::Invalid, took);
        self.line(id, "invalid", took, None);
        tracing::trace!("{}", error.message);
    }

    /// The request has its end: when, and how long it took.
    pub(super) fn close(
        &self,
        id: &str,
        seen: &Seen,
        answer: &Result<InferResponse, InferError>,
    ) -> (MonoTime, Duration) {
        let now = self.service.driver.clock().now();
        let took = now.since(self.start);
        self.count(seen, answer, now, took);
        self.line(id, seen.word(), took, Some(seen));
        self.service.trace(self.spec, id, took, seen.phases);
        if let Err(error) = answer {
            self.warn(id, seen, error, now);
        }
        (now, took)
    }

    fn count(
        &self,
        seen: &Seen,
        answer: &Result<InferResponse, InferError>,
        now: MonoTime,
        took: Duration,
    ) {
        let counts = &self.spec.counts;
        match &seen.outcome {
            // Outputs that cannot be put together are the model's fault.
            Outcome::Complete(_) if answer.is_err() => counts.ended(End::Failed, took),
            Outcome::Complete(tally) => counts.answered(&Answered {
                took,
                at: now,
                in_time: self.spec.settings.latency_target.map(|target| took <= target),
                tally: *tally,
                inferences: seen.inferences(self.spec),
                phases: seen.phases,
                lookup: self.keeps(seen).then(|| seen.submitted.since(self.start)),
            }),
            Outcome::Refused { refusal, .. } => counts.refused(refusal, took),
            Outcome::Expired => counts.ended(End::Expired, took),
            Outcome::Shed { expected, left, .. } => {
                let (expected, left) = (*expected, *left);
                counts.refused(&Refusal::Target { expected, left }, took);
            }
            Outcome::Failed(_) => counts.ended(End::Failed, took),
            Outcome::Crashed | Outcome::Quarantined => counts.ended(End::Crashed, took),
        }
    }

    /// Whether kept rows were looked at for it.
    fn keeps(&self, seen: &Seen) -> bool {
        let on = self.service.driver.limits().cache_bytes > 0;
        seen.lookup && on && self.spec.settings.cache != Some(false)
    }

    fn line(&self, id: &str, outcome: &str, took: Duration, seen: Option<&Seen>) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let tally = seen.map(Seen::tally).unwrap_or_default();
        let phases = seen.and_then(|seen| seen.phases).unwrap_or_default();
        let peer = self.context.peer;
        tracing::debug!(
            model = %self.spec.name,
            version = self.spec.version,
            rows = seen.map_or(0, |seen| seen.rows),
            outcome,
            hit = tally.hit,
            join = tally.join,
            run = tally.run(),
            queue_us = micros(phases.queue),
            run_us = micros(phases.run),
            took_us = micros(took),
            tenant = peer.tenant.0,
            transport = peer.listener.name(),
            codec = self.context.codec.name(),
            id = %id.escape_debug(),
            "request"
        );
    }

    fn warn(&self, id: &str, seen: &Seen, error: &InferError, now: MonoTime) {
        let (model, version, id) = (&self.spec.name, self.spec.version, id.escape_debug());
        let why = &error.message;
        match &seen.outcome {
            Outcome::Refused { refusal: Refusal::Draining, .. } | Outcome::Expired => {}
            Outcome::Refused { .. } | Outcome::Shed { .. } => {
                if let Some(refused) = self.service.refusals.add(now) {
                    tracing::warn!(%model, version, refused, "requests refused; the last one as {why}");
                }
            }
            _ => tracing::warn!(%model, version, outcome = seen.word(), %id, "{why}"),
        }
    }
}

impl Service {
    /// A request asked for what is not there, or not now.
    pub(super) fn count_unplaced(&self, error: &InferError) {
        match error.kind {
            ErrorKind::NotFound | ErrorKind::NoVersion => self.metrics.asked_for_unknown(),
            _ => self.metrics.asked_for_unavailable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_share_a_warning_a_second_and_none_is_lost() {
        let refusals = Refusals::default();
        let at = |ms: u64| MonoTime::from_nanos(ms * 1_000_000);
        let told: Vec<_> =
            [0, 1, 500, 999, 1000, 1001, 5000].map(|ms| refusals.add(at(ms))).to_vec();
        assert_eq!(told, [Some(1), None, None, None, Some(4), None, Some(2)]);
    }
}
