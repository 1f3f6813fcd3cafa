//! From a file to warm sessions: copy, judge, start, probe, measure, and only then serve.

use super::Driver;
use super::pool::{Pools, Recipe};
use crate::digest::StageDigest;
use crate::engine::local::{InlineLane, ThreadLane};
use crate::engine::onnx::{OnnxEngine, SessionOptions};
use crate::engine::worker::{LoadOrder, Worker, WorkerConfig, WorkerEvents};
use crate::engine::{BatchPlan, Begun, Completion, CompletionSink, Engine, EngineError, Lane};
use crate::graph::Model;
use crate::graph::rules::{BatchVerdict, batch_axes, deterministic, safe_in_process};
use crate::id::{BatchId, DeviceId, SessionId, StageId};
use crate::model::probe::{self, Kind, Sample};
use crate::model::scan::Found;
use crate::model::stash::Stash;
use crate::model::{ModelSpec, Rows, TensorSpec};
use crate::rows::{Block, BlockTensor, Inputs, RowValue};
use crate::sched::config::StageConfig;
use crate::sched::event::{Event, Purpose};
use crate::tensor::DataType;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Tries at loading a version whose worker dies.
const TRIES: u32 = 3;
/// A stage whose runs take less may run on the caller's own thread.
const INLINE_BELOW: Duration = Duration::from_micros(50);
/// Time spent at most on measuring one batch size.
const MEASURE: Duration = Duration::from_millis(40);

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
    /// Equal rows may be joined.
    pub join: bool,
    /// How long loading one version may take.
    pub load_timeout: Duration,
}

/// Loads versions.
pub struct Loader {
    driver: Arc<Driver>,
    pools: Arc<Pools>,
    stash: Stash,
    config: LoadConfig,
    stages: AtomicU32,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Runs batches before the scheduler knows of their session.
pub(super) struct Rehearsal {
    /// How long one run may take: no watchdog looks at these.
    patience: Duration,
    next: AtomicU64,
    waiting: Mutex<HashMap<BatchId, oneshot::Sender<Completion>>>,
}

impl Rehearsal {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, next: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Runs one batch and waits for it.
    pub(super) async fn run(
        &self,
        lane: &dyn Lane,
        plan: &Arc<BatchPlan>,
    ) -> Result<(Block, Duration), EngineError> {
        let batch = BatchId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, mut receiver) = oneshot::channel();
        self.waiting.lock().insert(batch, sender);
        if let Begun::Finished(completion) = lane.begin(batch, plan) {
            self.complete(completion);
        }
        if lane.is_dead() {
            // It swallowed the batch, and its death was told before anybody waited.
            self.waiting.lock().remove(&batch);
        }
        let completion = match tokio::time::timeout(self.patience, &mut receiver).await {
            Ok(completion) => completion,
            Err(_) => {
                // Its death is told like any other.
                lane.kill();
                receiver.await
            }
        };
        match completion {
            Ok(completion) => completion.result,
            Err(_) => Err(EngineError::Protocol("the worker process ended".into())),
        }
    }
}

impl CompletionSink for Rehearsal {
    fn complete(&self, completion: Completion) {
        if let Some(sender) = self.waiting.lock().remove(&completion.batch) {
            // Whoever waited gave up.
            let _ = sender.send(completion);
        }
    }
}

impl WorkerEvents for Rehearsal {
    fn worker_died(&self, _sessions: &[SessionId], _how: &str) {
        self.waiting.lock().clear();
    }
}

/// A model that runs, before it serves.
enum Host {
    Worker(Worker, WorkerConfig),
    Daemon(Arc<dyn Engine>),
}

/// What probing found.
struct Probed {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    rows: Rows,
    sample: Option<Sample>,
    difference: f64,
}

impl Loader {
    /// A loader that copies into `stash`.
    #[must_use]
    pub fn new(driver: Arc<Driver>, pools: Arc<Pools>, stash: Stash, config: LoadConfig) -> Self {
        Self { driver, pools, stash, config, stages: AtomicU32::new(0) }
    }

    /// Loads one version and lets it serve; unless it has the very content of `current`.
    ///
    /// # Errors
    /// A sentence for the operator and for whoever asks for the model.
    pub async fn load(
        &self,
        found: &Found,
        current: Option<StageDigest>,
    ) -> Result<Option<ModelSpec>, String> {
        let stashed = tokio::task::block_in_place(|| self.stash.copy(&found.file))?;
        if current == Some(stashed.digest) {
            self.stash.discard(&stashed.file);
            return Ok(None);
        }
        let result = self.bring_up(found, &stashed.file, stashed.digest, &stashed.model).await;
        if result.is_err() {
            self.stash.discard(&stashed.file);
        }
        result.map(Some)
    }

