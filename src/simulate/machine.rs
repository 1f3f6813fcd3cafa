//! One machine in virtual time: the daemon's scheduler, and runs that take what their cost curve says.

use super::plan::{Kind, Placed, Plan};
use crate::id::{BatchId, ClassKey, DeviceId, RequestId, RowKey, SessionId, StageId};
use crate::sched::Scheduler;
use crate::sched::config::{Batching, Config, StageConfig};
use crate::sched::event::{
    Action, Event, Job, Leg, Outcome, Path, Priority, Purpose, Refusal, RowRef, Sharing, Store,
};
use crate::time::{MonoTime, nanos};
use crate::traffic::Chance;
use crate::traffic::measured::{End, Measured};
use crate::traffic::workload::Ask;
use clap::ValueEnum;
use rand_distr::{Distribution, Exp1};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// How batches are formed, and who is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The daemon as it is, told of the target
    Learned,
    /// Batches of whatever waits once a session is free, nothing learned, nothing refused
    Eager,
    /// The same, after the oldest row has waited a tenth of the target
    Timeout,
}

impl Policy {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Requests and rows in flight, at most.
const IN_FLIGHT_MAX: usize = 1 << 20;
/// How long a client that hangs up waits first.
const HANG_UP_AFTER: Duration = Duration::from_millis(1);
/// What a head's run costs beside its part of the whole: another hand-over.
const HOP_MS: f64 = 0.03;

/// What a stage's runs take.
#[derive(Clone, Copy, Debug)]
struct Curve {
    fixed_ns: f64,
    row_ns: f64,
    noise: f64,
    output_bytes: u64,
}

/// How a model is asked.
#[derive(Clone, Copy, Debug)]
struct Served {
    whole: StageId,
    /// Its base and its head, where it has them.
    way: Option<(StageId, StageId)>,
}

struct Running {
    stage: StageId,
    rows: Vec<RowRef>,
}

struct Flying {
    at_ns: u64,
    rows: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    RunEnds(SessionId, Duration),
    HangsUp(RequestId),
}

/// A machine that serves.
pub struct Machine {
    scheduler: Scheduler,
    curves: Vec<Curve>,
    /// By a model's number; none where it runs elsewhere.
    served: Vec<Option<Served>>,
    sessions: Vec<VecDeque<BatchId>>,
    batches: FxHashMap<BatchId, Running>,
    flying: FxHashMap<RequestId, Flying>,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    /// How many things were ever due: what is due at one time comes in this order.
    order: u64,
    requests: u64,
    /// What requests are told to the scheduler to be needed within.
    told: Option<Duration>,
    target: Option<Duration>,
    chance: Chance,
    now_ns: u64,
    measured: Measured,
    busy: Duration,
    late: Duration,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("now_ns", &self.now_ns).finish_non_exhaustive()
    }
}

impl Machine {
    /// The machine of that number under a policy; what becomes of requests goes into `measured`.
    #[must_use]
    pub fn new(
        plan: &Plan,
        placed: &[Placed],
        number: usize,
        policy: Policy,
        target: Option<Duration>,
        measured: Measured,
    ) -> Self {
        let devices = (0..plan.devices).map(|at| (DeviceId(at as u16), plan.runs as u32));
        let config = Config {
            devices: devices.collect(),
            requests_max: IN_FLIGHT_MAX,
            rows_max: IN_FLIGHT_MAX,
            cache_bytes: plan.cache_bytes,
            base_cache_bytes: plan.base_cache_bytes,
            // Imagined runs never hang.
            watchdog_floor: Duration::from_hours(24),
            ..Config::default()
        };
        let mut machine = Self {
            scheduler: Scheduler::new(config),
            curves: Vec::new(),
            served: Vec::new(),
            sessions: Vec::new(),
            batches: FxHashMap::default(),
            flying: FxHashMap::default(),
            due: BinaryHeap::new(),
            order: 0,
            requests: 0,
            told: target.filter(|_| policy == Policy::Learned),
            target,
            chance: Chance::new(number as u128 + 1),
            now_ns: 0,
            measured,
            busy: Duration::ZERO,
            late: Duration::ZERO,
        };
        let mut bases = vec![None; plan.model.len()];
        for model in placed {
            let served = (model.machine == number).then(|| {
                let kind = &plan.model[model.kind];
                machine.raise_model(kind, &mut bases[model.kind], model, plan, policy)
            });
            machine.served.push(served);
        }
        machine
    }

