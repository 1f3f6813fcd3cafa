//! A driver over counting engines, and the callers that storm it.

use super::counting::{Counting, answer};
use crate::daemon::Chance;
use graftd::digest::{self, StageDigest};
use graftd::driver::{Call, Driver, Reply};
use graftd::engine::local::ThreadLane;
use graftd::id::{DeviceId, StageId, Tenant};
use graftd::metrics::Metrics;
use graftd::model::stage::StageName;
use graftd::model::{ModelSpec, Rows};
use graftd::rows::{InputTensor, Inputs, assemble};
use graftd::sched::Load;
use graftd::sched::config::{Config, StageConfig};
use graftd::sched::event::{Event, Outcome, Priority, Purpose, Sharing};
use graftd::tensor::DataType;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const STAGES: u32 = 4;
const LANES: usize = 2;
const CALLERS: usize = 64;
/// Distinct rows of a stage.
const KEYS: usize = 400;
const REQUEST_ROWS_MAX: usize = 6;

/// What kind of storm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Storm {
    pub requests: usize,
    pub seed: u64,
    /// One call in so many is dropped somewhere on its way; 0 for none.
    pub cancel_once_in: usize,
    pub cache_bytes: u64,
    /// Multiples of this are rows that fail.
    pub poison: Option<u64>,
}

/// What the callers saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub answered: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub cancelled_rows: u64,
    pub rows: u64,
    pub opened: u64,
    pub joined: u64,
    pub hit: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.cancelled_rows += other.cancelled_rows;
        self.rows += other.rows;
        self.opened += other.opened;
        self.joined += other.joined;
        self.hit += other.hit;
    }
}

/// Everything that a storm needs.
#[derive(Clone)]
pub(super) struct World {
    storm: Storm,
    driver: Arc<Driver>,
    stages: Arc<[(Arc<ModelSpec>, Arc<Counting>)]>,
}

impl World {
    pub(super) fn new(storm: Storm) -> Self {
        let sched = Config {
            devices: vec![(DeviceId(0), 3)],
            cache_bytes: storm.cache_bytes,
            ..Config::default()
        };
        let (driver, _) = Driver::new(sched, Arc::new(Metrics::new()));
        tokio::spawn(driver.clone().timers());
        let stages = (0..STAGES).map(|number| {
            let stage = StageId(number);
            let engine = Arc::new(Counting::new(number.into(), storm.poison));
            let size = 4 << number;
            let config =
                StageConfig { batch_rows_max: size, batch_rows_knee: size, ..Default::default() };
            driver.event(Event::StageUp { stage, config });
            for lane in 0..LANES {
                let session = driver.session();
                let lane = ThreadLane::start(session, lane, engine.clone(), driver.clone());
                let purpose = Purpose::Serving;
                let up = Event::SessionUp { session, stage, purpose, slots: 1 };
                driver.add_lane(session, Arc::new(lane.unwrap()), up);
            }
            (Arc::new(spec(stage)), engine)
        });
        let stages = stages.collect();
        Self { storm, driver, stages }
    }

    pub(super) fn executions(&self) -> u64 {
        self.stages.iter().map(|(_, engine)| engine.executions.load(Ordering::Relaxed)).sum()
    }

    /// Waits until nothing is in flight and checks that nothing was left behind.
    pub(super) async fn assert_empty(&self) {
        self.driver.drained().await;
        self.driver.verify().unwrap();
        let Load { kept_rows, kept_bytes, .. } = self.driver.load();
        assert_eq!(self.driver.load(), Load { kept_rows, kept_bytes, ..Load::default() });
    }

    /// All callers, to their ends.
    pub(super) async fn run(&self) -> Seen {
        let callers: Vec<_> =
            (0..CALLERS).map(|number| tokio::spawn(self.clone().caller(number))).collect();
        let mut seen = Seen::default();
        for caller in callers {
            seen += caller.await.unwrap();
        }
        seen
    }

