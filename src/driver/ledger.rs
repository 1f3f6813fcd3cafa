//! What the scheduler's numbers stand for: inputs, rows that came, kept rows, lanes, and who waits.

use super::leg::{Leg, Part, as_inputs};
use super::lineage::{Made, Sources, Trail};
use super::{Order, Outgoing, Reply, Run};
use crate::engine::{BatchPlan, Lane};
use crate::id::{BatchId, RequestId, SessionId, StageId};
use crate::metrics::{ModelMetrics, Phases};
use crate::model::ModelSpec;
use crate::model::stage::StageName;
use crate::model::way::Way;
use crate::rows::{Block, Inputs, RowValue, Storage};
use crate::sched::event::{Action, Outcome, RowRef, RunReason, SettledRow, Slot, Store};
use crate::sched::flight::FlightId;
use crate::sched::reuse::Route;
use crate::time::MonoTime;
use rustc_hash::FxHashMap as HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// It is being submitted.
    New,
    /// None of its rows was handed to a session yet.
    Waits,
    /// One was, or it has had its end.
    Started,
}

/// One request that was submitted.
pub(super) struct Entry {
    pub inputs: Arc<Inputs>,
    pub spec: Arc<ModelSpec>,
    pub whole: bool,
    pub submitted: MonoTime,
    pub rows: Vec<Option<RowValue>>,
    /// How each row goes; empty where all go the same way.
    pub routes: Vec<Route>,
    /// How its first rows were decided and came to be.
    pub trail: Trail,
    /// Its way through shared bases, if it has one.
    pub way: Option<Arc<Way>>,
    /// The inputs as the lowest base takes them, once a batch of it was put together.
    pub projected: Option<Arc<Inputs>>,
    /// Whether it waits for its first row to run.
    pub stand: Stand,
    /// When its last outputs came, and what gathering and running them took.
    pub landed: Option<Phases>,
    /// Where the reply goes; none while the request is being submitted.
    pub reply: Option<oneshot::Sender<Reply>>,
}

impl Entry {
    /// One of its rows was handed to a session, or it has had its end.
    fn start(&mut self) {
        if std::mem::replace(&mut self.stand, Stand::Started) == Stand::Waits {
            self.spec.counts.waits_no_more();
        }
    }
}

/// One batch that a session has in hand.
pub(super) struct InHand {
    pub counts: Arc<ModelMetrics>,
    session: SessionId,
    sources: Sources,
    /// What gathering it took; written once it was handed over, which its end may overtake.
    pub gather_ns: AtomicU64,
}

impl InHand {
    pub(super) fn gather(&self) -> Duration {
        Duration::from_nanos(self.gather_ns.load(Ordering::Relaxed))
    }
}

/// A row that is kept.
#[derive(Clone)]
struct Kept {
    value: RowValue,
    made: Option<Made>,
}

/// What the scheduler's numbers stand for.
#[derive(Default)]
pub(super) struct Ledger {
    requests: HashMap<RequestId, Entry>,
    answers: Vec<Option<Kept>>,
    bases: Vec<Option<Kept>>,
    /// Base outputs that flights are going to take.
    parts: HashMap<FlightId, Part>,
    /// How batches of bases and heads are put together.
    legs: HashMap<StageId, Arc<Leg>>,
    in_hand: HashMap<BatchId, Arc<InHand>>,
    pub lanes: HashMap<SessionId, Arc<dyn Lane>>,
}

/// A batch that ended with an event.
pub(super) struct Ended {
    pub batch: BatchId,
    /// Its outputs and how long the run took; none where it failed.
    pub outputs: Option<(Arc<Block>, Duration)>,
}

/// A batch with the lane that runs it, where it is counted, and what its rows are made of.
struct Planned {
    lane: Arc<dyn Lane>,
    plan: Arc<BatchPlan>,
    counts: Arc<ModelMetrics>,
    stage: Arc<StageName>,
    below: Vec<Option<Arc<Made>>>,
}

impl Ledger {
    pub(super) fn insert(&mut self, id: RequestId, entry: Entry) {
        self.requests.insert(id, entry);
    }

