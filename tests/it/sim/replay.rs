//! Old failures that the simulator found, each as the shortest story that shows it.

use graftd::id::{BatchId, ClassKey, DeviceId, RequestId, RowKey, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::cache::OVERHEAD_BYTES;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{
    Action, Event, Failure, Job, Outcome, Priority, Purpose, Refusal, RowRef, RunReason, Sharing,
};
use graftd::time::MonoTime;
use std::time::Duration;

const STAGE: StageId = StageId(0);
const MS: Duration = Duration::from_millis(1);

/// A scheduler and what it was last asked for.
struct Story {
    scheduler: Scheduler,
    now: MonoTime,
    requests: u64,
}

impl Story {
    fn new(config: Config, stage: StageConfig) -> Self {
        let scheduler = Scheduler::new(config);
        let mut story = Self { scheduler, now: MonoTime::ZERO, requests: 0 };
        story.tell(Event::StageUp { stage: STAGE, config: stage });
        story
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.scheduler.handle(self.now, event);
        self.scheduler.verify().unwrap();
        std::iter::from_fn(|| self.scheduler.poll()).collect()
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now.after(time);
        self.scheduler.handle_timeout(self.now);
        self.scheduler.verify().unwrap();
        std::iter::from_fn(|| self.scheduler.poll()).collect()
    }

    fn session(&mut self, id: u32, purpose: Purpose) -> Vec<Action> {
        let session = SessionId(id);
        self.tell(Event::SessionUp { session, stage: STAGE, purpose, slots: 1 })
    }

    /// A job of rows with these contents; requests are numbered from 0.
    fn job(&mut self, rows: &[u8]) -> Job {
        let request = RequestId(self.requests);
        self.requests += 1;
        Job {
            request,
            stage: STAGE,
            class: ClassKey([0; 16]),
            rows: rows.iter().map(|&row| RowKey([row; 32])).collect(),
            row_bytes: 8,
            deadline: None,
            target: None,
            priority: Priority::DEFAULT,
            sharing: Sharing::ALL,
            path: None,
        }
    }

    fn submit(&mut self, rows: &[u8]) -> Vec<Action> {
        let job = self.job(rows);
        self.tell(Event::Submit(job))
    }

    /// Rows 1 and 2 of two callers, in one batch.
    fn tell_two_jobs(&mut self) {
        self.submit(&[1]);
        self.submit(&[2]);
        self.session(0, Purpose::Serving);
    }

    fn done(&mut self, session: u32, batch: u64, row_bytes: u64) -> Vec<Action> {
        let (session, batch) = (SessionId(session), BatchId(batch));
        self.tell(Event::Done { session, batch, service: MS, row_bytes })
    }

    fn failed(&mut self, session: u32, batch: u64) -> Vec<Action> {
        let (session, batch) = (SessionId(session), BatchId(batch));
        let failure = Failure { message: "no".into() };
        self.tell(Event::Failed { session, batch, failure })
    }

    fn down(&mut self, session: u32) -> Vec<Action> {
        self.tell(Event::SessionDown { session: SessionId(session) })
    }
}

fn batches_of(max: usize, knee: usize) -> StageConfig {
    StageConfig { batch_rows_max: max, batch_rows_knee: knee, ..StageConfig::default() }
}

/// The rows of every batch, with its reason.
fn runs(actions: &[Action]) -> Vec<(RunReason, Vec<RowRef>)> {
    let run = |action: &Action| match action {
        Action::Run { rows, reason, .. } => Some((*reason, rows.clone())),
        _ => None,
    };
    actions.iter().filter_map(run).collect()
}

fn row(request: u64, row: u32) -> RowRef {
    RowRef { request: RequestId(request), row }
}

fn refusal(actions: &[Action]) -> Option<Refusal> {
    match actions {
        [Action::Reply { outcome: Outcome::Refused { refusal, .. }, .. }] => Some(*refusal),
        _ => None,
    }
}

#[test]
fn joining_does_not_keep_rows_of_a_stage_that_keeps_none() {
    let mut story =
        Story::new(Config::default(), StageConfig { store: false, ..StageConfig::default() });
    story.session(0, Purpose::Serving);
    story.submit(&[1]);
    story.submit(&[1]);
    let actions = story.done(0, 0, 8);
    let Action::Settle { rows, .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(rows[0].waiters.len(), 2);
    assert_eq!(rows[0].keep, None);
}

#[test]
fn a_stage_whose_queue_is_full_takes_joins_and_hits_alone() {
    let config = StageConfig { queue_rows_max: Some(2), ..StageConfig::default() };
    let mut story = Story::new(Config::default(), config);
    assert_eq!(refusal(&story.submit(&[1, 2, 3])), None, "as a whole, as the queue is empty");
    assert_eq!(refusal(&story.submit(&[4])), Some(Refusal::Queue { held: 3, limit: 2 }));
    assert_eq!(refusal(&story.submit(&[1, 3])), None, "joins wait for no place");
}

#[test]
fn equal_rows_of_one_job_count_once_as_rows_and_each_as_a_waiter() {
    let limits = Config { rows_max: 1, flight_waiters_max: 3, ..Config::default() };
    let mut story = Story::new(limits, StageConfig::default());
    assert_eq!(refusal(&story.submit(&[1, 1])), None, "one row to run");
    assert_eq!(refusal(&story.submit(&[1, 1])), Some(Refusal::Waiters { limit: 3 }));
    assert_eq!(refusal(&story.submit(&[1])), None);
    assert_eq!(refusal(&story.submit(&[1, 2])), Some(Refusal::Waiters { limit: 3 }));
    assert_eq!(refusal(&story.submit(&[2])), Some(Refusal::Rows { held: 1, limit: 1 }));
    let limits = Config { flight_waiters_max: 3, ..Config::default() };
    let mut story = Story::new(limits, StageConfig::default());
    assert_eq!(refusal(&story.submit(&[1, 1, 1, 1])), Some(Refusal::Waiters { limit: 3 }));
}

#[test]
fn a_row_whose_deadline_passed_is_not_run_when_the_timer_call_is_late() {
    let mut story = Story::new(Config::default(), StageConfig::default());
    let job = Job { deadline: Some(story.now.after(MS)), ..story.job(&[1]) };
    story.tell(Event::Submit(job));
    story.now = story.now.after(2 * MS);
    let actions = story.session(0, Purpose::Serving);
    assert!(runs(&actions).is_empty(), "{actions:?}");
    let reply = Action::Reply { request: RequestId(0), outcome: Outcome::Expired };
    assert!(actions.contains(&reply), "{actions:?}");
}

#[test]
fn a_row_kept_and_pushed_out_by_the_same_batch_is_not_kept() {
    let limits = Config { cache_bytes: 8 * OVERHEAD_BYTES + 64, ..Config::default() };
    let mut story = Story::new(limits, batches_of(16, 16));
    story.session(0, Purpose::Serving);
    story.submit(&(1..=16).collect::<Vec<u8>>());
    let actions = story.done(0, 0, 8);
    let [Action::Settle { rows, .. }, ..] = &actions[..] else {
        panic!("nothing was kept before that could be evicted: {actions:?}")
    };
    let mut slots: Vec<_> = rows.iter().filter_map(|row| row.keep).collect();
    let kept = slots.len();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!((slots.len(), kept), (8, 8), "{rows:?}");
    assert_eq!(story.scheduler.load().kept_rows, 8);
}

#[test]
fn a_session_apart_that_comes_too_late_is_retired() {
    let mut story = Story::new(Config::default(), StageConfig::default());
    story.session(0, Purpose::Serving);
    story.submit(&[1]);
    assert_eq!(story.down(0), [Action::Isolate { stage: STAGE }]);
    story.tell(Event::Cancel(RequestId(0)));
    assert_eq!(story.session(1, Purpose::Isolation), []);
    let idle = Config::default().isolation_idle;
    assert_eq!(story.wait(idle), [Action::Retire { session: SessionId(1) }]);
    assert_eq!(story.scheduler.next_wakeup(), None);
}

#[test]
fn no_session_apart_is_asked_for_once_nobody_waits_for_the_suspects() {
    let mut story = Story::new(Config::default(), batches_of(2, 2));
    story.tell_two_jobs();
    assert_eq!(story.down(0), [Action::Isolate { stage: STAGE }]);
    // The first half runs apart and dies; the other half's caller is gone by then.
    assert_eq!(runs(&story.session(1, Purpose::Isolation)).len(), 1);
    story.tell(Event::Cancel(RequestId(1)));
    let actions = story.down(1);
    assert!(!actions.contains(&Action::Isolate { stage: STAGE }), "{actions:?}");
}

#[test]
fn rows_to_be_run_again_are_not_starved_by_batches_formed_ahead() {
    let mut story = Story::new(Config::default(), batches_of(2, 1));
    story.session(0, Purpose::Serving);
    story.submit(&[1, 2]);
    story.submit(&[3]);
    story.submit(&[4, 5]);
    // The batch of 1 and 2 fails while 3 is in hand: nothing more is formed ahead of the halves.
    assert_eq!(runs(&story.failed(0, 0)), []);
    let again = (RunReason::Suspect, vec![row(0, 0)]);
    assert_eq!(runs(&story.done(0, 1, 8)), [again]);
}

#[test]
fn rows_to_be_run_again_are_not_starved_by_another_stage() {
    let other = StageId(1);
    let mut story = Story::new(Config::default(), batches_of(2, 1));
    assert_eq!(Config::default().devices, [(DeviceId(0), 1)]);
    story.tell(Event::StageUp { stage: other, config: batches_of(1, 1) });
    story.session(0, Purpose::Serving);
    let (session, purpose) = (SessionId(1), Purpose::Serving);
    story.tell(Event::SessionUp { session, stage: other, purpose, slots: 1 });
    story.submit(&[1, 2]);
    story.submit(&[3]);
    assert_eq!(runs(&story.failed(0, 0)), []);
    for content in 4..7 {
        let job = Job { stage: other, ..story.job(&[content]) };
        story.tell(Event::Submit(job));
    }
    // The stage's only session dies, and the other stage takes the slot before it is replaced.
    assert_eq!(runs(&story.down(0)).len(), 2);
    assert_eq!(runs(&story.session(2, Purpose::Serving)), []);
    assert_eq!(runs(&story.done(1, 2, 8)), [], "nothing ahead of those who lack a slot");
    assert_eq!(runs(&story.done(1, 3, 8)), [(RunReason::Suspect, vec![row(0, 0)])]);
}

#[test]
fn rows_given_back_keep_their_order_where_priority_moves_nothing() {
    let limits = Config { priority_step: Duration::ZERO, ..Config::default() };
    let mut story = Story::new(limits, batches_of(1, 1));
    story.session(0, Purpose::Serving);
    story.submit(&[1, 2, 3]);
    // 1 runs, 2 is in hand, 3 waits; all came at the same time.
    story.down(0);
    let actions = story.session(1, Purpose::Serving);
    let expected = [(RunReason::Full, vec![row(0, 1)]), (RunReason::Ahead, vec![row(0, 2)])];
    assert_eq!(runs(&actions), expected);
}

#[test]
fn a_session_that_is_to_be_killed_gets_nothing_more_even_if_its_run_ends() {
    let config = Config::default();
    let mut story = Story::new(config.clone(), batches_of(1, 1));
    story.session(0, Purpose::Serving);
    story.submit(&[1]);
    let mut killed = story.wait(config.watchdog_floor);
    killed.extend(story.wait(config.watchdog_grace));
    let (session, batch) = (SessionId(0), BatchId(0));
    assert_eq!(killed, [Action::Terminate { session, batch }, Action::Kill { session }]);
    story.submit(&[2]);
    assert_eq!(runs(&story.failed(0, 0)), [], "the process is about to end");
    assert_eq!(runs(&story.session(1, Purpose::Serving)).len(), 1);
}
