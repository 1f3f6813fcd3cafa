//! A terminal that a test holds the other end of.

use crate::serve::daemon::soon;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// All that was written to a terminal so far.
#[derive(Default)]
struct Written {
    text: Mutex<String>,
    grew: Notify,
}

/// A terminal of 80 columns.
pub(super) struct Terminal {
    written: Arc<Written>,
    reader: tokio::task::JoinHandle<()>,
}

impl Terminal {
    /// A new terminal, and the end of it that a program gets.
    pub(super) fn new() -> (Self, File) {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a new terminal");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).expect("a terminal has a size");
        let name = ptsname(&ours, Vec::new()).expect("it has a name").into_string();
        let name = name.expect("UTF-8");
        let theirs = OpenOptions::new().read(true).write(true).open(name);
        let written = Arc::new(Written::default());
        let log = written.clone();
        let reader = tokio::task::spawn_blocking(move || log.read(File::from(ours)));
        (Self { written, reader }, theirs.expect("it can be opened"))
    }

    /// Waits until this text is there.
    pub(super) async fn shows(&self, text: &str) {
        let found = async {
            loop {
                let grew = self.written.grew.notified();
                if self.written.text.lock().expect("no panic under it").contains(text) {
                    return;
                }
                grew.await;
            }
        };
        soon(&format!("'{text}' on the terminal"), found).await;
    }

    /// All that was written, once nobody has it open any more.
    pub(super) async fn ended(self) -> String {
        soon("the end of what is written", self.reader).await.expect("no panic");
        self.written.text.lock().expect("no panic under it").clone()
    }
}

impl Written {
    fn read(&self, mut terminal: File) {
        let mut part = [0; 4096];
        // The end of a terminal is an error.
        while let Ok(size @ 1..) = terminal.read(&mut part) {
            let text = String::from_utf8_lossy(&part[..size]);
            self.text.lock().expect("no panic under it").push_str(&text);
            self.grew.notify_waiters();
        }
    }
}
