//! From a file to warm sessions: copy, judge, start, probe, measure, and only then serve.

mod background;
mod check;
mod costs;
mod describe;
mod family;
mod measure;
mod own;
mod padding;
mod rehearsal;
mod stable;
mod steps;
mod trial;
mod tune;
mod warm;

use background::{background, foreground};
pub use check::{Checked, check};
use describe::{loaded, spec};
pub use family::{BaseFacts, FamilyFacts, MemberFacts};
use own::Own;
pub(super) use rehearsal::Rehearsal;
use stable::stable;
pub use steps::Loading;
use steps::{Step, Steps};
use trial::{Probed, probe_model, unprobed};
pub use tune::{Effort, Tuning};

use super::Driver;
use super::pool::{Pools, Recipe, WorkerFacts};
use crate::engine::local::{InlineLane, ThreadLane};
use crate::engine::onnx::{OnnxEngine, SessionOptions};
use crate::engine::worker::{Housed, LoadOrder, StartError, Worker, WorkerConfig};
use crate::engine::{BatchPlan, Engine, Lane};
use crate::graph::Model;
use crate::graph::family::Sketch;
use crate::graph::rules::safe_in_process;
use crate::id::{DeviceId, SessionId, StageId};
use crate::model::config::effective;
use crate::model::probe::{self};
use crate::model::scan::Found;
use crate::model::settings::Settings;
use crate::model::shelf::Shelf;
use crate::model::stash::{PrivateCopy, Stash, Stashed};
use crate::model::{ModelSpec, Rows};
use crate::rows::Storage;
use crate::sched::config::{Batching, StageConfig};
use crate::sched::event::{Event, Purpose, Store};
use crate::sched::quantile::Quantile;
use crate::sched::reuse::Policy;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Tries at loading a version whose worker dies.
const TRIES: u32 = 3;
/// A stage whose runs take less may run on the caller's own thread.
const INLINE_BELOW: Duration = Duration::from_micros(50);
/// Where a stage runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Always in a worker process.
    #[default]
    Worker,
    /// In the daemon where every operator is known to be safe, else in a worker process.
    Auto,
    /// Always in the daemon.
    None,
}

/// How models are loaded and scheduled.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Our own binary, for workers.
    pub program: PathBuf,
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// How sessions are set up; their number and threads fit the cores.
    pub session: SessionOptions,
    /// The user set their number or their threads, for all models.
    pub session_set: bool,
    /// Others are tried while nobody asks for anything.
    pub autotune: bool,
    /// Where stages run.
    pub isolation: Isolation,
    /// Bytes of one batch's inputs, and of its outputs.
    pub batch_bytes: usize,
    /// The largest batch; none for what was measured to help.
    pub batch_rows_max: Option<usize>,
    /// Batch sizes that the user prefers.
    pub batch_rows_preferred: Vec<usize>,
    /// How long rows may be held to fill a batch.
    pub queue_delay: Duration,
    /// What batches are formed by.
    pub batching: Batching,
    /// Within what answers should be there of models that do not say.
    pub latency_target: Option<Duration>,
    /// The share of their answers that are to be there by then; none for the usual one.
    pub latency_quantile: Option<Quantile>,
    /// Equal rows may be joined.
    pub join: bool,
    /// Whether models go through shared bases that do not say.
    pub sharing: Policy,
    /// How base outputs may lie in memory for models that do not say.
    pub base_storage: Storage,
    /// What the user set for single models, by name.
    pub models: BTreeMap<String, Settings>,
    /// How long loading one version may take.
    pub load_timeout: Duration,
}

