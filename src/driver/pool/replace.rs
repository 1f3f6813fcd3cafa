//! Workers replaced while they serve: a new one comes, warm, and then the sessions of the old one leave.

use super::Pools;
use super::books::Recipe;
use super::{RESERVE, memory};
use crate::engine::worker::Worker;
use crate::id::{SessionId, StageId};
use crate::sched::config::Tuned;
use crate::sched::event::Event;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A worker whose place was taken, and those of its sessions that have something in hand.
pub(super) struct Leaving {
    pub sessions: BTreeSet<SessionId>,
    /// It ends with this.
    pub _worker: Arc<Worker>,
}

impl Pools {
    /// What a stage's sessions are started from; none where they live in no worker now, or with those of others.
    pub(in crate::driver) fn recipe(&self, stage: StageId) -> Option<Recipe> {
        let mut books = self.books.lock();
        let pool = books.home(stage).filter(|pool| pool.worker.is_some())?;
        let alone = pool.residents.len() == 1;
        pool.residents.get(&stage).filter(|_| alone).map(|resident| resident.recipe.clone())
    }

    /// Sets a stage's sessions up in another way; requests are served all the while, by the old ones until the new are
    /// warm.
    ///
    /// # Errors
    /// A sentence, when the old ones stay: there is no memory for both, the new ones cannot be started, or the stage is
    /// gone.
    pub(in crate::driver) async fn replace(
        self: &Arc<Self>,
        stage: StageId,
        recipe: Recipe,
        tuned: Tuned,
    ) -> Result<(), String> {
        let gone = || "it is served no more, or its worker ended meanwhile".to_owned();
        let (id, turn) = {
            let mut books = self.books.lock();
            let id = *books.homes.get(&stage).ok_or_else(gone)?;
            (id, books.home(stage).ok_or_else(gone)?.turn.clone())
        };
        let _turn = turn.lock().await;
        self.room_beside(stage, 1)?;
        let mut polite = recipe.clone();
        polite.config.order.gives_way = true;
        let (worker, loaded) = self.start_warm(&[(stage, polite)]).await?;
        loaded.iter().for_each(|loaded| worker.serves(loaded.model));
        let leaving = {
            let mut books = self.books.lock();
            let pool = books.pools.get_mut(&id).filter(|pool| pool.residents.len() == 1);
            let pool = pool.ok_or_else(gone)?;
            let resident = pool.residents.get_mut(&stage).ok_or_else(gone)?;
            let old = pool.worker.take().ok_or_else(gone)?;
            resident.recipe = recipe;
            // Nobody else is to start one meanwhile.
            pool.starting = true;
            let sessions: BTreeSet<SessionId> = resident.sessions.drain(..).collect();
            books.leaving.push(Leaving { sessions: sessions.clone(), _worker: old });
            sessions
        };
        self.driver.event(Event::StageTuned { stage, tuned });
        self.serve(id, worker, loaded);
        for session in leaving {
            self.driver.event(Event::SessionLeaves { session });
        }
        Ok(())
    }

    /// Whether there is memory for so many times a stage's sessions beside those that serve.
    ///
    /// # Errors
    /// A sentence, where there is not.
    pub(in crate::driver) fn room_beside(&self, stage: StageId, times: u64) -> Result<(), String> {
        let bytes = self.books.lock().home(stage).map_or(0, |pool| pool.bytes());
        let bytes = bytes.saturating_mul(times);
        match memory::left_of_all() {
            Some((left, all)) if left < bytes.saturating_add(all / RESERVE) => {
                Err(format!("that takes {} MiB, and {} MiB are left", bytes >> 20, left >> 20))
            }
            _ => Ok(()),
        }
    }

    /// A session that was to leave has; with the last of them its worker ends.
    pub(super) fn left(&self, session: SessionId) {
        let mut books = self.books.lock();
        books.leaving.iter_mut().for_each(|leaving| {
            leaving.sessions.remove(&session);
        });
        let over: Vec<Leaving> =
            books.leaving.extract_if(.., |leaving| leaving.sessions.is_empty()).collect();
        drop(books);
        drop(over);
    }
}
