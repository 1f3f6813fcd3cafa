//! A line at the foot of the terminal for what takes long; the log passes above it.
//!
//! It is drawn by a thread of its own, so a terminal that takes nothing holds up nobody. Where standard error is no
//! terminal nothing of this writes a byte.

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Time between two pictures.
const TICK: Duration = Duration::from_millis(100);
/// What answers sooner than this needs no line; for [`Foot::show`].
pub const LATE: Duration = Duration::from_millis(300);
/// How long the end waits for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// The foot of the terminal that is standard error; none where it is none.
#[derive(Clone, Debug, Default)]
pub struct Foot {
    terminal: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

/// A line that is shown until this is dropped.
#[derive(Debug)]
pub struct Shown {
    /// Dropped first, which tells the thread to end.
    end: Option<Sender<()>>,
    ended: crossbeam::channel::Receiver<()>,
}

impl Foot {
    /// The foot of the terminal that standard error is, if it is one that lets a line be rewritten.
    #[must_use]
    pub fn of_stderr() -> Self {
        let rewrites = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { terminal: std::io::stderr().is_terminal() && rewrites, bar: Arc::default() }
    }

    /// Whether there is one.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.terminal
    }

    /// Shows what `text` says, ten times a second, until the result is dropped; nothing without a terminal.
    ///
    /// What is over before `late` is not shown at all.
    #[must_use]
    pub fn show(
        &self,
        late: Duration,
        text: impl Fn() -> String + Send + 'static,
    ) -> Option<Shown> {
        if !self.terminal {
            return None;
        }
        let (end, told) = bounded::<()>(0);
        let (tell, ended) = bounded::<()>(0);
        let foot = self.clone();
        let draw = move || {
            let _tell = tell;
            if told.recv_timeout(late) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_elapsed(late);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>3} {wide_msg}") {
                bar.set_style(style);
            }
            *foot.bar.lock() = Some(bar.clone());
            loop {
                bar.set_message(text());
                bar.tick();
                if told.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            // Wiped before it is forgotten: a line of the log in between would be written over it.
            bar.finish_and_clear();
            *foot.bar.lock() = None;
        };
        thread::Builder::new().name("graftd-foot".to_owned()).spawn(draw).ok()?;
        Some(Shown { end: Some(end), ended })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end = None;
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Standard error, with the foot out of the way while something is written.
impl Write for Foot {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Held meanwhile, so that none is drawn where a line is being written.
        let bar = self.bar.lock();
        let write = || std::io::stderr().write_all(bytes).map(|()| bytes.len());
        bar.as_ref().map_or_else(write, |bar| bar.suspend(write))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