/// Loads versions.
pub struct Loader {
    driver: Arc<Driver>,
    pools: Arc<Pools>,
    stash: Arc<Stash>,
    shelf: Shelf,
    config: LoadConfig,
    stages: AtomicU32,
    /// What families may need of the models that are served, by their stage.
    materials: Mutex<BTreeMap<StageId, Arc<family::Material>>>,
    families: tokio::sync::Mutex<family::State>,
    steps: Steps,
    /// Why models that are served can be in no family, by their stage.
    unfit: Mutex<BTreeMap<StageId, String>>,
    /// What is told of families.
    told: Mutex<family::Told>,
    /// Whose costs are kept for the next start.
    costs: Mutex<costs::Kept>,
    /// Whose sessions may be set up in other ways.
    tunable: tune::Tunable,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A model that runs, before it serves.
enum Host {
    Worker(Box<(Worker, Housed)>, WorkerConfig),
    Daemon(Arc<dyn Engine>),
}

impl Loader {
    /// A loader that copies into `stash`, and finds again on `shelf` what was worked out of models before.
    #[must_use]
    pub fn new(
        driver: Arc<Driver>,
        pools: Arc<Pools>,
        (stash, shelf): (Stash, Shelf),
        config: LoadConfig,
    ) -> Self {
        Self {
            driver,
            pools,
            stash: Arc::new(stash),
            shelf,
            config,
            stages: AtomicU32::new(0),
            materials: Mutex::default(),
            families: tokio::sync::Mutex::default(),
            steps: Steps::default(),
            unfit: Mutex::default(),
            told: Mutex::default(),
            costs: Mutex::default(),
            tunable: tune::Tunable::default(),
        }
    }

    /// The worker processes that serve what was loaded.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        self.pools.workers()
    }

    /// What is being loaded, and how far it is.
    #[must_use]
    pub fn loading(&self) -> Loading {
        self.steps.now()
    }

