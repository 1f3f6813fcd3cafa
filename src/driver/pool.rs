//! The pools: the worker of every stage, kept alive, and a second one apart while rows are suspect.

use super::load::Rehearsal;
use super::{Driver, Order};
use crate::engine::worker::{Worker, WorkerConfig};
use crate::engine::{BatchPlan, EngineError, memory};
use crate::id::{SessionId, StageId};
use crate::metrics::resident_bytes;
use crate::model::stash::PrivateCopy;
use crate::sched::event::{Event, Failure, Purpose};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A worker that lived this long starts with a clean sheet when it dies, as does one that answered anything:
/// what is held back are workers that die again and again without being of use.
const GOOD_LIFE: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// After so many failed starts in a row whoever waits is told.
const FAILURES_MAX: u32 = 3;
/// The same for a model that has served: it can be loaded, so whatever keeps it from coming back is given
/// some five seconds to pass before accepted requests are failed.
const RETURNS_MAX: u32 = 9;
/// The part of all memory that stays free where a worker is a matter of choice.
const RESERVE: u64 = 8;

/// What is needed to start the worker of a stage again.
#[derive(Clone)]
pub(super) struct Recipe {
    pub config: WorkerConfig,
    /// Runs that warm a new worker before it gets traffic.
    pub warm: Vec<Arc<BatchPlan>>,
    pub slots: u32,
    /// What workers load; it stays on disk as long as one may be started.
    pub _copy: Arc<PrivateCopy>,
}

/// One stage's processes.
struct Pool {
    recipe: Recipe,
    serving: Option<Worker>,
    sessions: Vec<SessionId>,
    isolation: Option<(SessionId, Worker)>,
    /// A serving worker is being started.
    starting: bool,
    /// Bytes that the serving worker held when it was last let go.
    bytes: u64,
    failures: u32,
    started: crate::time::MonoTime,
    /// What the serving worker had completed when it began to serve.
    warmed: u32,
}

/// One worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFacts {
    /// The model and version that it runs, as `name:version`.
    pub model: String,
    /// The process's number.
    pub pid: u32,
    /// It runs suspect rows, apart from other traffic.
    pub apart: bool,
    /// Batches that it completed.
    pub completed: u32,
}

/// Told when a stage cannot be served any more, and when it can again.
pub type Health = Arc<dyn Fn(StageId, Result<(), String>) + Send + Sync>;

/// All pools.
pub struct Pools {
    driver: Arc<Driver>,
    health: Health,
    pools: Mutex<HashMap<StageId, Pool>>,
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Pools {
    /// No pools yet.
    #[must_use]
    pub fn new(driver: Arc<Driver>, health: Health) -> Arc<Self> {
        Arc::new(Self { driver, health, pools: Mutex::default() })
    }

    /// Takes over a warm worker: its lanes get traffic from now on.
    pub(super) fn adopt(
        self: &Arc<Self>,
        stage: StageId,
        recipe: Recipe,
        worker: Worker,
        sessions: Vec<SessionId>,
    ) {
        let started = self.driver.clock().now();
        let pool = Pool {
            recipe,
            serving: None,
            sessions: Vec::new(),
            isolation: None,
            starting: false,
            bytes: 0,
            failures: 0,
            started,
            warmed: 0,
        };
        self.pools.lock().insert(stage, pool);
        self.serve(stage, worker, sessions);
    }

    fn serve(self: &Arc<Self>, stage: StageId, worker: Worker, sessions: Vec<SessionId>) {
        let lanes = worker.lanes();
        let (alive, slots) = {
            let mut pools = self.pools.lock();
            let Some(pool) = pools.get_mut(&stage) else { return };
            pool.sessions.clone_from(&sessions);
            pool.started = self.driver.clock().now();
            pool.warmed = worker.completed();
            // From here on its death is told to this pool, which has to know its sessions by then.
            let alive = worker.set_events(self.driver.clone());
            pool.serving = Some(worker);
            pool.starting = false;
            (alive, pool.recipe.slots)
        };
        if !alive {
            return self.died(&sessions, "it ended while it was taken over");
        }
        for (&session, lane) in sessions.iter().zip(lanes) {
            let purpose = Purpose::Serving;
            let up = Event::SessionUp { session, stage, purpose, slots };
            self.driver.add_lane(session, lane, up);
        }
    }

    /// Whether a stage's sessions can be given back and started again.
    pub(super) fn hosts(&self, stage: StageId) -> bool {
        self.pools.lock().contains_key(&stage)
    }

    /// The worker processes that live, those apart last.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        let pools = self.pools.lock();
        let serving = pools.values().filter_map(|pool| {
            Some((pool.recipe.config.label.clone(), pool.serving.as_ref()?, false))
        });
        let apart = pools.values().filter_map(|pool| {
            Some((pool.recipe.config.label.clone(), &pool.isolation.as_ref()?.1, true))
        });
        let facts = |(model, worker, apart): (String, &Worker, bool)| {
            let (pid, completed) = (worker.pid, worker.completed());
            WorkerFacts { model, pid, apart, completed }
        };
        serving.chain(apart).map(facts).collect()
    }

