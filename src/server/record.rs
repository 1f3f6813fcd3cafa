//! Records what comes: times, models, rows by the beginnings of their keys, deadlines. A request pays for handing that
//! over; a thread of its own writes it, within a budget of bytes.

use crate::model::ModelSpec;
use crate::model::check::Checked;
use crate::time::{MonoTime, micros};
use crate::traffic::trace::{Entry, HEAD};
use flume::{Receiver, RecvTimeoutError, Sender};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Requests that wait to be written, at most; beyond, they are counted as lost.
const WAITING_MAX: usize = 1 << 14;
/// How long what was recorded stays in memory, at most.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How long the end waits for a disk that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request as it came.
struct Seen {
    at: MonoTime,
    spec: Arc<ModelSpec>,
    rows: Vec<[u8; 8]>,
    row_bytes: u64,
    deadline: Option<Duration>,
}

/// Records requests to a file.
#[derive(Debug)]
pub struct Recorder {
    tell: parking_lot::Mutex<Option<Sender<Seen>>>,
    /// Nothing is handed over any more: the budget is used up, or the disk failed.
    over: Arc<AtomicBool>,
    lost: AtomicU64,
    ended: Receiver<()>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Records to a new file of at most so many bytes; one that is there makes room.
    ///
    /// # Errors
    /// A sentence, when the file cannot be written.
    pub fn start(path: &Path, bytes_max: u64) -> Result<Self, String> {
        let named = |error: io::Error| format!("--record {}: {error}", path.display());
        let mut file = File::create(path).map_err(named)?;
        file.write_all(HEAD).map_err(named)?;
        let (tell, told) = flume::bounded(WAITING_MAX);
        let (end, ended) = flume::bounded::<()>(1);
        let over = Arc::new(AtomicBool::new(false));
        let book = Book {
            path: path.to_owned(),
            file: BufWriter::new(file),
            left: bytes_max.saturating_sub(HEAD.len() as u64),
            models: BTreeMap::new(),
            last: None,
            bytes: Vec::new(),
        };
        let closed = over.clone();
        let write = move || {
            book.keep(&told, &closed);
            drop(end);
        };
        let thread = std::thread::Builder::new().name("graftd-record".to_owned()).spawn(write);
        thread.map_err(named)?;
        Ok(Self { tell: parking_lot::Mutex::new(Some(tell)), over, lost: AtomicU64::new(0), ended })
    }

    /// A checked request came at a time.
    ///
    /// # Cost
    /// A list of the rows' keys and one hand-over; nothing waits.
    pub fn saw(
        &self,
        at: MonoTime,
        spec: &Arc<ModelSpec>,
        checked: &Checked,
        deadline: Option<Duration>,
    ) {
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        // Heads that are asked for one row have the base's key of it in common.
        let base = checked.path.as_ref().and_then(|path| path.bases.first());
        let keys = base.map_or(&checked.keys, |base| &base.rows);
        let start = |key: &crate::id::RowKey| {
            let mut start = [0; 8];
            start.copy_from_slice(&key.0[..8]);
            start
        };
        let rows = keys.iter().map(start).collect();
        let bytes: usize = checked.inputs.tensors.iter().map(|tensor| tensor.data.len()).sum();
        let row_bytes = (bytes / checked.inputs.rows.max(1)) as u64;
        let seen = Seen { at, spec: spec.clone(), rows, row_bytes, deadline };
        let told = self.tell.lock().as_ref().map(|tell| tell.try_send(seen).is_ok());
        if told == Some(false) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is left, and waits for that.
    pub fn finish(&self) {
        drop(self.tell.lock().take());
        // Nothing is ever sent: the channel closes when the thread has written all.
        let late = self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        let lost = self.lost.load(Ordering::Relaxed);
        if late {
            tracing::warn!(
                "--record: the disk takes nothing; the end of what was recorded is missing"
            );
        }
        if lost > 0 {
            tracing::warn!("--record: {lost} requests came too fast to be written and are missing");
        }
    }
}

/// The file and what it says so far.
struct Book {
    path: PathBuf,
    file: BufWriter<File>,
    left: u64,
    models: BTreeMap<String, u32>,
    last: Option<MonoTime>,
    bytes: Vec<u8>,
}

impl Book {
    fn keep(mut self, told: &Receiver<Seen>, over: &AtomicBool) {
        let shown = self.path.display().to_string();
        let result = self.write_all(told);
        over.store(true, Ordering::Relaxed);
        match result.and_then(|full| self.file.flush().map(|()| full)) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("--record {shown}: --record-bytes are used up; it ends here");
            }
            Err(error) => tracing::warn!("--record {shown}: {error}; it ends here"),
        }
    }

    /// Writes until nobody records any more, or the budget is used up: whether it is.
    fn write_all(&mut self, told: &Receiver<Seen>) -> io::Result<bool> {
        loop {
            match told.recv_timeout(FLUSH_EVERY) {
                Ok(seen) => {
                    if !self.write(&seen)? {
                        return Ok(true);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.file.flush()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Writes one request, if there is room for it.
    fn write(&mut self, seen: &Seen) -> io::Result<bool> {
        self.bytes.clear();
        let next = u32::try_from(self.models.len()).unwrap_or(u32::MAX);
        let name = &seen.spec.name;
        let model = *self.models.entry(name.clone()).or_insert(next);
        if model == next {
            Entry::Model { name: name.clone() }.put(&mut self.bytes);
        }
        // Requests that came at once may be handed over in another order.
        let last = self.last.unwrap_or(seen.at);
        let entry = Entry::Ask {
            after_us: micros(seen.at.since(last)),
            model,
            rows: seen.rows.clone(),
            row_bytes: seen.row_bytes,
            deadline_us: seen.deadline.map(micros),
        };
        entry.put(&mut self.bytes);
        self.last = Some(last.max(seen.at));
        let length = self.bytes.len() as u64;
        if length > self.left {
            return Ok(false);
        }
        self.left -= length;
        self.file.write_all(&self.bytes)?;
        Ok(true)
    }
}
