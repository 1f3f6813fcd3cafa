//! What is served, kept in agreement with the model directory and with what an administrator wants.
//!
//! The only place where models come and go: at the start, when the directory is looked at again, and when an
//! administrator loads or unloads one. Changes to one model take turns; models do not wait for each other
//! beyond the bound on loads at a time. A version that is replaced answers until the new one is warm, and one
//! whose new files cannot be loaded goes on answering with the old. Files that failed are not tried again
//! until they change or somebody asks.
//!
//! A model that was unloaded stays so until a load is asked for, whatever happens to its files, so that files
//! can be exchanged between the two; only when its files vanish is it forgotten, and then it may come back
//! as any new one.

mod books;
mod carried;
pub mod control;
mod index;
mod requests;
mod scan;
mod served;
mod settle;
mod watch;

pub use carried::Overrides;
pub use index::IndexEntry;
pub use served::Served;
pub use watch::Watch;

use crate::driver::Driver;
use crate::driver::load::{FamilyFacts, Loader, Loading};
use crate::driver::pool::WorkerFacts;
use crate::model::ModelSpec;
use crate::model::scan::Refused;
use crate::time::MonoTime;
use books::Books;
use control::Control;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// What a repository does.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model directory.
    pub root: PathBuf,
    /// Who decides which models are served.
    pub control: Control,
    /// Models found in the directory that load at the same time; beside them one that was asked for.
    pub loads: usize,
    /// How the directory is followed; none to look only when told to.
    pub watch: Option<Watch>,
    /// How long models answer on when most of them vanish at once.
    pub removal_grace: Duration,
}

/// The model directory and what is served from it.
#[derive(Debug)]
pub struct Repository {
    options: Options,
    driver: Arc<Driver>,
    loader: Arc<Loader>,
    served: Arc<Served>,
    books: Books,
    /// Loads of what was found, and of what was asked for: who asks waits for no queue of the others.
    found_loads: Semaphore,
    asked_loads: Semaphore,
    /// Since when most models are gone.
    held: Mutex<Option<MonoTime>>,
    /// What was passed over, as it was told last.
    refused: Mutex<BTreeSet<Refused>>,
    /// What was put off may have changed.
    agenda: Notify,
    /// The first look at the directory was begun, and is over.
    begun: AtomicBool,
    started: AtomicBool,
    closing: AtomicBool,
}

impl Repository {
    /// A repository that was not looked at yet.
    #[must_use]
    pub fn new(
        options: Options,
        driver: Arc<Driver>,
        loader: Arc<Loader>,
        served: Arc<Served>,
    ) -> Arc<Self> {
        Arc::new(Self {
            found_loads: Semaphore::new(options.loads.max(1)),
            asked_loads: Semaphore::new(1),
            held: Mutex::default(),
            refused: Mutex::default(),
            agenda: Notify::new(),
            options,
            driver,
            loader,
            served,
            books: Books::default(),
            begun: AtomicBool::new(false),
            started: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        })
    }

    /// The worker processes that serve it.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        self.loader.workers()
    }

    /// What is being loaded, and how far it is.
    #[must_use]
    pub fn loading(&self) -> Loading {
        self.loader.loading()
    }

    /// How far the load of a version is.
    #[must_use]
    pub fn step(&self, name: &str, version: u64) -> &'static str {
        let step = self.loading().remove(&(name.to_owned(), version));
        step.unwrap_or("waiting for its turn")
    }

    /// Which of the models that are served share bases.
    #[must_use]
    pub fn families(&self) -> FamilyFacts {
        self.loader.families()
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

    /// Keeps the families of models that share their lower layers in agreement with what is served; runs for as
    /// long as the daemon.
    pub async fn follow_families(self: Arc<Self>) {
        let mut changes = self.served.changes();
        // Nobody changes what is served any more once the other side is gone.
        while changes.changed().await.is_ok() {
            // While models load, what they have in common is about to change.
            if let Some(ready) = self.served.settled().filter(|_| self.started()) {
                self.loader.settle_families(ready).await;
            }
        }
    }

    /// Whether a version that is ready also gets its work done: one whose process was stopped from outside
    /// does not, some two seconds later, nor does one that hangs.
    #[must_use]
    pub fn healthy(&self, spec: &ModelSpec) -> bool {
        self.driver.stage_moves(spec.stage)
    }

    /// Ends all loads and begins no more: the daemon stops.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.books.lock().values().for_each(|record| record.stop.notify_waiters());
    }

    /// Whether a model of the directory is to be served.
    fn wanted(&self, name: &str) -> bool {
        if self.closing.load(Ordering::Acquire) {
            return false;
        }
        let wish = self.books.lock().get(name).map(|record| record.wish).unwrap_or_default();
        match wish {
            books::Wish::Load => true,
            books::Wish::Unload => false,
            books::Wish::Unsaid => self.options.control.wants(name, !self.started()),
        }
    }

    /// Lets a version go that is in the catalogue no more, once its last row is answered.
    fn retire(&self, spec: Option<Arc<ModelSpec>>) {
        if let Some(spec) = spec {
            self.loader.retire(spec.stage);
        }
    }
}
