//! The machine: two cores, a base, its heads and the whole models beside them, each with two sessions.

use super::trace::{Ask, BATCH_MAX, CORES, Draw, Point, Shape};
use graftd::id::{BatchId, ClassKey, DeviceId, RequestId, RowKey, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{
    Action, Event, Job, Leg, Outcome as End, Path, Priority, Purpose, Sharing, Store, Tally,
};
use graftd::sched::reuse::Policy;
use graftd::time::MonoTime;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const BASE: StageId = StageId(0);
const HEADS: u32 = 1;
const WHOLES: u32 = 100;

/// Bytes of a base output.
const ROW_BYTES: u64 = 4 << 10;

/// Requests that wait, at most: an overloaded machine refuses the others.
const WAITING_MAX: usize = 512;

/// What became of the requests of a trace, the first fifth not counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Mean time to the answer, in seconds.
    pub mean: f64,
    /// The time that one in a hundred takes longer than, in seconds.
    pub p99: f64,
    /// Answers a second.
    pub rate: f64,
    /// Of them, those within fifty times what a whole run takes.
    pub good: f64,
    /// The routes of the answered rows.
    pub routes: Tally,
}

struct Running {
    stage: StageId,
    rows: usize,
}

struct Device<'a> {
    point: &'a Point,
    shape: &'a Shape,
    policy: Policy,
    asks: &'a [Ask],
    scheduler: Scheduler,
    batches: BTreeMap<BatchId, Running>,
    in_hand: BTreeMap<SessionId, VecDeque<BatchId>>,
    /// Runs by the time they end.
    ends: BTreeMap<(u64, SessionId), Duration>,
    chance: Draw,
    latencies: Vec<u64>,
    /// Answers while requests came, after the first fifth of them.
    answers: usize,
    /// Of them, those in time.
    in_time: usize,
    routes: Tally,
    now_ns: u64,
}

/// Serves a trace under a policy.
pub(crate) fn run(point: &Point, shape: &Shape, asks: &[Ask], policy: Policy) -> Outcome {
    let mut device = Device::new(point, shape, asks, policy);
    for (number, ask) in asks.iter().enumerate() {
        device.runs_until(ask.at_ns);
        device.submit(number, ask);
    }
    let (answers, in_time) = (device.answers, device.in_time);
    device.runs_until(u64::MAX);
    Outcome { rate: device.rate(answers), good: device.rate(in_time), ..device.outcome() }
}

pub(super) fn key(stage: StageId, row: u64) -> RowKey {
    let mut draw = Draw(u64::from(stage.0) << 40 ^ row);
    let mut key = [0; 32];
    key.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&draw.next().to_le_bytes()));
    RowKey(key)
}

impl<'a> Device<'a> {
    fn new(point: &'a Point, shape: &'a Shape, asks: &'a [Ask], policy: Policy) -> Self {
        let devices = vec![(DeviceId(0), CORES)];
        let config = Config { devices, requests_max: WAITING_MAX, ..Config::default() };
        let mut device = Self {
            point,
            shape,
            policy,
            asks,
            scheduler: Scheduler::new(config),
            batches: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            ends: BTreeMap::new(),
            chance: Draw(asks.len() as u64),
            latencies: Vec::with_capacity(asks.len()),
            answers: 0,
            in_time: 0,
            routes: Tally::default(),
            now_ns: 0,
        };
        let heads = (0..point.heads).flat_map(|head| [HEADS + head, WHOLES + head]);
        for number in [BASE.0].into_iter().chain(heads) {
            device.raise(StageId(number));
        }
        device
    }

    fn raise(&mut self, stage: StageId) {
        let knee = (1..).find(|&rows| {
            let row = |rows: usize| self.shape.run(1.0, rows) / rows as f64;
            rows == BATCH_MAX || row(rows) * 0.95 <= row(BATCH_MAX)
        });
        let config = StageConfig {
            batch_rows_max: BATCH_MAX,
            batch_rows_knee: knee.unwrap_or(BATCH_MAX),
            kept_in: if stage == BASE { Store::Bases } else { Store::Answers },
            output_bytes: ROW_BYTES,
            ..StageConfig::default()
        };
        self.tell(Event::StageUp { stage, config });
        for _ in 0..CORES {
            let session = SessionId(self.in_hand.len() as u32);
            self.in_hand.insert(session, VecDeque::new());
            let (purpose, slots) = (Purpose::Serving, 1);
            self.tell(Event::SessionUp { session, stage, purpose, slots });
        }
    }

