//! Goodput: the highest rate at which 99 in a hundred answers are there in time, on a machine of two cores.
//!
//! One model, all rows different, every request with the same time to its answer. Told of the deadlines the scheduler
//! cuts batches and gives up what would be late; not told it is as eager as any server that takes what waits.

use super::device::key;
use super::trace::Draw;
use graftd::id::{BatchId, ClassKey, DeviceId, RequestId, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Action, Event, Job, Outcome, Priority, Purpose, Sharing};
use graftd::time::MonoTime;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const STAGE: StageId = StageId(0);
const CORES: u32 = 2;

/// The share of answers in time that goodput asks for.
const IN_TIME: f64 = 0.99;

/// How much longer a run takes on average than it would undisturbed, by an exponential law.
const NOISE: f64 = 0.05;

/// A kind of model and of traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime {
    pub name: &'static str,
    /// What a row adds to a run, in milliseconds.
    pub row_ms: f64,
    /// What a run costs beside, in milliseconds.
    pub fixed_ms: f64,
    /// The time to an answer, in milliseconds.
    pub within_ms: f64,
    /// Rows of a batch, at most.
    pub batch_max: usize,
    /// The standard deviation of the time between requests, by its mean.
    pub cv: f64,
}

/// What became of the requests of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    /// Answered in time, as a share of all.
    pub in_time: f64,
    /// Answers in time, as a share of what full batches could give at most.
    pub on_time_rate: f64,
    /// Time of cores spent on answers that came late, as a share of all.
    pub wasted: f64,
}

impl Regime {
    fn run_ms(&self, rows: usize) -> f64 {
        self.fixed_ms + self.row_ms * rows as f64
    }

    /// Rows a second in full batches on all cores.
    fn capacity(&self) -> f64 {
        let best = (1..=self.batch_max).map(|rows| rows as f64 / self.run_ms(rows));
        best.fold(0.0, f64::max) * 1e3 * f64::from(CORES) / (1.0 + NOISE)
    }

    fn knee(&self) -> usize {
        let pays = |rows: &usize| {
            let rate = |rows: usize| rows as f64 / self.run_ms(rows);
            rate(*rows) >= 0.95 * rate(self.batch_max)
        };
        (1..=self.batch_max).find(pays).unwrap_or(self.batch_max)
    }

    /// The highest load at which enough answers are in time, as a share of capacity.
    pub(crate) fn goodput(&self, told: bool, requests: usize, seed: u64) -> f64 {
        let (mut bears, mut fails) = (0.0, 1.2);
        while fails - bears > 0.01 {
            let load = f64::midpoint(bears, fails);
            let served = self.serve(load, told, requests, seed);
            if served.in_time >= IN_TIME { bears = load } else { fails = load }
        }
        bears
    }

    /// Serves so many requests at a load, which is a share of capacity.
    pub(crate) fn serve(&self, load: f64, told: bool, requests: usize, seed: u64) -> Served {
        let mut machine = Machine::new(self, told, seed);
        let gap_ns = 1e9 / (load * self.capacity());
        let mut draw = Draw(seed);
        let mut at = 0.0;
        for number in 0..requests {
            at += gap_ns * gap(self.cv, &mut draw);
            machine.runs_until(at as u64);
            machine.submit(number as u64);
        }
        machine.runs_until(u64::MAX);
        assert!(machine.scheduler.is_idle(), "it is idle once every run has ended");
        let in_time = machine.in_time as f64;
        Served {
            in_time: in_time / requests as f64,
            on_time_rate: in_time / (at / 1e9) / self.capacity(),
            wasted: machine.wasted_ns / machine.busy_ns.max(1.0),
        }
    }
}

/// A time between requests by its mean: two exponential ones that take turns by chance, for a spread beyond Poisson's.
fn gap(cv: f64, draw: &mut Draw) -> f64 {
    let exponential = -(1.0 - draw.unit()).ln();
    let squared = cv * cv;
    let often = 0.5 * (1.0 + ((squared - 1.0) / (squared + 1.0)).max(0.0).sqrt());
    let share = if draw.unit() < often { often } else { 1.0 - often };
    exponential / (2.0 * share)
}

struct Run {
    rows: Vec<u64>,
    service: Duration,
}

struct Machine<'a> {
    regime: &'a Regime,
    /// The scheduler knows when answers are due.
    told: bool,
    scheduler: Scheduler,
    batches: BTreeMap<BatchId, Run>,
    in_hand: BTreeMap<SessionId, VecDeque<BatchId>>,
    ends: BTreeMap<(u64, SessionId), Duration>,
    arrivals: Vec<u64>,
    noise: Draw,
    now_ns: u64,
    in_time: usize,
    busy_ns: f64,
    wasted_ns: f64,
}

