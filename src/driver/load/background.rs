//! Work that would hold up the runtime, done elsewhere and given up when nobody waits any more.

use crate::courtesy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// Says so to whoever works when nobody waits any more.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does work on a thread of its own that gives way to those that serve, and that no end of the daemon waits
/// for; the work is shown whether it is to give up.
///
/// # Errors
/// Those of the work, and when there is no thread or the work panicked.
pub(super) async fn background<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = oneshot::channel();
    let cancelled = Arc::new(AtomicBool::new(false));
    let _waits = Waits(cancelled.clone());
    let run = move || {
        // Whoever waited may have gone.
        let _ = sender.send(work(&cancelled));
    };
    courtesy::background("load", run).map_err(|error| format!("no thread to load on: {error}"))?;
    receiver.await.unwrap_or_else(|_| Err("loading broke off".into()))
}

/// The same at the daemon's own priority, for work that starts threads which serve later.
///
/// # Errors
/// Those of the work, and when it panicked.
pub(super) async fn foreground<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(format!("loading broke off: {error}")))
}
