//! One model in ONNX Runtime as an engine: several lanes run in one session and so share its weights.

mod value;

use super::{Engine, EngineError, InputView, OutputSink};
use ort::AsPointer;
use ort::ep::{CUDA, ExecutionProvider, OpenVINO, TensorRT};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SharedSessionInner};
use parking_lot::Mutex;
use std::ffi::CString;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use value::Value;

/// Who executes a model's operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    #[default]
    Cpu,
    /// NVIDIA CUDA.
    Cuda,
    /// NVIDIA TensorRT.
    TensorRt,
    /// Intel OpenVINO.
    OpenVino,
}

impl Provider {
    /// Every provider with the name that users type.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("cpu", Self::Cpu),
        ("cuda", Self::Cuda),
        ("tensorrt", Self::TensorRt),
        ("openvino", Self::OpenVino),
    ];
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|&(_, provider)| provider).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("unknown execution provider '{text}'; expected one of {}", names.join(", "))
        })
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = Self::NAMES.iter().find(|(_, provider)| provider == self);
        f.write_str(found.map_or("?", |(name, _)| name))
    }
}

/// How a session is set up.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct SessionOptions {
    /// Who executes.
    pub provider: Provider,
    /// Run on the CPU, with a warning, where the provider is missing.
    pub fallback_cpu: bool,
    /// Threads of one run, the caller's included.
    pub threads: usize,
    /// Runs at the same time.
    pub lanes: usize,
    /// What a model sets for itself.
    pub tuning: Tuning,
}

impl SessionOptions {
    /// Whether setting up the session starts threads that serve later, which then run at the priority of
    /// whoever set it up.
    #[must_use]
    pub fn starts_threads(&self) -> bool {
        let Tuning { parallel, inter_threads, .. } = self.tuning;
        // What the other providers do is theirs.
        self.provider != Provider::Cpu
            || self.threads > 1
            || parallel
            || inter_threads.is_some_and(|threads| threads > 1)
    }
}

/// What a model may set for itself; the default is as for every model.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tuning {
    /// How far its graph is rewritten.
    pub graph: GraphLevel,
    /// Branches of its graph run side by side.
    pub parallel: bool,
    /// Threads for those branches; none for one.
    pub inter_threads: Option<usize>,
    /// Entries of the runtime's session configuration.
    pub entries: Vec<(String, String)>,
}

/// How far the runtime rewrites a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum GraphLevel {
    /// Not at all.
    Disabled,
    /// Redundant nodes go and constants are folded.
    Basic,
    /// Operators are fused, too.
    Extended,
    /// Everything that the runtime can do.
    #[default]
    All,
}

/// A loaded model.
pub struct OnnxEngine {
    inner: Arc<SharedSessionInner>,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    lanes: Vec<RunOptions>,
    /// Keeps what the runtime allocated for the session alive as long as `inner` is used.
    _session: Mutex<Session>,
}

impl std::fmt::Debug for OnnxEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEngine").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

/// Loads ONNX Runtime's library into this process and nothing of it yet.
///
/// # Errors
/// A sentence, when the file is no usable ONNX Runtime.
pub(super) fn open(library: &Path) -> Result<ort::environment::EnvironmentBuilder, String> {
    ort::init_from(library).map_err(|error| error.to_string())
}

