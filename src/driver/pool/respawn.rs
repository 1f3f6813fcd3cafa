//! Workers started again: warm, with all the stages that lived in them.

use super::Pools;
use super::books::{Loaded, PoolId, Recipe};
use crate::driver::load::Rehearsal;
use crate::engine::EngineError;
use crate::engine::worker::{Housed, Worker};
use crate::id::{SessionId, StageId};
use crate::metrics::resident_bytes;
use crate::sched::event::{Event, Failure};
use std::sync::Arc;
use std::time::Duration;

const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A model that has served can be loaded, so whatever keeps it from coming back is given so many tries, some five
/// seconds, to pass before accepted requests are failed.
const RETURNS_MAX: u32 = 9;

impl Pools {
    /// Starts the worker of a pool again, however often that takes.
    pub(super) async fn respawn(self: Arc<Self>, id: PoolId, mut failures: u32) {
        let mut refused = 0;
        loop {
            tokio::time::sleep(backoff(failures)).await;
            let Some(turn) = self.books.lock().pools.get(&id).map(|pool| pool.turn.clone()) else {
                return;
            };
            let _turn = turn.lock().await;
            let recipes = self.recipes(id);
            if recipes.is_empty() {
                return;
            }
            match self.start_warm(&recipes).await {
                Ok((worker, loaded)) => {
                    if refused >= RETURNS_MAX {
                        loaded.iter().for_each(|loaded| (self.health)(loaded.stage, Ok(())));
                    }
                    return self.serve(id, worker, loaded);
                }
                Err(why) => {
                    failures += 1;
                    refused += 1;
                    tracing::error!("{}: {why}", recipes[0].1.config.label);
                    if refused == RETURNS_MAX {
                        recipes.iter().for_each(|(stage, _)| self.given_up(*stage, &why));
                    }
                }
            }
        }
    }

    /// What the stages of a pool are started from, the one that was first there first.
    fn recipes(&self, id: PoolId) -> Vec<(StageId, Recipe)> {
        let books = self.books.lock();
        let Some(pool) = books.pools.get(&id) else { return Vec::new() };
        pool.residents.iter().map(|(&stage, kept)| (stage, kept.recipe.clone())).collect()
    }

    /// Whoever waits for a stage is told that it does not come back.
    fn given_up(&self, stage: StageId, why: &str) {
        (self.health)(stage, Err(format!("its worker cannot be started: {why}")));
        let failure = Failure { message: "the model's worker cannot be started".into() };
        self.driver.event(Event::StageFailed { stage, failure });
    }

    /// Starts a worker with all the stages of a pool, and runs them warm.
    pub(super) async fn start_warm(
        &self,
        recipes: &[(StageId, Recipe)],
    ) -> Result<(Worker, Vec<Loaded>), String> {
        let (stage, first) = &recipes[0];
        let rehearsal = Arc::new(Rehearsal::new(first.config.load_timeout));
        let count = first.config.order.geometry.lanes;
        let sessions: Vec<SessionId> = (0..count).map(|_| self.driver.session()).collect();
        let started = Worker::start(&first.config, &sessions, rehearsal.clone()).await;
        let (worker, Housed { model, lanes, .. }) = started.map_err(|error| error.to_string())?;
        let bytes = resident_bytes(worker.pid).unwrap_or(0);
        let slots = first.slots;
        let mut all = vec![Loaded { stage: *stage, model, sessions, lanes, slots, bytes }];
        for (stage, recipe) in &recipes[1..] {
            all.push(self.load(&worker, *stage, recipe).await?);
        }
        for (loaded, (_, recipe)) in all.iter().zip(recipes) {
            for lane in &loaded.lanes {
                for plan in &recipe.warm {
                    // As at load, a row that the model refuses does not keep it from serving; a death does.
                    let run = rehearsal.run(lane.as_ref(), plan).await;
                    if let Err(error @ EngineError::Protocol(_)) = run {
                        return Err(error.to_string());
                    }
                }
            }
        }
        Ok((worker, all))
    }
}

fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1_u32 << n.min(16)).min(BACKOFF_MAX),
    }
}
