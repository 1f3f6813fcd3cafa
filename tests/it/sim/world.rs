//! The world around the scheduler: callers, sessions, processes and their faults, and a clock of its own.
//!
//! Everything that will happen stands in one agenda in order of time. Nothing here judges: a nonsensical
//! action is ignored, and the checker says so.

use super::plan::{Mode, Plan, StagePlan, Truth};
use super::rng::Rng;
use graftd::id::{BatchId, RequestId, RowKey, SessionId, StageId};
use graftd::sched::config::Tuned;
use graftd::sched::event::{Action, Event, Failure, Purpose, RowRef};
use graftd::time::MonoTime;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What the scheduler is told next.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Event(Event),
    Timeout,
}

/// Something that will happen, unless the world changes before.
#[derive(Clone, Debug)]
enum Happening {
    Tell(Event),
    Arrive {
        left: usize,
    },
    /// A session comes up in this process.
    Start {
        stage: StageId,
        purpose: Purpose,
        process: u32,
        slots: u32,
    },
    RunEnds {
        session: SessionId,
        batch: BatchId,
        service: Duration,
        good: bool,
    },
    Dies {
        process: u32,
    },
    FaultsEnd,
    /// Others take the place of a stage's sessions.
    Replace {
        stage: StageId,
        rows_max: usize,
    },
}

/// Processes of sessions that took the place of others.
const REPLACED: u32 = 500;

#[derive(Debug)]
struct Live {
    stage: StageId,
    purpose: Purpose,
    slots: u32,
    process: u32,
    in_hand: VecDeque<BatchId>,
}

