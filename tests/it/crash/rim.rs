//! The edges where a death and the scheduler's knowledge of it cross.

use graftd::digest::StageDigest;
use graftd::driver::{Call, Driver};
use graftd::engine::fake::FakeEngine;
use graftd::engine::local::InlineLane;
use graftd::engine::{BatchPlan, Begun, Lane};
use graftd::id::{BatchId, ClassKey, RowKey, SessionId, StageId};
use graftd::metrics::Metrics;
use graftd::model::stage::StageName;
use graftd::model::{ModelSpec, Rows};
use graftd::rows::{InputTensor, Inputs};
use graftd::sched::Load;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Event, Outcome, Priority, Purpose, Sharing};
use graftd::tensor::DataType;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const STAGE: StageId = StageId(0);

/// A lane whose process ended before anybody knew its session.
struct Dead;

impl Lane for Dead {
    fn begin(&self, _batch: BatchId, _plan: &Arc<BatchPlan>) -> Begun {
        Begun::Started
    }

    fn terminate(&self, _batch: BatchId) {}

    fn kill(&self) {}

    fn is_dead(&self) -> bool {
        true
    }
}

fn driver() -> Arc<Driver> {
    let config = Config { cache_bytes: 0, ..Config::default() };
    let (driver, _) = Driver::new(config, Arc::new(Metrics::new()));
    tokio::spawn(driver.clone().timers());
    driver.event(Event::StageUp { stage: STAGE, config: StageConfig::default() });
    driver
}

fn up(session: SessionId) -> Event {
    Event::SessionUp { session, stage: STAGE, purpose: Purpose::Serving, slots: 1 }
}

fn call(timeout: Option<Duration>) -> Call {
    let tensor = InputTensor {
        datatype: DataType::Uint8,
        shape: vec![1],
        axis: Some(0),
        data: vec![7].into(),
        row_ends: Vec::new(),
        storage: graftd::rows::Storage::Exact,
    };
    let spec = ModelSpec {
        name: "echo".into(),
        version: 1,
        versions: vec![1],
        stage: STAGE,
        digest: StageDigest([0; 32]),
        called: StageName::whole("echo", 1, StageDigest([0; 32])),
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
    };
    Call {
        spec: Arc::new(spec),
        inputs: Arc::new(Inputs { tensors: vec![tensor], rows: 1 }),
        keys: vec![RowKey([1; 32])],
        class: ClassKey([1; 16]),
        whole: false,
        sharing: Sharing::ALL,
        priority: Priority::DEFAULT,
        timeout,
        target: None,
        way: None,
        path: None,
    }
}

#[tokio::test]
async fn a_session_whose_process_is_gone_already_gets_no_rows() {
    let driver = driver();
    let session = driver.session();
    driver.add_lane(session, Arc::new(Dead), up(session));
    let calling = driver.clone();
    let waiting = tokio::spawn(async move { calling.call(call(None)).await });
    while driver.load().requests == 0 {
        tokio::task::yield_now().await;
    }
    let (session, engine) = (driver.session(), Arc::new(FakeEngine::instant()));
    driver.add_lane(session, Arc::new(InlineLane { session, number: 0, engine }), up(session));
    assert!(matches!(waiting.await.unwrap().outcome, Outcome::Complete(_)));
    driver.verify().unwrap();
    assert_eq!(driver.load(), Load::default());
}

#[tokio::test]
async fn draining_ends_when_the_last_deadline_passes() {
    let driver = driver();
    let calling = driver.clone();
    let waiting =
        tokio::spawn(async move { calling.call(call(Some(Duration::from_millis(50)))).await });
    while driver.load().requests == 0 {
        tokio::task::yield_now().await;
    }
    driver.drained().await;
    assert_eq!(waiting.await.unwrap().outcome, Outcome::Expired);
}
