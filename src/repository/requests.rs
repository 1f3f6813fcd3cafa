//! What an administrator asks for: loading and unloading by name.

use super::Repository;
use super::books::Wish;
use super::carried::{Carried, Overrides};
use super::settle::not_found;
use crate::error::{ErrorKind, InferError};
use crate::model::State;
use crate::model::scan::{self, Listing};
use std::sync::Arc;

/// What the index says of a model that was unloaded.
const UNLOADED: &str = "unloaded";

impl Repository {
    /// Loads a model, or loads what changed of it, and returns when every version answers.
    ///
    /// Goes on when the caller goes away. Without files among `overrides` the files are the directory's, even
    /// where earlier ones came with a request.
    ///
    /// # Errors
    /// `Forbidden` where models cannot be loaded, `NotFound` where there is no such model, `BadRequest` with
    /// the reason where one of its versions does not answer with the files that are there.
    pub async fn load(
        self: &Arc<Self>,
        name: &str,
        overrides: Overrides,
    ) -> Result<(), InferError> {
        self.may_change()?;
        let there = scan::scan_one(&self.options.root, name).map_err(InferError::bad_request)?;
        let carried = self.carry(name, overrides).await?;
        if carried.is_none() && there.found.is_empty() {
            return Err(self.nothing_to_load(name, &there));
        }
        {
            let mut books = self.books.lock();
            let record = books.entry(name.to_owned()).or_default();
            record.wish = Wish::Load;
            record.carried = carried.map(Arc::new);
        }
        let settled = tokio::spawn(self.clone().settle(name.to_owned(), true));
        settled.await.unwrap_or_else(|error| {
            let text = format!("loading model '{name}' broke off: {error}");
            Err(InferError::new(ErrorKind::Internal, text))
        })
    }

    /// Why there is no version of a model to load.
    fn nothing_to_load(&self, name: &str, there: &Listing) -> InferError {
        let Some(refused) = there.refused.first() else { return not_found(name) };
        let why = self.within(&refused.why);
        InferError::new(ErrorKind::NotFound, format!("model '{name}' cannot be loaded: {why}"))
    }

    /// Takes a model out of service: what is in flight is answered, what comes later is not taken.
    ///
    /// Returns at once; the index says when the last request is answered. A model that is not there is
    /// unloaded already.
    ///
    /// # Errors
    /// `Forbidden` where models cannot be unloaded.
    pub fn unload(self: &Arc<Self>, name: &str) -> Result<(), InferError> {
        self.may_change()?;
        let versions = self.served.versions(name);
        let mut books = self.books.lock();
        let Some(record) = books.get_mut(name) else { return Ok(()) };
        if versions.is_empty() && record.wish != Wish::Load {
            return Ok(());
        }
        record.wish = Wish::Unload;
        record.carried = None;
        record.attempts.clear();
        record.stop.notify_waiters();
        for version in versions {
            self.unload_version(name, version);
        }
        tracing::info!("model {name} is unloaded");
        Ok(())
    }

    fn unload_version(self: &Arc<Self>, name: &str, version: u64) {
        let Some(spec) = self.served.replace(name, version, Some(State::Unloading)) else {
            self.served.replace(name, version, Some(State::Absent(UNLOADED)));
            return;
        };
        let stage = spec.stage;
        self.retire(Some(spec));
        let (this, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            this.driver.stage_gone(stage).await;
            this.served.unloaded(&name, version, UNLOADED);
        });
    }

    fn may_change(&self) -> Result<(), InferError> {
        let refusal = self.options.control.refusal();
        refusal.map_or(Ok(()), |why| Err(InferError::new(ErrorKind::Forbidden, why)))
    }

    async fn carry(&self, name: &str, overrides: Overrides) -> Result<Option<Carried>, InferError> {
        if overrides.is_empty() {
            return Ok(None);
        }
        let (root, loader, name) =
            (self.options.root.clone(), self.loader.clone(), name.to_owned());
        let write = move || {
            let place = loader.folder("carried-").map_err(|error| {
                tracing::error!("no folder for the files of a request: {error}");
                InferError::new(ErrorKind::Unavailable, "the daemon has no room for these files")
            })?;
            Carried::write(place, &root, &name, &overrides).map(Some)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|error| Err(InferError::new(ErrorKind::Internal, error.to_string())))
    }
}
