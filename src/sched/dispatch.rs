//! What runs next: from queues and suspects to batches in sessions' hands.

use super::batch::{self, Offer, Verdict};
use super::event::{Action, Outcome, Purpose, RunReason};
use super::flight::{FlightId, State};
use super::laxity::{self, Crowd};
use super::queue::Rank;
use super::retry::Isolation;
use super::timer::Timer;
use super::{Batch, Scheduler};
use crate::id::{BatchId, ClassKey, RequestId, SessionId, StageId};
use crate::time::MonoTime;
use smallvec::{SmallVec, smallvec};
use std::time::Duration;

/// Runs shorter than this are handed to a busy session ahead, whoever waits for them: the hand-over would be a share of
/// them that shows.
const HAND_OVER_HIDDEN: Duration = Duration::from_micros(250);

/// A run is hung once it has taken so many times what nearly all runs take.
const WATCHDOG_FACTOR: u32 = 10;

/// A request that waits for a row, or for what is made of it.
#[derive(Clone, Copy, Debug)]
struct Want {
    request: RequestId,
    /// When its answer is needed.
    by: MonoTime,
    /// What the stages above will take once the row is there.
    then: Duration,
}

impl Scheduler {
    /// Starts whatever can be started. Called after every event, so an idle session and a ripe queue
    /// never outlive one.
    pub(super) fn dispatch(&mut self) {
        let stages: Vec<StageId> = self.waiting_stages();
        for &stage in &stages {
            self.run_suspects(stage);
        }
        for &stage in &stages {
            while self.start_one(stage) {}
        }
        // Only once every stage has had its turn at the free slots may a busy one have more ahead.
        if stages.len() == 1 || !stages.iter().any(|&stage| self.lacks_a_slot(stage)) {
            for &stage in &stages {
                while self.form_ahead(stage) {}
            }
        }
        // Last, for some of the suspects may have been given up with other rows of their requests.
        for &stage in &stages {
            self.isolate(stage);
        }
    }

