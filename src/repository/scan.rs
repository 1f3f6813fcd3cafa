//! The directory looked at as a whole.

use super::Repository;
use super::control::Control;
use crate::model::State;
use crate::model::fingerprint::Fingerprint;
use crate::model::scan::{self, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

/// What the index says of a model that nobody asked for where only named ones are served.
const NOT_ASKED_FOR: &str = "not loaded";

/// What a look at the whole directory showed.
#[derive(Debug)]
pub(super) struct Sight {
    /// Versions with their fingerprints, by model.
    pub models: BTreeMap<String, BTreeMap<u64, Fingerprint>>,
    /// What looks like a model and is not taken.
    pub refused: BTreeSet<Refused>,
}

impl Repository {
    /// Looks at the directory and makes what is served agree with it; dropping this ends its loads.
    ///
    /// Models load small ones first, so that most of them answer soon.
    ///
    /// # Errors
    /// When the directory cannot be read; what is served stays as it is.
    pub async fn scan(self: &Arc<Self>) -> Result<(), String> {
        if self.begun.swap(true, Ordering::AcqRel) && self.options.control == Control::Fixed {
            tracing::warn!("models stay as they are under --model-control-mode none");
            return Ok(());
        }
        let sight = self.sight().await?;
        self.tell_refused(&sight.refused);
        let mut settling = JoinSet::new();
        for name in self.missing(&sight) {
            settling.spawn(self.clone().settle(name, false));
        }
        let mut models: Vec<_> = sight.models.iter().collect();
        let bytes = |versions: &BTreeMap<u64, Fingerprint>| -> u64 {
            versions.values().map(Fingerprint::bytes).fold(0, u64::saturating_add)
        };
        models.sort_by_key(|(_, versions)| bytes(versions));
        for (name, versions) in models {
            if !self.wanted(name) {
                self.note_absent(name, versions);
                continue;
            }
            for &version in versions.keys() {
                self.served.note(name, version, State::Loading);
            }
            settling.spawn(self.clone().settle(name.clone(), false));
        }
        // What failed is in the catalogue and in the log.
        while settling.join_next().await.is_some() {}
        self.started.store(true, Ordering::Release);
        self.served.touch();
        self.agenda.notify_one();
        let catalog = self.served.catalog();
        let ready = catalog.iter().filter(|(.., state)| matches!(state, State::Ready(_))).count();
        tracing::info!("looked at the models: {ready} of {} are ready", catalog.iter().count());
        Ok(())
    }

    /// What the directory holds.
    pub(super) async fn sight(&self) -> Result<Sight, String> {
        let root = self.options.root.clone();
        let look = tokio::task::spawn_blocking(move || look(&root));
        let sight = look.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        sight.map_err(|error| {
            format!("--models {} cannot be read: {error}", self.options.root.display())
        })
    }

    /// The index shows what could be loaded.
    pub(super) fn note_absent(&self, name: &str, versions: &BTreeMap<u64, Fingerprint>) {
        for &version in versions.keys() {
            self.served.note(name, version, State::Absent(NOT_ASKED_FOR));
        }
    }

    /// Says what is passed over, once.
    pub(super) fn tell_refused(&self, refused: &BTreeSet<Refused>) {
        let mut told = self.refused.lock();
        refused.difference(&told).for_each(|new| tracing::warn!("passed over {}", new.why));
        told.clone_from(refused);
    }

    /// Models of the catalogue whose files are gone; none for a while when most of them are at once, as that
    /// is rather a mount that failed than a wish.
    pub(super) fn missing(&self, sight: &Sight) -> Vec<String> {
        let catalog = self.served.catalog();
        let of_the_directory: Vec<&String> = {
            let books = self.books.lock();
            let carried =
                |name: &str| books.get(name).is_some_and(|record| record.carried.is_some());
            catalog.models.keys().filter(|name| !carried(name)).collect()
        };
        let serving = of_the_directory.iter().filter(|name| catalog.wants(name)).count();
        let gone = of_the_directory.into_iter().filter(|name| !sight.models.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        let gone_serving = gone.iter().filter(|name| catalog.wants(name)).count();
        let mut held = self.held.lock();
        if gone_serving * 2 <= serving {
            *held = None;
            return gone;
        }
        let now = self.driver.clock().now();
        let grace = self.options.removal_grace;
        let since = *held.get_or_insert_with(|| {
            tracing::error!(
                "{gone_serving} of {serving} models are gone from {} at once; they are served for \
                 {grace:?} more, in case that was no wish",
                self.options.root.display()
            );
            now
        });
        if now.since(since) < grace {
            return Vec::new();
        }
        tracing::error!("{gone_serving} models are still gone and so are unloaded");
        *held = None;
        gone
    }
}

fn look(root: &Path) -> std::io::Result<Sight> {
    let listing = scan::scan(root)?;
    let mut models: BTreeMap<String, BTreeMap<u64, Fingerprint>> = BTreeMap::new();
    for found in listing.found {
        // A version whose file goes between the two looks is not there.
        if let Ok(mark) = Fingerprint::of(&found) {
            models.entry(found.name).or_default().insert(found.version, mark);
        }
    }
    Ok(Sight { models, refused: listing.refused.into_iter().collect() })
}
