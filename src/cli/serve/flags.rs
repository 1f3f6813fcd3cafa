//! The flags of `graftd serve`, one struct for each heading of its help.
//!
//! This is the only list of settings: variables, keys of the configuration file, the table in the README and the
//! printed configuration are all derived from it. A flag `--rows-max` is `GRAFTD_ROWS_MAX` and `rows_max`.

use super::values::{
    batch_bytes, batching, bytes, bytes_some, count, isolation, listen, ms_some, seconds_some,
    sharing, storage, switch, threads,
};
use crate::driver::load::Isolation;
use crate::engine::onnx::Provider;
use crate::logging::{Form, check_filter};
use crate::model::settings::Setting;
use crate::repository::control::Mode;
use crate::rows::Storage;
use crate::sched::config::Batching;
use crate::sched::quantile::Quantile;
use crate::sched::reuse::Policy;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where models come from and where they are served.
#[derive(Clone, Debug, Args)]
pub struct Places {
    /// Configuration file in TOML: rows_max = 1000 for --rows-max 1000, [model.NAME] for --set
    /// [default: the first there of $CONFIGURATION_DIRECTORY/graftd.toml,
    /// $XDG_CONFIG_HOME/graftd/graftd.toml, /etc/graftd/graftd.toml]
    #[arg(long, value_name = "FILE", env = "GRAFTD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print every setting with where it comes from, as a configuration file, and end
    #[arg(long)]
    pub print_config: bool,
    /// Directory of models: NAME.onnx, or NAME/VERSION/model.onnx
    #[arg(long, value_name = "DIR", env = "GRAFTD_MODELS", default_value = "models")]
    #[arg(aliases = ["model-repository", "model-store"])]
    pub models: PathBuf,
    /// Who decides which models are served: the directory at start (none), the directory (poll), or
    /// --load-model and administrators (explicit) [default: the directory and administrators]
    #[arg(long, value_name = "MODE", env = "GRAFTD_MODEL_CONTROL_MODE")]
    pub model_control_mode: Option<Mode>,
    /// A model to load at start under --model-control-mode explicit, * for all; may be given more than once
    #[arg(long, value_name = "NAME", env = "GRAFTD_LOAD_MODEL", value_delimiter = ',')]
    pub load_model: Vec<String>,
    /// Follow the model directory: load what comes or changes, unload what goes
    #[arg(long, env = "GRAFTD_WATCH")]
    pub watch: bool,
    /// Time between two looks at the directory where no notification comes
    #[arg(long, value_name = "S", env = "GRAFTD_WATCH_INTERVAL_S", default_value = "5")]
    #[arg(value_parser = seconds_some)]
    pub watch_interval_s: u64,
    /// How long models answer on when more than half of them vanish at once, as when a mount fails
    #[arg(long, value_name = "S", env = "GRAFTD_REMOVAL_GRACE_S", default_value_t = 30)]
    pub removal_grace_s: u64,
    /// Unix socket to serve on
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
    /// Serve on this TCP address too, such as 127.0.0.1:8000; may be given more than once
    #[arg(long, value_name = "HOST:PORT", env = "GRAFTD_LISTEN", value_delimiter = ',')]
    #[arg(value_parser = listen)]
    pub listen: Vec<SocketAddr>,
}

/// What is written down.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
pub struct Logging {
    /// What is logged: error, warn, info, debug (a line for each request), trace, off, or
    /// MODULE=LEVEL,... [default: RUST_LOG, or info]
    #[arg(long, value_name = "FILTER", env = "GRAFTD_LOG", value_parser = check_filter)]
    pub log: Option<String>,
    /// How lines look: text, or json for one object a line
    #[arg(long, value_name = "FORM", env = "GRAFTD_LOG_FORMAT", default_value = "text")]
    pub log_format: Form,
    /// Record when requests come, for which rows of which models and with what deadlines, to a new file, for
    /// `graftd bench --trace` and `graftd simulate --trace`; what rows hold is not recorded
    #[arg(long, value_name = "FILE", env = "GRAFTD_RECORD")]
    pub record: Option<PathBuf>,
    /// Bytes of what is recorded, at which that ends
    #[arg(long, value_name = "BYTES", env = "GRAFTD_RECORD_BYTES", default_value = "256M")]
    #[arg(value_parser = bytes_some)]
    pub record_bytes: u64,
}