    /// The stages with rows or suspects that wait, the one with the most urgent row first.
    fn waiting_stages(&self) -> Vec<StageId> {
        let mut waiting: Vec<(Option<Rank>, StageId)> = self
            .stages
            .iter()
            .filter(|(_, stage)| stage.queue.rows() > 0 || !stage.suspects.groups.is_empty())
            .map(|(&id, stage)| (stage.queue.first(), id))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether a stage has an idle session that only waits for a slot of its device.
    fn lacks_a_slot(&self, stage: StageId) -> bool {
        self.stages
            .get(&stage)
            .is_some_and(|stage| stage.queue.rows() > 0 || stage.suspects.wants_serving())
            && self
                .sessions
                .idle(stage)
                .any(|(_, session)| !self.devices.fits(session.device, session.slots))
    }

    /// Gives one idle session of a stage a batch of its most urgent ripe class.
    fn start_one(&mut self, stage: StageId) -> bool {
        let mut free = self
            .sessions
            .idle(stage)
            .filter(|(_, session)| self.devices.fits(session.device, session.slots))
            .map(|(id, _)| id);
        let Some(session) = free.next() else { return false };
        let idle = 1 + free.count();
        self.form(stage, session, idle)
    }

    /// Gives one busy session of a stage its next batch, if waiting would not make it a better one.
    fn form_ahead(&mut self, stage: StageId) -> bool {
        // Rows to be run again wait for an idle session: with more ahead there would never be one.
        if self.stages.get(&stage).is_some_and(|stage| stage.suspects.wants_serving()) {
            return false;
        }
        let Some((session, _)) = self.sessions.room_ahead(stage).next() else { return false };
        self.form(stage, session, 0)
    }

    /// Gives a session a batch of the stage's most urgent ripe class, if there is one.
    fn form(&mut self, id: StageId, session: SessionId, idle: usize) -> bool {
        let (class, rows, reason) = loop {
            let Some((class, rows, reason)) = self.ripe(id, idle) else { return false };
            if idle == 0 && self.is_hurried(id, class) {
                // Who else is late by then, and how large a batch they bear, is known when the session is free.
                return false;
            }
            let waiting = self.class_rows(id, class);
            self.shed_late(id, class);
            let rows = self.give_up_some(id, class, rows.min(self.class_rows(id, class)));
            // With those that were given up went others of their requests: what is ripe now is another question.
            if self.class_rows(id, class) == waiting {
                break (class, rows, reason);
            }
        };
        let Some(stage) = self.stages.get_mut(&id) else { return false };
        let flights = stage.queue.take(class, rows);
        self.queued_rows -= flights.len();
        self.run(id, session, flights, reason);
        true
    }

    /// The most urgent class of a stage that is ripe, with the rows to take of it.
    fn ripe(&mut self, id: StageId, idle: usize) -> Option<(ClassKey, usize, RunReason)> {
        let stage = self.stages.get(&id)?;
        let mut look_again: Option<Duration> = None;
        for (_, class) in stage.queue.classes() {
            let head = stage.queue.head(class).and_then(|flight| self.flights.get(flight));
            let head_age = head.map_or(Duration::ZERO, |head| self.now.since(head.arrival));
            let (queued, useful) = (stage.queue.class_rows(class), stage.useful_rows(class));
            let offer = Offer { queued, head_age, useful, idle };
            match batch::choose(&stage.config, offer) {
                Verdict::Take(rows, reason) => return Some((class, rows, reason)),
                Verdict::Wait(wait) => look_again = Some(look_again.map_or(wait, |w| w.min(wait))),
                Verdict::Leave => {}
            }
        }
        if let Some(wait) = look_again {
            self.ripen(id, self.now.after(wait));
        }
        None
    }

    fn class_rows(&self, id: StageId, class: ClassKey) -> usize {
        self.stages.get(&id).map_or(0, |stage| stage.queue.class_rows(class))
    }

    /// Whether the first row of a class has to be there in time and runs take longer than a hand-over is worth.
    fn is_hurried(&self, id: StageId, class: ClassKey) -> bool {
        let Some(stage) = self.stages.get(&id) else { return false };
        let long = stage.costs.expected(1).is_some_and(|run| run >= HAND_OVER_HIDDEN);
        long && stage.queue.head(class).is_some_and(|flight| self.needed_by(flight).is_some())
    }

    /// When the first of those who wait for a row needs it.
    fn needed_by(&self, flight: FlightId) -> Option<MonoTime> {
        self.flights.get(flight)?.needed_by
    }

    /// Lets go of the first rows of a class that could not be there in time any more if they ran now.
    fn shed_late(&mut self, id: StageId, class: ClassKey) {
        // One that is alone holds back nobody, and shows what a run takes now.
        let crowded = self.stages.get(&id).filter(|stage| stage.flights > 1);
        let surely =
            crowded.and_then(|stage| Some(stage.surely(1)?.saturating_add(stage.margin.time())));
        let Some(soonest) = surely.map(|surely| self.now.after(surely)) else { return };
        let head = |sched: &Self| sched.stages.get(&id)?.queue.head(class);
        while let Some(flight) = head(self)
            && self.needed_by(flight).is_some_and(|by| by < soonest)
        {
            self.give_up(flight, soonest);
        }
    }

    /// Ends the requests that need a row before a time: they get their answer to that now.
    fn give_up(&mut self, flight: FlightId, before: MonoTime) {
        for want in self.wants(flight) {
            if want.by >= before.after(want.then) {
                continue;
            }
            let outcome = match self.requests.target(want.request) {
                None => Outcome::Expired,
                Some(_) => self.too_late(flight, want),
            };
            self.end_early(want.request, Some(outcome));
        }
        // Those who needed it sooner are gone, by this or before.
        let needed = self.wants(flight).iter().map(|want| want.by.before(want.then)).min();
        if let Some(flight) = self.flights.get_mut(flight) {
            flight.needed_by = needed;
        }
    }

    /// Who waits for a row or for what is made of it, as far as they need it in time.
    fn wants(&self, flight: FlightId) -> SmallVec<[Want; 4]> {
        let mut found = SmallVec::new();
        let mut open: SmallVec<[(FlightId, Duration); 4]> = smallvec![(flight, Duration::ZERO)];
        while let Some((id, then)) = open.pop() {
            let Some(flight) = self.flights.get(id) else { continue };
            found.extend(flight.waiters.iter().filter_map(|waiter| {
                let request = waiter.request;
                Some(Want { request, by: self.requests.needed_by(request)?, then })
            }));
            for &above in &flight.above {
                let stage = self.flights.get(above).map(|above| above.stage);
                open.push((
                    above,
                    then.saturating_add(stage.map_or(Duration::ZERO, |id| self.single(id))),
                ));
            }
        }
        found
    }

    /// The end of a request whose row cannot be there within the model's latency target.
    fn too_late(&self, flight: FlightId, want: Want) -> Outcome {
        let (left, stage) =
            (want.by.since(self.now), self.flights.get(flight).map(|flight| flight.stage));
        let eta = stage.and_then(|stage| self.eta(stage, 0)).unwrap_or_default();
        let expected = eta.saturating_add(want.then).max(left);
        let retry_after = expected.saturating_sub(left).max(Duration::from_millis(1));
        Outcome::Shed { expected, left, retry_after }
    }

    /// Cuts a batch down to what its first rows can bear, and lets go of those that hold back the queue.
    fn give_up_some(&mut self, id: StageId, class: ClassKey, wanted: usize) -> usize {
        let Some(stage) = self.stages.get(&id) else { return wanted };
        let left = |flight: FlightId| self.needed_by(flight).map(|by| by.since(self.now));
        let head = stage.queue.head(class);
        let head = head.and_then(|id| Some((self.flights.get(id)?, self.needed_by(id)?)));
        let Some((head, needed)) = head else { return wanted };
        let crowd = Crowd {
            wanted,
            queued: stage.queue.class_rows(class),
            sessions: self.sessions.serving(id).count(),
            horizon: needed.since(head.arrival),
            quantile: stage.config.quantile,
            margin: stage.margin.time(),
        };
        let cut = laxity::cut(&stage.costs, crowd, stage.queue.class(class).map(left));
        let skipped: Vec<FlightId> = stage.queue.class(class).take(cut.skip).collect();
        for flight in skipped {
            self.give_up(flight, MonoTime::from_nanos(u64::MAX));
        }
        cut.rows
    }

    /// Sets the timer that looks at a stage's queue delay again.
    fn ripen(&mut self, id: StageId, at: MonoTime) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        if stage.ripe_at.is_some_and(|earlier| earlier <= at) {
            return;
        }
        if let Some(later) = stage.ripe_at.replace(at) {
            self.timers.cancel(later, Timer::Ripe(id));
        }
        self.timers.set(at, Timer::Ripe(id));
    }

