//! Where answers come from, as a driver tells it whose batches end when the test says so.

use graftd::digest::StageDigest;
use graftd::driver::leg::{Leg, Source};
use graftd::driver::lineage::Made;
use graftd::driver::{Call, Driver, Reply};
use graftd::engine::{BatchPlan, Begun, Completion, CompletionSink, Lane};
use graftd::id::{BatchId, ClassKey, DeviceId, RowKey, SessionId, StageId};
use graftd::metrics::{Metrics, ModelMetrics};
use graftd::model::stage::{Part, StageName};
use graftd::model::way::{BaseUse, Way};
use graftd::model::{ModelSpec, Rows};
use graftd::rows::{InputTensor, Inputs, Storage};
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{self, Event, Outcome, Path, Priority, Purpose, Sharing, Store};
use graftd::sched::reuse::{Policy, Reason, Route};
use graftd::tensor::DataType;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

const BASE: u32 = 0;
const HEADS: [u32; 2] = [1, 2];
const WHOLES: [u32; 2] = [3, 4];

/// A lane that ends a batch when it is told to.
#[derive(Default)]
struct Held(Mutex<VecDeque<(BatchId, Arc<BatchPlan>)>>);

impl Lane for Held {
    fn begin(&self, batch: BatchId, plan: &Arc<BatchPlan>) -> Begun {
        self.0.lock().unwrap().push_back((batch, plan.clone()));
        Begun::Started
    }

    fn terminate(&self, _batch: BatchId) {}

    fn kill(&self) {}
}

struct World {
    driver: Arc<Driver>,
    lanes: BTreeMap<u32, (SessionId, Arc<Held>)>,
    specs: [Arc<ModelSpec>; 2],
}

fn digest(stage: u32) -> StageDigest {
    StageDigest([stage as u8; 32])
}

fn key(stage: u32) -> RowKey {
    RowKey([stage as u8; 32])
}

fn spec(stage: u32) -> Arc<ModelSpec> {
    let called = StageName::whole(&format!("model{stage}"), 1, digest(stage));
    Arc::new(ModelSpec {
        name: format!("model{stage}"),
        version: 1,
        versions: vec![1],
        stage: StageId(stage),
        digest: digest(stage),
        called,
        inputs: Vec::new(),
        outputs: Vec::new(),
        rows: Rows::Independent { how: "made so".into() },
        settings: graftd::model::settings::Settings::default(),
        config: Arc::default(),
        queue: graftd::model::config::Queue::default(),
        padding: None,
        request_rows_max: None,
        setup: [0; 32],
        unshared: None,
        output_axes: Arc::new([Some(0)]),
        whole_axes: Arc::new([None]),
        counts: Arc::default(),
        findings: BTreeMap::new(),
        way: Default::default(),
        runs: Default::default(),
    })
}

impl World {
    /// Two models on one base, each stage with a session.
    fn new() -> Self {
        let config = Config { devices: vec![(DeviceId(0), 8)], ..Config::default() };
        let (driver, _) = Driver::new(config, Arc::new(Metrics::new()));
        let specs = WHOLES.map(spec);
        let mut world = Self { driver, lanes: BTreeMap::new(), specs };
        let leg = |called, from| Leg {
            called,
            inputs: vec![from],
            output_axes: Arc::new([Some(0)]),
            counts: Some(Arc::new(ModelMetrics::default())),
            storage: Storage::Exact,
        };
        let base = StageConfig { kept_in: Store::Bases, ..StageConfig::default() };
        let called = StageName::base(digest(BASE));
        world.driver.add_leg(StageId(BASE), leg(called, Source::Request(0)), base);
        for (head, whole) in HEADS.into_iter().zip(world.specs.clone()) {
            let called = whole.called.head(digest(head));
            let config = StageConfig::default();
            world.driver.add_leg(StageId(head), leg(called, Source::Below(0)), config.clone());
            world.driver.event(Event::StageUp { stage: whole.stage, config });
        }
        for stage in [BASE].into_iter().chain(HEADS).chain(WHOLES) {
            let (session, lane) = (world.driver.session(), Arc::new(Held::default()));
            let (purpose, stage_id) = (Purpose::Serving, StageId(stage));
            let up = Event::SessionUp { session, stage: stage_id, purpose, slots: 1 };
            world.driver.add_lane(session, lane.clone(), up);
            world.lanes.insert(stage, (session, lane));
        }
        world
    }

