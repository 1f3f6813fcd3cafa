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
    fn change<T>(&self, edit: impl FnOnce(&mut Catalog) -> T) -> T {
        let mut place = self.catalog.write();
        let mut catalog = Catalog::clone(&place);
        let result = edit(&mut catalog);
        *place = Arc::new(catalog);
        drop(place);
        self.touch();
        result
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

    /// Puts one version into a state, or forgets it; gives back what is served no more, to be retired.
    pub fn replace(
        &self,
        model: &str,
        version: u64,
        state: Option<State>,
    ) -> Option<Arc<ModelSpec>> {
        self.change(|catalog| {
            let versions = catalog.models.entry(model.to_owned()).or_default();
            let old = match state {
                Some(state) => versions.insert(version, state),
                None => versions.remove(&version),
            };
            if versions.is_empty() {
                catalog.models.remove(model);
            }
            match old {
                Some(State::Ready(spec)) => Some(spec),
                _ => self.take_ailing(|spec| spec.name == model && spec.version == version),
            }
        })
    }

    /// Puts one version into a state unless it is known already.
    pub fn note(&self, model: &str, version: u64, state: State) {
        if self.catalog().models.get(model).is_some_and(|known| known.contains_key(&version)) {
            return;
        }
        self.change(|catalog| {
            catalog.models.entry(model.to_owned()).or_default().entry(version).or_insert(state);
        });
    }

    /// The last request of a version that was unloaded is answered.
    pub fn unloaded(&self, model: &str, version: u64, why: &'static str) {
        self.change(|catalog| {
            let versions = catalog.models.get_mut(model);
            if let Some(state @ State::Unloading) = versions.and_then(|v| v.get_mut(&version)) {
                *state = State::Absent(why);
            }
        });
    }

    /// A version, if it answers.
    #[must_use]
    pub fn ready(&self, model: &str, version: u64) -> Option<Arc<ModelSpec>> {
        self.catalog().models.get(model)?.get(&version)?.ready().cloned()
    }

    /// Every version that answers; none while one is being loaded.
    #[must_use]
    pub fn settled(&self) -> Option<Vec<Arc<ModelSpec>>> {
        let catalog = self.catalog();
        if catalog.iter().any(|(.., state)| matches!(state, State::Loading)) {
            return None;
        }
        Some(catalog.iter().filter_map(|(.., state)| state.ready().cloned()).collect())
    }

    /// The numbers of a model's versions, whatever their state.
    #[must_use]
    pub fn versions(&self, model: &str) -> Vec<u64> {
        let catalog = self.catalog();
        catalog.models.get(model).into_iter().flatten().map(|(&version, _)| version).collect()
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

    fn take_ailing(&self, which: impl Fn(&ModelSpec) -> bool) -> Option<Arc<ModelSpec>> {
        let mut ailing = self.ailing.lock();
        let place = ailing.iter().position(|spec| which(spec))?;
        Some(ailing.swap_remove(place))
    }

    fn fell_ill(&self, stage: StageId, why: String) {
        self.change(|catalog| {
            for state in catalog.models.values_mut().flat_map(|versions| versions.values_mut()) {
                let State::Ready(spec) = state else { continue };
                if spec.way.get().is_some_and(|way| way.leads_through(stage)) {
                    tracing::warn!("model {}:{} is served whole: {why}", spec.name, spec.version);
                    spec.way.set(None);
                }
                if spec.stage == stage {
                    self.ailing.lock().push(spec.clone());
                    *state = State::Unavailable(why);
                    return;
                }
            }
        });
    }

    fn recovered(&self, stage: StageId) {
        self.change(|catalog| {
            if let Some(spec) = self.take_ailing(|spec| spec.stage == stage) {
                let versions = catalog.models.entry(spec.name.clone()).or_default();
                versions.insert(spec.version, State::Ready(spec));
            }
        });
    }
}