/// How models run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Running models")]
pub struct Running {
    /// ONNX Runtime's library; otherwise ORT_DYLIB_PATH, the fetched one, or the system's
    #[arg(long, value_name = "PATH", env = "GRAFTD_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
    /// Execution provider: cpu, cuda, tensorrt or openvino
    #[arg(long, value_name = "NAME", env = "GRAFTD_PROVIDER", default_value = "cpu")]
    pub provider: Provider,
    /// Run on the CPU, with a warning, where the provider is missing
    #[arg(long, env = "GRAFTD_FALLBACK_CPU")]
    pub fallback_cpu: bool,
    /// Where models run: in worker processes (worker), in the daemon where every operator is safe
    /// (auto), or in the daemon (none)
    #[arg(long, value_name = "WHERE", env = "GRAFTD_ISOLATION", default_value = "worker")]
    #[arg(value_parser = isolation)]
    pub isolation: Isolation,
    /// Runs of one model at the same time [default: the cores divided by the threads]
    #[arg(long, value_name = "N", env = "GRAFTD_SESSIONS", value_parser = threads)]
    pub sessions: Option<usize>,
    /// Threads of one run [default: 1 until others are found better, per model]
    #[arg(long, value_name = "N", env = "GRAFTD_THREADS", value_parser = threads)]
    pub threads: Option<usize>,
    /// Leave each model's sessions and threads as they are or were found best; else others are tried, in a process of
    /// their own, while nobody asks for anything
    #[arg(long, env = "GRAFTD_NO_AUTOTUNE")]
    pub no_autotune: bool,
    /// A run is hung after this long, or ten times what nearly all take, whichever is longer
    #[arg(long, value_name = "MS", env = "GRAFTD_WATCHDOG_MS", default_value = "10000")]
    #[arg(value_parser = ms_some)]
    pub watchdog_ms: u64,
    /// How long loading one model may take
    #[arg(long, value_name = "S", env = "GRAFTD_LOAD_TIMEOUT_S", default_value = "300")]
    #[arg(value_parser = seconds_some)]
    pub load_timeout_s: u64,
    /// Folder for private copies of models [default: graftd in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "GRAFTD_WORK_DIR")]
    pub work_dir: Option<PathBuf>,
    /// Folder for what was worked out of models (bases, heads), found again at the next start
    /// [default: splits in --work-dir]
    #[arg(long, value_name = "DIR", env = "GRAFTD_SPLITS_DIR")]
    pub splits_dir: Option<PathBuf>,
    /// What that folder may hold; what was used longest ago goes first; 0 keeps nothing
    #[arg(long, value_name = "BYTES", env = "GRAFTD_SPLITS_BYTES", default_value = "4G")]
    #[arg(value_parser = bytes)]
    pub splits_bytes: u64,
}

