//! What goes to the log, changeable while the daemon runs.
//!
//! One filter for the process: as `RUST_LOG` says at the start, and as a client with the right to do so says
//! later. Until somebody does, the filter is left alone.

use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Which lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// What failed.
    pub error: bool,
    /// What went wrong and was dealt with.
    pub warning: bool,
    /// What happened.
    pub info: bool,
    /// 0 for no more than that, 1 for a line for every request, 2 for everything.
    pub verbose: u32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { error: true, warning: true, info: true, verbose: 0 }
    }
}

impl Levels {
    /// The widest level that is on; each level includes the graver ones.
    const fn filter(self) -> &'static str {
        match self {
            Self { verbose: 2.., .. } => "trace",
            Self { verbose: 1, .. } => "debug",
            Self { info: true, .. } => "info",
            Self { warning: true, .. } => "warn",
            Self { error: true, .. } => "error",
            _ => "off",
        }
    }
}

/// Starts the log of this process, on its standard error.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A second start would have panicked above.
    let _ = FILTER.set(handle);
}

/// Changes which lines are written from now on.
pub fn set(levels: Levels) {
    let Some(handle) = FILTER.get() else { return };
    if let Err(error) = handle.reload(EnvFilter::new(levels.filter())) {
        tracing::error!("the log's filter could not be changed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_level_decides() {
        let off = Levels { error: false, warning: false, info: false, verbose: 0 };
        let table = [
            (Levels::default(), "info"),
            (Levels { verbose: 1, ..off }, "debug"),
            (Levels { verbose: 7, ..off }, "trace"),
            (Levels { warning: true, ..off }, "warn"),
            (off, "off"),
        ];
        for (levels, filter) in table {
            assert_eq!(levels.filter(), filter, "{levels:?}");
        }
    }
}
