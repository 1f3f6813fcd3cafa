//! What goes to the log, changeable while the daemon runs.
//!
//! Lines are written by a thread of their own: whoever reads them slowly, or not at all, costs lines and never
//! an answer. One filter for the process: as `RUST_LOG` says at the start, and as a client with the right to do so says
//! later. Until somebody does, the filter is left alone.

use crate::progress::Foot;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// Lines that may wait to be written; more are dropped and counted.
const LINES_MAX: usize = 4096;

/// Debug, of what is ours.
const OWN_DEBUG: &str = "info,graftd=debug";

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
            Self { verbose: 1, .. } => OWN_DEBUG,
            Self { info: true, .. } => "info",
            Self { warning: true, .. } => "warn",
            Self { error: true, .. } => "error",
            _ => "off",
        }
    }
}

/// A filter as it is meant: libraries say much at debug that is about none of our requests. They are heard at trace,
/// or by their names.
fn own(filter: &str) -> &str {
    if filter.trim().eq_ignore_ascii_case("debug") { OWN_DEBUG } else { filter }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// Whether a text says what is logged.
///
/// # Errors
/// A sentence that says what would.
pub fn check_filter(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected error, warn, info, debug, trace or off, or MODULE=LEVEL,...";
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    // A word alone may be a module to the filter; it is rather a level that was misspelt, and would silence the rest.
    let known = |part: &str| {
        part.contains('=') || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part.trim()))
    };
    match EnvFilter::try_new(text) {
        Ok(_) if text.split(',').all(known) => Ok(text.to_owned()),
        _ => Err(EXPECTED.to_owned()),
    }
}

/// The log of this process; what waits is written when it is dropped, unless nobody reads it.
#[derive(Debug)]
pub struct Log {
    lost: ErrorCounter,
    _writer: WorkerGuard,
}

impl Log {
    /// How to learn how many lines were dropped because they were not read in time.
    pub fn lost_lines(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let lost = self.lost.clone();
        move || lost.dropped_lines() as u64
    }
}

/// Starts the log of this process, on its standard error: of what `filter` says, or else `RUST_LOG`, or else of
/// what happened and what went wrong. Lines pass above what `foot` shows.
#[must_use]
pub fn init(filter: Option<&str>, form: Form, foot: Foot) -> Log {
    let variable = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let filter = filter.map(own).or(variable.as_deref()).map(EnvFilter::try_new);
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let builder = NonBlockingBuilder::default().thread_name("graftd-log");
    let (writer, guard) = builder.buffered_lines_limit(LINES_MAX).finish(foot);
    let lost = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match form {
        Form::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Form::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A second start would have panicked above.
    let _ = FILTER.set(handle);
    Log { lost, _writer: guard }
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
    fn forms_and_filters_are_checked_before_they_are_used() {
        assert_eq!(["text", "json"].map(str::parse), [Ok(Form::Text), Ok(Form::Json)]);
        assert!("xml".parse::<Form>().unwrap_err().contains("text or json"));
        for good in ["debug", "warn,graftd::server=trace", "off"] {
            assert_eq!(check_filter(good).as_deref(), Ok(good));
        }
        for bad in ["", "verbose", "inof", "info,", "graftd=loud", "=", "a=b=c"] {
            assert!(check_filter(bad).is_err_and(|why| why.contains("MODULE=LEVEL")), "{bad:?}");
        }
    }

    #[test]
    fn the_widest_level_decides() {
        let off = Levels { error: false, warning: false, info: false, verbose: 0 };
        let table = [
            (Levels::default(), "info"),
            (Levels { verbose: 1, ..off }, "info,graftd=debug"),
            (Levels { verbose: 7, ..off }, "trace"),
            (Levels { warning: true, ..off }, "warn"),
            (off, "off"),
        ];
        for (levels, filter) in table {
            assert_eq!(levels.filter(), filter, "{levels:?}");
        }
    }
}