    fn tell(&mut self, event: Event) {
        self.scheduler.handle(MonoTime::from_nanos(self.now_ns), event);
        while let Some(action) = self.scheduler.poll() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Run { session, stage, batch, rows, .. } => {
                self.batches.insert(batch, Running { stage, rows: rows.len() });
                let in_hand = self.in_hand.get_mut(&session).expect("a session of this machine");
                in_hand.push_back(batch);
                if in_hand.len() == 1 {
                    self.start(session);
                }
            }
            Action::Reply { request, outcome: End::Complete(tally) } => {
                let latency = self.now_ns - self.asks[request.0 as usize].at_ns;
                if self.now_ns >= self.warm_ns() {
                    self.answers += 1;
                    self.in_time += usize::from(latency as f64 <= 50.0 * self.shape.whole_ns);
                }
                if request.0 as usize >= self.asks.len() / 5 {
                    self.latencies.push(latency);
                    self.routes.hit += tally.hit;
                    self.routes.join += tally.join;
                    self.routes.whole += tally.whole;
                    self.routes.reuse += tally.reuse;
                    self.routes.follow += tally.follow;
                    self.routes.recompute += tally.recompute;
                }
            }
            Action::Reply { outcome: End::Refused { .. }, .. } => {}
            Action::Reply { outcome, .. } => panic!("{outcome:?}"),
            _ => {}
        }
    }

    fn start(&mut self, session: SessionId) {
        let Some(batch) = self.in_hand[&session].front() else { return };
        let Running { stage, rows } = self.batches[batch];
        let mean = match stage.0 {
            0 if self.now_ns < self.shape.slowed_ns => {
                10.0 * self.shape.run(self.point.share, rows)
            }
            0 => self.shape.run(self.point.share, rows),
            WHOLES.. => self.shape.run(1.0, rows),
            _ => self.shape.head(self.point.share, rows),
        };
        // A tenth up or down, and now and then a run that is disturbed.
        let jitter = 0.9 + 0.2 * self.chance.unit();
        let jitter = if self.chance.unit() < 0.01 { 3.0 } else { jitter };
        let service = Duration::from_nanos((mean * jitter) as u64);
        let at = self.now_ns + service.as_nanos() as u64;
        self.ends.insert((at, session), service);
    }

    /// Lets runs end until a time.
    fn runs_until(&mut self, until_ns: u64) {
        while let Some((&(at, session), &service)) = self.ends.first_key_value() {
            if at > until_ns {
                break;
            }
            self.ends.pop_first();
            self.now_ns = at;
            let in_hand = self.in_hand.get_mut(&session).expect("a session of this machine");
            let batch = in_hand.pop_front().expect("it ran one");
            self.batches.remove(&batch);
            self.start(session);
            self.tell(Event::Done { session, batch, service, row_bytes: ROW_BYTES });
        }
        if until_ns < u64::MAX {
            self.now_ns = until_ns;
        }
    }

    fn submit(&mut self, number: usize, &Ask { head, row, .. }: &Ask) {
        let leg = Leg { stage: BASE, class: ClassKey([0; 16]), rows: vec![key(BASE, row)] };
        let head_stage = StageId(HEADS + head);
        let path = Path { bases: vec![leg], head: head_stage, policy: self.policy };
        self.tell(Event::Submit(Job {
            request: RequestId(number as u64),
            stage: StageId(WHOLES + head),
            class: ClassKey([head as u8; 16]),
            rows: vec![key(head_stage, row)],
            row_bytes: 1 << 10,
            deadline: None,
            target: None,
            priority: Priority::DEFAULT,
            sharing: Sharing::ALL,
            path: Some(path),
        }));
    }

    /// When figures begin to count.
    fn warm_ns(&self) -> u64 {
        self.asks[self.asks.len() / 5].at_ns
    }

    /// So many answers, a second.
    fn rate(&self, answers: usize) -> f64 {
        let last = self.asks.last().map_or(0, |ask| ask.at_ns);
        answers as f64 / ((last - self.warm_ns()).max(1) as f64 / 1e9)
    }

    fn outcome(&mut self) -> Outcome {
        assert!(self.scheduler.is_idle(), "it is idle once every run has ended");
        self.latencies.sort_unstable();
        let answers = self.latencies.len().max(1);
        Outcome {
            mean: self.latencies.iter().sum::<u64>() as f64 / answers as f64 / 1e9,
            p99: self.latencies.get(answers * 99 / 100).map_or(0.0, |&ns| ns as f64 / 1e9),
            routes: self.routes,
            ..Outcome::default()
        }
    }
}
