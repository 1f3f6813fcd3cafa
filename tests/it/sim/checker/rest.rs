//! What must be true once all actions of an event are done, and once nothing will happen any more.

use super::{Apart, Checker, Place, Session, Stage, Verdict, ensure};
use crate::sim::world::Input;
use graftd::id::{ClassKey, StageId};
use graftd::sched::Load;
use graftd::sched::config::StageConfig;
use graftd::sched::cost::Learned;
use graftd::sched::event::{Event, Purpose};
use graftd::time::{MonoTime, nanos};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is queued of one class.
struct ClassWaits {
    rows: usize,
    youngest: MonoTime,
    /// When the oldest came, and its priority.
    oldest: (MonoTime, u8),
    /// The most urgent priority of any.
    level: u8,
}

impl ClassWaits {
    /// When a session must take some; which row counts as the first is only sure where the oldest is the
    /// most urgent, too.
    fn ripe_at(&self, config: &StageConfig) -> MonoTime {
        let goal = config.batch_rows_preferred.last().unwrap_or(&config.batch_rows_max);
        let (oldest, level) = self.oldest;
        match () {
            () if self.rows >= *goal => MonoTime::ZERO,
            () if level == self.level => oldest.after(config.queue_delay),
            () => self.youngest.after(config.queue_delay),
        }
    }
}

/// What waits in one stage.
#[derive(Default)]
struct Waits {
    flights: usize,
    queued: BTreeMap<ClassKey, ClassWaits>,
    suspects: usize,
    suspects_apart: usize,
}

impl Checker {
    pub(super) fn rest(&mut self) -> Verdict {
        self.nothing_owed()?;
        self.bounds()?;
        let stays = |s: &&Session| s.leaves && s.in_hand.is_empty() && !s.retiring && !s.killed;
        let stays = self.sessions.values().find(stays);
        ensure!(stays.is_none(), "{stays:?} has nothing in hand and does not leave");
        let mut look_by = self.watched()?;
        let mut waits: BTreeMap<StageId, Waits> = BTreeMap::new();
        for flight in self.flights.values() {
            let waits = waits.entry(flight.stage).or_default();
            waits.flights += 1;
            match flight.place {
                Place::Queued => {
                    let (rows, level) = (0, flight.level);
                    let (youngest, oldest) = (flight.arrival, (flight.arrival, level));
                    let first = ClassWaits { rows, youngest, oldest, level };
                    let class = waits.queued.entry(flight.class).or_insert(first);
                    class.rows += 1;
                    class.youngest = class.youngest.max(flight.arrival);
                    class.oldest = class.oldest.min(oldest);
                    class.level = class.level.min(level);
                }
                Place::Suspect { apart: true } => waits.suspects_apart += 1,
                Place::Suspect { apart: false } => waits.suspects += 1,
                Place::Batch(_) => {}
            }
        }
        for (id, stage) in &self.stages {
            let none = Waits::default();
            let waits = waits.get(id).unwrap_or(&none);
            let ripens = self.work_conserved(*id, stage, waits);
            look_by = look_by.min(ripens.map_err(|why| format!("stage {id}: {why}"))?);
            self.stage_kept_up(*id, stage, waits).map_err(|why| format!("stage {id}: {why}"))?;
        }
        self.look_by = look_by;
        for id in std::mem::take(&mut self.retired_now) {
            let session = &self.sessions[&id];
            let waits = waits.get(&session.stage);
            let gone = self.stages.get(&session.stage).is_none_or(|stage| stage.retired)
                && waits.is_none_or(|waits| waits.flights == 0);
            let unneeded = session.purpose == Purpose::Isolation
                && waits.is_none_or(|waits| waits.suspects_apart == 0);
            ensure!(
                gone || unneeded || session.leaves,
                "session {id} is retired, but its stage lives"
            );
        }
        for id in std::mem::take(&mut self.isolated_now) {
            let needed = waits.get(&id).is_some_and(|waits| waits.suspects_apart > 0);
            ensure!(needed, "stage {id} is isolated for nothing");
        }
        Ok(())
    }

