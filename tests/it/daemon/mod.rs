//! A daemon without sockets: driver, pools and loader in this process, workers of our own binary.

mod chance;
pub(crate) mod oracle;
pub(crate) mod process;

pub(crate) use chance::Chance;
pub(crate) use oracle::Oracle;

use graftd::driver::Driver;
use graftd::driver::load::{Isolation, LoadConfig, Loader};
use graftd::driver::pool::Pools;
use graftd::engine::onnx::{Provider, SessionOptions};
use graftd::engine::runtime;
use graftd::error::InferError;
use graftd::id::{DeviceId, StageId, Tenant};
use graftd::metrics::Metrics;
use graftd::model::scan::Found;
use graftd::model::shelf::Shelf;
use graftd::model::stash::Stash;
use graftd::model::{ModelSpec, State};
use graftd::repository::control::Control;
use graftd::repository::{Options, Repository, Served, Watch};
use graftd::request::{InferRequest, InferResponse, Input, Output};
use graftd::rows::Inputs;
use graftd::sched::Load;
use graftd::sched::config::{Batching, Config};
use graftd::server::regions::{RegionLimits, Regions};
use graftd::server::rights::{Listener, Peer};
use graftd::server::service::{Codec, Context, Service};
use graftd::tensor::{OutputTensor, Shape, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than any test takes: what is to happen then has another cause.
const HOUR: Duration = Duration::from_secs(3600);

/// Everything that a test may want otherwise.
pub(crate) struct Settings {
    pub sched: Config,
    pub load: LoadConfig,
    pub watch: Watch,
    pub removal_grace: Duration,
}

/// The runtime's library; without it the test is passed over, by name.
pub(crate) fn library(test: &str) -> Option<PathBuf> {
    runtime::find(None).map_err(|why| skipped(test, &why)).ok()
}

/// Says that a test is passed over.
pub(crate) fn skipped(test: &str, reason: &str) {
    println!("skipped: {test}: {}", reason.lines().next().unwrap_or_default());
}

/// The model file of a fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let flat = root.join("flat").join(format!("{name}.onnx"));
    if flat.exists() { flat } else { root.join("models").join(name).join("1/model.onnx") }
}

impl Settings {
    /// Two sessions of one thread, batches of up to eight rows, a short watchdog and no kept rows.
    pub(crate) fn new(library: PathBuf) -> Self {
        let session = SessionOptions {
            provider: Provider::Cpu,
            fallback_cpu: false,
            threads: 1,
            lanes: 2,
            tuning: Default::default(),
        };
        let load = LoadConfig {
            program: env!("CARGO_BIN_EXE_graftd").into(),
            library,
            session,
            session_set: true,
            autotune: false,
            isolation: Isolation::Worker,
            batch_bytes: 64 << 20,
            batch_rows_max: Some(8),
            batch_rows_preferred: Vec::new(),
            queue_delay: Duration::ZERO,
            batching: Batching::Learned,
            latency_target: None,
            latency_quantile: None,
            join: true,
            sharing: graftd::sched::reuse::Policy::Auto,
            base_storage: graftd::rows::Storage::Exact,
            models: std::collections::BTreeMap::new(),
            load_timeout: Duration::from_secs(60),
        };
        let sched = Config { devices: vec![(DeviceId(0), 2)], cache_bytes: 0, ..Config::default() };
        let watch = Watch { interval: HOUR, quiet: Duration::from_millis(100) };
        Self { sched, load, watch, removal_grace: HOUR }
    }

    /// The same with a watchdog for tests of what hangs.
    pub(crate) fn watchdog(mut self, floor: Duration) -> Self {
        self.sched.watchdog_floor = floor;
        self.sched.watchdog_grace = Duration::from_millis(100);
        self
    }
}

/// Whoever asks in tests.
const PEER: Peer = Peer { tenant: Tenant(0), listener: Listener::Unix, uid: Some(0), admin: true };

/// What a stage's health became.
pub(crate) type Health = (StageId, Result<(), String>);

/// A daemon in this process.
pub(crate) struct Daemon {
    pub driver: Arc<Driver>,
    pub service: Arc<Service>,
    pub health: flume::Receiver<Health>,
    pub repository: Arc<Repository>,
    pub loader: Arc<Loader>,
    /// Goes before every model's name, so that tests do not take each other's processes for theirs.
    prefix: String,
    folder: TempDir,
}

impl Daemon {
    pub(crate) fn start(test: &str, settings: Settings) -> Self {
        Self::controlled(test, settings, Control::default())
    }

