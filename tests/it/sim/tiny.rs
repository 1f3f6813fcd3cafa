//! Every order of events in a world so small that all of them can be tried.
//!
//! Four jobs on one session: each may be submitted, cancelled, done, failed or lost with its session at any
//! point, and the session apart that a loss calls for may come, not come, fail and die as well.

use super::Subject;
use super::checker::Checker;
use super::world::Input;
use graftd::id::{BatchId, ClassKey, RequestId, RowKey, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Action, Event, Failure, Job, Priority, Purpose, Sharing};
use graftd::time::MonoTime;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const STAGE: StageId = StageId(0);

/// Moves after which a story is brought to a good end.
const MOVES: usize = 8;

/// Choices made one after the other, and the next combination of them, until all were made.
#[derive(Default)]
struct Choices {
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn among(&mut self, options: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, options));
        }
        self.at += 1;
        self.path[self.at - 1].0
    }

    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, options)) = self.path.pop() {
            if chosen + 1 < options {
                self.path.push((chosen + 1, options));
                return true;
            }
        }
        false
    }
}

struct Tiny {
    scheduler: Scheduler,
    checker: Checker,
    now: MonoTime,
    /// What is submitted next, the first job last.
    jobs: Vec<(Vec<u8>, Sharing)>,
    submitted: u64,
    cancellable: Vec<RequestId>,
    serving: Option<SessionId>,
    apart: Option<SessionId>,
    apart_starts: bool,
    sessions: u32,
    in_hand: BTreeMap<SessionId, VecDeque<BatchId>>,
    told: Vec<(Input, Vec<Action>)>,
}

impl Tiny {
    fn new(stage: StageConfig, jobs: &[(&[u8], Sharing)]) -> Self {
        let config = Config { cache_bytes: 4_096, ..Config::default() };
        let mut tiny = Self {
            scheduler: Scheduler::new(config.clone()),
            checker: Checker::blind(config),
            now: MonoTime::ZERO,
            jobs: jobs.iter().rev().map(|&(rows, sharing)| (rows.to_vec(), sharing)).collect(),
            submitted: 0,
            cancellable: Vec::new(),
            serving: None,
            apart: None,
            apart_starts: false,
            sessions: 0,
            in_hand: BTreeMap::new(),
            told: Vec::new(),
        };
        tiny.tell(Input::Event(Event::StageUp { stage: STAGE, config: stage }));
        tiny.session_up(Purpose::Serving);
        tiny
    }

    fn tell(&mut self, input: Input) {
        self.now = self.now.after(Duration::from_millis(1));
        Subject::handle(&mut self.scheduler, self.now, &input);
        let actions: Vec<Action> = std::iter::from_fn(|| self.scheduler.poll()).collect();
        let verdict = self.checker.step(self.now, &input, &actions);
        let verdict = verdict.and_then(|()| self.scheduler.verify());
        let verdict = verdict.and_then(|()| self.checker.agrees(self.scheduler.load()));
        for action in &actions {
            match action {
                Action::Run { session, batch, .. } => {
                    self.in_hand.entry(*session).or_default().push_back(*batch);
                }
                Action::Isolate { .. } => self.apart_starts = true,
                Action::Retire { .. } => self.apart = None,
                Action::Reply { request, .. } => self.cancellable.retain(|held| held != request),
                _ => {}
            }
        }
        self.told.push((input, actions));
        if let Err(why) = verdict {
            panic!("{why}\n{:#?}", self.told);
        }
    }

    fn session_up(&mut self, purpose: Purpose) {
        let session = SessionId(self.sessions);
        self.sessions += 1;
        match purpose {
            Purpose::Serving => self.serving = Some(session),
            Purpose::Isolation => {
                self.apart = Some(session);
                self.apart_starts = false;
            }
        }
        self.tell(Input::Event(Event::SessionUp { session, stage: STAGE, purpose, slots: 1 }));
    }

    fn submit(&mut self) {
        let Some((rows, sharing)) = self.jobs.pop() else { return };
        let request = RequestId(self.submitted);
        self.submitted += 1;
        self.cancellable.push(request);
        self.tell(Input::Event(Event::Submit(Job {
            request,
            stage: STAGE,
            class: ClassKey([0; 16]),
            rows: rows.into_iter().map(|row| RowKey([row; 32])).collect(),
            row_bytes: 8,
            deadline: None,
            target: None,
            priority: Priority::DEFAULT,
            sharing,
            path: None,
        })));
    }