    fn raise_model(
        &mut self,
        kind: &Kind,
        base: &mut Option<StageId>,
        model: &Placed,
        plan: &Plan,
        policy: Policy,
    ) -> Served {
        let mut raise = |share: f64, hop_ms: f64, kept_in: Store| {
            let curve = Curve {
                fixed_ns: (kind.fixed_ms * share + hop_ms) * 1e6,
                row_ns: kind.row_ms * share * 1e6,
                noise: kind.noise,
                output_bytes: match kept_in {
                    Store::Answers => kind.output_bytes,
                    Store::Bases => kind.base_bytes,
                },
            };
            self.raise(curve, kind, kept_in, (model.device, plan.runs), policy)
        };
        let way = kind.base_share.map(|share| {
            let base = *base.get_or_insert_with(|| raise(share, 0.0, Store::Bases));
            (base, raise(1.0 - share, HOP_MS, Store::Answers))
        });
        Served { whole: raise(1.0, 0.0, Store::Answers), way }
    }

    /// A stage with a session for each run that its device does side by side.
    fn raise(
        &mut self,
        curve: Curve,
        kind: &Kind,
        kept_in: Store,
        (device, runs): (usize, usize),
        policy: Policy,
    ) -> StageId {
        let stage = StageId(self.curves.len() as u32);
        self.curves.push(curve);
        let eager = policy != Policy::Learned;
        let delay = self.target.filter(|_| policy == Policy::Timeout);
        let config = StageConfig {
            device: DeviceId(device as u16),
            batch_rows_max: kind.batch_rows_max,
            batch_rows_knee: if eager { kind.batch_rows_max } else { kind.knee() },
            queue_delay: delay.unwrap_or_default() / 10,
            batching: if eager { Batching::Eager } else { Batching::Learned },
            quantile: kind.latency_quantile,
            kept_in,
            output_bytes: curve.output_bytes,
            ..StageConfig::default()
        };
        self.tell(Event::StageUp { stage, config });
        for _ in 0..runs {
            let session = SessionId(self.sessions.len() as u32);
            self.sessions.push(VecDeque::new());
            let (purpose, slots) = (Purpose::Serving, 1);
            self.tell(Event::SessionUp { session, stage, purpose, slots });
        }
        stage
    }

    /// Takes a request at its time; what is due before happens first.
    pub fn take(&mut self, ask: &Ask) {
        let Some(served) = self.served.get(ask.model).copied().flatten() else { return };
        let at_ns = nanos(ask.at);
        self.pass_until(at_ns);
        let request = RequestId(self.requests);
        self.requests += 1;
        self.flying.insert(request, Flying { at_ns, rows: ask.rows });
        if ask.hangs_up {
            self.expect(at_ns + nanos(HANG_UP_AFTER), Due::HangsUp(request));
        }
        let rows = |stage: StageId| {
            (0..u64::from(ask.rows)).map(|later| key(stage, ask.row + later)).collect::<Vec<_>>()
        };
        let path = served.way.map(|(base, head)| Path {
            bases: vec![Leg { stage: base, class: class(base), rows: rows(base) }],
            head,
            policy: crate::sched::reuse::Policy::Auto,
        });
        let target = self.told.map(|told| MonoTime::from_nanos(at_ns).after(told));
        self.tell(Event::Submit(Job {
            request,
            stage: served.whole,
            class: class(served.whole),
            rows: rows(served.way.map_or(served.whole, |(_, head)| head)),
            row_bytes: 1 << 10,
            deadline: ask.deadline.map(|within| MonoTime::from_nanos(at_ns).after(within)),
            target,
            priority: Priority::DEFAULT,
            sharing: Sharing::ALL,
            path,
        }));
    }

    /// Lets everything end, and tells what became of it.
    #[must_use]
    pub fn finish(mut self) -> Measured {
        self.pass_until(u64::MAX);
        self.measured.work.busy += self.busy;
        self.measured.work.late += self.late;
        self.measured
    }

    fn expect(&mut self, at_ns: u64, due: Due) {
        self.order += 1;
        self.due.push(Reverse((at_ns, self.order, due)));
    }