    /// Follows the scheduler's orders; runs for as long as the daemon.
    pub async fn run(self: Arc<Self>, orders: flume::Receiver<Order>) {
        while let Ok(order) = orders.recv_async().await {
            match order {
                Order::Isolate { stage } => {
                    tokio::spawn(self.clone().isolate(stage));
                }
                Order::Retire { session } => self.retire(session),
                Order::Rest { stage } => self.rest(stage),
                Order::Raise { stage, needed } => self.raise(stage, needed),
                Order::Forget { stage } => self.forget(stage),
                Order::Died { sessions, how } => self.died(&sessions, &how),
                Order::Hung { session } => {
                    tracing::warn!("session {session} runs past its watchdog; asking it to end");
                }
            }
        }
    }

    fn recipe(&self, stage: StageId) -> Option<Recipe> {
        self.pools.lock().get(&stage).map(|pool| pool.recipe.clone())
    }

    async fn isolate(self: Arc<Self>, stage: StageId) {
        let Some(mut recipe) = self.recipe(stage) else { return };
        let session = self.driver.session();
        recipe.config.order.geometry.lanes = 1;
        recipe.config.order.session.lanes = 1;
        recipe.config.label.push_str(" apart");
        match self.start_apart(&recipe.config, session).await {
            Ok(worker) => {
                let lanes = worker.lanes();
                if let Some(pool) = self.pools.lock().get_mut(&stage) {
                    pool.isolation = Some((session, worker));
                }
                let (purpose, slots) = (Purpose::Isolation, recipe.slots);
                for lane in lanes {
                    let up = Event::SessionUp { session, stage, purpose, slots };
                    self.driver.add_lane(session, lane, up);
                }
            }
            Err(why) => {
                tracing::error!("{}: no worker apart for suspect rows: {why}", recipe.config.label);
                let failure = Failure { message: "the model's worker cannot be started".into() };
                self.driver.event(Event::IsolationFailed { stage, failure });
            }
        }
    }

    /// Starts a worker for suspects; as innocent rows wait for it, one failed start is not the last word.
    async fn start_apart(
        &self,
        config: &WorkerConfig,
        session: SessionId,
    ) -> Result<Worker, String> {
        let mut tries = 1;
        loop {
            match Worker::start(config, &[session], self.driver.clone()).await {
                Err(_) if tries < FAILURES_MAX => tries += 1,
                result => return result.map_err(|error| error.to_string()),
            }
        }
    }

    /// Ends a worker apart that nobody needs any more; serving workers go with their stage.
    fn retire(&self, session: SessionId) {
        for pool in self.pools.lock().values_mut() {
            if pool.isolation.as_ref().is_some_and(|(id, _)| *id == session) {
                pool.isolation = None;
            }
        }
    }

    /// Ends the serving worker of a stage whose rows can do without it.
    fn rest(&self, stage: StageId) {
        let mut pools = self.pools.lock();
        let Some(pool) = pools.get_mut(&stage) else { return };
        pool.sessions.clear();
        if let Some(worker) = pool.serving.take() {
            pool.bytes = resident_bytes(worker.pid).unwrap_or(0);
            let (label, mib) = (&pool.recipe.config.label, pool.bytes >> 20);
            tracing::info!("{label}: the whole model rests, {mib} MiB are given back");
        }
    }

