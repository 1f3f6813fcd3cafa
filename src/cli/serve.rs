//! `graftd serve`: from what was typed to a plan.

use crate::daemon::Plan;
use crate::driver::load::{Isolation, LoadConfig};
use crate::engine::onnx::{Provider, SessionOptions};
use crate::engine::{cores, runtime};
use crate::id::DeviceId;
use crate::model::settings::{self, Setting};
use crate::repository;
use crate::repository::control::{Control, Mode};
use crate::sched::config::Config;
use crate::server::Limits;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What `graftd serve` takes; every flag is also a variable of the environment.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directory of models: NAME.onnx, or NAME/VERSION/model.onnx
    #[arg(long, value_name = "DIR", env = "GRAFTD_MODELS", default_value = "models", aliases = ["model-repository", "model-store"])]
    pub models: PathBuf,
    /// Who decides which models are served: the directory at start (none), the directory (poll), or
    /// --load-model and administrators (explicit) [default: the directory and administrators]
    #[arg(long, value_name = "MODE", env = "GRAFTD_MODEL_CONTROL_MODE")]
    pub model_control_mode: Option<Mode>,
    /// A model to load at start under --model-control-mode explicit, * for all; may be given more than once
    #[arg(long, value_name = "NAME", env = "GRAFTD_LOAD_MODEL", value_delimiter = ',')]
    pub load_model: Vec<String>,
    /// Unix socket to serve on
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
    /// Serve on this TCP address too; may be given more than once
    #[arg(long, value_name = "ADDR", env = "GRAFTD_LISTEN", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,

    /// ONNX Runtime's library; otherwise ORT_DYLIB_PATH, the fetched one, or the system's
    #[arg(long, value_name = "PATH", env = "GRAFTD_ONNXRUNTIME", help_heading = "Running models")]
    pub onnxruntime: Option<PathBuf>,
    /// Execution provider: cpu, cuda, tensorrt or openvino
    #[arg(
        long,
        value_name = "NAME",
        env = "GRAFTD_PROVIDER",
        default_value = "cpu",
        help_heading = "Running models"
    )]
    pub provider: Provider,
    /// Run on the CPU, with a warning, where the provider is missing
    #[arg(long, env = "GRAFTD_FALLBACK_CPU", help_heading = "Running models")]
    pub fallback_cpu: bool,
    /// Where models run: worker processes, the daemon where every operator is safe (auto), or the daemon
    #[arg(long, value_name = "WHERE", env = "GRAFTD_ISOLATION", default_value = "worker", value_parser = isolation, help_heading = "Running models")]
    pub isolation: Isolation,
    /// Runs of one model at the same time [default: the cores divided by the threads]
    #[arg(long, value_name = "N", env = "GRAFTD_SESSIONS", help_heading = "Running models")]
    pub sessions: Option<usize>,
    /// Threads of one run
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_THREADS",
        default_value_t = 1,
        help_heading = "Running models"
    )]
    pub threads: usize,
    /// A run is hung after this long, or ten times what nearly all take, whichever is longer
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_WATCHDOG_MS",
        default_value_t = 10_000,
        help_heading = "Running models"
    )]
    pub watchdog_ms: u64,
    /// How long loading one model may take
    #[arg(
        long,
        value_name = "S",
        env = "GRAFTD_LOAD_TIMEOUT_S",
        default_value_t = 300,
        help_heading = "Running models"
    )]
    pub load_timeout_s: u64,
    /// Folder for private copies of models [default: graftd in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "GRAFTD_WORK_DIR", help_heading = "Running models")]
    pub work_dir: Option<PathBuf>,

    /// Rows of one batch at most [default: what was measured to help, per model]
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_MAX_BATCH_ROWS",
        help_heading = "Batching and sharing"
    )]
    pub max_batch_rows: Option<usize>,
    /// Batch sizes to prefer, such as 4,8
    #[arg(
        long,
        value_name = "N,...",
        env = "GRAFTD_PREFERRED_BATCH_ROWS",
        value_delimiter = ',',
        help_heading = "Batching and sharing"
    )]
    pub preferred_batch_rows: Vec<usize>,
    /// How long the oldest row may be held to fill a batch; 0 never waits
    #[arg(
        long,
        value_name = "US",
        env = "GRAFTD_QUEUE_DELAY_MAX_US",
        default_value_t = 0,
        help_heading = "Batching and sharing"
    )]
    pub queue_delay_max_us: u64,
    /// Bytes of one batch's inputs, and of its outputs
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BATCH_BYTES", default_value = "256M", value_parser = bytes, help_heading = "Batching and sharing")]
    pub batch_bytes: u64,
    /// A setting of one model: dedupe=on|off, cache=on|off, timeout_ms, max_batch_rows or
    /// queue_delay_max_us; may be given more than once
    #[arg(
        long,
        value_name = "MODEL.KEY=VALUE",
        env = "GRAFTD_SET",
        value_delimiter = ',',
        help_heading = "Batching and sharing"
    )]
    pub set: Vec<Setting>,
    /// Run equal rows in flight each by itself
    #[arg(long, env = "GRAFTD_NO_DEDUPE", help_heading = "Batching and sharing")]
    pub no_dedupe: bool,
    /// Memory for output rows that are kept; 0 keeps none
    #[arg(long, value_name = "BYTES", env = "GRAFTD_CACHE_BYTES", default_value = "256M", value_parser = bytes, help_heading = "Batching and sharing")]
    pub cache_bytes: u64,

    /// Requests in flight at most
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_REQUESTS_MAX",
        default_value_t = 16_384,
        help_heading = "Limits"
    )]
    pub requests_max: usize,
    /// Rows that wait or run at most
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_ROWS_MAX",
        default_value_t = 131_072,
        help_heading = "Limits"
    )]
    pub rows_max: usize,
    /// Input bytes of those rows at most
    #[arg(long, value_name = "BYTES", env = "GRAFTD_QUEUE_BYTES", default_value = "1G", value_parser = bytes, help_heading = "Limits")]
    pub queue_bytes: u64,
    /// Bytes of one request's body at most
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BODY_BYTES_MAX", default_value = "256M", value_parser = bytes, help_heading = "Limits")]
    pub body_bytes_max: u64,
    /// Connections at most
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_CONNECTIONS_MAX",
        default_value_t = 4096,
        help_heading = "Limits"
    )]
    pub connections_max: usize,
    /// How long a request waits that names no time itself; 0 for as long as it takes
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_TIMEOUT_MS",
        default_value_t = 0,
        help_heading = "Limits"
    )]
    pub timeout_ms: u64,
    /// How long accepted requests may take once the daemon is told to stop
    #[arg(
        long,
        value_name = "S",
        env = "GRAFTD_DRAIN_TIMEOUT_S",
        default_value_t = 25,
        help_heading = "Limits"
    )]
    pub drain_timeout_s: u64,
}

