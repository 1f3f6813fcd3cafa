//! The last decisions: a ring that is bounded in requests and in rows, of what was known anyhow.
//!
//! What is put in is moved, and texts are made by whoever reads: a request pays for one short lock.

use super::account::Seen;
use crate::driver::Reply;
use crate::driver::lineage::Trail;
use crate::error::InferError;
use crate::id::{RequestId, Tenant};
use crate::model::ModelSpec;
use crate::model::stage::StageName;
use crate::sched::event::Tally;
use crate::sched::reuse::{Reason, Route};
use crate::sched::why::{ROWS_TOLD, Why};
use crate::text;
use crate::time::MonoTime;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Requests that are remembered, at most.
pub(super) const REQUESTS_MAX: usize = 1024;

/// Rows that are told of, of all these requests; each takes some two hundred bytes.
const ROWS_MAX: usize = 8192;

/// Bytes that are remembered of what a caller calls a request.
const ID_BYTES_MAX: usize = 256;

/// What is remembered of one request.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub request: RequestId,
    /// The beginning of the caller's own id, as it came.
    id: Box<str>,
    pub tenant: Tenant,
    /// The model that was asked.
    pub stage: Arc<StageName>,
    pub rows: usize,
    pub outcome: &'static str,
    /// What the caller was told where that was no answer.
    pub error: Option<Box<str>>,
    pub tally: Tally,
    /// How the first rows went; empty where all went alike.
    pub routes: Vec<Route>,
    pub trail: Trail,
    /// When it ended.
    pub at: MonoTime,
    pub took: Duration,
}

impl Decision {
    /// What is to be remembered of a reply; its rows have become an answer already.
    pub(super) fn new(
        (spec, tenant): (&ModelSpec, Tenant),
        (id, seen, reply): (&str, &Seen, Reply),
        error: Option<&InferError>,
        (at, took): (MonoTime, Duration),
    ) -> Self {
        let Reply { request, mut routes, trail, .. } = reply;
        if routes.len() > ROWS_TOLD {
            routes = routes[..ROWS_TOLD].to_vec();
        }
        Self {
            request,
            id: beginning(id).into(),
            tenant,
            stage: spec.called.clone(),
            rows: seen.rows,
            outcome: if error.is_some() && seen.is_complete() { "failed" } else { seen.word() },
            error: error.map(|error| text::name(&error.message).into()),
            tally: seen.tally(),
            routes,
            trail,
            at,
            took,
        }
    }

    /// How many of its rows are told of: of no answer nothing is.
    pub(super) fn told(&self) -> usize {
        if self.outcome == "ok" { self.trail.made.len() } else { 0 }
    }

    /// Why a row went as it did, where there was a choice.
    pub(super) fn why(&self, row: usize) -> Option<&Why> {
        self.trail.whys.iter().find(|why| why.row as usize == row)
    }

    pub(super) fn reason(&self, row: usize) -> Reason {
        let route = self.tally.route(&self.routes, row);
        self.why(row).map_or_else(|| Reason::without_choice(route), |why| why.choice.reason)
    }

    /// Whether its caller calls it so; of a long id the beginning counts.
    pub(super) fn is_called(&self, id: &str) -> bool {
        !id.is_empty() && *self.id == *beginning(id)
    }

    /// What its caller calls it, fit to be shown.
    pub(super) fn shown_id(&self) -> String {
        text::name(&self.id)
    }

    /// What it counts for in the ring.
    fn weight(&self) -> usize {
        self.trail.made.len().max(self.trail.whys.len())
    }
}

fn beginning(id: &str) -> &str {
    &id[..id.floor_char_boundary(ID_BYTES_MAX)]
}

/// The last decisions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    decisions: VecDeque<Decision>,
    /// Rows that are told of in all of them.
    rows: usize,
}

impl Ring {
    /// Remembers a decision; the oldest go for it.
    pub(super) fn push(&self, decision: Decision) {
        // What goes is dropped once the lock is free.
        let mut gone: smallvec::SmallVec<[Decision; 1]> = smallvec::SmallVec::new();
        let mut ring = self.0.lock();
        ring.rows += decision.weight();
        ring.decisions.push_back(decision);
        while ring.decisions.len() > REQUESTS_MAX || ring.rows > ROWS_MAX {
            let Some(oldest) = ring.decisions.pop_front() else { break };
            ring.rows -= oldest.weight();
            gone.push(oldest);
        }
        drop(ring);
    }

    /// The newest decisions of this kind, at most so many, the newest first.
    pub(super) fn newest(&self, most: usize, kind: impl Fn(&Decision) -> bool) -> Vec<Decision> {
        let ring = self.0.lock();
        ring.decisions.iter().rev().filter(|it| kind(it)).take(most).cloned().collect()
    }

    /// What the callers of these requests call them, of those that are remembered.
    pub(super) fn ids(
        &self,
        requests: impl Iterator<Item = RequestId>,
    ) -> BTreeMap<RequestId, String> {
        let mut wanted: BTreeSet<RequestId> = requests.collect();
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let ring = self.0.lock();
        let named = ring.decisions.iter().rev().filter(|it| wanted.remove(&it.request));
        named.map(|it| (it.request, it.shown_id())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::StageDigest;

    fn decision(number: u64, id: &str, rows: usize) -> Decision {
        Decision {
            request: RequestId(number),
            id: beginning(id).into(),
            tenant: Tenant(0),
            stage: StageName::whole("m", 1, StageDigest([0; 32])),
            rows,
            outcome: "ok",
            error: None,
            tally: Tally::default(),
            routes: Vec::new(),
            trail: Trail { made: smallvec::smallvec![None; rows], ..Trail::default() },
            at: MonoTime::ZERO,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_ring_is_bounded_in_requests_and_in_rows() {
        let ring = Ring::default();
        let held = || {
            let entries = ring.0.lock();
            (entries.decisions.len(), entries.rows)
        };
        (0..3_000).for_each(|number| ring.push(decision(number, "", 1)));
        assert_eq!(held(), (REQUESTS_MAX, REQUESTS_MAX));
        assert_eq!(ring.newest(2, |_| true)[1].request, RequestId(2_998));
        (3_000..6_000).for_each(|number| ring.push(decision(number, "", ROWS_TOLD)));
        assert_eq!(held(), (ROWS_MAX / ROWS_TOLD, ROWS_MAX));
    }

    #[test]
    fn ids_are_cut_and_found_again() {
        let ring = Ring::default();
        let long = "é".repeat(100_000);
        ring.push(decision(1, &long, 1));
        ring.push(decision(2, "", 1));
        let found = ring.newest(5, |it| it.is_called(&long));
        assert_eq!(found.len(), 1);
        assert!(found[0].id.len() <= ID_BYTES_MAX && found[0].shown_id().starts_with('é'));
        assert!(ring.newest(5, |it| it.is_called("")).is_empty(), "none is no id");
        let ids = ring.ids([1, 2, 3].map(RequestId).into_iter());
        assert_eq!(ids.keys().copied().collect::<Vec<_>>(), [1, 2].map(RequestId));
    }
}