    async fn caller(self, number: usize) -> Seen {
        let mut chance = Chance::new(self.storm.seed * 1000 + number as u64);
        let mut seen = Seen::default();
        let share = self.storm.requests / CALLERS;
        let rest = usize::from(number < self.storm.requests % CALLERS);
        for _ in 0..share + rest {
            let stage = chance.below(self.stages.len());
            let count = 1 + chance.zipf(REQUEST_ROWS_MAX);
            let rows: Vec<u64> = (0..count).map(|_| 1 + chance.zipf(KEYS) as u64).collect();
            seen.rows += count as u64;
            let call = self.call(stage, &rows);
            let reply =
                if self.storm.cancel_once_in > 0 && chance.once_in(self.storm.cancel_once_in) {
                    self.interrupted(call, stage, &mut chance).await
                } else {
                    Some(self.driver.call(call).await)
                };
            match reply {
                Some(reply) => self.check(stage, &rows, reply, &mut seen),
                None => {
                    seen.cancelled += 1;
                    seen.cancelled_rows += count as u64;
                }
            }
        }
        seen
    }

    fn call(&self, stage: usize, rows: &[u64]) -> Call {
        let (spec, _) = &self.stages[stage];
        let data: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        let tensor = InputTensor {
            datatype: DataType::Uint64,
            shape: vec![rows.len()],
            axis: Some(0),
            data: data.into(),
            row_ends: Vec::new(),
            storage: graftd::rows::Storage::Exact,
        };
        let inputs = Arc::new(Inputs { tensors: vec![tensor], rows: rows.len() });
        let (keys, class) = digest::keys(&spec.digest, Tenant(0), &inputs);
        let (spec, sharing) = (spec.clone(), Sharing::ALL);
        let priority = Priority::DEFAULT;
        let (timeout, way, path) = (None, None, None);
        Call {
            spec,
            inputs,
            keys,
            class,
            whole: false,
            sharing,
            priority,
            timeout,
            target: None,
            way,
            path,
        }
    }

    /// Makes a call and drops it: at once, after some turns of others, or when some batch starts.
    async fn interrupted(&self, call: Call, stage: usize, chance: &mut Chance) -> Option<Reply> {
        let (turns, batch) = (chance.below(8), chance.once_in(2));
        let started = self.stages[stage].1.started.notified();
        let leave = async {
            if batch {
                started.await;
            }
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        let (call, leave) = (pin!(self.driver.call(call)), pin!(leave));
        first(call, leave).await
    }

    fn check(&self, stage: usize, rows: &[u64], reply: Reply, seen: &mut Seen) {
        let poisoned = |row: &u64| self.storm.poison.is_some_and(|each| row.is_multiple_of(each));
        match reply.outcome {
            Outcome::Complete(tally) => {
                let output = assemble("y", 0, &reply.rows).unwrap();
                let expected = rows.iter().map(|&row| answer(stage as u64, row).to_le_bytes());
                let expected: Vec<u8> = expected.flatten().collect();
                assert_eq!(output.contiguous(), expected, "seed {}", self.storm.seed);
                assert_eq!(rows.iter().find(|row| poisoned(row)), None);
                assert_eq!((tally.run() + tally.join + tally.hit) as usize, rows.len());
                seen.answered += 1;
                seen.opened += u64::from(tally.run());
                seen.joined += u64::from(tally.join);
                seen.hit += u64::from(tally.hit);
            }
            Outcome::Failed(_) => {
                assert!(rows.iter().any(poisoned), "an innocent request failed: {rows:?}");
                seen.failed += 1;
            }
            other => panic!("{other:?} for {rows:?}, seed {}", self.storm.seed),
        }
    }
}

/// The call's reply, unless `leave` ends before it is there.
async fn first(
    call: impl Future<Output = Reply>,
    leave: impl Future<Output = ()>,
) -> Option<Reply> {
    tokio::select! {
        biased;
        reply = call => Some(reply),
        () = leave => None,
    }
}

fn spec(stage: StageId) -> ModelSpec {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&stage.0.to_le_bytes());
    ModelSpec {
        name: format!("stage-{stage}"),
        version: 1,
        versions: vec![1],
        stage,
        digest: StageDigest(digest),
        called: StageName::whole("stage", 1, StageDigest(digest)),
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
    }
}