    async fn bring_up(
        &self,
        found: &Found,
        file: &std::path::Path,
        digest: StageDigest,
        model: &Model,
    ) -> Result<ModelSpec, String> {
        let label = format!("{}:{}", found.name, found.version);
        let rehearsal = Arc::new(Rehearsal::new(self.config.load_timeout));
        let (mut host, sessions, mut lanes) =
            self.host(model, file, &label, rehearsal.clone()).await?;
        let mut probed = probe_model(model, &rehearsal, lanes[0].as_ref()).await;
        if let Host::Worker(worker, config) = &host
            && worker.has_ended()
        {
            // A made-up row ended the process. That says nothing against the model's real rows, but
            // nothing more is tried on it.
            let why =
                "a made-up row ended its worker process, so rows could not be tried".to_owned();
            probed = Probed { rows: Rows::Whole { why }, sample: None, ..unprobed(model) };
            let config = config.clone();
            let worker = Worker::start(&config, &sessions, rehearsal.clone()).await?;
            lanes = worker.lanes();
            host = Host::Worker(worker, config);
        }
        let times = self.measure(&probed, &rehearsal, lanes[0].as_ref()).await;
        let stage = StageId(self.stages.fetch_add(1, Ordering::Relaxed));
        let spec = self.spec(found, stage, digest, model, &probed, &times, &host);
        let config = self.stage_config(&spec, &times);
        let warm = warm_plans(&probed, &spec, &times, config.batch_rows_max);
        for lane in &lanes {
            for plan in &warm {
                // What could be tried was tried above; a warm-up that fails now is no reason to refuse.
                let _ = rehearsal.run(lane.as_ref(), plan).await;
            }
        }
        self.driver.event(Event::StageUp { stage, config });
        self.serve(stage, host, warm, sessions, &times)?;
        Ok(spec)
    }

    /// Starts whatever runs the model, trying again where its process dies.
    async fn host(
        &self,
        model: &Model,
        file: &std::path::Path,
        label: &str,
        rehearsal: Arc<Rehearsal>,
    ) -> Result<(Host, Vec<SessionId>, Vec<Arc<dyn Lane>>), String> {
        let sessions: Vec<SessionId> =
            (0..self.config.session.lanes.max(1)).map(|_| self.driver.session()).collect();
        let in_daemon = match self.config.isolation {
            Isolation::Worker => false,
            Isolation::Auto => safe_in_process(model).is_ok(),
            Isolation::None => true,
        };
        if in_daemon {
            let config = &self.config;
            let (engine, warnings) = tokio::task::block_in_place(|| {
                OnnxEngine::load(&config.library, file, &config.session)
            })?;
            warnings.iter().for_each(|warning| tracing::warn!("{label}: {warning}"));
            let engine: Arc<dyn Engine> = Arc::new(engine);
            let lane = InlineLane { session: sessions[0], number: 0, engine: engine.clone() };
            return Ok((Host::Daemon(engine), sessions, vec![Arc::new(lane)]));
        }
        let config = self.worker_config(file, label);
        let mut tries = 1;
        let worker = loop {
            match Worker::start(&config, &sessions, rehearsal.clone()).await {
                Ok(worker) => break worker,
                Err(why) if tries == TRIES || !why.contains("worker process ended") => {
                    return Err(if tries > 1 { format!("{why}, {tries} times") } else { why });
                }
                Err(_) => tries += 1,
            }
        };
        worker.warnings.iter().for_each(|warning| tracing::warn!("{label}: {warning}"));
        let lanes = worker.lanes();
        Ok((Host::Worker(worker, config), sessions, lanes))
    }

    fn worker_config(&self, file: &std::path::Path, label: &str) -> WorkerConfig {
        let LoadConfig { program, library, session, batch_bytes, load_timeout, .. } = &self.config;
        let geometry = crate::engine::worker::Geometry {
            lanes: session.lanes.max(1),
            area_bytes: *batch_bytes,
        };
        WorkerConfig {
            program: program.clone(),
            order: LoadOrder {
                library: library.clone(),
                model: file.to_owned(),
                session: session.clone(),
                geometry,
            },
            load_timeout: *load_timeout,
            label: label.to_owned(),
        }
    }

