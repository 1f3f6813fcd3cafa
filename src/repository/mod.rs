//! What is served, kept in agreement with the model directory.
//!
//! The only place where models come and go: at the start, when the directory is looked at again, and when an
//! administrator loads or unloads one. A version that is replaced answers until the new one is warm.

mod served;

pub use served::Served;

use crate::driver::Driver;
use crate::driver::load::Loader;
use crate::id::StageId;
use crate::model::scan::{self, Found};
use crate::model::{ModelSpec, State};
use crate::sched::event::Event;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The model directory and what is served from it.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
    driver: Arc<Driver>,
    loader: Arc<Loader>,
    served: Arc<Served>,
    /// The first look at the directory is over.
    started: AtomicBool,
}

impl Repository {
    /// A repository that was not looked at yet.
    #[must_use]
    pub fn new(
        root: PathBuf,
        driver: Arc<Driver>,
        loader: Arc<Loader>,
        served: Arc<Served>,
    ) -> Arc<Self> {
        Arc::new(Self { root, driver, loader, served, started: AtomicBool::new(false) })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is served now.
    #[must_use]
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Whether every model found at start was tried.
    #[must_use]
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Looks at the directory and makes what is served agree with it.
    ///
    /// # Errors
    /// When the directory cannot be read; what is served stays as it is.
    pub async fn scan(&self) -> Result<(), String> {
        let listing = scan::scan(&self.root)
            .map_err(|error| format!("--models {} cannot be read: {error}", self.root.display()))?;
        listing.refused.iter().for_each(|why| tracing::warn!("passed over {why}"));
        self.forget_missing(&listing.found);
        for found in &listing.found {
            self.served.change(|catalog| {
                let versions = catalog.models.entry(found.name.clone()).or_default();
                versions.entry(found.version).or_insert(State::Loading);
            });
        }
        for found in &listing.found {
            self.load(found).await;
        }
        self.started.store(true, Ordering::Release);
        self.served.touch();
        let catalog = self.served.catalog();
        let ready = catalog.iter().filter(|(.., state)| matches!(state, State::Ready(_))).count();
        tracing::info!("looked at the models: {ready} of {} are ready", catalog.iter().count());
        Ok(())
    }

    async fn load(&self, found: &Found) {
        let Found { name, version, .. } = found;
        let current = self.served.ready(name, *version);
        match self.loader.load(found, current.as_deref()).await {
            Ok(None) => {}
            Ok(Some(spec)) => {
                tracing::info!("model {name}:{version} is ready; {}", described(&spec));
                self.served.set(name, *version, State::Ready(Arc::new(spec)));
                if let Some(old) = current {
                    self.retire(old.stage);
                }
            }
            Err(why) if current.is_some() => {
                tracing::error!(
                    "model {name}:{version} changed and cannot be loaded: {why}; the old one stays"
                );
            }
            Err(why) => {
                tracing::error!("model {name}:{version} is unavailable: {why}");
                self.served.set(name, *version, State::Unavailable(why));
            }
        }
    }

    fn forget_missing(&self, found: &[Found]) {
        let there: BTreeSet<(&str, u64)> =
            found.iter().map(|found| (found.name.as_str(), found.version)).collect();
        let mut gone = Vec::new();
        self.served.change(|catalog| {
            for (name, versions) in &mut catalog.models {
                versions.retain(|&version, state| {
                    let stays = there.contains(&(name.as_str(), version));
                    if let (false, State::Ready(spec)) = (stays, state) {
                        gone.push(spec.stage);
                    }
                    stays
                });
            }
            catalog.models.retain(|_, versions| !versions.is_empty());
        });
        gone.into_iter().for_each(|stage| self.retire(stage));
    }

    fn retire(&self, stage: StageId) {
        self.driver.event(Event::StageRetired { stage });
    }
}

fn described(spec: &ModelSpec) -> String {
    let keys = ["graftd.rows", "graftd.batch_rows", "graftd.sharing"];
    keys.iter().filter_map(|key| spec.findings.get(*key)).cloned().collect::<Vec<_>>().join("; ")
}