    fn nothing_owed(&mut self) -> Verdict {
        ensure!(self.owed.is_empty(), "replies are owed: {:?}", self.owed);
        ensure!(self.hits_due.is_empty(), "hits are owed: {:?}", self.hits_due);
        ensure!(self.settle_due.is_none(), "a settlement is owed: {:?}", self.settle_due);
        for id in std::mem::take(&mut self.releases_due) {
            let request = &self.requests[&id];
            let over = request.accepted && request.ended && request.lending == 0;
            ensure!(over || !request.released, "request {id} is released too early");
            ensure!(!over || request.released, "request {id} is not released");
        }
        for id in &self.waiting {
            let deadline = self.requests[id].job.deadline;
            ensure!(deadline.is_none_or(|at| at > self.now), "request {id} should have expired");
        }
        Ok(())
    }

    fn bounds(&self) -> Verdict {
        let Self { config, .. } = self;
        ensure!(self.waiting.len() <= config.requests_max, "too many requests");
        ensure!(self.flights.len() <= config.rows_max, "too many rows");
        ensure!(self.held_bytes() <= config.bytes_max, "too many bytes");
        let most = self.flights.values().map(|flight| flight.waiters.len()).max();
        ensure!(most <= Some(config.flight_waiters_max), "{most:?} waiters of one flight");
        let kept: u64 = self.slots.values().map(|(_, bytes)| bytes).sum();
        ensure!(kept <= config.cache_bytes, "{kept} bytes are kept");
        Ok(())
    }

    /// A run that takes too long is asked to end in time, and then made to. Says when the next is due.
    fn watched(&self) -> Result<MonoTime, String> {
        let mut look_by = MonoTime::from_nanos(u64::MAX);
        for (id, session) in &self.sessions {
            let Some(batch) = session.in_hand.front() else { continue };
            let rows = self.batches[batch].flights.len() as u32;
            let learned = self.stages.get(&session.stage).map(|stage| stage.service_max);
            let patience = learned.unwrap_or_default() * 10 * rows;
            let at = session.since.after(patience.max(self.config.watchdog_floor));
            let Some(asked) = session.terminated else {
                ensure!(at > self.now, "session {id} runs on and on");
                look_by = look_by.min(at);
                continue;
            };
            let at = asked.after(self.config.watchdog_grace);
            ensure!(at > self.now || session.killed, "session {id} was to be killed");
            look_by = if session.killed { look_by } else { look_by.min(at) };
        }
        Ok(look_by)
    }

    /// Whether a session's device has the slots that it needs; a wide one runs alone.
    pub(super) fn fits(&self, session: &Session) -> bool {
        let device =
            |session: &Session| self.stages.get(&session.stage).map(|stage| stage.config.device);
        let own = device(session);
        let total = self.config.devices.iter().find(|(id, _)| Some(*id) == own);
        let Some(&(_, total)) = total else { return true };
        let busy = self.sessions.values().filter(|other| !other.in_hand.is_empty());
        let used: u32 = busy.filter(|s| device(s) == own).map(|session| session.slots).sum();
        used == 0 || used + session.slots <= total
    }

    /// Nothing waits for a session that could take it. Says when this must be looked at again.
    fn work_conserved(
        &self,
        id: StageId,
        stage: &Stage,
        waits: &Waits,
    ) -> Result<MonoTime, String> {
        let mut ripens = MonoTime::from_nanos(u64::MAX);
        if let Apart::Up(apart) = stage.apart
            && waits.suspects_apart > 0
        {
            let session = &self.sessions[&apart];
            let idle = session.in_hand.is_empty() && !session.killed;
            ensure!(!idle, "suspects wait, the session apart is idle");
        }
        if waits.suspects == 0 && waits.queued.is_empty() {
            return Ok(ripens);
        }
        let idle = self.sessions.values().any(|session| {
            session.stage == id
                && session.purpose == Purpose::Serving
                && !(session.retiring || session.killed || session.leaves)
                && session.in_hand.is_empty()
                && self.fits(session)
        });
        if !idle {
            return Ok(ripens);
        }
        ensure!(waits.suspects == 0, "rows wait to be run again, a session is idle");
        for class in waits.queued.values() {
            let ripe_at = class.ripe_at(&stage.config);
            ensure!(ripe_at > self.now, "{} rows wait, a session is idle", class.rows);
            ripens = ripens.min(ripe_at);
        }
        Ok(ripens)
    }