    /// Where the reply of a request that was just submitted will come.
    pub(super) fn wait_for(&mut self, id: RequestId) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        if let Some(entry) = self.requests.get_mut(&id) {
            entry.reply = Some(sender);
            if entry.stand == Stand::New {
                entry.stand = Stand::Waits;
                entry.spec.counts.waits();
            }
        }
        receiver
    }

    /// How many requests, batches and base outputs on loan are on file.
    pub(super) fn on_file(&self) -> [usize; 3] {
        [self.requests.len(), self.in_hand.len(), self.parts.len()]
    }

    /// Says how batches of a base or a head are put together.
    pub(super) fn add_leg(&mut self, stage: StageId, leg: Leg) {
        self.legs.insert(stage, Arc::new(leg));
    }

    /// Says how the outputs of a base lie in memory from the next batch on.
    pub(super) fn set_storage(&mut self, stage: StageId, storage: Storage) {
        if let Some(leg) = self.legs.get_mut(&stage) {
            Arc::make_mut(leg).storage = storage;
        }
    }

    /// Strikes a batch that ended.
    pub(super) fn strike(&mut self, batch: BatchId) -> Option<Arc<InHand>> {
        self.in_hand.remove(&batch)
    }

    /// Forgets a session that is gone, and what it had in hand.
    pub(super) fn session_gone(&mut self, session: SessionId) {
        self.lanes.remove(&session);
        self.in_hand.retain(|_, batch| batch.session != session);
    }

    /// Does what an action says to what is kept here; what concerns others goes into `out`.
    pub(super) fn apply(
        &mut self,
        action: Action,
        ended: Option<&Ended>,
        now: MonoTime,
        out: &mut Outgoing,
    ) {
        match action {
            Action::Run { session, stage, batch, rows, bases, reason } => {
                if let Some(planned) = self.planned((session, stage), &rows, &bases) {
                    out.runs.push(self.begin((session, batch), planned, rows, reason));
                }
            }
            Action::Hit { row, slot } => {
                if let Some(Kept { value, made }) = self.kept(slot) {
                    self.deliver(row, value, made.as_ref(), |_| None);
                }
            }
            Action::Settle { batch, rows } => {
                let ended = ended.filter(|ended| ended.batch == batch);
                if let Some(outputs) = ended.and_then(|ended| ended.outputs.as_ref()) {
                    self.settle(batch, rows, outputs, now);
                }
            }
            Action::Reuse { flight, slot } => {
                if let Some(kept) = self.kept(slot) {
                    self.parts.insert(flight, Part::new(&kept.value, kept.made));
                }
            }
            Action::Spend { flight } => {
                self.parts.remove(&flight);
            }
            Action::Routes { request, routes } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.routes = routes;
                }
            }
            Action::Explain { request, rows } => {
                if let Some(entry) = self.requests.get_mut(&request) {
                    entry.trail.whys = rows;
                }
            }
            Action::Evict { slot } => self.keep(slot, None),
            Action::Reply { request, outcome } => self.reply(request, outcome, out),
            Action::Release { request } => {
                if let Some(mut entry) = self.requests.remove(&request) {
                    entry.start();
                }
            }
            Action::Isolate { stage } => out.orders.push(Order::Isolate { stage }),
            Action::Retire { session } => {
                self.lanes.remove(&session);
                out.orders.push(Order::Retire { session });
            }
            Action::Rest { stage } => out.orders.push(Order::Rest { stage }),
            Action::Raise { stage, needed } => {
                out.orders.push(Order::Raise { stage, needed });
            }
            Action::Forget { stage } => {
                self.legs.remove(&stage);
                out.orders.push(Order::Forget { stage });
            }
            Action::Terminate { session, batch } => {
                if let Some(lane) = self.lanes.get(&session) {
                    lane.terminate(batch);
                }
                out.orders.push(Order::Hung { session });
            }
            Action::Kill { session } => {
                if let Some(lane) = self.lanes.get(&session) {
                    lane.kill();
                }
            }
        }
    }

    fn planned(
        &mut self,
        (session, stage): (SessionId, StageId),
        rows: &[RowRef],
        bases: &[FlightId],
    ) -> Option<Planned> {
        match self.legs.get(&stage).cloned() {
            Some(leg) => self.plan_leg((session, stage), &leg, rows, bases),
            None => self.plan(session, rows),
        }
    }

    /// Notes a batch that is about to be handed over.
    fn begin(
        &mut self,
        (session, batch): (SessionId, BatchId),
        planned: Planned,
        rows: Vec<RowRef>,
        reason: RunReason,
    ) -> Run {
        let Planned { lane, plan, counts, stage, below } = planned;
        rows.iter().for_each(|row| self.started(row.request));
        let sources = Sources { stage, rows, below };
        let in_hand = InHand { counts, session, sources, gather_ns: AtomicU64::new(0) };
        let in_hand = Arc::new(in_hand);
        self.in_hand.insert(batch, in_hand.clone());
        Run { lane, batch, plan, reason, in_hand }
    }

    fn plan(&self, session: SessionId, rows: &[RowRef]) -> Option<Planned> {
        // A session whose death is not yet told has no lane any more: its batch comes back with that.
        let lane = self.lanes.get(&session)?.clone();
        let first = self.requests.get(&rows.first()?.request)?;
        let spec = &first.spec;
        let output_axes =
            if first.whole { spec.whole_axes.clone() } else { spec.output_axes.clone() };
        let storage = Storage::Exact;
        let mut plan = BatchPlan { runs: Vec::new(), output_axes, whole: first.whole, storage };
        for row in rows {
            // The scheduler releases a request's inputs only when no flight uses them.
            let entry = self.requests.get(&row.request)?;
            plan.push(entry.inputs.clone(), row.row as usize);
        }
        let (counts, stage) = (spec.counts.clone(), spec.called.clone());
        Some(Planned { lane, plan: Arc::new(plan), counts, stage, below: Vec::new() })
    }

    /// A batch of a base or a head.
    fn plan_leg(
        &mut self,
        (session, stage): (SessionId, StageId),
        leg: &Leg,
        rows: &[RowRef],
        bases: &[FlightId],
    ) -> Option<Planned> {
        let lane = self.lanes.get(&session)?.clone();
        let output_axes = leg.output_axes.clone();
        let storage = leg.storage;
        let mut plan = BatchPlan { runs: Vec::new(), output_axes, whole: false, storage };
        for (place, row) in rows.iter().enumerate() {
            let part = bases.get(place).and_then(|flight| self.parts.get(flight));
            let entry = self.requests.get_mut(&row.request)?;
            let Entry { inputs, projected, way, .. } = entry;
            let bases = way.iter().flat_map(|way| &way.bases);
            let reads = bases.into_iter().find(|base| base.stage == stage).map(|base| &*base.reads);
            let row = (&*inputs, row.row as usize);
            let (inputs, number) = leg.row(row, reads, part, projected)?;
            plan.push(inputs, number);
        }
        let first = self.requests.get(&rows.first()?.request)?;
        let counts = leg.counts.as_ref().unwrap_or(&first.spec.counts);
        let (counts, stage) = (counts.clone(), leg.called.clone());
        let below = bases.iter().map(|flight| self.parts.get(flight)?.made.clone()).collect();
        Some(Planned { lane, plan: Arc::new(plan), counts, stage, below })
    }

    fn started(&mut self, id: RequestId) {
        if let Some(entry) = self.requests.get_mut(&id) {
            entry.start();
        }
    }

    fn settle(
        &mut self,
        batch: BatchId,
        rows: Vec<SettledRow>,
        (block, run): &(Arc<Block>, Duration),
        now: MonoTime,
    ) {
        let in_hand = self.in_hand.get(&batch).cloned();
        let gather = in_hand.as_ref().map(|batch| batch.gather()).unwrap_or_default();
        let phases = |submitted| Phases::new(submitted, gather, *run, now);
        let made = |row| in_hand.as_ref()?.sources.made(batch, row, now);
        let mut below = None;
        for (index, row) in rows.into_iter().enumerate() {
            let (value, made) = (RowValue { block: block.clone(), index }, made(index));
            for waiter in row.waiters {
                self.deliver(waiter, value.clone(), made.as_ref(), |at| Some(phases(at)));
            }
            if !row.above.is_empty() {
                let below = below.get_or_insert_with(|| as_inputs(block)).clone();
                let part = Part { below, row: index, made: made.clone().map(Arc::new) };
                self.parts.extend(row.above.into_iter().map(|flight| (flight, part.clone())));
            }
            if let Some(slot) = row.keep {
                self.keep(slot, Some(Kept { value: value.detached(), made }));
            }
        }
    }

    fn deliver(
        &mut self,
        row: RowRef,
        value: RowValue,
        made: Option<&Made>,
        phases: impl Fn(MonoTime) -> Option<Phases>,
    ) {
        if let Some(entry) = self.requests.get_mut(&row.request) {
            entry.landed = phases(entry.submitted).or(entry.landed);
            if let Some(room) = entry.rows.get_mut(row.row as usize) {
                *room = Some(value);
            }
            if let Some(room) = entry.trail.made.get_mut(row.row as usize) {
                *room = made.cloned();
            }
        }
    }

    fn store(&mut self, store: Store) -> &mut Vec<Option<Kept>> {
        match store {
            Store::Answers => &mut self.answers,
            Store::Bases => &mut self.bases,
        }
    }

    fn kept(&mut self, slot: Slot) -> Option<Kept> {
        self.store(slot.store).get(slot.number as usize).cloned().flatten()
    }

    fn keep(&mut self, slot: Slot, row: Option<Kept>) {
        let place = slot.number as usize;
        let kept = self.store(slot.store);
        if kept.len() <= place {
            kept.resize(place + 1, None);
        }
        kept[place] = row;
    }

    fn reply(&mut self, id: RequestId, outcome: Outcome, out: &mut Outgoing) {
        let Some(entry) = self.requests.get_mut(&id) else { return };
        entry.start();
        let (submitted, phases) = (entry.submitted, entry.landed);
        let rows = std::mem::take(&mut entry.rows);
        let routes = std::mem::take(&mut entry.routes);
        let trail = std::mem::take(&mut entry.trail);
        // What was never accepted lends nothing and gets no release.
        let sender = entry.reply.take();
        if matches!(outcome, Outcome::Refused { .. } | Outcome::Quarantined) {
            self.requests.remove(&id);
        }
        let rows = rows.into_iter().flatten().collect();
        let reply = Reply { request: id, outcome, rows, routes, trail, submitted, phases };
        match sender {
            Some(sender) => out.replies.push((sender, reply)),
            None => out.direct = Some(reply),
        }
    }
}