    /// Runs groups of suspects: after a death in a session apart, else in the next idle one.
    fn run_suspects(&mut self, id: StageId) {
        while let Some(session) = self.suspect_session(id) {
            let apart = self.sessions.0[&session].purpose == Purpose::Isolation;
            let suspects = self.stages.get_mut(&id).map(|stage| &mut stage.suspects);
            let Some(group) = suspects.and_then(|suspects| suspects.take(apart)) else { break };
            self.run(id, session, group.flights, RunReason::Suspect);
        }
    }

    /// Has a session apart started where suspects want one.
    fn isolate(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        if stage.suspects.wants_isolation() && stage.suspects.isolation == Isolation::None {
            stage.suspects.isolation = Isolation::Starting;
            self.actions.push_back(Action::Isolate { stage: id });
        }
    }

    /// A session that could run suspects of a stage now.
    fn suspect_session(&self, id: StageId) -> Option<SessionId> {
        let suspects = &self.stages.get(&id)?.suspects;
        if let Isolation::Up(session) = suspects.isolation
            && suspects.wants_isolation()
            && self.sessions.0.get(&session).is_some_and(|s| s.in_hand.is_empty() && s.takes_more())
        {
            return Some(session);
        }
        if !suspects.wants_serving() {
            return None;
        }
        let fits = |session: &super::Session| self.devices.fits(session.device, session.slots);
        self.sessions.idle(id).find(|(_, session)| fits(session)).map(|(id, _)| id)
    }

    fn run(&mut self, stage: StageId, id: SessionId, flights: Vec<FlightId>, reason: RunReason) {
        let batch = BatchId(self.batches_formed);
        self.batches_formed += 1;
        let Some(session) = self.sessions.0.get_mut(&id) else { return };
        let apart = session.purpose == Purpose::Isolation;
        let starts = session.in_hand.is_empty();
        session.in_hand.push_back(batch);
        if starts {
            self.devices.take(session.device, session.slots, self.now);
        }
        let mut rows = Vec::with_capacity(flights.len());
        let mut bases = Vec::new();
        for &id in &flights {
            if let Some(flight) = self.flights.get_mut(id) {
                flight.state = State::InBatch(batch);
                if !flight.takes_base {
                    self.devices.waited(self.now.since(flight.arrival));
                }
                rows.push(flight.source);
                bases.extend(flight.takes_base.then_some(id));
            }
        }
        let state = Batch {
            session: id,
            stage,
            flights,
            apart,
            terminated: false,
            watch: None,
            started: None,
        };
        self.batches.insert(batch, state);
        self.actions.push_back(Action::Run { session: id, stage, batch, rows, bases, reason });
        if starts {
            self.watch(batch);
        }
    }

    /// Sets the watchdog of a batch that starts to run now.
    pub(super) fn watch(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let learned = self.stages.get(&batch.stage).and_then(|s| s.costs.high(batch.flights.len()));
        let patience = learned.unwrap_or_default().saturating_mul(WATCHDOG_FACTOR);
        let at = self.now.after(patience.max(self.config.watchdog_floor));
        batch.watch = Some((at, Timer::Watchdog(id)));
        batch.started = Some(self.now);
        self.timers.set(at, Timer::Watchdog(id));
    }

    pub(super) fn watchdog(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let at = self.now.after(self.config.watchdog_grace);
        batch.terminated = true;
        batch.watch = Some((at, Timer::Grace(id)));
        self.timers.set(at, Timer::Grace(id));
        self.actions.push_back(Action::Terminate { session: batch.session, batch: id });
    }

    pub(super) fn grace_over(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.watch = None;
        let session = batch.session;
        // Its batch may yet come back, but whatever it were given next would die for nothing.
        if let Some(session) = self.sessions.0.get_mut(&session) {
            session.doomed = true;
        }
        self.actions.push_back(Action::Kill { session });
    }

    /// A session apart that nobody needs any more goes.
    pub(super) fn isolation_idle(&mut self, id: StageId) {
        let Some(stage) = self.stages.get_mut(&id) else { return };
        stage.suspects.idle_at = None;
        let Isolation::Up(session) = stage.suspects.isolation else { return };
        let idle = self.sessions.0.get(&session).is_some_and(|state| state.in_hand.is_empty());
        if idle && !stage.suspects.wants_isolation() {
            self.sessions.0.remove(&session);
            stage.suspects.isolation = Isolation::None;
            self.actions.push_back(Action::Retire { session });
        }
    }
}
