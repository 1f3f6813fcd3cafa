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

pub use carried::Overrides;
pub use index::IndexEntry;
pub use served::Served;

use crate::driver::Driver;
use crate::driver::load::Loader;
use crate::driver::pool::WorkerFacts;
use crate::model::ModelSpec;
use crate::sched::event::Event;
use books::Books;
use control::Control;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// What a repository does.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model directory.
    pub root: PathBuf,
    /// Who decides which models are served.
    pub control: Control,
    /// Models found in the directory that load at the same time; beside them one that was asked for.
    pub loads: usize,
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
    /// The first look at the directory is over.
    started: AtomicBool,
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
            options,
            driver,
            loader,
            served,
            books: Books::default(),
            started: AtomicBool::new(false),
        })
    }

    /// The worker processes that serve it.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFacts> {
        self.loader.workers()
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

    /// Whether a model of the directory is to be served.
    fn wanted(&self, name: &str) -> bool {
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
            self.driver.event(Event::StageRetired { stage: spec.stage });
        }
    }
}