    pub(crate) fn controlled(test: &str, settings: Settings, control: Control) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let (driver, orders) = Driver::new(settings.sched, metrics.clone());
        let (told, health) = flume::bounded(64);
        let tell = Arc::new(move |stage, result| told.send((stage, result)).unwrap_or_default());
        let pools = Pools::new(driver.clone(), tell);
        tokio::spawn(driver.clone().timers());
        tokio::spawn(pools.clone().run(orders));
        let stash = Stash::create(folder.path()).unwrap();
        let loader =
            Arc::new(Loader::new(driver.clone(), pools, (stash, Shelf::default()), settings.load));
        let served = Arc::new(Served::default());
        let root = folder.path().join("models");
        std::fs::create_dir(&root).unwrap();
        let options = Options {
            root,
            control,
            loads: 1,
            watch: Some(settings.watch),
            removal_grace: settings.removal_grace,
        };
        let repository = Repository::new(options, driver.clone(), loader.clone(), served);
        let regions = Regions::new(RegionLimits { regions_max: 0, request_bytes_max: 0 });
        let service = Service::new(driver.clone(), metrics, repository.clone(), regions, None);
        let service = Arc::new(service);
        Self { driver, service, health, repository, loader, prefix: test.to_owned(), folder }
    }

    /// The model directory.
    pub(crate) fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// The name under which a model is served here.
    pub(crate) fn name(&self, model: &str) -> String {
        format!("{}-{model}", self.prefix)
    }

    /// Loads a model and serves it.
    pub(crate) async fn load(&self, model: &str, file: &Path) -> Result<Arc<ModelSpec>, String> {
        let found = Found { name: self.name(model), version: 1, file: file.to_owned() };
        let spec = Arc::new(self.loader.load(&found, None).await?.expect("nothing was there"));
        let ready = State::Ready(spec.clone());
        assert!(self.repository.served().replace(&found.name, 1, Some(ready)).is_none());
        Ok(spec)
    }

    /// Looks for what models that are served have in common, and opens their ways through it.
    pub(crate) async fn find_families(&self, served: Vec<Arc<ModelSpec>>) {
        self.loader.settle_families(served).await;
    }

    pub(crate) async fn load_fixture(&self, name: &str) -> Arc<ModelSpec> {
        self.load(name, &fixture(name)).await.unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// Asks a model.
    pub(crate) async fn infer(
        &self,
        spec: &ModelSpec,
        inputs: &Inputs,
    ) -> Result<InferResponse, InferError> {
        let context = Context { peer: PEER, codec: Codec::Rest, timeout: None };
        self.service.infer(request(spec, inputs), context).await
    }

    /// Waits until nothing is in flight, then checks that nothing was left behind.
    pub(crate) async fn assert_empty(&self) {
        self.driver.drained().await;
        self.driver.verify().unwrap();
        let kept_rows = self.driver.load().kept_rows;
        let kept_bytes = self.driver.load().kept_bytes;
        assert_eq!(self.driver.load(), Load { kept_rows, kept_bytes, ..Load::default() });
    }

    /// The worker processes that serve a model.
    pub(crate) fn workers(&self, model: &str) -> Vec<process::Process> {
        process::workers(&format!("{}:1", self.name(model)))
    }

    /// How many worker processes have ended.
    pub(crate) fn deaths(&self) -> u64 {
        let text = self.service.metrics();
        let line = text.lines().find(|line| line.starts_with("graftd_workers_died"));
        let line = line.unwrap_or_else(|| panic!("no count of deaths in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// The request for these inputs.
pub(crate) fn request(spec: &ModelSpec, inputs: &Inputs) -> InferRequest<Input> {
    let tensor = |(input, spec): (&graftd::rows::InputTensor, &graftd::model::TensorSpec)| {
        Input::Sent(Tensor {
            name: spec.name.clone(),
            datatype: input.datatype,
            shape: Shape(input.shape.clone()),
            data: input.data.clone(),
        })
    };
    let inputs = inputs.tensors.iter().zip(&spec.inputs).map(tensor).collect();
    InferRequest { model: spec.name.clone(), inputs, ..InferRequest::default() }
}

/// A tensor of an answer.
pub(crate) fn sent(output: &Output) -> &OutputTensor {
    match output {
        Output::Sent(tensor) => tensor,
        Output::Shared(shared) => panic!("{shared:?} was not asked for"),
    }
}
