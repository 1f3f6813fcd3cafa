//! The directory looked at as a whole.

use super::Repository;
use crate::model::State;
use crate::model::scan::{self, Found};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;

impl Repository {
    /// Looks at the directory and makes what is served agree with it; dropping this ends its loads.
    ///
    /// # Errors
    /// When the directory cannot be read; what is served stays as it is.
    pub async fn scan(self: &Arc<Self>) -> Result<(), String> {
        let root = self.options.root.clone();
        let listing = tokio::task::spawn_blocking(move || scan::scan(&root)).await;
        let listing = listing.map_err(|error| error.to_string())?;
        let listing = listing.map_err(|error| {
            format!("--models {} cannot be read: {error}", self.options.root.display())
        })?;
        listing.refused.iter().for_each(|why| tracing::warn!("passed over {why}"));
        let mut models: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
        listing.found.iter().for_each(|f| models.entry(&f.name).or_default().push(f));
        let mut settling = JoinSet::new();
        for name in self.served.catalog().models.keys() {
            if !models.contains_key(name.as_str()) {
                settling.spawn(self.clone().settle(name.clone(), false));
            }
        }
        for (name, versions) in models {
            let wanted = self.wanted(name);
            let state = if wanted { State::Loading } else { State::Absent("not loaded") };
            for found in versions {
                self.served.note(name, found.version, state.clone());
            }
            if wanted {
                settling.spawn(self.clone().settle(name.to_owned(), false));
            }
        }
        // What failed is in the catalogue and in the log.
        while settling.join_next().await.is_some() {}
        self.started.store(true, Ordering::Release);
        self.served.touch();
        let catalog = self.served.catalog();
        let ready = catalog.iter().filter(|(.., state)| matches!(state, State::Ready(_))).count();
        tracing::info!("looked at the models: {ready} of {} are ready", catalog.iter().count());
        Ok(())
    }
}
