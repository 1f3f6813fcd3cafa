//! An engine with chosen service times and faults, for tests and benchmarks of everything around engines.
//!
//! Its model is `y = x`: one input, one output, so that every answer can be checked.

use super::{Engine, EngineError, InputView, OutputSink};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the engine does besides echoing its first input.
pub struct FakeEngine {
    /// How long a run of so many rows takes; called on the lane's thread, so it may also wait.
    pub service: Box<dyn Fn(usize) + Send + Sync>,
    /// Bytes that make a batch fail when a row begins with them.
    pub poison: Option<Vec<u8>>,
    /// Batches run.
    pub runs: AtomicU64,
    /// Rows run.
    pub rows: AtomicU64,
}

impl std::fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeEngine").field("runs", &self.runs).field("rows", &self.rows).finish()
    }
}

impl FakeEngine {
    /// An engine that takes no time and never fails.
    #[must_use]
    pub fn instant() -> Self {
        Self {
            service: Box::new(|_| ()),
            poison: None,
            runs: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    /// An engine whose runs keep their thread busy for `fixed + rows * per_row`.
    #[must_use]
    pub fn busy(fixed: Duration, per_row: Duration) -> Self {
        let service = move |rows: usize| {
            let clock = crate::clock::Clock::start();
            let end = fixed + per_row.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX));
            while crate::time::nanos(end) > clock.now().as_nanos() {
                std::hint::spin_loop();
            }
        };
        Self { service: Box::new(service), ..Self::instant() }
    }
}

impl Engine for FakeEngine {
    fn run(
        &self,
        _lane: usize,
        inputs: &[InputView<'_>],
        outputs: &mut dyn OutputSink,
    ) -> Result<(), EngineError> {
        let Some(input) = inputs.first() else { return Err(EngineError::model("no input")) };
        let rows = input.shape.first().copied().unwrap_or(1);
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        (self.service)(rows);
        let row_bytes = (input.data.len() / rows.max(1)).max(1);
        if let Some(poison) = &self.poison
            && input.data.chunks(row_bytes).any(|row| row.starts_with(poison))
        {
            return Err(EngineError::model("a poisoned row"));
        }
        outputs.place(input.datatype, &input.shape, input.data.len())?.copy_from_slice(input.data);
        Ok(())
    }

    fn terminate(&self, _lane: usize) {}
}
