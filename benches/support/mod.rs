//! What all benchmarks use: servers, a cheap client, requests for any model, and the table.

pub(crate) mod client;
pub(crate) mod direct;
pub(crate) mod payload;
pub(crate) mod server;
pub(crate) mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of every comparison.
    pub rounds: usize,
    /// How much longer than in quick mode each side of a round runs.
    pub factor: u32,
}

impl Effort {
    /// Quick, unless GRAFTD_BENCH_LONG=1.
    pub(crate) fn chosen() -> Self {
        let long = std::env::var_os("GRAFTD_BENCH_LONG").is_some_and(|value| value != "0");
        if long { Self { rounds: 15, factor: 4 } } else { Self { rounds: 5, factor: 1 } }
    }

    /// A span of quick mode, as long as it is in this mode.
    pub(crate) fn span(self, quick_ms: u64) -> Duration {
        Duration::from_millis(quick_ms) * self.factor
    }
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of published models, where there is one.
pub(crate) fn real_models() -> Option<PathBuf> {
    let place = std::env::var_os("GRAFTD_BENCH_MODELS").map(PathBuf::from);
    Some(place.unwrap_or_else(|| root().join("models/real"))).filter(|place| place.is_dir())
}

/// Where a model's file is: among the published ones, the samples or the fixtures.
pub(crate) fn model_file(name: &str) -> Option<PathBuf> {
    let places = [real_models()?, root().join("models"), root().join("tests/fixtures/models")];
    let files = places.iter().map(|place| place.join(name).join("1/model.onnx"));
    files.into_iter().find(|file| file.is_file())
}

/// ONNX Runtime's library.
pub(crate) fn library() -> PathBuf {
    let named = std::env::var_os("GRAFTD_ONNXRUNTIME").map(PathBuf::from);
    match graftd::engine::runtime::find(named.as_deref()) {
        Ok(library) => library,
        Err(why) => panic!("{why}"),
    }
}

/// Says on standard error what is going on.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
