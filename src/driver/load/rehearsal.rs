//! Running batches on a session that the scheduler does not know of yet.

use crate::engine::worker::WorkerEvents;
use crate::engine::{BatchPlan, Begun, Completion, CompletionSink, EngineError, Lane};
use crate::id::{BatchId, SessionId};
use crate::rows::Block;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Runs batches before the scheduler knows of their session.
pub(in crate::driver) struct Rehearsal {
    /// How long one run may take: no watchdog looks at these.
    patience: Duration,
    next: AtomicU64,
    waiting: Mutex<HashMap<BatchId, oneshot::Sender<Completion>>>,
}

impl Rehearsal {
    pub(in crate::driver) fn new(patience: Duration) -> Self {
        Self { patience, next: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Runs one batch and waits for it.
    pub(in crate::driver) async fn run(
        &self,
        lane: &dyn Lane,
        plan: &Arc<BatchPlan>,
    ) -> Result<(Block, Duration), EngineError> {
        let batch = BatchId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, mut receiver) = oneshot::channel();
        self.waiting.lock().insert(batch, sender);
        if let Begun::Finished(completion) = lane.begin(batch, plan) {
            self.complete(completion);
        }
        if lane.is_dead() {
            // It swallowed the batch, and its death was told before anybody waited.
            self.waiting.lock().remove(&batch);
        }
        let completion = match tokio::time::timeout(self.patience, &mut receiver).await {
            Ok(completion) => completion,
            Err(_) => {
                // Its death is told like any other.
                lane.kill();
                receiver.await
            }
        };
        match completion {
            Ok(completion) => completion.result,
            Err(_) => Err(EngineError::Protocol("the worker process ended".into())),
        }
    }
}

impl CompletionSink for Rehearsal {
    fn complete(&self, completion: Completion) {
        if let Some(sender) = self.waiting.lock().remove(&completion.batch) {
            // Whoever waited gave up.
            let _ = sender.send(completion);
        }
    }
}

impl WorkerEvents for Rehearsal {
    fn worker_died(&self, _sessions: &[SessionId], _how: &str) {
        self.waiting.lock().clear();
    }
}
