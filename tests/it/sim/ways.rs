//! Rows on their way through shared bases, in seeded worlds: a base runs once for whoever wants its output, no head
//! runs before it, and nothing is left over.

use super::SEEDS;
use super::rng::{Rng, mix};
use graftd::id::{BatchId, ClassKey, DeviceId, RequestId, RowKey, SessionId, StageId};
use graftd::sched::Scheduler;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{
    Action, Event, Failure, Job, Leg, Outcome, Path, Priority, Purpose, Sharing, Slot, Store, Tally,
};
use graftd::sched::flight::FlightId;
use graftd::sched::reuse::{Policy, Reason, Route};
use graftd::sched::why::Why;
use graftd::time::MonoTime;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The stages: bases from 0, heads from 10, whole models from 20.
const HEADS: u32 = 10;
const WHOLES: u32 = 20;

/// A batch in a session's hands: what ran it, and the keys of its rows as its stage sees them.
struct Batch {
    session: SessionId,
    stage: StageId,
    keys: Vec<RowKey>,
}

struct World {
    rng: Rng,
    scheduler: Scheduler,
    now: MonoTime,
    bases: u32,
    heads: u32,
    policy: Policy,
    jobs: BTreeMap<RequestId, Job>,
    waiting: BTreeSet<RequestId>,
    released: BTreeSet<RequestId>,
    sessions: BTreeMap<SessionId, (StageId, Purpose)>,
    next_session: u32,
    /// Stages whose sessions are being started, and whether rows wait for them.
    rising: BTreeMap<StageId, bool>,
    rests: u64,
    raises: u64,
    batches: BTreeMap<BatchId, Batch>,
    order: Vec<BatchId>,
    kept: BTreeMap<Slot, ()>,
    parts: BTreeSet<FlightId>,
    /// Base rows that run now.
    running: BTreeSet<(StageId, RowKey)>,
    base_rows_run: u64,
    routes: BTreeMap<Route, u64>,
    /// Routes and reasons of requests that have not ended, as they were told.
    told: BTreeMap<RequestId, (Vec<Route>, Vec<Why>)>,
    reasons: BTreeMap<(Route, Reason), u64>,
    faults: bool,
}

