//! A model in ONNX Runtime in this very process: the limit that a daemon can come near.

use graftd::clock::Clock;
use graftd::engine::local;
use graftd::engine::onnx::{OnnxEngine, Provider, SessionOptions};
use graftd::engine::{BatchPlan, Engine};
use graftd::time::MonoTime;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A model that is run by `lanes` threads at a time, with so many threads a run.
#[derive(Clone)]
pub(crate) struct Direct {
    /// What runs it.
    pub engine: Arc<dyn Engine>,
    lanes: usize,
}

impl Direct {
    /// Loads a model.
    pub(crate) fn load(model: &Path, threads: usize, lanes: usize) -> Self {
        let options = SessionOptions {
            provider: Provider::Cpu,
            fallback_cpu: false,
            threads,
            lanes,
            tuning: Default::default(),
        };
        let loaded = OnnxEngine::load(&super::library(), model, &options);
        let (engine, _) = loaded.unwrap_or_else(|why| panic!("{}: {why}", model.display()));
        Self { engine: Arc::new(engine), lanes }
    }

    /// Rows a second, all lanes together, over a span and at least three runs a lane.
    pub(crate) fn rate(&self, plan: &BatchPlan, span: Duration) -> f64 {
        let rows = AtomicU64::new(0);
        let clock = Clock::start();
        std::thread::scope(|scope| {
            for lane in 0..self.lanes {
                let (rows, engine) = (&rows, self.engine.as_ref());
                scope.spawn(move || {
                    let mut runs = 0;
                    while runs < 3 || clock.now().since(MonoTime::ZERO) < span {
                        local::run(engine, lane, plan).expect("a run");
                        rows.fetch_add(plan.rows() as u64, Ordering::Relaxed);
                        runs += 1;
                    }
                });
            }
        });
        rows.into_inner() as f64 / clock.now().since(MonoTime::ZERO).as_secs_f64()
    }

    /// The median time of one run, in seconds.
    pub(crate) fn p50(&self, plan: &BatchPlan, runs: usize) -> f64 {
        p50(runs, || drop(local::run(self.engine.as_ref(), 0, plan).expect("a run")))
    }
}

/// The median time of something done so many times, in seconds.
pub(crate) fn p50(times: usize, mut what: impl FnMut()) -> f64 {
    let clock = Clock::start();
    let mut took: Vec<u64> = (0..times)
        .map(|_| {
            let start = clock.now();
            what();
            clock.now().as_nanos() - start.as_nanos()
        })
        .collect();
    took.sort_unstable();
    took[times / 2] as f64 / 1e9
}