    fn stage_kept_up(&self, id: StageId, stage: &Stage, waits: &Waits) -> Verdict {
        ensure!(
            waits.suspects_apart == 0 || stage.apart != Apart::None,
            "suspects wait and no session apart is asked for"
        );
        let over = stage.retired && waits.flights == 0;
        ensure!(stage.forgotten == over, "forgotten: {}, over: {over}", stage.forgotten);
        if over {
            let left =
                self.sessions.iter().find(|(_, s)| s.stage == id && !s.retiring && !s.killed);
            ensure!(left.is_none(), "{left:?} outlives it");
        }
        Ok(())
    }

    /// A wake-up must be asked for before anything is overdue, and hardly any while nothing goes on.
    pub(in crate::sim) fn wakes(&self, wakeup: Option<MonoTime>) -> Verdict {
        let deadlines = self.waiting.iter().filter_map(|id| self.requests[id].job.deadline);
        let first = deadlines.fold(self.look_by, MonoTime::min);
        let wakes = wakeup.unwrap_or(MonoTime::from_nanos(u64::MAX));
        ensure!(wakes <= first, "nobody wakes for {first:?}");
        if self.flights.is_empty() {
            let delays = self.stages.values().map(|stage| stage.config.queue_delay);
            let last = self.now.after(delays.fold(self.config.isolation_idle, Duration::max));
            ensure!(wakeup.is_none_or(|at| at <= last), "a wake-up at {wakeup:?} for nothing");
        }
        Ok(())
    }

    /// No run is held to take longer than the longest one did, however long its batch waited.
    pub(in crate::sim) fn costs(
        &self,
        input: &Input,
        learned: impl Fn(StageId) -> Vec<Learned>,
    ) -> Verdict {
        let Input::Event(Event::Done { .. }) = input else { return Ok(()) };
        for (&id, stage) in &self.stages {
            let most = nanos(stage.service_max);
            let fits = |size: &Learned| size.mean_ns.max(size.likely_ns).max(size.high_ns) <= most;
            let odd = learned(id).into_iter().find(|size| !fits(size));
            ensure!(odd.is_none(), "runs took {most} ns at most, and {odd:?} was learned of them");
        }
        Ok(())
    }

    /// What the scheduler says of itself must be what the model says.
    pub(in crate::sim) fn agrees(&self, load: Load) -> Verdict {
        let queued = self.flights.values().filter(|flight| flight.place == Place::Queued);
        let busy = self.sessions.values().filter(|session| !session.in_hand.is_empty());
        let model = Load {
            requests: self.waiting.len(),
            queued_rows: queued.count(),
            flights: self.flights.len(),
            held_bytes: self.held_bytes(),
            batches: self.batches.len(),
            slots_used: busy.map(|session| session.slots).sum(),
            kept_rows: self.slots.len(),
            kept_bytes: self.slots.values().map(|(_, bytes)| bytes).sum(),
            ..Load::default()
        };
        ensure!(load == model, "the load is {model:?}, not {load:?}");
        Ok(())
    }

    /// After the last event of a world that healed, nothing is left.
    pub(in crate::sim) fn healed(&self) -> Verdict {
        ensure!(self.waiting.is_empty(), "{:?} wait for ever", self.waiting);
        ensure!(self.flights.is_empty(), "{:?} never end", self.flights);
        for (id, session) in &self.sessions {
            ensure!(session.in_hand.is_empty(), "session {id} never ends its run");
            let apart = session.purpose == Purpose::Isolation && !session.retiring;
            ensure!(!apart, "session {id}, apart, is never retired");
        }
        for (id, request) in &self.requests {
            ensure!(request.ended, "request {id} has no end");
            ensure!(request.released || !request.accepted, "request {id} is never released");
        }
        Ok(())
    }

    /// The longest that a world may go on after its last fault.
    pub(in crate::sim) const PATIENCE: Duration = Duration::from_secs(3_600);
}
