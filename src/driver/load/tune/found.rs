//! What was found best for a model's sessions, kept for the next start by what is run and on what machine.

use super::super::Loader;
use super::super::background::background;
use super::super::own::Own;
use crate::digest::StageDigest;
use crate::engine::onnx::SessionOptions;
use crate::model::shelf::Found;
use crate::sched::quantile::Quantile;
use crate::sched::spread::{Goal, Spread};
use crate::time::nanos;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// Another number where what is kept has another layout, or means something else.
const KIND: &str = "spread1";

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    spread: Spread,
    /// What it was found best for: a target in nanoseconds, and the share of answers that it is for.
    goal: Option<(u64, Quantile)>,
}

impl Loader {
    /// Where what was found best of a model is kept: whatever its sessions are set up as.
    pub(super) fn spread_key(&self, own: &Own) -> StageDigest {
        let session = SessionOptions { threads: 0, lanes: 0, ..own.session.clone() };
        self.cost_key(&own.digest, &session)
    }

    /// What was found best for a goal, if anything was.
    pub(super) fn tried(&self, key: &StageDigest, goal: Option<Goal>) -> Option<Spread> {
        let Found::Entry(bytes) = self.shelf.get(KIND, key) else { return None };
        let tried: Tried = postcard::from_bytes(&bytes).ok()?;
        let Spread { threads, sessions } = tried.spread;
        let sound = (1..=COUNT_MAX).contains(&threads) && (1..=COUNT_MAX).contains(&sessions);
        (sound && tried.goal == goal.map(told)).then_some(tried.spread)
    }

    /// Keeps what was found best.
    pub(super) async fn keep_tried(&self, key: StageDigest, spread: Spread, goal: Option<Goal>) {
        let tried = Tried { spread, goal: goal.map(told) };
        let shelf = self.shelf.clone();
        let write = move |_: &AtomicBool| {
            let bytes = postcard::to_stdvec(&tried).map_err(|error| error.to_string())?;
            shelf.put(KIND, &key, &bytes).map_err(|error| error.to_string())
        };
        if let Err(why) = background(write).await {
            tracing::warn!("{KIND} {key} cannot be kept in --splits-dir: {why}");
        }
    }
}

fn told(goal: Goal) -> (u64, Quantile) {
    (nanos(goal.target), goal.quantile)
}

/// Sessions or threads past which what is on disk is no number of them.
const COUNT_MAX: usize = 1024;