/// How often each thing happened, to show that the seeds reach everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tallies {
    pub(super) submits: u64,
    pub(super) deaths: u64,
    pub(super) failures: u64,
    pub(super) hangs: u64,
    pub(super) isolations: u64,
    pub(super) replaced: u64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) tallies: Tallies,
    rng: Rng,
    now: MonoTime,
    agenda: BTreeMap<(MonoTime, u64), Happening>,
    sequence: u64,
    sessions: BTreeMap<SessionId, Live>,
    batches: BTreeMap<BatchId, Vec<RowKey>>,
    rows: BTreeMap<RequestId, Vec<RowKey>>,
    sessions_started: u32,
    processes_apart: u32,
    requests: u64,
    faulty: bool,
    /// The wake-up that was asked for, and when it will come.
    alarm: Option<(MonoTime, MonoTime)>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut world = Self {
            rng: Rng::new(plan.seed ^ 0x77_6F72_6C64),
            plan,
            tallies: Tallies::default(),
            now: MonoTime::ZERO,
            agenda: BTreeMap::new(),
            sequence: 0,
            sessions: BTreeMap::new(),
            batches: BTreeMap::new(),
            rows: BTreeMap::new(),
            sessions_started: 0,
            processes_apart: 1_000,
            requests: 0,
            faulty: true,
            alarm: None,
        };
        for stage in world.plan.stages.clone() {
            world.raise(&stage, Duration::ZERO);
        }
        let left = world.plan.jobs;
        world.after(Duration::ZERO, Happening::Arrive { left });
        let span = world.plan.gap_us * left as u64;
        if world.plan.mode == Mode::Liveness {
            world.after(Duration::from_micros(span / 2), Happening::FaultsEnd);
        }
        for _ in 0..world.plan.faults.deaths {
            let stage = world.rng.count(0, world.plan.stages.len() - 1);
            let (process, _) = world.plan.stages[stage].sessions[0];
            let wait = world.rng.micros(0, span);
            world.after(wait, Happening::Dies { process });
        }
        if let Some(stage) = world.plan.late_stage.clone() {
            world.raise(&stage, Duration::from_micros(span / 3));
        }
        if let Some(stage) = world.plan.retires {
            let event = Event::StageRetired { stage };
            world.after(Duration::from_micros(span / 2), Happening::Tell(event));
        }
        if let Some((stage, rows_max)) = world.plan.replaces {
            let wait = Duration::from_micros(span / 3 * 2);
            world.after(wait, Happening::Replace { stage, rows_max });
        }
        world
    }

    /// The next thing that the scheduler is told, and when; none once nothing will happen any more.
    pub(super) fn next(&mut self, wakeup: Option<MonoTime>) -> Option<(MonoTime, Input)> {
        if self.alarm.map(|(asked, _)| asked) != wakeup {
            let late = match self.rng.percent(self.plan.late_timers) {
                true => self.rng.micros(1, 3_000),
                false => Duration::ZERO,
            };
            self.alarm = wakeup.map(|asked| (asked, asked.max(self.now).after(late)));
        }
        loop {
            let first = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            if let Some((_, at)) = self.alarm
                && first.is_none_or(|first| at <= first)
            {
                self.now = self.now.max(at);
                self.alarm = None;
                return Some((self.now, Input::Timeout));
            }
            let ((at, _), happening) = self.agenda.pop_first()?;
            self.now = self.now.max(at);
            if let Some(event) = self.happen(happening) {
                return Some((self.now, Input::Event(event)));
            }
        }
    }

    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Run { session, batch, rows, .. } => self.run(*session, *batch, rows),
            Action::Isolate { stage } => self.isolate(*stage),
            Action::Retire { session } => {
                self.sessions.remove(session);
                let wait = self.rng.micros(0, 500);
                self.after(wait, Happening::Tell(Event::SessionDown { session: *session }));
            }
            Action::Terminate { session, batch } => self.terminate(*session, *batch),
            Action::Kill { session } => {
                if let Some(live) = self.sessions.get(session) {
                    let dies = Happening::Dies { process: live.process };
                    let wait = self.rng.micros(0, 3_000);
                    self.after(wait, dies);
                }
            }
            Action::Hit { .. }
            | Action::Settle { .. }
            | Action::Evict { .. }
            | Action::Reply { .. }
            | Action::Release { .. }
            | Action::Reuse { .. }
            | Action::Spend { .. }
            | Action::Routes { .. }
            | Action::Explain { .. }
            | Action::Rest { .. }
            | Action::Raise { .. }
            | Action::Forget { .. } => {}
        }
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now.after(wait), self.sequence), happening);
    }

    fn raise(&mut self, stage: &StagePlan, wait: Duration) {
        let event = Event::StageUp { stage: stage.id, config: stage.config.clone() };
        self.after(wait, Happening::Tell(event));
        for &(process, slots) in &stage.sessions {
            let wait = wait + self.rng.micros(0, 2_000);
            let (stage, purpose) = (stage.id, Purpose::Serving);
            self.after(wait, Happening::Start { stage, purpose, process, slots });
        }
    }

    fn happen(&mut self, happening: Happening) -> Option<Event> {
        match happening {
            Happening::Tell(event) => Some(event),
            Happening::Arrive { left } => Some(self.arrive(left)),
            Happening::Start { stage, purpose, process, slots } => {
                let session = SessionId(self.sessions_started);
                self.sessions_started += 1;
                let live = Live { stage, purpose, slots, process, in_hand: VecDeque::new() };
                self.sessions.insert(session, live);
                Some(Event::SessionUp { session, stage, purpose, slots })
            }
            Happening::RunEnds { session, batch, service, good } => {
                self.run_ends(session, batch, service, good)
            }
            Happening::Dies { process } => {
                self.dies(process);
                None
            }
            Happening::FaultsEnd => {
                self.faulty = false;
                None
            }
            Happening::Replace { stage, rows_max } => Some(self.replace(stage, rows_max)),
        }
    }

    /// New sessions come, each in place of one that serves now and then leaves.
    fn replace(&mut self, stage: StageId, rows_max: usize) -> Event {
        let serves = |live: &&Live| live.stage == stage && live.purpose == Purpose::Serving;
        let now = self.sessions.iter().filter(|(_, live)| serves(live));
        let now: Vec<_> =
            now.map(|(&id, live)| (id, live.process + REPLACED, live.slots)).collect();
        for (session, process, slots) in now {
            let wait = self.rng.micros(0, 2_000);
            let purpose = Purpose::Serving;
            self.after(wait, Happening::Start { stage, purpose, process, slots });
            let wait = wait + self.rng.micros(0, 300);
            self.after(wait, Happening::Tell(Event::SessionLeaves { session }));
            self.tallies.replaced += 1;
        }
        let tuned = Tuned { batch_rows_max: rows_max, batch_rows_knee: 1, known: Vec::new() };
        Event::StageTuned { stage, tuned }
    }

    fn arrive(&mut self, left: usize) -> Event {
        let id = RequestId(self.requests);
        self.requests += 1;
        self.tallies.submits += 1;
        let job = self.plan.job(&mut self.rng, id, self.now, self.faulty);
        self.rows.insert(id, job.rows.clone());
        if self.plan.cancels(&mut self.rng) {
            let wait = self.rng.micros(0, 6_000);
            self.after(wait, Happening::Tell(Event::Cancel(id)));
            if self.rng.percent(10) {
                let wait = self.rng.micros(0, 50_000);
                self.after(wait, Happening::Tell(Event::Cancel(id)));
            }
        }
        if left > 0 {
            // Bursts: half of all jobs come together with the one before.
            let gap = self.plan.gap_us;
            let wait = if self.rng.percent(50) { 0 } else { self.rng.range(0, 4 * gap) };
            self.after(Duration::from_micros(wait), Happening::Arrive { left: left - 1 });
            // The last ones come after the drain and must be refused.
            if left == 3 {
                self.after(Duration::from_micros(wait), Happening::Tell(Event::Drain));
            }
        }
        Event::Submit(job)
    }

    fn run(&mut self, session: SessionId, batch: BatchId, rows: &[RowRef]) {
        let keys = rows
            .iter()
            .filter_map(|row| self.rows.get(&row.request)?.get(row.row as usize).copied())
            .collect();
        self.batches.insert(batch, keys);
        // A session that died and is not missed yet takes whatever it is given.
        let Some(live) = self.sessions.get_mut(&session) else { return };
        live.in_hand.push_back(batch);
        if live.in_hand.len() == 1 {
            self.start(session);
        }
    }

    /// The first batch in a session's hands begins to run.
    fn start(&mut self, session: SessionId) {
        let Some(live) = self.sessions.get(&session) else { return };
        let Some(&batch) = live.in_hand.front() else { return };
        let process = live.process;
        let keys = &self.batches[&batch];
        let has = |truth| keys.iter().any(|key| Truth::of(key) == truth);
        let (poison, hang, bad) =
            (has(Truth::Poison), has(Truth::Hang) || has(Truth::DeafHang), has(Truth::Bad));
        let stage = self.plan.stage(live.stage).expect("a planned stage");
        let mean = stage.run_us + stage.row_us * keys.len() as u64;
        let service = self.rng.micros(mean / 2, mean + mean / 2);
        if poison {
            self.tallies.deaths += 1;
            self.after(service / 2, Happening::Dies { process });
        } else if hang {
            self.tallies.hangs += 1;
        } else {
            self.tallies.failures += u64::from(bad);
            self.after(service, Happening::RunEnds { session, batch, service, good: !bad });
        }
    }

    fn run_ends(
        &mut self,
        session: SessionId,
        batch: BatchId,
        service: Duration,
        good: bool,
    ) -> Option<Event> {
        let live = self.sessions.get_mut(&session)?;
        if live.in_hand.front() != Some(&batch) {
            return None;
        }
        live.in_hand.pop_front();
        let stage = live.stage;
        self.start(session);
        if !good {
            let failure = Failure { message: "bad row".into() };
            return Some(Event::Failed { session, batch, failure });
        }
        let row_bytes = self.plan.stage(stage)?.output_bytes;
        Some(Event::Done { session, batch, service, row_bytes })
    }

    /// A process ends, and all its sessions with it; the scheduler learns of each in its own time.
    fn dies(&mut self, process: u32) {
        let dead: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, live)| live.process == process)
            .map(|(&session, _)| session)
            .collect();
        for session in dead {
            let Some(live) = self.sessions.remove(&session) else { continue };
            let wait = self.rng.micros(0, 100);
            self.after(wait, Happening::Tell(Event::SessionDown { session }));
            if let Some(&batch) = live.in_hand.front()
                && self.rng.percent(10)
            {
                // A message that was under way; it may come before or after the news of the death.
                let (service, wait) = (Duration::from_millis(1), self.rng.micros(101, 300));
                let stale = Event::Done { session, batch, service, row_bytes: 8 };
                self.after(wait, Happening::Tell(stale));
            }
            if live.purpose == Purpose::Serving && !self.rng.percent(self.plan.faults.lost_for_good)
            {
                let (stage, slots) = (live.stage, live.slots);
                let wait = self.rng.micros(500, 20_000);
                let purpose = Purpose::Serving;
                self.after(wait, Happening::Start { stage, purpose, process, slots });
            }
        }
    }

    fn isolate(&mut self, stage: StageId) {
        self.tallies.isolations += 1;
        let wait = self.rng.micros(500, 30_000);
        if self.faulty && self.rng.percent(self.plan.faults.isolation_fails) {
            let failure = Failure { message: "no process".into() };
            return self.after(wait, Happening::Tell(Event::IsolationFailed { stage, failure }));
        }
        let process = self.processes_apart;
        self.processes_apart += 1;
        let slots = 1;
        let purpose = Purpose::Isolation;
        self.after(wait, Happening::Start { stage, purpose, process, slots });
    }

    fn terminate(&mut self, session: SessionId, batch: BatchId) {
        let Some(live) = self.sessions.get(&session) else { return };
        let deaf = self.batches[&batch].iter().any(|key| Truth::of(key) == Truth::DeafHang);
        if live.in_hand.front() == Some(&batch) && !deaf {
            // Some obey only after the grace is over.
            let wait = self.rng.micros(0, 25_000);
            let service = Duration::ZERO;
            self.after(wait, Happening::RunEnds { session, batch, service, good: false });
        }
    }
}