    /// A new folder beside the private copies; it goes when it is dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, prefix: &str) -> std::io::Result<tempfile::TempDir> {
        self.stash.folder(prefix)
    }

    /// Loads one version and lets it serve; unless it has the very content and settings of `current`.
    ///
    /// # Errors
    /// A sentence for the operator and for whoever asks for the model.
    pub async fn load(
        &self,
        found: &Found,
        current: Option<&ModelSpec>,
    ) -> Result<Option<ModelSpec>, String> {
        let step = self.steps.begin(&found.name, found.version);
        // Not in place: worker processes die with the thread that started them, and a runtime's thread
        // that blocks in place may end up as one that is let go.
        let (stash, shelf, version) = (self.stash.clone(), self.shelf.clone(), found.clone());
        let read = move |cancelled: &AtomicBool| {
            let (setup, stashed) = stable(&stash, &version, cancelled)?;
            let sketch = family::shelved::sketch(&shelf, &stashed);
            Ok((setup, stashed, sketch))
        };
        let (setup, stashed, sketch) = background(read).await?;
        let own = self.as_tried(Own::new(&self.config, found, setup, &stashed)?);
        let same = |spec: &ModelSpec| spec.digest == own.digest && spec.setup == own.setup.digest;
        if current.is_some_and(same) {
            return Ok(None);
        }
        self.bring_up(found, &own, (stashed, sketch), &step).await.map(Some)
    }

    async fn bring_up(
        &self,
        found: &Found,
        own: &Own,
        (stashed, sketch): (Stashed, Result<Sketch, String>),
        step: &Step,
    ) -> Result<ModelSpec, String> {
        let Stashed { copy, model, .. } = &stashed;
        let label = format!("{}:{}", found.name, found.version);
        for warning in &stashed.warnings {
            tracing::warn!("model {label}: {warning}");
        }
        for note in own.notes() {
            tracing::warn!("model {label}: its settings say what means nothing here: {note}");
        }
        step.at("starting sessions");
        let rehearsal = Arc::new(Rehearsal::new(self.config.load_timeout));
        let begun = self.driver.clock().now();
        let (mut host, sessions, mut lanes) =
            self.host(&own.session, model, (&copy.file(), &label), rehearsal.clone()).await?;
        let rise = self.driver.clock().now().since(begun);
        step.at("trying rows");
        let mut probed = probe_model(model, &own.fitted, &rehearsal, lanes[0].as_ref()).await;
        if let Host::Worker(worker, config) = &host
            && worker.0.has_ended()
        {
            // A made-up row ended the process. That says nothing against the model's real rows, but
            // nothing more is tried on it.
            let why =
                "a made-up row ended its worker process, so rows could not be tried".to_owned();
            probed = Probed { rows: Rows::Whole { why }, sample: None, ..unprobed(&own.fitted) };
            let config = config.clone();
            let worker = Worker::start(&config, &sessions, rehearsal.clone()).await;
            let worker = worker.map_err(|error| error.to_string())?;
            lanes.clone_from(&worker.1.lanes);
            host = Host::Worker(Box::new(worker), config);
        }
        let padding = padding::tried(own, &probed, &rehearsal, lanes[0].as_ref()).await?;
        step.at("measuring batches");
        let times = self.measure(own, &probed, &rehearsal, lanes[0].as_ref()).await;
        let stage = StageId(self.stages.fetch_add(1, Ordering::Relaxed));
        let runs_in = if matches!(host, Host::Worker(..)) { "worker" } else { "daemon" };
        let counts = self.driver.metrics().model(&found.name, found.version);
        let spec = spec(found, own, model, &probed, &times, runs_in);
        let mut spec = ModelSpec { stage, counts, ..spec };
        if let Some((padding, found)) = padding {
            spec.padding = Some(padding);
            spec.findings.insert("graftd.padding".to_owned(), found);
        }
        let key = self.cost_key(&own.digest, &own.session);
        let config =
            StageConfig { known: self.known(&key, &times), ..self.stage_config(&spec, &times) };
        spec.config = Arc::new(effective(own.setup.config.as_ref(), &loaded(own, &spec, &config)));
        let warm = warm::plans(&probed, &spec, &times, config.batch_rows_max);
        step.at("warming up");
        for lane in &lanes {
            for plan in &warm {
                // What could be tried was tried above; a warm-up that fails now is no reason to refuse.
                let _ = rehearsal.run(lane.as_ref(), plan).await;
            }
        }
        warm::declared(own, &spec, &rehearsal, &lanes).await?;
        let copy = Arc::new(stashed.copy);
        let kept = (&copy, stashed.digest, &config);
        let material = family::Material::of(own, &spec, &probed, sketch, kept, rise);
        self.driver.event(Event::StageUp { stage, config });
        self.keep_costs(stage, key);
        let slots = u32::try_from(own.session.threads.max(1)).unwrap_or(1);
        self.serve((stage, slots), (host, sessions), warm, &times, copy)?;
        self.keep_material(&spec, material);
        self.keep_tunable(own, &spec);
        Ok(spec)
    }

    /// Starts whatever runs the model, trying again where its process dies.
    async fn host(
        &self,
        session: &SessionOptions,
        model: &Model,
        (file, label): (&std::path::Path, &str),
        rehearsal: Arc<Rehearsal>,
    ) -> Result<(Host, Vec<SessionId>, Vec<Arc<dyn Lane>>), String> {
        let sessions: Vec<SessionId> = (0..session.lanes).map(|_| self.driver.session()).collect();
        let in_daemon = match self.config.isolation {
            Isolation::Worker => false,
            Isolation::Auto => safe_in_process(model).is_ok(),
            Isolation::None => true,
        };
        if in_daemon {
            let (library, session) = (self.config.library.clone(), session.clone());
            let file = file.to_owned();
            let starts_threads = session.starts_threads();
            let load = move || OnnxEngine::load(&library, &file, &session);
            let (engine, warnings) = if starts_threads {
                foreground(load).await
            } else {
                background(move |_| load()).await
            }?;
            warnings.iter().for_each(|warning| tracing::warn!("{label}: {warning}"));
            let engine: Arc<dyn Engine> = Arc::new(engine);
            let lane = InlineLane { session: sessions[0], number: 0, engine: engine.clone() };
            return Ok((Host::Daemon(engine), sessions, vec![Arc::new(lane)]));
        }
        let config = self.worker_config(session, file, label);
        let mut tries = 1;
        let worker = loop {
            match Worker::start(&config, &sessions, rehearsal.clone()).await {
                Ok(worker) => break worker,
                Err(error @ StartError::Died(_)) if tries == TRIES => {
                    return Err(format!("{error}, {tries} times"));
                }
                Err(StartError::Died(_)) => tries += 1,
                Err(error) => return Err(error.to_string()),
            }
        };
        worker.1.warnings.iter().for_each(|warning| tracing::warn!("{label}: {warning}"));
        let lanes = worker.1.lanes.clone();
        Ok((Host::Worker(Box::new(worker), config), sessions, lanes))
    }

    fn worker_config(
        &self,
        session: &SessionOptions,
        file: &std::path::Path,
        label: &str,
    ) -> WorkerConfig {
        let LoadConfig { program, library, batch_bytes, load_timeout, .. } = &self.config;
        let geometry =
            crate::engine::worker::Geometry { lanes: session.lanes, area_bytes: *batch_bytes };
        WorkerConfig {
            program: program.clone(),
            order: LoadOrder {
                library: library.clone(),
                model: file.to_owned(),
                session: session.clone(),
                geometry,
                gives_way: true,
                trial: false,
            },
            load_timeout: *load_timeout,
            label: label.to_owned(),
        }
    }

    fn stage_config(&self, spec: &ModelSpec, times: &[(usize, u64)]) -> StageConfig {
        let (knee, top) = probe::knee(times);
        let set = spec.settings.batch_rows_max.or(self.config.batch_rows_max);
        let preferred = spec.settings.batch_rows_preferred.as_ref();
        let preferred = preferred.unwrap_or(&self.config.batch_rows_preferred);
        // Who prefers a size wants batches of it, whatever was measured.
        let top = top.max(preferred.last().copied().unwrap_or(1));
        let batch_rows_max = if spec.cuts_rows() { set.unwrap_or(top) } else { 1 };
        let batch_rows_max = batch_rows_max.min(spec.request_rows_max.unwrap_or(batch_rows_max));
        let shared = spec.unshared.is_none();
        let preferred = preferred.iter().copied();
        let batching = self.config.batching;
        let knee = if batching == Batching::Eager { batch_rows_max } else { knee };
        StageConfig {
            device: DeviceId(0),
            batch_rows_max: batch_rows_max.max(1),
            batch_rows_knee: knee.min(batch_rows_max).max(1),
            batch_rows_preferred: preferred.filter(|&rows| rows <= batch_rows_max).collect(),
            batching,
            quantile: spec.settings.latency_quantile.unwrap_or_default(),
            queue_rows_max: spec.queue.rows_max,
            queue_delay: spec.settings.queue_delay.unwrap_or(self.config.queue_delay),
            join: spec.settings.dedupe.unwrap_or(self.config.join) && shared,
            store: spec.settings.cache.unwrap_or(true) && shared,
            kept_in: Store::Answers,
            output_bytes: 0,
            known: Vec::new(),
        }
    }

    fn serve(
        &self,
        (stage, slots): (StageId, u32),
        (host, sessions): (Host, Vec<SessionId>),
        warm: Vec<Arc<BatchPlan>>,
        times: &[(usize, u64)],
        copy: Arc<PrivateCopy>,
    ) -> Result<(), String> {
        let engine = match host {
            Host::Worker(worker, mut config) => {
                // Whoever takes this worker's place is waited for.
                config.order.gives_way = false;
                let recipe = Recipe { config, warm, slots, _copy: copy };
                let (worker, housed) = *worker;
                worker.serves(housed.model);
                self.pools.adopt(stage, recipe, worker, (housed, sessions));
                return Ok(());
            }
            Host::Daemon(engine) => engine,
        };
        let quick = times.first().is_some_and(|&(_, ns)| Duration::from_nanos(ns) < INLINE_BELOW);
        for (number, session) in sessions.into_iter().enumerate() {
            let lane: Arc<dyn Lane> = if quick {
                Arc::new(InlineLane { session, number, engine: engine.clone() })
            } else {
                let sink = self.driver.clone();
                let lane = ThreadLane::start(session, number, engine.clone(), sink);
                Arc::new(lane.map_err(|error| format!("no thread for a session: {error}"))?)
            };
            let purpose = Purpose::Serving;
            let up = Event::SessionUp { session, stage, purpose, slots };
            self.driver.add_lane(session, lane, up);
        }
        Ok(())
    }
}