fn key(stage: u32, number: u64) -> RowKey {
    let mut key = [0; 32];
    for (word, bytes) in (0_u64..).zip(key.chunks_exact_mut(8)) {
        let content = u64::from(stage) << 40 ^ number ^ word << 56;
        bytes.copy_from_slice(&mix(content).to_le_bytes());
    }
    RowKey(key)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x7761_7973);
        let config = Config {
            devices: vec![(DeviceId(0), rng.range(1, 3) as u32)],
            rows_max: rng.pick(&[40, 1_000]),
            bytes_max: rng.pick(&[20_000, 1 << 30]),
            cache_bytes: rng.pick(&[0, 8_192]),
            base_cache_bytes: rng.pick(&[0, 12_288, 65_536]),
            rest_after: rng.pick(&[Duration::from_millis(1), Duration::from_secs(60)]),
            ..Config::default()
        };
        let (bases, heads) = (rng.range(1, 2) as u32, rng.range(1, 4) as u32);
        let policy = rng.pick(&[Policy::Auto, Policy::Auto, Policy::Always]);
        let mut world = Self {
            scheduler: Scheduler::new(config),
            now: MonoTime::ZERO,
            bases,
            heads,
            policy,
            jobs: BTreeMap::new(),
            waiting: BTreeSet::new(),
            released: BTreeSet::new(),
            sessions: BTreeMap::new(),
            next_session: 0,
            rising: BTreeMap::new(),
            rests: 0,
            raises: 0,
            batches: BTreeMap::new(),
            order: Vec::new(),
            kept: BTreeMap::new(),
            parts: BTreeSet::new(),
            running: BTreeSet::new(),
            base_rows_run: 0,
            routes: BTreeMap::new(),
            told: BTreeMap::new(),
            reasons: BTreeMap::new(),
            faults: rng.percent(60),
            rng,
        };
        let legs = (0..bases).chain(HEADS..HEADS + heads);
        let wholes = WHOLES..WHOLES + heads;
        for number in legs.chain(wholes) {
            let config = StageConfig {
                batch_rows_max: world.rng.pick(&[1, 4, 8]),
                batch_rows_knee: 1,
                kept_in: if number < HEADS { Store::Bases } else { Store::Answers },
                output_bytes: 500,
                ..StageConfig::default()
            };
            let stage = StageId(number);
            world.tell(Event::StageUp { stage, config });
            if number < WHOLES || world.rng.percent(50) {
                world.raise(stage, Purpose::Serving);
            }
        }
        world
    }

    fn raise(&mut self, stage: StageId, purpose: Purpose) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(session, (stage, purpose));
        self.tell(Event::SessionUp { session, stage, purpose, slots: 1 });
    }

    fn tell(&mut self, event: Event) {
        self.now = self.now.after(self.rng.micros(0, 300));
        self.scheduler.handle(self.now, event);
        self.heard();
    }

    fn heard(&mut self) {
        self.scheduler.verify().unwrap();
        while let Some(action) = self.scheduler.poll() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Run { session, stage, batch, rows, bases, .. } => {
                let is_head = (HEADS..WHOLES).contains(&stage.0);
                let inner = stage.0 > 0 && stage.0 < HEADS;
                assert_eq!(bases.len(), if is_head || inner { rows.len() } else { 0 });
                for base in &bases {
                    assert!(self.parts.contains(base), "{base:?} runs without its base output");
                }
                let keys = rows.iter().map(|row| {
                    assert!(!self.released.contains(&row.request), "its inputs are gone");
                    let job = &self.jobs[&row.request];
                    let path = job.path.as_ref().expect("all have one");
                    let leg = path.bases.iter().find(|leg| leg.stage == stage);
                    leg.map_or(job.rows[row.row as usize], |leg| leg.rows[row.row as usize])
                });
                let keys: Vec<RowKey> = keys.collect();
                if stage.0 < HEADS {
                    for &key in &keys {
                        assert!(self.running.insert((stage, key)), "a base row runs twice at once");
                        self.base_rows_run += 1;
                    }
                }
                self.batches.insert(batch, Batch { session, stage, keys });
                self.order.push(batch);
            }
            Action::Settle { batch: _, rows } => {
                for row in rows {
                    self.parts.extend(row.above);
                    if let Some(slot) = row.keep {
                        assert!(self.kept.insert(slot, ()).is_none(), "{slot:?} is taken");
                    }
                }
            }
            Action::Reuse { flight, slot } => {
                assert!(self.kept.contains_key(&slot), "{slot:?} holds nothing");
                assert_eq!(slot.store, Store::Bases);
                self.parts.insert(flight);
            }
            Action::Spend { flight } => assert!(self.parts.remove(&flight), "spent twice"),
            Action::Evict { slot } => assert!(self.kept.remove(&slot).is_some()),
            Action::Hit { slot, .. } => assert!(self.kept.contains_key(&slot)),
            Action::Reply { request, outcome } => self.ended(request, &outcome),
            Action::Release { request } => assert!(self.released.insert(request), "released twice"),
            Action::Isolate { stage } => self.raise(stage, Purpose::Isolation),
            Action::Retire { session } => {
                self.sessions.remove(&session);
            }
            Action::Rest { stage } => {
                let there =
                    self.sessions.values().any(|&(of, p)| of == stage && p == Purpose::Serving);
                assert!(!there, "{stage} rests and has sessions");
                self.rests += 1;
            }
            Action::Raise { stage, needed } => {
                *self.rising.entry(stage).or_default() |= needed;
                self.raises += 1;
            }
            Action::Routes { request, routes } => {
                self.told.entry(request).or_default().0 = routes;
            }
            Action::Explain { request, rows } => self.told.entry(request).or_default().1 = rows,
            Action::Forget { .. } => {}
            Action::Terminate { .. } | Action::Kill { .. } => panic!("no run takes long"),
        }
    }

    fn ended(&mut self, request: RequestId, outcome: &Outcome) {
        assert!(self.waiting.remove(&request), "{request} has two ends");
        match outcome {
            Outcome::Complete(tally) => {
                let rows = self.jobs[&request].rows.len() as u32;
                assert_eq!(tally.hit + tally.join + tally.run(), rows);
                self.explained(request, tally);
                for (route, rows) in [
                    (Route::Reuse, tally.reuse),
                    (Route::Follow, tally.follow),
                    (Route::Recompute, tally.recompute),
                    (Route::Whole, tally.whole),
                ] {
                    *self.routes.entry(route).or_default() += u64::from(rows);
                }
            }
            Outcome::Refused { .. } | Outcome::Quarantined => {
                self.released.insert(request);
            }
            Outcome::Failed(_) | Outcome::Crashed => assert!(self.faults),
            Outcome::Expired | Outcome::Shed { .. } => panic!("nobody set a deadline"),
        }
    }

    /// Every row that had a choice has a reason that fits its route, and what was weighed.
    fn explained(&mut self, request: RequestId, tally: &Tally) {
        use {Reason as R, Route as T};
        let (routes, whys) = self.told.remove(&request).unwrap_or_default();
        for row in 0..self.jobs[&request].rows.len() {
            let route = tally.route(&routes, row);
            let why = whys.iter().find(|why| why.row as usize == row);
            if matches!(route, T::Hit | T::Join) {
                assert!(why.is_none(), "{route:?} is no choice: {why:?}");
                continue;
            }
            let Why { choice, weighed, .. } = why.expect("there was a choice");
            assert_eq!(choice.route, route);
            let fits = match choice.reason {
                R::Kept | R::InFlight | R::NoWay => false,
                R::Set => self.policy == Policy::Always && route != T::Whole,
                R::NoWhole | R::Resting => route != T::Whole,
                R::BaseThere => matches!(route, T::Reuse | T::Follow),
                R::Cheapest | R::Tried => matches!(route, T::Whole | T::Recompute),
                R::InTime => false,
            };
            assert!(fits, "{route:?} for {:?}", choice.reason);
            assert!(route != T::Reuse || weighed.base.is_none(), "it need not be made");
            assert!(weighed.again <= 1024 && weighed.busy <= 1024, "{weighed:?}");
            *self.reasons.entry((route, choice.reason)).or_default() += 1;
        }
    }

    fn submit(&mut self, number: u64) {
        let request = RequestId(number);
        let model = self.rng.range(0, u64::from(self.heads) - 1) as u32;
        let rows: Vec<u64> = (0..self.rng.count(1, 6)).map(|_| self.rng.popular(30)).collect();
        let keys = |stage: u32| rows.iter().map(|&row| key(stage, row)).collect::<Vec<_>>();
        let leg =
            |stage| Leg { stage: StageId(stage), class: ClassKey([0; 16]), rows: keys(stage) };
        let path = Path {
            bases: (0..self.bases).map(leg).collect(),
            head: StageId(HEADS + model),
            policy: self.policy,
        };
        let job = Job {
            request,
            stage: StageId(WHOLES + model),
            class: ClassKey([model as u8; 16]),
            rows: keys(HEADS + model),
            row_bytes: 100,
            deadline: None,
            target: None,
            priority: Priority::new(self.rng.range(1, 9)),
            sharing: Sharing::ALL,
            path: Some(path),
        };
        self.jobs.insert(request, job.clone());
        self.waiting.insert(request);
        self.tell(Event::Submit(job));
    }

    /// A whole model becomes spare, or is needed again.
    fn turn(&mut self) {
        let stage = StageId(WHOLES + self.rng.range(0, u64::from(self.heads) - 1) as u32);
        let rise = self.rng.micros(0, 2_000);
        let spare = self.rng.percent(70);
        self.tell(if spare {
            Event::StageSpare { stage, rise }
        } else {
            Event::StageNeeded { stage }
        });
    }

    /// Sessions that were asked for come, or do not where nothing depends on it.
    fn rise(&mut self) {
        let Some((stage, needed)) = self.rising.pop_first() else { return };
        if !needed && self.rng.percent(30) {
            return self.tell(Event::RaiseRefused { stage });
        }
        self.raise(stage, Purpose::Serving);
    }

    fn cancel(&mut self) {
        let Some(&request) = self.waiting.first() else { return };
        self.waiting.remove(&request);
        self.tell(Event::Cancel(request));
    }

    /// The batch that a session runs ends, one way or another.
    fn end(&mut self, faulty: bool) {
        let mut seen = BTreeSet::new();
        let fronts: Vec<BatchId> =
            self.order.iter().copied().filter(|id| seen.insert(self.batches[id].session)).collect();
        if fronts.is_empty() {
            return;
        }
        let id = self.rng.pick(&fronts);
        let session = self.batches[&id].session;
        if faulty && self.rng.percent(5) {
            return self.die(session);
        }
        let Batch { stage, .. } = self.forget(id);
        let service = self.rng.micros(10, 200);
        let fails = faulty && self.rng.percent(10);
        self.tell(if fails {
            let failure = Failure { message: "no".into() };
            Event::Failed { session, batch: id, failure }
        } else {
            let row_bytes = if stage.0 < HEADS { 500 } else { 40 };
            Event::Done { session, batch: id, service, row_bytes }
        });
    }

    fn die(&mut self, session: SessionId) {
        let held: Vec<BatchId> =
            self.order.iter().copied().filter(|id| self.batches[id].session == session).collect();
        held.into_iter().for_each(|id| drop(self.forget(id)));
        let Some((stage, purpose)) = self.sessions.remove(&session) else { return };
        self.tell(Event::SessionDown { session });
        if purpose == Purpose::Serving {
            self.raise(stage, purpose);
        }
    }

    fn forget(&mut self, id: BatchId) -> Batch {
        self.order.retain(|other| *other != id);
        let batch = self.batches.remove(&id).expect("it is in somebody's hands");
        for key in &batch.keys {
            self.running.remove(&(batch.stage, *key));
        }
        batch
    }

    fn live(&mut self) {
        for number in 0..self.rng.range(20, 80) {
            self.submit(number);
            for _ in 0..self.rng.range(0, 4) {
                self.end(self.faults);
            }
            if self.rng.percent(15) {
                self.cancel();
            }
            if self.rng.percent(20) {
                self.turn();
            }
            if self.rng.percent(30) {
                self.rise();
            }
            if let Some(at) = self.scheduler.next_wakeup().filter(|_| self.rng.percent(20)) {
                self.now = self.now.max(at.min(self.now.after(Duration::from_millis(5))));
                self.scheduler.handle_timeout(self.now);
                self.heard();
            }
        }
        while !self.order.is_empty() || !self.rising.is_empty() {
            self.end(false);
            self.rise();
        }
        assert!(self.scheduler.is_idle(), "{:?} wait for ever", self.waiting);
        assert!(self.parts.is_empty(), "{:?} are never spent", self.parts);
        assert!(self.waiting.is_empty());
    }
}

