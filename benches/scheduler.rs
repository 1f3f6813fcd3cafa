//! What one event costs the scheduler with few and with many rows queued. No clock inside the loop.

use crate::support::Effort;
use crate::support::table::{Rounds, Table, Target, alternate, time};
use graftd::id::{BatchId, ClassKey, DeviceId, RequestId, RowKey, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Action, Event, Job, Priority, Purpose, Sharing};
use graftd::time::MonoTime;
use std::collections::VecDeque;
use std::time::Duration;

const STAGE: StageId = StageId(0);
const SESSION: SessionId = SessionId(0);
const DEPTHS: [usize; 3] = [1, 1_000, 100_000];
/// Events of one side of a round in quick mode.
const EVENTS: usize = 100_000;
const BUDGET_S: f64 = 2e-6;

/// A mix of events that leaves as many rows queued as it found.
type Mix = fn(&mut World) -> usize;

const MIXES: [(&str, Mix, usize); 4] = [
    ("submit and done, batches of 1", World::one_by_one, 1),
    ("submit and done, batches of 32", World::batch_by_batch, 32),
    ("submit and cancel", World::in_and_out, 1),
    ("submit with deadlines, join, done, cancel", World::everything, 1),
];

/// A scheduler with one busy session, and what has to be known to go on.
struct World {
    sched: Scheduler,
    now_ns: u64,
    next: u64,
    running: VecDeque<BatchId>,
    /// Requests that may still be queued, in the order they came; those before `first` have run.
    queued: Vec<bool>,
    first: usize,
    random: u64,
}

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    for (name, mix, batch) in MIXES {
        let mut worlds = DEPTHS.map(|depth| World::new(depth, batch));
        let [few, some, many] = &mut worlds;
        let events = EVENTS * effort.factor as usize;
        let results = alternate(
            effort.rounds + 2,
            &mut [
                &mut || few.per_event(mix, events),
                &mut || some.per_event(mix, events),
                &mut || many.per_event(mix, events),
            ],
        );
        for (depth, took) in DEPTHS.into_iter().zip(&results) {
            let what = format!("scheduler, an event at {depth} queued rows: {name}");
            let budget = Rounds(vec![BUDGET_S; took.0.len()]);
            let ratio = took.over(&budget);
            table.add(&what, &time(took.median()), "2 µs", &ratio, Target::AtMost(1.0));
        }
    }
}

fn key(number: u64) -> RowKey {
    let mut bytes = [0; 32];
    for (place, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let mut mixed = number.wrapping_add(place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    RowKey(bytes)
}

/// Time that this thread was on a core: what others did meanwhile does not count.
fn cpu_ns() -> u64 {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("times of this thread");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds")
}

impl World {
    fn new(depth: usize, batch: usize) -> Self {
        let config = Config {
            devices: vec![(DeviceId(0), 1)],
            requests_max: 1 << 20,
            rows_max: 1 << 20,
            ..Config::default()
        };
        let mut world = Self {
            sched: Scheduler::new(config),
            now_ns: 0,
            next: 0,
            running: VecDeque::new(),
            queued: Vec::new(),
            first: 0,
            random: 1,
        };
        let config =
            StageConfig { batch_rows_max: batch, batch_rows_knee: batch, ..StageConfig::default() };
        world.handle(Event::StageUp { stage: STAGE, config });
        let (purpose, slots) = (Purpose::Serving, 1);
        world.handle(Event::SessionUp { session: SESSION, stage: STAGE, purpose, slots });
        // A few single rows first, which the scheduler would else run to have something to compare with.
        for _ in 0..4 {
            world.submit(None, None);
            world.done();
        }
        // The session takes one row at once and one batch ahead.
        (0..depth + batch + 1).for_each(|_| world.submit(None, None));
        world
    }

    fn per_event(&mut self, mix: Mix, events: usize) -> f64 {
        let before = self.sched.load().queued_rows;
        let start_ns = cpu_ns();
        let mut count = 0;
        while count < events {
            count += mix(self);
        }
        let took = (cpu_ns() - start_ns) as f64 / 1e9;
        let after = self.sched.load().queued_rows;
        assert!(before.abs_diff(after) <= 64, "{before} rows were queued, {after} are");
        took / count as f64
    }

    fn handle(&mut self, event: Event) {
        self.now_ns += 1_000;
        self.sched.handle(MonoTime::from_nanos(self.now_ns), event);
        while let Some(action) = self.sched.poll() {
            if let Action::Run { batch, rows, .. } = action {
                self.running.push_back(batch);
                for row in rows {
                    self.queued[row.request.0 as usize] = false;
                }
            }
        }
    }

    fn submit(&mut self, like: Option<u64>, deadline: Option<Duration>) {
        let number = self.next;
        self.next += 1;
        self.queued.push(like.is_none());
        let now = MonoTime::from_nanos(self.now_ns);
        self.handle(Event::Submit(Job {
            request: RequestId(number),
            stage: STAGE,
            class: ClassKey([0; 16]),
            rows: vec![key(like.unwrap_or(number))],
            row_bytes: 64,
            deadline: deadline.map(|after| now.after(after)),
            target: None,
            priority: Priority::DEFAULT,
            sharing: Sharing { lookup: false, store: false, ..Sharing::ALL },
            path: None,
        }));
    }

    fn done(&mut self) {
        let Some(batch) = self.running.pop_front() else { return };
        let service = Duration::from_micros(1);
        self.handle(Event::Done { session: SESSION, batch, service, row_bytes: 64 });
    }

    /// A request that is queued, any of them.
    fn any_queued(&mut self) -> Option<u64> {
        while self.queued.get(self.first) == Some(&false) {
            self.first += 1;
        }
        for _ in 0..64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let span = (self.queued.len() - self.first).max(1) as u64;
            let number = self.first + ((self.random >> 33) % span) as usize;
            if self.queued.get(number) == Some(&true) {
                return Some(number as u64);
            }
        }
        (self.first < self.queued.len()).then_some(self.first as u64)
    }

    fn cancel(&mut self) -> usize {
        let Some(number) = self.any_queued() else { return 0 };
        self.queued[number as usize] = false;
        self.handle(Event::Cancel(RequestId(number)));
        1
    }

    fn one_by_one(&mut self) -> usize {
        self.submit(None, None);
        self.done();
        2
    }

    fn batch_by_batch(&mut self) -> usize {
        (0..32).for_each(|_| self.submit(None, None));
        self.done();
        33
    }

    fn in_and_out(&mut self) -> usize {
        self.submit(None, None);
        1 + self.cancel()
    }

    fn everything(&mut self) -> usize {
        let deadline = Some(Duration::from_secs(1 << 20));
        self.submit(None, deadline);
        self.submit(None, deadline);
        let last = self.next - 1;
        self.submit(Some(last), deadline);
        self.done();
        let waiter = self.next - 1;
        self.handle(Event::Cancel(RequestId(waiter)));
        5 + self.cancel()
    }
}
