//! What happens, counted: one place per fact, for clients' statistics, for Prometheus and for people.
//!
//! A model's counts live as long as somebody serves it, so what is asked for never makes a series: names
//! come from the catalogue only. The encoder is ours because the common crate writes OpenMetrics, whose
//! counters must end in `_total`; Triton's names do not, and dashboards look for those.

mod histogram;
mod host;
pub mod memory;
mod model;
mod page;
mod text;

pub use host::resident_bytes;
pub use model::{Answered, End, ModelMetrics, Phases};
pub use page::{ModelScene, Scene};

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

type LostLines = Box<dyn Fn() -> u64 + Send + Sync>;

/// All metrics of the daemon.
#[derive(Default)]
pub struct Metrics {
    models: Mutex<BTreeMap<(String, u64), Weak<ModelMetrics>>>,
    /// Bases by their digest.
    bases: Mutex<BTreeMap<String, Weak<ModelMetrics>>>,
    /// Requests for models or versions that are not there, by what is in the way.
    unknown: AtomicU64,
    unavailable: AtomicU64,
    workers_died: AtomicU64,
    connections: AtomicU64,
    lost_lines: OnceLock<LostLines>,
    host: host::Host,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A connection that is open, counted until this is dropped.
#[derive(Debug)]
pub struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts of one version of a model, for as long as somebody holds them.
    ///
    /// # Cost
    /// A lock and a search; whoever serves the version keeps what it gets.
    #[must_use]
    pub fn model(&self, model: &str, version: u64) -> Arc<ModelMetrics> {
        let mut models = self.models.lock();
        models.retain(|_, counts| counts.strong_count() > 0);
        let place = models.entry((model.to_owned(), version)).or_default();
        place.upgrade().unwrap_or_else(|| {
            let counts = Arc::new(ModelMetrics::new(model, version));
            *place = Arc::downgrade(&counts);
            counts
        })
    }

    /// The counts of a base, by its digest, for as long as somebody holds them.
    #[must_use]
    pub fn base(&self, digest: &str) -> Arc<ModelMetrics> {
        let mut bases = self.bases.lock();
        bases.retain(|_, counts| counts.strong_count() > 0);
        let place = bases.entry(digest.to_owned()).or_default();
        place.upgrade().unwrap_or_else(|| {
            let counts = Arc::new(ModelMetrics::new(digest, 1));
            *place = Arc::downgrade(&counts);
            counts
        })
    }

    /// The counts of all bases.
    fn bases(&self) -> Vec<Arc<ModelMetrics>> {
        self.bases.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The counts of everything that is served, by name and version.
    fn models(&self) -> Vec<Arc<ModelMetrics>> {
        self.models.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// A request asked for what does not exist.
    pub fn asked_for_unknown(&self) {
        self.unknown.fetch_add(1, Relaxed);
    }

    /// A request asked for what cannot answer now.
    pub fn asked_for_unavailable(&self) {
        self.unavailable.fetch_add(1, Relaxed);
    }

    /// Counts a connection until what it returns is dropped.
    #[must_use]
    pub fn connection(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Relaxed);
        Open(self.clone())
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Says where to learn how many lines of the log were dropped; the first word counts.
    pub fn set_lost_lines(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.lost_lines.set(Box::new(lost));
    }

    pub(crate) fn worker_died(&self) {
        self.workers_died.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_a_reload_and_go_with_the_model() {
        let metrics = Metrics::new();
        let old = metrics.model("m", 1);
        old.ended(End::Failed, std::time::Duration::ZERO);
        let new = metrics.model("m", 1);
        drop(old);
        assert_eq!(new.failures(), 1);
        assert_eq!(metrics.models().len(), 1);
        drop(new);
        assert!(metrics.models().is_empty());
        assert_eq!(metrics.model("m", 1).failures(), 0);
    }
}