#[test]
fn bases_run_once_and_heads_after_them() {
    let mut routes: BTreeMap<Route, u64> = BTreeMap::new();
    let mut reasons: BTreeSet<Reason> = BTreeSet::new();
    let (mut rests, mut raises) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.live();
        rests += world.rests;
        raises += world.raises;
        reasons.extend(world.reasons.keys().map(|(_, reason)| *reason));
        for (route, rows) in world.routes {
            *routes.entry(route).or_default() += rows;
        }
    }
    println!("{routes:?}, {rests} rests, {raises} raises");
    assert!(rests > 100 && raises > 100, "{rests} rests, {raises} raises");
    use Reason::{BaseThere, Cheapest, NoWhole, Resting, Set};
    for reason in [BaseThere, Cheapest, NoWhole, Resting, Set] {
        assert!(reasons.contains(&reason), "{reason:?} is never given");
    }
    for route in [Route::Reuse, Route::Follow, Route::Recompute, Route::Whole] {
        assert!(routes[&route] > 100, "{route:?} is hardly ever taken: {routes:?}");
    }
}

#[test]
fn rows_of_many_heads_run_their_base_once() {
    let mut world = World { faults: false, ..World::new(6) };
    let mut rows = 0;
    world.policy = Policy::Always;
    for model in 0..world.heads {
        let path = Path {
            bases: (0..world.bases)
                .map(|stage| Leg {
                    stage: StageId(stage),
                    class: ClassKey([0; 16]),
                    rows: (0..4).map(|row| key(stage, row)).collect(),
                })
                .collect(),
            head: StageId(HEADS + model),
            policy: Policy::Always,
        };
        let request = RequestId(u64::from(model));
        let job = Job {
            request,
            stage: StageId(WHOLES + model),
            class: ClassKey([model as u8; 16]),
            rows: (0..4).map(|row| key(HEADS + model, row)).collect(),
            row_bytes: 100,
            deadline: None,
            target: None,
            priority: Priority::DEFAULT,
            sharing: Sharing { lookup: false, ..Sharing::ALL },
            path: Some(path),
        };
        rows += 4;
        world.jobs.insert(request, job.clone());
        world.waiting.insert(request);
        world.scheduler.handle(world.now, Event::Submit(job));
        world.heard();
    }
    while !world.order.is_empty() {
        world.end(false);
    }
    assert!(world.scheduler.is_idle());
    assert!(rows >= 4);
    assert_eq!(world.base_rows_run, 4 * u64::from(world.bases), "of {rows} rows");
}
