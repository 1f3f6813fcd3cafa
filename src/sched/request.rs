//! The requests that wait for rows, and those whose inputs are still needed.

use crate::id::{RequestId, StageId};
use crate::sched::event::Tally;
use crate::sched::flight::FlightId;
use crate::time::MonoTime;
use std::collections::BTreeMap;

/// One accepted request.
#[derive(Debug)]
pub(super) struct Request {
    /// The stage that it asks.
    pub stage: StageId,
    /// When it came.
    pub since: MonoTime,
    /// The flights it waits for or waited for, one entry per row that was no hit.
    pub flights: Vec<FlightId>,
    /// Rows that are still to come.
    pub missing: usize,
    /// Open flights that use its inputs.
    pub lending: usize,
    /// When its answer is worth nothing any more.
    pub deadline: Option<MonoTime>,
    /// When its answer should be there.
    pub target: Option<MonoTime>,
    /// How its rows are answered.
    pub tally: Tally,
    /// It has had its end; only its inputs are still of use.
    pub ended: bool,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: BTreeMap<RequestId, Request>,
    waiting: usize,
}

impl Requests {
    /// Adds a request that waits.
    pub(super) fn insert(&mut self, id: RequestId, request: Request) {
        self.waiting += 1;
        let earlier = self.all.insert(id, request);
        debug_assert!(earlier.is_none(), "request {id} submitted twice");
    }

    /// Looks at a request to change it.
    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.all.get_mut(&id)
    }

    /// When the answer to a request is needed: by its deadline or its target, whichever is sooner.
    pub(super) fn needed_by(&self, id: RequestId) -> Option<MonoTime> {
        let request = self.all.get(&id)?;
        request.deadline.into_iter().chain(request.target).min()
    }

    /// The target of a request that is sooner than its deadline.
    pub(super) fn target(&self, id: RequestId) -> Option<MonoTime> {
        let request = self.all.get(&id)?;
        request.target.filter(|target| request.deadline.is_none_or(|deadline| *target < deadline))
    }

    /// Marks the end of a request that waits, and returns the flights it may still be attached to.
    pub(super) fn end(&mut self, id: RequestId) -> Option<(Vec<FlightId>, Option<MonoTime>)> {
        let request = self.all.get_mut(&id).filter(|request| !request.ended)?;
        request.ended = true;
        self.waiting -= 1;
        Some((std::mem::take(&mut request.flights), request.deadline))
    }

    /// Forgets a request that has ended and lends nothing; says whether it did.
    pub(super) fn release(&mut self, id: RequestId) -> bool {
        let done = self.all.get(&id).is_some_and(|request| request.ended && request.lending == 0);
        if done {
            self.all.remove(&id);
        }
        done
    }

    /// Requests that wait for an answer.
    #[must_use]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether no request waits and none lends inputs.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All requests, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.all.iter().map(|(&id, request)| (id, request))
    }
}