    /// Lets runs end and times pass until then.
    fn pass_until(&mut self, until_ns: u64) {
        loop {
            let due = self.due.peek().map(|Reverse((at, ..))| *at);
            let wake = self.scheduler.next_wakeup().map(MonoTime::as_nanos);
            let next = due.into_iter().chain(wake).min();
            // Timers alone bring no more requests.
            let over = until_ns == u64::MAX && due.is_none() && self.flying.is_empty();
            let Some(at) = next.filter(|&at| at <= until_ns && !over) else { break };
            self.now_ns = self.now_ns.max(at);
            if due != Some(at) {
                self.scheduler.handle_timeout(MonoTime::from_nanos(self.now_ns));
                self.act();
            } else if let Some(Reverse((_, _, due))) = self.due.pop() {
                self.happen(due);
            }
        }
        if until_ns < u64::MAX {
            self.now_ns = until_ns;
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::RunEnds(session, service) => self.run_ends(session, service),
            Due::HangsUp(request) => {
                if let Some(Flying { at_ns, rows }) = self.flying.remove(&request) {
                    self.end(at_ns, rows, End::HungUp);
                    self.tell(Event::Cancel(request));
                }
            }
        }
    }

    fn run_ends(&mut self, session: SessionId, service: Duration) {
        let Some(batch) = self.sessions[session.0 as usize].pop_front() else { return };
        let Some(Running { stage, rows }) = self.batches.remove(&batch) else { return };
        if self.measured.counts(Duration::from_nanos(self.now_ns)) {
            let late = rows.iter().filter(|row| self.is_late(row.request)).count();
            self.busy += service;
            self.late += service.mul_f64(late as f64 / rows.len().max(1) as f64);
        }
        self.start(session);
        let row_bytes = self.curves[stage.0 as usize].output_bytes;
        self.tell(Event::Done { session, batch, service, row_bytes });
    }

    /// Whether nobody waits for a request any more, or no longer than it was worth.
    fn is_late(&self, request: RequestId) -> bool {
        let Some(flying) = self.flying.get(&request) else { return true };
        self.target.is_some_and(|target| self.now_ns - flying.at_ns > nanos(target))
    }

    fn start(&mut self, session: SessionId) {
        let Some(batch) = self.sessions[session.0 as usize].front() else { return };
        let Some(Running { stage, rows }) = self.batches.get(batch) else { return };
        let Curve { fixed_ns, row_ns, noise, .. } = self.curves[stage.0 as usize];
        let drawn: f64 = Exp1.sample(&mut self.chance);
        let ns = (fixed_ns + row_ns * rows.len() as f64) * (1.0 + noise * drawn);
        let service = Duration::from_nanos(ns as u64);
        self.expect(self.now_ns + nanos(service), Due::RunEnds(session, service));
    }

    fn tell(&mut self, event: Event) {
        self.scheduler.handle(MonoTime::from_nanos(self.now_ns), event);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.scheduler.poll() {
            match action {
                Action::Run { session, stage, batch, rows, .. } => {
                    self.batches.insert(batch, Running { stage, rows });
                    let in_hand = &mut self.sessions[session.0 as usize];
                    in_hand.push_back(batch);
                    if in_hand.len() == 1 {
                        self.start(session);
                    }
                }
                Action::Reply { request, outcome } => {
                    if let Some(Flying { at_ns, rows }) = self.flying.remove(&request) {
                        self.end(at_ns, rows, ended(&outcome));
                    }
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, at_ns: u64, rows: u32, end: End) {
        let took = Duration::from_nanos(self.now_ns - at_ns);
        self.measured.ended(Duration::from_nanos(at_ns), rows, took, end);
    }
}

/// What a client would see of an outcome.
fn ended(outcome: &Outcome) -> End {
    let refused = |why: &str| End::Refused(why.to_owned());
    match outcome {
        Outcome::Complete(_) => End::Answered,
        Outcome::Refused { refusal: Refusal::Target { .. }, .. } => {
            refused("refused: would miss the target")
        }
        Outcome::Refused { .. } => refused("refused: the queue is full"),
        Outcome::Shed { .. } | Outcome::Expired => refused("given up: would miss the target"),
        Outcome::Failed(_) | Outcome::Crashed | Outcome::Quarantined => refused("failed"),
    }
}

/// A key that no other row of any stage has, but by a chance that may be forgotten.
fn key(stage: StageId, row: u64) -> RowKey {
    let mut state = u64::from(stage.0) << 48 ^ row;
    let mut key = [0; 32];
    for word in key.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word.copy_from_slice(&(b ^ (b >> 31)).to_le_bytes());
    }
    RowKey(key)
}

/// All rows of a stage have one shape.
fn class(stage: StageId) -> ClassKey {
    ClassKey(u128::from(stage.0).to_le_bytes())
}
