//! `graftd serve`: from what was typed to a plan.

mod doubts;
mod file;
mod flags;
mod foreign;
mod front;
mod given;
mod origin;
#[cfg(test)]
mod tests;
mod values;
mod variables;

pub use flags::{Bounds, Logging, Places, Running, Sharing};
pub use foreign::refused as foreign_flag;
pub use front::{Doors, Manners};
pub use given::{Given, given};
pub use variables::wrong as wrong_variable;

use crate::cli::set_variable;
use crate::daemon::Plan;
use crate::driver::load::LoadConfig;
use crate::engine::onnx::{SessionOptions, Tuning};
use crate::engine::{cores, runtime};
use crate::id::DeviceId;
use crate::model::settings;
use crate::repository::control::{Control, Mode};
use crate::repository::{self, Watch};
use crate::sched::config::Config;
use crate::server::regions::RegionLimits;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` says last.
pub const AFTER_HELP: &str = "\
Every setting is a flag (--rows-max), a variable (GRAFTD_ROWS_MAX) and a key of the configuration
file (rows_max). A flag is stronger than a variable, a variable than the file, the file than the
default; --print-config shows what holds. Sizes are bytes, or 64K, 512M, 2G.

SIGHUP looks at the models again; SIGTERM finishes what was accepted and ends.";

/// Files that are written now and then are left alone for as long; longer than any clock's tick.
const QUIET: Duration = Duration::from_millis(500);

/// What `graftd serve` takes; every flag is also a variable of the environment.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Directories and addresses.
    #[command(flatten)]
    pub places: Places,
    /// Sessions and workers.
    #[command(flatten)]
    pub running: Running,
    /// Batches, flights and kept rows.
    #[command(flatten)]
    pub sharing: Sharing,
    /// What is too much.
    #[command(flatten)]
    pub bounds: Bounds,
    /// What is too much of one client.
    #[command(flatten)]
    pub manners: Manners,
    /// Who may come in.
    #[command(flatten)]
    pub doors: Doors,
    /// Lines for people and machines.
    #[command(flatten)]
    pub logging: Logging,
}

impl ServeArgs {
    /// What is meant by these arguments, on this machine.
    ///
    /// # Errors
    /// A sentence that says what is missing on this machine.
    pub fn plan(&self) -> Result<Plan, String> {
        self.plan_with(runtime::find(self.running.onnxruntime.as_deref())?)
    }

    /// The same with this library for ONNX Runtime's, whether it is there or not.
    ///
    /// # Errors
    /// A sentence that says which settings contradict each other.
    pub fn plan_with(&self, library: PathBuf) -> Result<Plan, String> {
        let (places, bounds) = (&self.places, &self.bounds);
        let work_dir = self.running.work_dir.clone().unwrap_or_else(work_dir);
        Ok(Plan {
            repository: self.repository()?,
            socket: places.socket.clone(),
            listen: places.listen.clone(),
            splits_dir: self.running.splits_dir.clone().unwrap_or_else(|| work_dir.join("splits")),
            splits_bytes: self.running.splits_bytes,
            work_dir,
            sched: self.sched(),
            load: self.load(library)?,
            access: self.doors.access(),
            policy: self.doors.policy(self.manners.limits()),
            regions: RegionLimits {
                regions_max: if bounds.shared_memory {
                    bounds.shared_memory_regions_max
                } else {
                    0
                },
                request_bytes_max: self.manners.limits().body_bytes_max,
            },
            timeout: (bounds.timeout_ms > 0).then(|| Duration::from_millis(bounds.timeout_ms)),
            drain_timeout: Duration::from_secs(bounds.drain_timeout_s),
            record: self.logging.record.clone().map(|file| (file, self.logging.record_bytes)),
        })
    }

    fn repository(&self) -> Result<repository::Options, String> {
        let Places { models, model_control_mode, load_model, .. } = &self.places;
        let Places { watch, watch_interval_s, removal_grace_s, .. } = &self.places;
        if *watch && *model_control_mode == Some(Mode::None) {
            return Err(
                "--watch follows the model directory, and under --model-control-mode none \
                        nothing changes after the start; leave one of them out"
                    .into(),
            );
        }
        Ok(repository::Options {
            root: models.clone(),
            control: Control::new(*model_control_mode, load_model)?,
            // A load keeps a core busy; the others serve meanwhile.
            loads: (cores::available() / 2).max(1),
            watch: (*watch || *model_control_mode == Some(Mode::Poll))
                .then(|| Watch { interval: Duration::from_secs(*watch_interval_s), quiet: QUIET }),
            removal_grace: Duration::from_secs(*removal_grace_s),
        })
    }

    fn sched(&self) -> Config {
        let slots = u32::try_from(cores::available()).unwrap_or(u32::MAX);
        Config {
            devices: vec![(DeviceId(0), slots)],
            requests_max: self.bounds.requests_max,
            rows_max: self.bounds.rows_max,
            bytes_max: self.bounds.queue_bytes,
            cache_bytes: self.sharing.cache_bytes,
            base_cache_bytes: self.sharing.base_cache_bytes,
            watchdog_floor: Duration::from_millis(self.running.watchdog_ms),
            rest_after: Duration::from_secs(self.sharing.rest_after_s),
            ..Config::default()
        }
    }

    fn load(&self, library: PathBuf) -> Result<LoadConfig, String> {
        let Self { running, sharing, .. } = self;
        let mut preferred = sharing.preferred_batch_rows.clone();
        preferred.sort_unstable();
        preferred.dedup();
        let threads = running.threads.unwrap_or(1);
        let lanes = (cores::available() / threads).max(1);
        Ok(LoadConfig {
            program: std::env::current_exe()
                .map_err(|error| format!("cannot find our own program: {error}"))?,
            library,
            session: SessionOptions {
                provider: running.provider,
                fallback_cpu: running.fallback_cpu,
                threads,
                lanes: running.sessions.unwrap_or(lanes),
                tuning: Tuning::default(),
            },
            session_set: running.threads.is_some() || running.sessions.is_some(),
            autotune: !running.no_autotune,
            isolation: running.isolation,
            batch_bytes: size(sharing.batch_bytes),
            batch_rows_max: sharing.max_batch_rows.or_else(|| preferred.last().copied()),
            batch_rows_preferred: preferred,
            queue_delay: Duration::from_micros(sharing.queue_delay_max_us),
            batching: sharing.batching,
            latency_target: sharing.latency_target_ms.map(Duration::from_millis),
            latency_quantile: sharing.latency_quantile,
            join: !sharing.no_dedupe,
            sharing: sharing.sharing,
            base_storage: sharing.base_storage,
            models: settings::by_model(&sharing.set),
            load_timeout: Duration::from_secs(running.load_timeout_s),
        })
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The user's cache folder, or the system's temporary one where there is none.
fn work_dir() -> PathBuf {
    let cache = set_variable("CACHE_DIRECTORY")
        .or_else(|| set_variable("XDG_CACHE_HOME"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(set_variable("HOME")?).join(".cache")));
    match cache {
        Some(cache) => cache.join("graftd"),
        None => {
            std::env::temp_dir().join(format!("graftd-{}", rustix::process::geteuid().as_raw()))
        }
    }
}