/// Threads or sessions past which a number is a slip of the finger.
const RUN_THREADS_MAX: usize = 1024;

fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "worker" => Ok(Isolation::Worker),
        "auto" => Ok(Isolation::Auto),
        "none" => Ok(Isolation::None),
        _ => Err(format!("'{text}' is not one of worker, auto, none")),
    }
}

/// A number of bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1_u64,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => {
            return Err(format!(
                "'{text}' is no size; expected a number of bytes such as 512M or 2G"
            ));
        }
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("'{text}' is no size; expected one such as 512M"))?;
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is more than can be counted"))
}

impl ServeArgs {
    /// What is meant by these arguments, on this machine.
    ///
    /// # Errors
    /// A sentence that names the flag, the value and what is allowed.
    pub fn plan(&self) -> Result<Plan, String> {
        let cores = cores::available();
        let threads = positive("--threads", self.threads)?;
        let lanes = self.sessions.unwrap_or_else(|| (cores / threads).max(1));
        let lanes = positive("--sessions", lanes)?;
        for (flag, value) in [("--threads", threads), ("--sessions", lanes)] {
            if value > RUN_THREADS_MAX {
                return Err(format!("{flag} {value}: expected at most {RUN_THREADS_MAX}"));
            }
        }
        if self.watchdog_ms == 0 {
            return Err("--watchdog-ms 0: every run would count as hung; expected 1 or more".into());
        }
        let mut preferred = self.preferred_batch_rows.clone();
        preferred.sort_unstable();
        preferred.dedup();
        if preferred.first() == Some(&0) {
            return Err("--preferred-batch-rows 0: a batch has at least one row".into());
        }
        let batch_rows_max = match self.max_batch_rows {
            Some(rows) => Some(positive("--max-batch-rows", rows)?),
            None => preferred.last().copied(),
        };
        let milliseconds = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        let slots = u32::try_from(cores).unwrap_or(u32::MAX);
        Ok(Plan {
            repository: repository::Options {
                root: self.models.clone(),
                control: Control::new(self.model_control_mode, &self.load_model)?,
                // A load keeps a core busy; the others serve meanwhile.
                loads: (cores / 2).max(1),
            },
            socket: self.socket.clone(),
            listen: self.listen.clone(),
            work_dir: self.work_dir.clone().unwrap_or_else(work_dir),
            sched: Config {
                devices: vec![(DeviceId(0), slots)],
                requests_max: positive("--requests-max", self.requests_max)?,
                rows_max: positive("--rows-max", self.rows_max)?,
                bytes_max: self.queue_bytes,
                cache_bytes: self.cache_bytes,
                watchdog_floor: Duration::from_millis(self.watchdog_ms),
                ..Config::default()
            },
            load: LoadConfig {
                program: std::env::current_exe()
                    .map_err(|error| format!("cannot find our own program: {error}"))?,
                library: runtime::find(self.onnxruntime.as_deref())?,
                session: SessionOptions {
                    provider: self.provider,
                    fallback_cpu: self.fallback_cpu,
                    threads,
                    lanes,
                },
                isolation: self.isolation,
                batch_bytes: usize::try_from(self.batch_bytes).unwrap_or(usize::MAX),
                batch_rows_max,
                batch_rows_preferred: preferred,
                queue_delay: Duration::from_micros(self.queue_delay_max_us),
                join: !self.no_dedupe,
                models: settings::by_model(&self.set),
                load_timeout: Duration::from_secs(self.load_timeout_s),
            },
            limits: Limits {
                body_bytes_max: usize::try_from(self.body_bytes_max).unwrap_or(usize::MAX),
                connections_max: positive("--connections-max", self.connections_max)?,
            },
            timeout: milliseconds(self.timeout_ms),
            drain_timeout: Duration::from_secs(self.drain_timeout_s),
        })
    }
}

fn positive(flag: &str, value: usize) -> Result<usize, String> {
    if value == 0 { Err(format!("{flag} 0: expected 1 or more")) } else { Ok(value) }
}

/// The user's cache folder, or the system's temporary one where there is none.
fn work_dir() -> PathBuf {
    let cache = std::env::var_os("CACHE_DIRECTORY")
        .or_else(|| std::env::var_os("XDG_CACHE_HOME"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    match cache {
        Some(cache) => cache.join("graftd"),
        None => {
            std::env::temp_dir().join(format!("graftd-{}", rustix::process::geteuid().as_raw()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let table = [("0", Ok(0)), ("7", Ok(7)), ("2k", Ok(2048)), ("1GiB", Ok(1 << 30))];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for text in ["", "x", "1T", "-1", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