    /// Starts the serving worker of a stage that rests, if there is memory for it or no way around it.
    fn raise(self: &Arc<Self>, stage: StageId, needed: bool) {
        let mut pools = self.pools.lock();
        let Some(pool) = pools.get_mut(&stage) else { return };
        if pool.starting || pool.serving.is_some() {
            return;
        }
        let label = &pool.recipe.config.label;
        let short = memory::left_of_all().filter(|&(left, all)| left < pool.bytes + all / RESERVE);
        if let Some((left, _)) = short.filter(|_| !needed) {
            let (bytes, left) = (pool.bytes >> 20, left >> 20);
            tracing::info!(
                "{label}: the whole model stays at rest: it takes {bytes} MiB, {left} are left"
            );
            drop(pools);
            return self.driver.event(Event::RaiseRefused { stage });
        }
        tracing::info!("{label}: the whole model is wanted again");
        pool.starting = true;
        tokio::spawn(self.clone().respawn(stage, 0));
    }

    /// Lets a stage go, whether its workers live, died or are being started.
    fn forget(&self, stage: StageId) {
        let pool = self.pools.lock().remove(&stage);
        if let Some(Pool { recipe, serving, isolation, .. }) = pool {
            // Dropping a worker ends its process; then nothing loads the private copy any more.
            drop((serving, isolation));
            tokio::task::spawn_blocking(move || discard(recipe));
        }
    }

    fn died(self: &Arc<Self>, sessions: &[SessionId], how: &str) {
        let mut pools = self.pools.lock();
        for (&stage, pool) in pools.iter_mut() {
            let label = &pool.recipe.config.label;
            if pool.isolation.as_ref().is_some_and(|(id, _)| sessions.contains(id)) {
                tracing::warn!("{label}: the worker apart ended ({how}); a row it ran is at fault");
                pool.isolation = None;
            } else if pool.sessions.iter().any(|id| sessions.contains(id)) {
                tracing::warn!("{label}: worker ended ({how}); starting another");
                let lived = self.driver.clock().now().since(pool.started);
                let answered =
                    pool.serving.as_ref().is_some_and(|worker| worker.completed() != pool.warmed);
                let of_use = answered || lived > GOOD_LIFE;
                pool.failures = if of_use { 0 } else { pool.failures + 1 };
                pool.serving = None;
                pool.starting = true;
                pool.sessions.clear();
                tokio::spawn(self.clone().respawn(stage, pool.failures));
            }
        }
    }

    async fn respawn(self: Arc<Self>, stage: StageId, mut failures: u32) {
        let mut refused = 0;
        loop {
            tokio::time::sleep(backoff(failures)).await;
            let Some(recipe) = self.recipe(stage) else { return };
            let count = recipe.config.order.geometry.lanes;
            let sessions: Vec<SessionId> = (0..count).map(|_| self.driver.session()).collect();
            match start_warm(&recipe, &sessions).await {
                Ok(worker) => {
                    if refused >= RETURNS_MAX {
                        (self.health)(stage, Ok(()));
                    }
                    return self.serve(stage, worker, sessions);
                }
                Err(why) => {
                    failures += 1;
                    refused += 1;
                    tracing::error!("{}: {why}", recipe.config.label);
                    if refused == RETURNS_MAX {
                        let message = "the model's worker cannot be started".into();
                        (self.health)(stage, Err(format!("its worker cannot be started: {why}")));
                        self.driver
                            .event(Event::StageFailed { stage, failure: Failure { message } });
                    }
                }
            }
        }
    }
}

/// Lets go of the private copy of a model that is served no more: it may be large.
fn discard(recipe: Recipe) {
    let label = recipe.config.label.clone();
    // Whoever is just starting a worker with it holds it too; it goes with the last.
    drop(recipe);
    tracing::info!("model {label} is retired");
}

fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1_u32 << n.min(16)).min(BACKOFF_MAX),
    }
}

/// Starts a worker and runs it warm.
async fn start_warm(recipe: &Recipe, sessions: &[SessionId]) -> Result<Worker, String> {
    let rehearsal = Arc::new(Rehearsal::new(recipe.config.load_timeout));
    let worker = Worker::start(&recipe.config, sessions, rehearsal.clone()).await;
    let worker = worker.map_err(|error| error.to_string())?;
    for lane in worker.lanes() {
        for plan in &recipe.warm {
            // As at load, a row that the model refuses does not keep it from serving; a death does.
            if let Err(error @ EngineError::Protocol(_)) = rehearsal.run(lane.as_ref(), plan).await
            {
                return Err(error.to_string());
            }
        }
    }
    Ok(worker)
}