    /// Times batches of growing size until larger ones stop helping.
    async fn measure(
        &self,
        probed: &Probed,
        rehearsal: &Rehearsal,
        lane: &dyn Lane,
    ) -> Vec<(usize, u64)> {
        let Some(sample) = probed.sample else { return Vec::new() };
        let limit = if matches!(probed.rows, Rows::Independent { .. }) { 64 } else { 1 };
        let limit = self.config.batch_rows_max.unwrap_or(limit).min(limit);
        let mut times: Vec<(usize, u64)> = Vec::new();
        let mut rows = 1;
        while rows <= limit {
            let plan = sample_plan(probed, sample, rows);
            let Some(ns) = best_time(rehearsal, lane, &plan).await else { break };
            times.push((rows, ns));
            let rate = |&(rows, ns): &(usize, u64)| rows as f64 / ns.max(1) as f64;
            let best = times.iter().map(rate).fold(0.0, f64::max);
            let first = times.iter().position(|time| rate(time) >= 0.97 * best).unwrap_or(0);
            if times.len() - first > 2 {
                break;
            }
            rows *= 2;
        }
        times
    }

    fn stage_config(&self, spec: &ModelSpec, times: &[(usize, u64)]) -> StageConfig {
        let (knee, top) = probe::knee(times);
        let batch_rows_max =
            if spec.cuts_rows() { self.config.batch_rows_max.unwrap_or(top) } else { 1 };
        let preferred = self.config.batch_rows_preferred.iter().copied();
        StageConfig {
            device: DeviceId(0),
            batch_rows_max: batch_rows_max.max(1),
            batch_rows_knee: knee.min(batch_rows_max).max(1),
            batch_rows_preferred: preferred.filter(|&rows| rows <= batch_rows_max).collect(),
            queue_delay: self.config.queue_delay,
            join: self.config.join && spec.unshared.is_none(),
            store: spec.unshared.is_none(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that was found, in one place")]
    fn spec(
        &self,
        found: &Found,
        stage: StageId,
        digest: StageDigest,
        model: &Model,
        probed: &Probed,
        times: &[(usize, u64)],
        host: &Host,
    ) -> ModelSpec {
        let unshared = deterministic(model).err().map(|reason| reason.to_string());
        let mut findings = BTreeMap::new();
        let mut note = |key: &str, value: String| {
            findings.insert(format!("graftd.{key}"), value);
        };
        note("digest", digest.to_string());
        match &probed.rows {
            Rows::Independent { how } => note("rows", format!("independent: {how}")),
            Rows::Whole { why } => note("rows", format!("requests run as they come: {why}")),
        }
        note("row_difference", format!("{:e}", probed.difference));
        note(
            "sharing",
            unshared.clone().map_or("equal rows are shared".into(), |why| format!("off: {why}")),
        );
        if !times.is_empty() {
            let shown = times.iter().map(|(rows, ns)| format!("{rows}: {} us", ns / 1000));
            note("batch_times", shown.collect::<Vec<_>>().join(", "));
            let (knee, top) = probe::knee(times);
            note("batch_rows", format!("{knee} nearly as good as any, {top} at most"));
        }
        note(
            "runs_in",
            if matches!(host, Host::Worker(..)) { "worker" } else { "daemon" }.to_owned(),
        );
        let axes = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.axis).collect();
        ModelSpec {
            name: found.name.clone(),
            version: found.version,
            versions: vec![found.version],
            stage,
            digest,
            output_axes: axes(&probed.outputs),
            whole_axes: probed.outputs.iter().map(|_| None).collect(),
            inputs: probed.inputs.clone(),
            outputs: probed.outputs.clone(),
            rows: probed.rows.clone(),
            unshared,
            findings,
        }
    }

    fn serve(
        &self,
        stage: StageId,
        host: Host,
        warm: Vec<Arc<BatchPlan>>,
        sessions: Vec<SessionId>,
        times: &[(usize, u64)],
    ) -> Result<(), String> {
        let slots = u32::try_from(self.config.session.threads.max(1)).unwrap_or(1);
        let engine = match host {
            Host::Worker(worker, config) => {
                self.pools.adopt(stage, Recipe { config, warm, slots }, worker, sessions);
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

fn unprobed(model: &Model) -> Probed {
    let plain = |ports: &[crate::graph::Port]| {
        ports.iter().map(|port| TensorSpec::new(port, None)).collect()
    };
    Probed {
        inputs: plain(model.inputs()),
        outputs: plain(model.outputs()),
        rows: Rows::Whole { why: "not tried".into() },
        sample: None,
        difference: 0.0,
    }
}

/// Finds out whether rows are independent: by the graph where it is clear, and by running rows alone and
/// beside mates of very different magnitude in any case.
async fn probe_model(model: &Model, rehearsal: &Rehearsal, lane: &dyn Lane) -> Probed {
    let whole = |why: String| Probed { rows: Rows::Whole { why }, ..unprobed(model) };
    let (axes, declared, how) = match batch_axes(model) {
        BatchVerdict::Independent { inputs, outputs } => {
            (inputs, Some(outputs), "every operator keeps them apart".to_owned())
        }
        BatchVerdict::Undecided { inputs, why } => (inputs, None, format!("tried out, as {why}")),
        BatchVerdict::Mixes { why } | BatchVerdict::None { why } => {
            return with_sample(whole(why), rehearsal, lane).await;
        }
    };
    let strings = |(port, axis): (&crate::graph::Port, &Option<usize>)| {
        port.datatype == DataType::Bytes && axis.is_some_and(|axis| axis != 0)
    };
    if model.inputs().iter().zip(&axes).any(strings) {
        let why = "strings have their batch axis behind another".to_owned();
        return with_sample(whole(why), rehearsal, lane).await;
    }
    let inputs: Vec<TensorSpec> =
        model.inputs().iter().zip(&axes).map(|(port, &axis)| TensorSpec::new(port, axis)).collect();
    let trial = Trial { inputs: &inputs, rehearsal, lane };
    match trial.run(declared).await {
        Ok(Tried { outputs, sample, difference }) => {
            let outputs = model.outputs().iter().zip(outputs);
            Probed {
                outputs: outputs.map(|(port, axis)| TensorSpec::new(port, axis)).collect(),
                rows: Rows::Independent { how },
                sample: Some(sample),
                difference,
                inputs,
            }
        }
        Err(why) => with_sample(whole(why), rehearsal, lane).await,
    }
}

/// Finds a sample that a model without rows accepts, so that it can be warmed.
async fn with_sample(mut probed: Probed, rehearsal: &Rehearsal, lane: &dyn Lane) -> Probed {
    let trial = Trial { inputs: &probed.inputs, rehearsal, lane };
    probed.sample = trial.sample().await.ok().map(|(sample, _)| sample);
    probed
}

struct Tried {
    outputs: Vec<Option<usize>>,
    sample: Sample,
    difference: f64,
}

/// Rows tried on a model that may keep them apart.
struct Trial<'a> {
    inputs: &'a [TensorSpec],
    rehearsal: &'a Rehearsal,
    lane: &'a dyn Lane,
}

impl Trial<'_> {
    /// A sample that the model accepts, with its answer.
    async fn sample(&self) -> Result<(Sample, Block), String> {
        let mut last = "it has no inputs to make up".to_owned();
        for sample in probe::samples(self.inputs) {
            match self.batch(&[probe::row(self.inputs, sample, Kind::Normal(1))]).await {
                Ok(block) => return Ok((sample, block)),
                Err(EngineError::Protocol(why)) => return Err(why),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("no made-up row was accepted: {last}"))
    }

    /// Runs rows as one batch; outputs are not cut, as their axes are not known yet.
    async fn batch(&self, rows: &[Inputs]) -> Result<Block, EngineError> {
        // One output axis list of the right length is only known after the first run, so none is given.
        let mut plan = BatchPlan { whole: true, ..BatchPlan::default() };
        rows.iter().for_each(|row| plan.push(Arc::new(row.clone()), 0));
        self.rehearsal.run(self.lane, &Arc::new(plan)).await.map(|(block, _)| block)
    }

    async fn run(&self, declared: Option<Vec<Option<usize>>>) -> Result<Tried, String> {
        let (sample, _) = self.sample().await?;
        let row = |kind| probe::row(self.inputs, sample, kind);
        let kinds = [Kind::Normal(1), Kind::Scaled(2, 1e3), Kind::Scaled(3, 1e-3), Kind::Normal(4)];
        let text = |error: EngineError| format!("made-up rows failed together: {error}");
        let mut solo = Vec::new();
        for kind in kinds {
            solo.push(self.batch(&[row(kind)]).await.map_err(text)?);
        }
        let two = self.batch(&[row(kinds[0]), row(kinds[1])]).await.map_err(text)?;
        let three = self.batch(&kinds[..3].iter().map(|&k| row(k)).collect::<Vec<_>>()).await;
        let three = three.map_err(text)?;
        let found = probe::output_axes(&solo[0], &two, &three)?;
        if declared.is_some_and(|declared| declared != found) {
            return Err("its outputs' shapes are not what its graph says".into());
        }
        let orders: [&[usize]; 6] =
            [&[0, 1], &[1, 0], &[0, 1, 2], &[2, 0, 1], &[3, 2, 1, 0], &[1, 1, 0]];
        let mut worst = 0.0_f64;
        for order in orders {
            let rows: Vec<Inputs> = order.iter().map(|&k| row(kinds[k])).collect();
            let block = self.batch(&rows).await.map_err(text)?;
            let own: Vec<&Block> = order.iter().map(|&k| &solo[k]).collect();
            worst = worst.max(apart(&block, &own, &found)?);
        }
        for mate in [1e6, f32::INFINITY, f32::NAN] {
            let rows = [row(kinds[0]), row(Kind::Constant(mate)), row(kinds[3])];
            // A mate that makes the whole batch fail shows as an error, and is run apart.
            let Ok(block) = self.batch(&rows).await else { continue };
            worst = worst.max(apart_at(&block, 0, &solo[0], &found)?);
            worst = worst.max(apart_at(&block, 2, &solo[3], &found)?);
        }
        let limit = probe::tolerance(&solo[0]);
        if worst > limit {
            return Err(format!(
                "rows influence each other: a row's answer moved by {worst:.1e} of its size beside other rows"
            ));
        }
        Ok(Tried { outputs: found, sample, difference: worst })
    }
}

/// How far the rows of a batch are from their own answers alone.
fn apart(block: &Block, solo: &[&Block], axes: &[Option<usize>]) -> Result<f64, String> {
    let mut each = solo.iter().enumerate().map(|(place, own)| apart_at(block, place, own, axes));
    each.try_fold(0.0_f64, |worst, apart| apart.map(|apart| worst.max(apart)))
}

fn apart_at(
    block: &Block,
    place: usize,
    own: &Block,
    axes: &[Option<usize>],
) -> Result<f64, String> {
    let sizes = block.tensors.iter().zip(axes);
    let rows = sizes.filter_map(|(tensor, &axis)| tensor.shape.get(axis?).copied()).next();
    let rows = rows.unwrap_or(1);
    let cut = block.tensors.iter().zip(axes).map(|(tensor, &axis)| {
        let (shape, data) = (tensor.shape.clone(), tensor.data.clone());
        BlockTensor::new(tensor.datatype, shape, axis, data, rows)
    });
    let cut = Arc::new(Block { tensors: cut.collect::<Result<_, _>>()?, rows });
    let row = RowValue { block: cut, index: place }.detached();
    Ok(probe::difference(own, &row.block))
}

fn sample_plan(probed: &Probed, sample: Sample, rows: usize) -> Arc<BatchPlan> {
    let independent = matches!(probed.rows, Rows::Independent { .. });
    let axes = probed.outputs.iter().map(|output| output.axis.filter(|_| independent)).collect();
    let mut plan = BatchPlan { output_axes: axes, whole: !independent, runs: Vec::new() };
    for number in 0..rows {
        let row = probe::row(&probed.inputs, sample, Kind::Normal(10 + number as u64));
        plan.push(Arc::new(row), 0);
    }
    Arc::new(plan)
}

/// The shortest of a few runs, which is what the batch costs when nobody disturbs it.
async fn best_time(rehearsal: &Rehearsal, lane: &dyn Lane, plan: &Arc<BatchPlan>) -> Option<u64> {
    let clock = crate::clock::Clock::start();
    let mut best = None;
    for round in 0..50 {
        let start = clock.now();
        rehearsal.run(lane, plan).await.ok()?;
        let took = crate::time::nanos(clock.now().since(start));
        best = Some(best.map_or(took, |best: u64| best.min(took)));
        if round >= 2 && clock.now().since(crate::time::MonoTime::ZERO) > MEASURE {
            break;
        }
    }
    best
}

/// Runs at the sizes that will be used.
fn warm_plans(
    probed: &Probed,
    spec: &ModelSpec,
    times: &[(usize, u64)],
    batch_rows_max: usize,
) -> Vec<Arc<BatchPlan>> {
    let Some(sample) = probed.sample else { return Vec::new() };
    let largest = if spec.cuts_rows() { batch_rows_max } else { 1 };
    let mut sizes: Vec<usize> = times.iter().map(|&(rows, _)| rows).collect();
    sizes.push(largest);
    sizes.retain(|&rows| rows <= largest);
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().map(|rows| sample_plan(probed, sample, rows)).collect()
}