impl<'a> Machine<'a> {
    fn new(regime: &'a Regime, told: bool, seed: u64) -> Self {
        let devices = vec![(DeviceId(0), CORES)];
        let (requests_max, rows_max) = (1 << 20, 1 << 20);
        let config = Config { devices, requests_max, rows_max, ..Config::default() };
        let mut machine = Self {
            regime,
            told,
            scheduler: Scheduler::new(config),
            batches: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            ends: BTreeMap::new(),
            arrivals: Vec::new(),
            noise: Draw(!seed),
            now_ns: 0,
            in_time: 0,
            busy_ns: 0.0,
            wasted_ns: 0.0,
        };
        let config = StageConfig {
            batch_rows_max: regime.batch_max,
            batch_rows_knee: regime.knee(),
            ..StageConfig::default()
        };
        machine.tell(Event::StageUp { stage: STAGE, config });
        for number in 0..CORES {
            let session = SessionId(number);
            machine.in_hand.insert(session, VecDeque::new());
            let purpose = Purpose::Serving;
            machine.tell(Event::SessionUp { session, stage: STAGE, purpose, slots: 1 });
        }
        machine
    }

    fn submit(&mut self, number: u64) {
        self.arrivals.push(self.now_ns);
        let due = MonoTime::from_nanos(self.now_ns + self.within_ns());
        self.tell(Event::Submit(Job {
            request: RequestId(number),
            stage: STAGE,
            class: ClassKey([0; 16]),
            rows: vec![key(STAGE, number)],
            row_bytes: 1 << 10,
            deadline: None,
            target: self.told.then_some(due),
            priority: Priority::DEFAULT,
            sharing: Sharing::ALL,
            path: None,
        }));
    }

    fn within_ns(&self) -> u64 {
        (self.regime.within_ms * 1e6) as u64
    }

    fn tell(&mut self, event: Event) {
        self.scheduler.handle(MonoTime::from_nanos(self.now_ns), event);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.scheduler.poll() {
            match action {
                Action::Run { session, batch, rows, .. } => {
                    self.run(session, batch, rows.len(), rows.iter().map(|row| row.request.0));
                }
                Action::Reply { request, outcome: Outcome::Complete(_) } => {
                    self.in_time += usize::from(self.is_in_time(request.0));
                }
                _ => {}
            }
        }
    }

    fn is_in_time(&self, request: u64) -> bool {
        self.now_ns - self.arrivals[request as usize] <= self.within_ns()
    }

    fn run(
        &mut self,
        session: SessionId,
        batch: BatchId,
        count: usize,
        rows: impl Iterator<Item = u64>,
    ) {
        let more = 1.0 - NOISE * (1.0 - self.noise.unit()).ln();
        let service = Duration::from_nanos((self.regime.run_ms(count) * more * 1e6) as u64);
        self.batches.insert(batch, Run { rows: rows.collect(), service });
        let in_hand = self.in_hand.get_mut(&session).expect("a session of this machine");
        in_hand.push_back(batch);
        if in_hand.len() == 1 {
            self.start(session);
        }
    }

    fn start(&mut self, session: SessionId) {
        let Some(batch) = self.in_hand[&session].front() else { return };
        let service = self.batches[batch].service;
        self.ends.insert((self.now_ns + service.as_nanos() as u64, session), service);
    }

    /// Lets runs end and times pass until then.
    fn runs_until(&mut self, until_ns: u64) {
        loop {
            let end = self.ends.first_key_value().map(|(&(at, _), _)| at);
            let wake = self.scheduler.next_wakeup().map(MonoTime::as_nanos);
            let Some(at) = end.into_iter().chain(wake).min().filter(|&at| at <= until_ns) else {
                break;
            };
            self.now_ns = self.now_ns.max(at);
            if end == Some(at) {
                self.end_one();
            } else {
                self.scheduler.handle_timeout(MonoTime::from_nanos(self.now_ns));
                self.act();
            }
        }
        if until_ns < u64::MAX {
            self.now_ns = until_ns;
        }
    }

    fn end_one(&mut self) {
        let Some(((_, session), service)) = self.ends.pop_first() else { return };
        let in_hand = self.in_hand.get_mut(&session).expect("a session of this machine");
        let batch = in_hand.pop_front().expect("it ran one");
        let run = self.batches.remove(&batch).expect("it was begun");
        let late = run.rows.iter().filter(|&&row| !self.is_in_time(row)).count();
        let ns = service.as_nanos() as f64;
        self.busy_ns += ns;
        self.wasted_ns += ns * late as f64 / run.rows.len() as f64;
        self.start(session);
        self.tell(Event::Done { session, batch, service, row_bytes: 64 });
    }
}
