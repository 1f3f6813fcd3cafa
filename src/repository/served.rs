//! The catalogue as it is now, for many readers and few changes.

use crate::driver::pool::Health;
use crate::id::StageId;
use crate::model::{Catalog, ModelSpec, State};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use tokio::sync::watch;

/// The catalogue as it is now.
#[derive(Debug, Default)]
pub struct Served {
    /// Replaced whole, so a reader holds the lock for one pointer's copy.
    catalog: RwLock<Arc<Catalog>>,
    /// Versions that answered until their worker could not be started again.
    ailing: Mutex<Vec<Arc<ModelSpec>>>,
    /// Told of every change, for those who watch.
    changes: watch::Sender<()>,
}

impl Served {
    /// The models as they are now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Changes the catalogue; readers see all of the change or none of it.
    pub fn change(&self, edit: impl FnOnce(&mut Catalog)) {
        let mut place = self.catalog.write();
        let mut catalog = Catalog::clone(&place);
        edit(&mut catalog);
        *place = Arc::new(catalog);
        drop(place);
        self.touch();
    }

    /// Tells those who watch that something of what they see changed.
    pub fn touch(&self) {
        self.changes.send_replace(());
    }

    /// Wakes whenever something changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Puts one version into a state.
    pub fn set(&self, model: &str, version: u64, state: State) {
        self.change(|catalog| {
            catalog.models.entry(model.to_owned()).or_default().insert(version, state);
        });
    }

    /// A version, if it answers.
    #[must_use]
    pub fn ready(&self, model: &str, version: u64) -> Option<Arc<ModelSpec>> {
        match self.catalog().models.get(model)?.get(&version)? {
            State::Ready(spec) => Some(spec.clone()),
            State::Loading | State::Unavailable(_) => None,
        }
    }

    /// Marks a model whose worker cannot be started, and clears the mark when it can again.
    #[must_use]
    pub fn health(self: &Arc<Self>) -> Health {
        let served = self.clone();
        Arc::new(move |stage, result| match result {
            Err(why) => served.fell_ill(stage, why),
            Ok(()) => served.recovered(stage),
        })
    }

    fn fell_ill(&self, stage: StageId, why: String) {
        self.change(|catalog| {
            for state in catalog.models.values_mut().flat_map(|versions| versions.values_mut()) {
                if let State::Ready(spec) = state
                    && spec.stage == stage
                {
                    self.ailing.lock().push(spec.clone());
                    *state = State::Unavailable(why);
                    return;
                }
            }
        });
    }

    fn recovered(&self, stage: StageId) {
        self.change(|catalog| {
            let mut ailing = self.ailing.lock();
            if let Some(place) = ailing.iter().position(|spec| spec.stage == stage) {
                let spec = ailing.swap_remove(place);
                let versions = catalog.models.entry(spec.name.clone()).or_default();
                versions.insert(spec.version, State::Ready(spec));
            }
        });
    }
}