    /// Asks a model for the one row there is; returns once it is in flight or answered.
    async fn ask(&self, model: usize, sharing: Sharing, through: bool) -> JoinHandle<Reply> {
        let tensor = InputTensor {
            datatype: DataType::Uint8,
            shape: vec![1],
            axis: Some(0),
            data: vec![7].into(),
            row_ends: Vec::new(),
            storage: Storage::Exact,
        };
        let (head, class) = (StageId(HEADS[model]), ClassKey([1; 16]));
        let bases = vec![BaseUse {
            stage: StageId(BASE),
            digest: digest(BASE),
            keyed_by: digest(BASE),
            reads: vec![0],
        }];
        let legs = vec![event::Leg { stage: StageId(BASE), class, rows: vec![key(BASE)] }];
        let policy = Policy::Always;
        let call = Call {
            spec: self.specs[model].clone(),
            inputs: Arc::new(Inputs { tensors: vec![tensor], rows: 1 }),
            keys: vec![key(WHOLES[model])],
            class,
            whole: false,
            sharing,
            priority: Priority::DEFAULT,
            timeout: None,
            target: None,
            way: through.then(|| Arc::new(Way { bases, head, policy })),
            path: through.then_some(Path { bases: legs, head, policy }),
        };
        let (driver, before) = (self.driver.clone(), self.driver.load().requests);
        let asked = tokio::spawn(async move { driver.call(call).await });
        while !asked.is_finished() && self.driver.load().requests == before {
            tokio::task::yield_now().await;
        }
        asked
    }

    /// Ends the batch that a stage runs.
    fn end(&self, stage: u32) {
        let (session, lane) = &self.lanes[&stage];
        let (batch, plan) = lane.0.lock().unwrap().pop_front().expect("a batch runs");
        let rows = plan.rows();
        let outputs = vec![(DataType::Uint8, vec![rows, 1], vec![9; rows].into())];
        let result = Ok((plan.block(outputs).expect("rows"), Duration::from_micros(50)));
        self.driver.complete(Completion { session: *session, batch, result });
    }
}

/// The route of a reply's one row, why it was taken, and what made it.
async fn told(reply: JoinHandle<Reply>) -> (u64, Route, Reason, Made) {
    let Reply { request, outcome, routes, trail, .. } = reply.await.expect("a reply");
    let Outcome::Complete(tally) = outcome else { panic!("{outcome:?}") };
    let route = tally.route(&routes, 0);
    let why = trail.whys.first().map(|why| why.choice.reason);
    let [Some(made)] = &trail.made[..] else { panic!("{trail:?}") };
    (request.0, route, why.unwrap_or_else(|| Reason::without_choice(route)), made.clone())
}

#[tokio::test]
async fn every_route_has_its_lineage() {
    let world = World::new();
    let unkept = Sharing { store: false, ..Sharing::ALL };
    let first = world.ask(0, Sharing::ALL, true).await;
    let second = world.ask(1, unkept, true).await;
    world.end(BASE);
    let third = world.ask(0, Sharing::ALL, true).await;
    world.end(HEADS[0]);
    world.end(HEADS[1]);

    let (request, route, reason, made) = told(first).await;
    assert_eq!((request, route, reason), (0, Route::Recompute, Reason::Set));
    assert_eq!((made.stage.part, &*made.stage.model, made.request.0), (Part::Head, "model3:1", 0));
    let base = made.below.clone().expect("a base output");
    assert_eq!((base.stage.part, base.stage.digest, base.request.0), (Part::Base, digest(BASE), 0));
    assert!(base.batch < made.batch && base.at <= made.at && base.below.is_none());

    let (request, route, reason, followed) = told(second).await;
    assert_eq!((request, route, reason), (1, Route::Follow, Reason::Set));
    assert_eq!((followed.stage.digest, followed.request.0), (digest(HEADS[1]), 1));
    assert_eq!(followed.below.as_deref(), Some(&*base), "the first request's");

    let (request, route, reason, joined) = told(third).await;
    assert_eq!((request, route, reason), (2, Route::Join, Reason::InFlight));
    assert_eq!(joined, made, "the first request's");

    let (request, route, reason, kept) = told(world.ask(0, Sharing::ALL, true).await).await;
    assert_eq!((request, route, reason), (3, Route::Hit, Reason::Kept));
    assert_eq!(kept, made, "as it was made");

    let fourth = world.ask(1, unkept, true).await;
    world.end(HEADS[1]);
    let (request, route, reason, reused) = told(fourth).await;
    assert_eq!((request, route, reason), (4, Route::Reuse, Reason::Set));
    assert_eq!((reused.request.0, reused.below.as_deref()), (4, Some(&*base)));
    assert!(reused.batch > followed.batch);

    let whole = world.ask(1, Sharing::NONE, false).await;
    world.end(WHOLES[1]);
    let (request, route, reason, whole) = told(whole).await;
    assert_eq!((request, route, reason), (5, Route::Whole, Reason::NoWay));
    assert_eq!((whole.stage.part, whole.request.0, whole.below), (Part::Whole, 5, None));
    world.driver.verify().expect("nothing is left over");
}