/// Loads ONNX Runtime's library into this process; later calls return what the first one found.
///
/// # Errors
/// A sentence, when the file is no usable ONNX Runtime.
pub fn environment(library: &Path) -> Result<&'static ort::environment::Environment, String> {
    static ENVIRONMENT: OnceLock<Result<ort::environment::Environment, String>> = OnceLock::new();
    ENVIRONMENT
        .get_or_init(|| {
            let builder = open(library)?;
            let builder = builder.with_name("graftd").with_telemetry(false);
            builder.build().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(Clone::clone)
}

impl OnnxEngine {
    /// Loads a model file; the answer comes with warnings for the operator.
    ///
    /// # Errors
    /// What the runtime says against the model, or which provider is missing.
    pub fn load(
        library: &Path,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<(Self, Vec<String>), String> {
        let environment = environment(library)?;
        let mut warnings = Vec::new();
        let builder = SessionBuilder::new(environment).map_err(|error| error.to_string())?;
        let mut builder = configure(builder, options)?;
        builder = with_provider(builder, options, &mut warnings)?;
        let session = builder.commit_from_file(model).map_err(|error| error.to_string())?;
        let names = |outlets: &[ort::value::Outlet]| -> Result<Vec<CString>, String> {
            let name = |o: &ort::value::Outlet| CString::new(o.name()).map_err(|e| e.to_string());
            outlets.iter().map(name).collect()
        };
        let lanes = (0..options.lanes.max(1))
            .map(|_| {
                let mut options = RunOptions::new()?;
                options.set_log_level(LogLevel::Fatal)?;
                Ok(options)
            })
            .map(|options: ort::Result<RunOptions>| options.map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let engine = Self {
            inner: session.inner(),
            inputs: names(session.inputs())?,
            outputs: names(session.outputs())?,
            lanes,
            _session: Mutex::new(session),
        };
        Ok((engine, warnings))
    }
}

fn configure(builder: SessionBuilder, options: &SessionOptions) -> Result<SessionBuilder, String> {
    let threads = options.threads.max(1);
    let Tuning { graph, parallel, inter_threads, entries } = &options.tuning;
    let level = match graph {
        GraphLevel::Disabled => GraphOptimizationLevel::Disable,
        GraphLevel::Basic => GraphOptimizationLevel::Level1,
        GraphLevel::Extended => GraphOptimizationLevel::Level2,
        GraphLevel::All => GraphOptimizationLevel::All,
    };
    let build = || -> Result<SessionBuilder, ort::Error> {
        let mut builder = builder
            .with_optimization_level(level)?
            .with_intra_threads(threads)?
            .with_inter_threads(inter_threads.unwrap_or(1))?
            .with_parallel_execution(*parallel)?
            // A thread that waits for work must not take a core from one that has some.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Patterns are recorded per input shape and never given back: shapes vary here.
            .with_memory_pattern(false)?
            // Errors come back as results; the runtime's own log would only repeat them.
            .with_log_level(LogLevel::Fatal)?;
        for (key, value) in entries {
            builder = builder.with_config_entry(key, value)?;
        }
        Ok(builder)
    };
    build().map_err(|error| error.to_string())
}

fn with_provider(
    builder: SessionBuilder,
    options: &SessionOptions,
    warnings: &mut Vec<String>,
) -> Result<SessionBuilder, String> {
    let (available, dispatch) = match options.provider {
        Provider::Cpu => return Ok(builder),
        Provider::Cuda => (CUDA::is_available(), CUDA::default().build()),
        Provider::TensorRt => (TensorRT::is_available(), TensorRT::default().build()),
        Provider::OpenVino => (OpenVINO::is_available(), OpenVINO::default().build()),
    };
    let missing = match available {
        Ok(true) => match builder.clone().with_execution_providers([dispatch.error_on_failure()]) {
            Ok(builder) => return Ok(builder),
            Err(error) => error.to_string(),
        },
        Ok(false) => "this build of ONNX Runtime does not have it".to_owned(),
        Err(error) => error.to_string(),
    };
    let provider = options.provider;
    if options.fallback_cpu {
        warnings.push(format!("{provider} is missing ({missing}): running on the CPU instead"));
        return Ok(builder);
    }
    Err(format!(
        "execution provider '{provider}' was asked for and is missing: {missing}. Name a library that \
         has it with --onnxruntime PATH, choose --provider cpu, or allow --fallback-cpu"
    ))
}

impl Engine for OnnxEngine {
    fn run(
        &self,
        lane: usize,
        inputs: &[InputView<'_>],
        outputs: &mut dyn OutputSink,
    ) -> Result<(), EngineError> {
        if inputs.len() != self.inputs.len() {
            let (found, expected) = (inputs.len(), self.inputs.len());
            return Err(EngineError::Protocol(format!("{found} inputs instead of {expected}")));
        }
        let options =
            self.lanes.get(lane).ok_or_else(|| EngineError::Protocol("no such lane".into()))?;
        // A request to end an earlier run may have come too late for it.
        options.unterminate().map_err(|error| EngineError::Protocol(error.to_string()))?;
        let values = inputs.iter().map(Value::input).collect::<Result<Vec<_>, _>>()?;
        let session = self.inner.ptr().cast_mut();
        let results = value::run(session, options, (&self.inputs, &values), &self.outputs)?;
        results.iter().try_for_each(|result| result.write_to(outputs))
    }

    fn terminate(&self, lane: usize) {
        if let Some(options) = self.lanes.get(lane) {
            // The only failure is an invalid pointer, which a live value cannot be.
            let _ = options.terminate();
        }
    }
}
