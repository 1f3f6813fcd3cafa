//! What the daemon and a worker say to one another beside batches: one JSON object a line.

use super::ring::Geometry;
use crate::engine::onnx::SessionOptions;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a worker is to load; the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOrder {
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// The private copy of the model.
    pub model: PathBuf,
    /// How its session is set up.
    pub session: SessionOptions,
    /// How the shared memory is divided.
    pub geometry: Geometry,
    /// Whether loading gives way to whoever serves meanwhile. It must not where requests wait for this worker.
    pub gives_way: bool,
}

/// What came of it; the only line a worker writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LoadReply {
    /// The model is loaded.
    Ready {
        /// What the operator should know.
        warnings: Vec<String>,
    },
    /// The runtime refused it.
    Refused {
        /// Why.
        reason: String,
    },
}

/// What the daemon says later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// End the run of this batch soon, if it still runs.
    Terminate { lane: usize, batch: u64 },
}