/// How rows share work.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Batching and sharing")]
pub struct Sharing {
    /// Rows of one batch at most [default: what was measured to help, per model]
    #[arg(long, value_name = "N", env = "GRAFTD_MAX_BATCH_ROWS", value_parser = count)]
    pub max_batch_rows: Option<usize>,
    /// Batch sizes to prefer, such as 4,8
    #[arg(long, value_name = "N,...", env = "GRAFTD_PREFERRED_BATCH_ROWS")]
    #[arg(value_delimiter = ',', value_parser = count)]
    pub preferred_batch_rows: Vec<usize>,
    /// How long the oldest row may be held to fill a batch; 0 never waits
    #[arg(long, value_name = "US", env = "GRAFTD_QUEUE_DELAY_MAX_US", default_value_t = 0)]
    pub queue_delay_max_us: u64,
    /// What batches are formed by: what was seen to help and those that wait can bear, or (eager) all that waits once a
    /// session is free
    #[arg(long, value_name = "learned|eager", env = "GRAFTD_BATCHING", default_value = "learned")]
    #[arg(value_parser = batching)]
    pub batching: Batching,
    /// The time within which answers should be there, of models that do not say: what could not be is refused early
    /// [default: none]
    #[arg(long, value_name = "MS", env = "GRAFTD_LATENCY_TARGET_MS", value_parser = ms_some)]
    pub latency_target_ms: Option<u64>,
    /// The share of answers that are to be there within the latency target, from 0.5 on; the larger, the earlier is refused
    /// what could be late [default: 0.99]
    #[arg(long, value_name = "SHARE", env = "GRAFTD_LATENCY_QUANTILE")]
    pub latency_quantile: Option<Quantile>,
    /// Bytes of one batch's inputs, and of its outputs
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BATCH_BYTES", default_value = "256M")]
    #[arg(value_parser = batch_bytes)]
    pub batch_bytes: u64,
    /// A setting of one model: dedupe=on|off, cache=on|off, timeout_ms, max_batch_rows,
    /// queue_delay_max_us, latency_target_ms, latency_quantile, sessions, threads, sharing, base_storage or base (a model to share a base with);
    /// may be given more than once
    #[arg(long, value_name = "MODEL.KEY=VALUE", env = "GRAFTD_SET", value_delimiter = ',')]
    pub set: Vec<Setting>,
    /// Run equal rows in flight each by itself
    #[arg(long, env = "GRAFTD_NO_DEDUPE")]
    pub no_dedupe: bool,
    /// Memory for output rows that are kept; 0 keeps none
    #[arg(long, value_name = "BYTES", env = "GRAFTD_CACHE_BYTES", default_value = "256M")]
    #[arg(value_parser = bytes)]
    pub cache_bytes: u64,
    /// Whether models that share their lower layers run these once: as it pays, wherever it can be done, or not at all
    #[arg(long, value_name = "auto|always|never", env = "GRAFTD_SHARING", default_value = "auto")]
    #[arg(value_parser = sharing)]
    pub sharing: Policy,
    /// Memory for base outputs that are kept for other heads; 0 keeps none
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BASE_CACHE_BYTES", default_value = "256M")]
    #[arg(value_parser = bytes)]
    pub base_cache_bytes: u64,
    /// How base outputs lie in memory: as they are, or rounded to float16, in half of it; that holds for a base whose
    /// models all say so, and moves their answers, by how much `graftd inspect` shows
    #[arg(
        long,
        value_name = "exact|float16",
        env = "GRAFTD_BASE_STORAGE",
        default_value = "exact"
    )]
    #[arg(value_parser = storage)]
    pub base_storage: Storage,
    /// How long a whole model whose rows go through a shared base stays in memory after its last run
    #[arg(long, value_name = "S", env = "GRAFTD_REST_AFTER_S", default_value_t = 60)]
    #[arg(value_parser = seconds_some)]
    pub rest_after_s: u64,
}

/// What is refused, and when.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct Bounds {
    /// Requests in flight at most
    #[arg(long, value_name = "N", env = "GRAFTD_REQUESTS_MAX", default_value = "16384")]
    #[arg(value_parser = count)]
    pub requests_max: usize,
    /// Rows that wait or run at most
    #[arg(long, value_name = "N", env = "GRAFTD_ROWS_MAX", default_value = "131072")]
    #[arg(value_parser = count)]
    pub rows_max: usize,
    /// Input bytes of those rows at most
    #[arg(long, value_name = "BYTES", env = "GRAFTD_QUEUE_BYTES", default_value = "1G")]
    #[arg(value_parser = bytes_some)]
    pub queue_bytes: u64,
    /// Whether callers may hand over tensors in shared memory: on or off
    #[arg(long, value_name = "on|off", env = "GRAFTD_SHARED_MEMORY", default_value = "on")]
    #[arg(value_parser = switch, action = clap::ArgAction::Set)]
    pub shared_memory: bool,
    /// Regions of shared memory that may be registered at a time
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_SHARED_MEMORY_REGIONS_MAX",
        default_value = "1024"
    )]
    #[arg(value_parser = count)]
    pub shared_memory_regions_max: usize,
    /// How long a request waits that names no time itself; 0 for as long as it takes
    #[arg(long, value_name = "MS", env = "GRAFTD_TIMEOUT_MS", default_value_t = 0)]
    pub timeout_ms: u64,
    /// How long accepted requests may take once the daemon is told to stop
    #[arg(long, value_name = "S", env = "GRAFTD_DRAIN_TIMEOUT_S", default_value_t = 25)]
    pub drain_timeout_s: u64,
}
