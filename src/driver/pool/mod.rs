//! The pools: the worker of every stage or family, kept alive, and a second one apart while rows are suspect.

mod books;
mod replace;
mod respawn;

pub(super) use books::Recipe;
pub use books::{StageFacts, WorkerFacts};

use super::{Driver, Order};
use crate::engine::worker::{Housed, Worker, WorkerConfig};
use crate::id::{SessionId, StageId};
use crate::metrics::{memory, resident_bytes};
use crate::sched::event::{Event, Failure, Purpose};
use books::{Books, Loaded, Pool, PoolId, Resident};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A worker that lived this long starts with a clean sheet when it dies, as does one that answered anything:
/// what is held back are workers that die again and again without being of use.
const GOOD_LIFE: Duration = Duration::from_secs(10);
/// After so many failed starts in a row of a worker apart whoever waits is told.
const FAILURES_MAX: u32 = 3;
/// The part of all memory that stays free where a worker is a matter of choice.
const RESERVE: u64 = 8;

/// Told when a stage cannot be served any more, and when it can again.
pub type Health = Arc<dyn Fn(StageId, Result<(), String>) + Send + Sync>;

/// All pools.
pub struct Pools {
    driver: Arc<Driver>,
    health: Health,
    books: Mutex<Books>,
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
        Arc::new(Self { driver, health, books: Mutex::default() })
    }

    /// Takes over a warm worker: its lanes get traffic from now on.
    pub(super) fn adopt(
        self: &Arc<Self>,
        stage: StageId,
        recipe: Recipe,
        worker: Worker,
        (housed, sessions): (Housed, Vec<SessionId>),
    ) {
        let slots = recipe.slots;
        {
            let mut books = self.books.lock();
            books.homes.insert(stage, stage);
            let residents = BTreeMap::from([(stage, Resident::new(recipe))]);
            books.pools.insert(stage, Pool { residents, ..Pool::default() });
        }
        let bytes = resident_bytes(worker.pid).unwrap_or(0);
        let Housed { model, lanes, .. } = housed;
        self.serve(stage, worker, vec![Loaded { stage, model, sessions, lanes, slots, bytes }]);
    }

    /// Loads a stage into the worker where another one lives, and lets it serve.
    ///
    /// # Errors
    /// A sentence, where it cannot be loaded or the other one is gone.
    pub(super) async fn join(
        self: &Arc<Self>,
        other: StageId,
        stage: StageId,
        recipe: Recipe,
    ) -> Result<(), String> {
        let gone = || "the worker that it was to live in is gone".to_owned();
        let turn = {
            let mut books = self.books.lock();
            let id = *books.homes.get(&other).ok_or_else(gone)?;
            let pool = books.pools.get_mut(&id).ok_or_else(gone)?;
            let turn = pool.turn.clone();
            pool.residents.insert(stage, Resident::new(recipe.clone()));
            books.homes.insert(stage, id);
            turn
        };
        let _turn = turn.lock().await;
        let worker = {
            let mut books = self.books.lock();
            let pool = books.home(stage).ok_or_else(gone)?;
            // One that was started meanwhile has it already.
            if pool.residents.get(&stage).is_some_and(|resident| !resident.sessions.is_empty()) {
                return Ok(());
            }
            pool.worker.clone()
        };
        let loaded = match &worker {
            Some(worker) => self.load(worker, stage, &recipe).await,
            None => Err(gone()),
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(why) => {
                self.forget(stage);
                return Err(why);
            }
        };
        let up = {
            let mut books = self.books.lock();
            // It may have been let go, or its worker may have died, while it was loaded.
            match books.home(stage).filter(|pool| pool.runs_on(worker.as_ref())) {
                Some(pool) => pool.settle(&loaded),
                None => return Err(gone()),
            }
        };
        if up {
            self.add_lanes(loaded);
        }
        Ok(())
    }

    /// Loads a stage into a worker.
    async fn load(
        &self,
        worker: &Worker,
        stage: StageId,
        recipe: &Recipe,
    ) -> Result<Loaded, String> {
        let count = recipe.config.order.geometry.lanes;
        let sessions: Vec<SessionId> = (0..count).map(|_| self.driver.session()).collect();
        let before = resident_bytes(worker.pid).unwrap_or(0);
        let housed = worker.load(&recipe.config.order, &sessions, recipe.config.load_timeout).await;
        let Housed { model, lanes, .. } = housed.map_err(|error| error.to_string())?;
        let bytes = resident_bytes(worker.pid).unwrap_or(0).saturating_sub(before);
        Ok(Loaded { stage, model, sessions, lanes, slots: recipe.slots, bytes })
    }

    fn serve(self: &Arc<Self>, id: PoolId, worker: Worker, loaded: Vec<Loaded>) {
        let mut serving = Vec::new();
        let alive = {
            let mut books = self.books.lock();
            let Some(pool) = books.pools.get_mut(&id) else { return };
            for loaded in loaded {
                match pool.settle(&loaded) {
                    true => serving.push(loaded),
                    // It was let go while the worker was started.
                    false => worker.unload(loaded.model),
                }
            }
            pool.starting = false;
            pool.started = self.driver.clock().now();
            pool.warmed = worker.completed();
            // From here on its death is told to this pool, which has to know its sessions by then.
            let alive = worker.set_events(self.driver.clone());
            pool.worker = Some(Arc::new(worker));
            alive
        };
        if !alive {
            let sessions: Vec<SessionId> =
                serving.iter().flat_map(|loaded| loaded.sessions.iter().copied()).collect();
            return self.died(&sessions, "it ended while it was taken over");
        }
        serving.into_iter().for_each(|loaded| self.add_lanes(loaded));
    }

    fn add_lanes(&self, loaded: Loaded) {
        let Loaded { stage, sessions, lanes, slots, .. } = loaded;
        for (session, lane) in sessions.into_iter().zip(lanes) {
            let up = Event::SessionUp { session, stage, purpose: Purpose::Serving, slots };
            self.driver.add_lane(session, lane, up);
        }
    }

    /// Whether a stage's sessions can be given back and started again.
    pub(super) fn hosts(&self, stage: StageId) -> bool {
        self.books.lock().homes.contains_key(&stage)
    }

    /// The worker processes that live or rest, those apart last.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        let books = self.books.lock();
        let serving = books.pools.values().map(Pool::facts);
        let residents = books.pools.values().flat_map(|pool| &pool.residents);
        let apart = residents.filter_map(|(&stage, resident)| {
            let (_, worker) = resident.isolation.as_ref()?;
            let label = resident.recipe.config.label.clone();
            let stages = vec![StageFacts { stage, label, bytes: 0, rests: false }];
            let (pid, completed) = (Some(worker.pid), worker.completed());
            Some(WorkerFacts { stages, pid, apart: true, completed })
        });
        serving.chain(apart).collect()
    }

    /// Follows the scheduler's orders; runs for as long as the daemon.
    pub async fn run(self: Arc<Self>, orders: flume::Receiver<Order>) {
        while let Ok(order) = orders.recv_async().await {
            match order {
                Order::Isolate { stage } => {
                    tokio::spawn(self.clone().isolate(stage));
                }
                Order::Retire { session } => {
                    self.retire(session);
                    self.left(session);
                }
                Order::Rest { stage } => self.rest(stage),
                Order::Raise { stage, needed } => self.raise(stage, needed),
                Order::Forget { stage } => self.forget(stage),
                Order::Died { sessions, how } => self.died(&sessions, &how),
                Order::Hung { session } => {
                    let books = self.books.lock();
                    let label = books.label_of(session).unwrap_or("a model in this process");
                    tracing::warn!(
                        "{label}: a run takes longer than its watchdog allows; asking it to end"
                    );
                }
            }
        }
    }

    async fn isolate(self: Arc<Self>, stage: StageId) {
        let recipe = self.books.lock().resident(stage).map(|resident| resident.recipe.clone());
        let Some(mut recipe) = recipe else { return };
        let session = self.driver.session();
        recipe.config.order.geometry.lanes = 1;
        recipe.config.order.session.lanes = 1;
        recipe.config.label.push_str(" apart");
        match self.start_apart(&recipe.config, session).await {
            Ok((worker, housed)) => {
                if let Some(resident) = self.books.lock().resident(stage) {
                    resident.isolation = Some((session, worker));
                }
                let (purpose, slots) = (Purpose::Isolation, recipe.slots);
                for lane in housed.lanes {
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
    ) -> Result<(Worker, Housed), String> {
        let mut tries = 1;
        loop {
            match Worker::start(config, &[session], self.driver.clone()).await {
                Err(_) if tries < FAILURES_MAX => tries += 1,
                result => return result.map_err(|error| error.to_string()),
            }
        }
    }

    /// Ends a worker apart that nobody needs any more; serving sessions go with their stage.
    fn retire(&self, session: SessionId) {
        let mut books = self.books.lock();
        for resident in books.pools.values_mut().flat_map(|pool| pool.residents.values_mut()) {
            if resident.isolation.as_ref().is_some_and(|(id, _)| *id == session) {
                resident.isolation = None;
            }
        }
    }

    /// Ends the worker of a stage whose rows can do without it.
    fn rest(&self, stage: StageId) {
        let mut books = self.books.lock();
        let Some(pool) = books.home(stage).filter(|pool| pool.residents.len() == 1) else { return };
        let Some(worker) = pool.worker.take() else { return };
        let bytes = resident_bytes(worker.pid).unwrap_or(0);
        for resident in pool.residents.values_mut() {
            resident.sessions.clear();
            resident.bytes = bytes;
            let (label, mib) = (&resident.recipe.config.label, bytes >> 20);
            tracing::info!("{label}: the whole model rests, {mib} MiB are given back");
        }
    }

    /// Starts the worker of a stage that rests, if there is memory for it or no way around it.
    fn raise(self: &Arc<Self>, stage: StageId, needed: bool) {
        let mut books = self.books.lock();
        let Some(pool) = books.home(stage) else { return };
        if pool.starting || pool.worker.is_some() {
            return;
        }
        let (label, bytes) = (pool.label(), pool.bytes());
        let short = memory::left_of_all().filter(|&(left, all)| left < bytes + all / RESERVE);
        if let Some((left, _)) = short.filter(|_| !needed) {
            drop(books);
            let (bytes, left) = (bytes >> 20, left >> 20);
            tracing::info!("{label} stays at rest: it takes {bytes} MiB, and {left} MiB are left");
            return self.driver.event(Event::RaiseRefused { stage });
        }
        tracing::info!("{label}: the whole model is wanted again");
        pool.starting = true;
        if let Some(&id) = books.homes.get(&stage) {
            tokio::spawn(self.clone().respawn(id, 0));
        }
    }

    /// Lets a stage go, whether its workers live, died or are being started.
    fn forget(&self, stage: StageId) {
        let mut books = self.books.lock();
        let Some(id) = books.homes.remove(&stage) else { return };
        let Some(pool) = books.pools.get_mut(&id) else { return };
        let resident = pool.residents.remove(&stage);
        if pool.residents.is_empty() {
            // Dropping a worker ends its process; then nothing loads the private copy any more.
            books.pools.remove(&id);
        } else if let (Some(worker), Some(resident)) = (&pool.worker, &resident)
            && !resident.sessions.is_empty()
        {
            worker.unload(resident.model);
        }
        drop(books);
        if let Some(Resident { recipe, isolation, .. }) = resident {
            drop(isolation);
            tokio::task::spawn_blocking(move || discard(recipe));
        }
    }

    fn died(self: &Arc<Self>, sessions: &[SessionId], how: &str) {
        sessions.iter().for_each(|&session| self.left(session));
        let mut books = self.books.lock();
        for (&id, pool) in &mut books.pools {
            for resident in pool.residents.values_mut() {
                if resident.isolation.as_ref().is_some_and(|(id, _)| sessions.contains(id)) {
                    let label = &resident.recipe.config.label;
                    tracing::warn!(
                        "{label}: the worker apart ended ({how}); a row it ran is at fault"
                    );
                    resident.isolation = None;
                }
            }
            let mut serving = pool.residents.values().flat_map(|resident| &resident.sessions);
            if !serving.any(|session| sessions.contains(session)) {
                continue;
            }
            tracing::warn!("{}: worker ended ({how}); starting another", pool.label());
            let lived = self.driver.clock().now().since(pool.started);
            let completed = pool.worker.as_ref().map(|worker| worker.completed());
            let of_use = completed.is_some_and(|n| n != pool.warmed) || lived > GOOD_LIFE;
            pool.failures = if of_use { 0 } else { pool.failures + 1 };
            pool.worker = None;
            pool.starting = true;
            pool.residents.values_mut().for_each(|resident| resident.sessions.clear());
            tokio::spawn(self.clone().respawn(id, pool.failures));
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