    fn done(&mut self, session: SessionId) {
        let Some(batch) = self.in_hand.get_mut(&session).and_then(VecDeque::pop_front) else {
            return;
        };
        let service = Duration::from_millis(1);
        self.tell(Input::Event(Event::Done { session, batch, service, row_bytes: 8 }));
    }

    fn failed(&mut self, session: SessionId) {
        let Some(batch) = self.in_hand.get_mut(&session).and_then(VecDeque::pop_front) else {
            return;
        };
        let failure = Failure { message: "no".into() };
        self.tell(Input::Event(Event::Failed { session, batch, failure }));
    }

    fn down(&mut self, session: SessionId) {
        self.in_hand.remove(&session);
        self.serving = self.serving.filter(|&serving| serving != session);
        self.apart = self.apart.filter(|&apart| apart != session);
        self.tell(Input::Event(Event::SessionDown { session }));
    }

    /// One of all that could happen now; says whether anything could.
    fn any_move(&mut self, choices: &mut Choices) -> bool {
        type Move = Box<dyn Fn(&mut Tiny)>;
        let mut moves: Vec<Move> = Vec::new();
        if !self.jobs.is_empty() {
            moves.push(Box::new(Self::submit));
        }
        for index in 0..self.cancellable.len() {
            moves.push(Box::new(move |tiny| {
                let request = tiny.cancellable.remove(index);
                tiny.tell(Input::Event(Event::Cancel(request)));
            }));
        }
        for session in [self.serving, self.apart].into_iter().flatten() {
            if self.in_hand.get(&session).is_some_and(|held| !held.is_empty()) {
                moves.push(Box::new(move |tiny| tiny.done(session)));
                moves.push(Box::new(move |tiny| tiny.failed(session)));
                moves.push(Box::new(move |tiny| tiny.down(session)));
            }
        }
        if self.serving.is_none() {
            moves.push(Box::new(|tiny| tiny.session_up(Purpose::Serving)));
        }
        if self.apart_starts {
            moves.push(Box::new(|tiny| tiny.session_up(Purpose::Isolation)));
            moves.push(Box::new(|tiny| {
                tiny.apart_starts = false;
                let failure = Failure { message: "no process".into() };
                let event = Event::IsolationFailed { stage: STAGE, failure };
                tiny.tell(Input::Event(event));
            }));
        }
        if moves.is_empty() {
            return false;
        }
        let chosen = choices.among(moves.len());
        moves.swap_remove(chosen)(self);
        true
    }

    /// From here on all goes well.
    fn end_well(mut self) {
        if self.serving.is_none() {
            self.session_up(Purpose::Serving);
        }
        while !self.scheduler.is_idle() {
            if self.apart_starts {
                self.session_up(Purpose::Isolation);
            }
            let before = self.told.len();
            for session in [self.serving, self.apart].into_iter().flatten() {
                self.done(session);
            }
            assert!(self.told.len() > before, "nothing moves\n{:#?}", self.told);
        }
        if self.apart_starts {
            self.session_up(Purpose::Isolation);
        }
        while let Some(at) = self.scheduler.next_wakeup() {
            self.now = self.now.max(at);
            self.tell(Input::Timeout);
        }
        if let Err(why) = self.checker.healed() {
            panic!("{why}\n{:#?}", self.told);
        }
    }
}

/// Tries every story of these jobs and returns how many there are.
fn all_stories(stage: &StageConfig, jobs: &[(&[u8], Sharing)]) -> u64 {
    let mut choices = Choices::default();
    let mut stories = 0;
    loop {
        let mut tiny = Tiny::new(stage.clone(), jobs);
        let mut moves = 0;
        while moves < MOVES && tiny.any_move(&mut choices) {
            moves += 1;
        }
        tiny.end_well();
        stories += 1;
        if !choices.next() {
            return stories;
        }
    }
}

#[test]
fn every_order_of_four_jobs_on_one_session_ends_well() {
    let batches_of = |max, knee| StageConfig {
        batch_rows_max: max,
        batch_rows_knee: knee,
        ..StageConfig::default()
    };
    let (all, none) = (Sharing::ALL, Sharing::NONE);
    // One after the other, one ahead.
    let single = all_stories(&batches_of(1, 1), &[(&[1], all), (&[2], all), (&[1], all)]);
    // Batches, joins within and between jobs, and a job that shares nothing.
    let mixed: [(&[u8], Sharing); 4] =
        [(&[1, 2], all), (&[2, 1, 1], all), (&[1], none), (&[3], all)];
    let batched = all_stories(&batches_of(4, 4), &mixed);
    println!("{single} and {batched} stories");
    assert!(single > 1_000 && batched > 1_000);
}
