//! An engine that knows every row it runs: how often, and that none runs twice at once.

use graftd::engine::{Engine, EngineError, InputView, OutputSink};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// An engine whose answer to a number is [`answer`] of it.
pub(super) struct Counting {
    stage: u64,
    /// Multiples of this fail their batch.
    poison: Option<u64>,
    running: Mutex<HashSet<u64>>,
    /// Rows run.
    pub executions: AtomicU64,
    /// Notified whenever a batch starts.
    pub started: Notify,
}

/// What a stage answers to a row.
pub(super) fn answer(stage: u64, row: u64) -> u64 {
    row.wrapping_mul(2_654_435_761) ^ (stage << 56)
}

impl Counting {
    pub(super) fn new(stage: u64, poison: Option<u64>) -> Self {
        let (running, executions) = (Mutex::default(), AtomicU64::new(0));
        Self { stage, poison, running, executions, started: Notify::new() }
    }
}

impl Engine for Counting {
    fn run(
        &self,
        _lane: usize,
        inputs: &[InputView<'_>],
        outputs: &mut dyn OutputSink,
    ) -> Result<(), EngineError> {
        let rows: Vec<u64> =
            inputs[0].data.as_chunks().0.iter().map(|&row| u64::from_le_bytes(row)).collect();
        self.executions.fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.started.notify_waiters();
        for &row in &rows {
            assert!(self.running.lock().unwrap().insert(row), "row {row} runs twice at once");
        }
        // Others get a turn while these rows are in flight.
        std::thread::yield_now();
        let room = outputs.place(inputs[0].datatype, &inputs[0].shape, inputs[0].data.len())?;
        for (place, &row) in room.as_chunks_mut().0.iter_mut().zip(&rows) {
            *place = answer(self.stage, row).to_le_bytes();
        }
        for row in &rows {
            self.running.lock().unwrap().remove(row);
        }
        let poisoned = |&row: &u64| self.poison.is_some_and(|each| row.is_multiple_of(each));
        if rows.iter().any(poisoned) {
            return Err(EngineError::model("a poisoned row"));
        }
        Ok(())
    }

    fn terminate(&self, _lane: usize) {}
}
