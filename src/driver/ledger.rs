//! What the scheduler's numbers stand for: inputs, rows that came, kept rows, lanes, and who waits.

use super::{Outgoing, Reply};
use crate::engine::{BatchPlan, Lane};
use crate::id::{BatchId, RequestId, SessionId};
use crate::model::ModelSpec;
use crate::rows::{Block, Inputs, RowValue};
use crate::sched::event::{Action, Outcome, RowRef, SettledRow, Slot};
use crate::time::MonoTime;
use rustc_hash::FxHashMap as HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// How one row was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Route {
    /// By running it, or by joining a run.
    #[default]
    Run,
    /// From the row store.
    Hit,
}

/// One request that was submitted.
pub(super) struct Entry {
    pub inputs: Arc<Inputs>,
    pub spec: Arc<ModelSpec>,
    pub whole: bool,
    pub submitted: MonoTime,
    pub rows: Vec<Option<RowValue>>,
    pub routes: Vec<Route>,
    /// Where the reply goes; none while the request is being submitted.
    pub reply: Option<oneshot::Sender<Reply>>,
}

/// One lane and the worker behind it.
#[derive(Default)]
pub(super) struct Ledger {
    requests: HashMap<RequestId, Entry>,
    kept: Vec<Option<RowValue>>,
    pub lanes: HashMap<SessionId, Arc<dyn Lane>>,
}

/// Outputs that an event brought along.
pub(super) type Outputs = Option<(BatchId, Arc<Block>)>;

impl Ledger {
    pub(super) fn insert(&mut self, id: RequestId, entry: Entry) {
        self.requests.insert(id, entry);
    }

    /// Where the reply of a request that was just submitted will come.
    pub(super) fn wait_for(&mut self, id: RequestId) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        if let Some(entry) = self.requests.get_mut(&id) {
            entry.reply = Some(sender);
        }
        receiver
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Does what an action says to what is kept here; what concerns others goes into `out`.
    pub(super) fn apply(
        &mut self,
        action: Action,
        outputs: &Outputs,
        now: MonoTime,
        out: &mut Outgoing,
    ) {
        match action {
            Action::Run { session, batch, rows, reason } => {
                if let Some((lane, plan, waited)) = self.plan(session, &rows, now) {
                    out.runs.push(super::Run { lane, batch, plan, reason, waited });
                }
            }
            Action::Hit { row, slot } => {
                let kept = self.kept.get(slot.0 as usize).cloned().flatten();
                self.deliver(row, kept, Route::Hit);
            }
            Action::Settle { batch, rows } => {
                let block = outputs.as_ref().filter(|(id, _)| *id == batch).map(|(_, block)| block);
                if let Some(block) = block {
                    self.settle(rows, block);
                }
            }
            Action::Evict { slot } => self.keep(slot, None),
            Action::Reply { request, outcome } => self.reply(request, outcome, out),
            Action::Release { request } => {
                self.requests.remove(&request);
            }
            Action::Isolate { stage } => out.orders.push(super::Order::Isolate { stage }),
            Action::Retire { session } => {
                self.lanes.remove(&session);
                out.orders.push(super::Order::Retire { session });
            }
            Action::Forget { stage } => out.orders.push(super::Order::Forget { stage }),
            Action::Terminate { session, batch } => {
                if let Some(lane) = self.lanes.get(&session) {
                    lane.terminate(batch);
                }
                out.orders.push(super::Order::Hung { session });
            }
            Action::Kill { session } => {
                if let Some(lane) = self.lanes.get(&session) {
                    lane.kill();
                }
            }
        }
    }

    fn plan(
        &self,
        session: SessionId,
        rows: &[RowRef],
        now: MonoTime,
    ) -> Option<(Arc<dyn Lane>, Arc<BatchPlan>, std::time::Duration)> {
        // A session whose death is not yet told has no lane any more: its batch comes back with that.
        let lane = self.lanes.get(&session)?.clone();
        let first = self.requests.get(&rows.first()?.request)?;
        let spec = &first.spec;
        let output_axes =
            if first.whole { spec.whole_axes.clone() } else { spec.output_axes.clone() };
        let mut plan = BatchPlan { runs: Vec::new(), output_axes, whole: first.whole };
        for row in rows {
            // The scheduler releases a request's inputs only when no flight uses them.
            let entry = self.requests.get(&row.request)?;
            plan.push(entry.inputs.clone(), row.row as usize);
        }
        Some((lane, Arc::new(plan), now.since(first.submitted)))
    }

    fn settle(&mut self, rows: Vec<SettledRow>, block: &Arc<Block>) {
        for (index, row) in rows.into_iter().enumerate() {
            let value = RowValue { block: block.clone(), index };
            for waiter in row.waiters {
                self.deliver(waiter, Some(value.clone()), Route::Run);
            }
            if let Some(slot) = row.keep {
                self.keep(slot, Some(value.detached()));
            }
        }
    }

    fn deliver(&mut self, row: RowRef, value: Option<RowValue>, route: Route) {
        if let Some(entry) = self.requests.get_mut(&row.request) {
            let place = row.row as usize;
            if let (Some(room), Some(how)) =
                (entry.rows.get_mut(place), entry.routes.get_mut(place))
            {
                *room = value;
                *how = route;
            }
        }
    }

    fn keep(&mut self, slot: Slot, value: Option<RowValue>) {
        let place = slot.0 as usize;
        if self.kept.len() <= place {
            self.kept.resize(place + 1, None);
        }
        self.kept[place] = value;
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome, out: &mut Outgoing) {
        let Some(entry) = self.requests.get_mut(&id) else { return };
        let rows = std::mem::take(&mut entry.rows);
        let routes = std::mem::take(&mut entry.routes);
        // What was never accepted lends nothing and gets no release.
        let sender = entry.reply.take();
        if matches!(outcome, Outcome::Refused { .. } | Outcome::Quarantined) {
            self.requests.remove(&id);
        }
        let reply = Reply { outcome, rows: rows.into_iter().flatten().collect(), routes };
        match sender {
            Some(sender) => out.replies.push((sender, reply)),
            None => out.direct = Some(reply),
        }
    }
}
