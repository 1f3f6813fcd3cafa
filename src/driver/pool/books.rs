//! Who lives where: the stages of every worker, and what they are started from.

use super::replace::Leaving;
use crate::engine::worker::{Worker, WorkerConfig};
use crate::engine::{BatchPlan, Lane};
use crate::id::{SessionId, StageId};
use crate::model::stash::PrivateCopy;
use crate::time::MonoTime;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is needed to start the sessions of a stage again.
#[derive(Clone)]
pub(in crate::driver) struct Recipe {
    pub config: WorkerConfig,
    /// Runs that warm new sessions before they get traffic.
    pub warm: Vec<Arc<BatchPlan>>,
    pub slots: u32,
    /// What workers load; it stays on disk as long as one may be started.
    pub _copy: Arc<PrivateCopy>,
}

/// A stage that lives in a worker.
pub(super) struct Resident {
    pub recipe: Recipe,
    /// Its number in the worker.
    pub model: u32,
    /// None while it has none.
    pub sessions: Vec<SessionId>,
    pub isolation: Option<(SessionId, Worker)>,
    /// Bytes by which the worker grew when it was loaded there, or that it held when it was let go to rest.
    pub bytes: u64,
}

impl Resident {
    pub(super) fn new(recipe: Recipe) -> Self {
        Self { recipe, model: 0, sessions: Vec::new(), isolation: None, bytes: 0 }
    }
}

/// One worker process, and the stages that live in it: a whole model, or the bases and heads of a family.
#[derive(Default)]
pub(super) struct Pool {
    pub residents: BTreeMap<StageId, Resident>,
    pub worker: Option<Arc<Worker>>,
    /// Held while the worker is started, or one more stage is loaded into it.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// A worker is being started.
    pub starting: bool,
    pub failures: u32,
    pub started: MonoTime,
    /// What the worker had completed when it began to serve.
    pub warmed: u32,
}

/// Which pool a stage lives in: the stage that was there first gives it its name.
pub(super) type PoolId = StageId;

#[derive(Default)]
pub(super) struct Books {
    pub pools: BTreeMap<PoolId, Pool>,
    pub homes: BTreeMap<StageId, PoolId>,
    /// Workers that end once their sessions have left.
    pub leaving: Vec<Leaving>,
}

impl Books {
    pub(super) fn home(&mut self, stage: StageId) -> Option<&mut Pool> {
        self.pools.get_mut(self.homes.get(&stage)?)
    }

    /// What the stage of a session is called.
    pub(super) fn label_of(&self, session: SessionId) -> Option<&str> {
        let mut residents = self.pools.values().flat_map(|pool| pool.residents.values());
        let runs = |resident: &&Resident| {
            let apart = resident.isolation.as_ref().is_some_and(|(apart, _)| *apart == session);
            apart || resident.sessions.contains(&session)
        };
        residents.find(runs).map(|resident| resident.recipe.config.label.as_str())
    }

    pub(super) fn resident(&mut self, stage: StageId) -> Option<&mut Resident> {
        self.home(stage)?.residents.get_mut(&stage)
    }
}

/// A stage's sessions, loaded and not yet known to the scheduler.
pub(super) struct Loaded {
    pub stage: StageId,
    pub model: u32,
    pub sessions: Vec<SessionId>,
    pub lanes: Vec<Arc<dyn Lane>>,
    pub slots: u32,
    pub bytes: u64,
}

/// One stage that lives in a worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageFacts {
    /// The stage.
    pub stage: StageId,
    /// A model and version as `name:version`, a base, or a head.
    pub label: String,
    /// Bytes that its sessions took when they were loaded; of one that rests, what it gave back.
    pub bytes: u64,
    /// It rests: its sessions come back when they are wanted.
    pub rests: bool,
}

/// One worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFacts {
    /// What lives in it, the first that came first.
    pub stages: Vec<StageFacts>,
    /// The process's number; none while there is no process.
    pub pid: Option<u32>,
    /// It runs suspect rows, apart from other traffic.
    pub apart: bool,
    /// Batches that it completed.
    pub completed: u32,
}

impl Pool {
    /// Whether its worker is this one.
    pub(super) fn runs_on(&self, worker: Option<&Arc<Worker>>) -> bool {
        self.worker.as_ref().zip(worker).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Notes a stage's sessions; says no where the stage lives here no more.
    pub(super) fn settle(&mut self, loaded: &Loaded) -> bool {
        let Some(resident) = self.residents.get_mut(&loaded.stage) else { return false };
        resident.model = loaded.model;
        resident.sessions.clone_from(&loaded.sessions);
        resident.bytes = loaded.bytes;
        true
    }

    pub(super) fn label(&self) -> String {
        let mut residents = self.residents.values();
        let first = residents.next().map(|resident| resident.recipe.config.label.clone());
        let (first, more) = (first.unwrap_or_default(), residents.count());
        if more == 0 { first } else { format!("{first} and {more} more") }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.residents.values().map(|resident| resident.bytes).sum()
    }

    pub(super) fn facts(&self) -> WorkerFacts {
        let rests = self.worker.is_none() && !self.starting;
        let stage = |(&stage, resident): (&StageId, &Resident)| StageFacts {
            stage,
            label: resident.recipe.config.label.clone(),
            bytes: resident.bytes,
            rests,
        };
        WorkerFacts {
            stages: self.residents.iter().map(stage).collect(),
            pid: self.worker.as_ref().map(|worker| worker.pid),
            apart: false,
            completed: self.worker.as_ref().map_or(0, |worker| worker.completed()),
        }
    }
}
