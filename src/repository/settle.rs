//! One model brought into agreement with its files.

use super::Repository;
use super::books::{Attempt, Wish};
use crate::clock;
use crate::error::{ErrorKind, InferError};
use crate::model::fingerprint::{Fingerprint, TICK};
use crate::model::scan::{self, Found};
use crate::model::{ModelSpec, State};
use std::path::PathBuf;
use std::sync::Arc;

/// Looks at files that keep changing before they are taken as they are; copying them will tell.
const LOOKS_MAX: usize = 3;

/// A version as a look at its files showed it.
type Seen = (Found, Fingerprint);

/// What a look at one model showed.
struct Look {
    /// The versions to be served.
    seen: Vec<Seen>,
    /// Versions that are there and not to be served.
    left_out: Vec<u64>,
}

impl Repository {
    /// Makes what is served of one model agree with its files, once nobody else does.
    ///
    /// `asked` tries again what failed and compares the content of files that look unchanged.
    ///
    /// # Errors
    /// Why the model does not answer, or not with the files that are there.
    pub(super) async fn settle(
        self: Arc<Self>,
        name: String,
        asked: bool,
    ) -> Result<(), InferError> {
        let (turn, stop) = {
            let mut books = self.books.lock();
            let record = books.entry(name.clone()).or_default();
            (record.turn.clone(), record.stop.clone())
        };
        let _turn = turn.lock().await;
        let stopped = stop.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        // Looked at only now that a change of mind would be heard.
        if !self.wanted(&name) {
            if self.look(&name).await?.seen.is_empty() {
                self.forget_model(&name);
            }
            return Err(interrupted(&name));
        }
        tokio::select! {
            biased;
            () = stopped => Err(interrupted(&name)),
            result = self.catch_up(&name, asked) => result,
        }
    }

    async fn catch_up(&self, name: &str, asked: bool) -> Result<(), InferError> {
        let Look { seen, left_out } = self.look(name).await?;
        if seen.is_empty() {
            self.forget_model(name);
            return Err(not_found(name));
        }
        let mut wrong = Vec::new();
        for (found, mark) in &seen {
            if let Err(why) = self.catch_up_version(found, mark.clone(), asked).await {
                wrong.push(format!("version {}: {why}", found.version));
            }
        }
        // Only now, so that one that is replaced by a newer version answers until that one is warm, and
        // stays where it is not to be had.
        for version in self.served.versions(name) {
            let stays = !wrong.is_empty()
                && left_out.contains(&version)
                && self.served.ready(name, version).is_some();
            if !stays && !seen.iter().any(|(found, _)| found.version == version) {
                self.forget(name, version);
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let text = format!("model '{name}' cannot be loaded: {}", wrong.join("; "));
        Err(InferError::bad_request(text))
    }

    /// The versions that are there, looked at when the last change was some time ago.
    async fn look(&self, name: &str) -> Result<Look, InferError> {
        let mut looks = 1;
        loop {
            let (root, owned) = (self.root_of(name), name.to_owned());
            let look = tokio::task::spawn_blocking(move || look(root, &owned));
            let seen = look.await.unwrap_or_else(|error| Err(error.to_string()));
            let look = seen.map_err(InferError::bad_request)?;
            if looks == LOOKS_MAX || !look.seen.iter().any(|(_, mark)| mark.is_racy()) {
                return Ok(look);
            }
            looks += 1;
            tokio::time::sleep(TICK).await;
        }
    }

    /// The directory that a model's files are in.
    fn root_of(&self, name: &str) -> PathBuf {
        let books = self.books.lock();
        let carried = books.get(name).and_then(|record| record.carried.as_ref());
        carried.map_or_else(|| self.options.root.clone(), |carried| carried.folder().to_owned())
    }

    async fn catch_up_version(
        &self,
        found: &Found,
        mark: Fingerprint,
        asked: bool,
    ) -> Result<(), String> {
        let Found { name, version, .. } = found;
        if !asked
            && let Some(last) = self.attempt(name, *version)
            && last.mark.still(&mark)
        {
            return last.problem.map_or(Ok(()), Err);
        }
        let current = self.served.ready(name, *version);
        if current.is_none() {
            self.retire(self.served.replace(name, *version, Some(State::Loading)));
        }
        let queue = if asked { &self.asked_loads } else { &self.found_loads };
        let _slot = queue.acquire().await.map_err(|error| error.to_string())?;
        let result = self.loader.load(found, current.as_deref()).await;
        self.install(found, mark, result)
    }

    fn attempt(&self, name: &str, version: u64) -> Option<Attempt> {
        self.books.lock().get(name)?.attempts.get(&version).cloned()
    }

    /// Puts the end of a load into effect, unless the model was unloaded meanwhile.
    fn install(
        &self,
        found: &Found,
        mark: Fingerprint,
        result: Result<Option<ModelSpec>, String>,
    ) -> Result<(), String> {
        let Found { name, version, .. } = found;
        // Under the lock, so that an unload comes either before all of this or after it.
        let mut books = self.books.lock();
        let record = books.entry(name.clone()).or_default();
        if record.wish == Wish::Unload {
            self.retire(result.ok().flatten().map(Arc::new));
            return Err("it was unloaded meanwhile".into());
        }
        let problem = result.as_ref().err().cloned();
        let at = std::time::UNIX_EPOCH + clock::wall();
        record.attempts.insert(*version, Attempt { mark, problem, at });
        match result {
            Ok(None) => {}
            Ok(Some(spec)) => {
                tracing::info!("model {name}:{version} is ready; {}", described(&spec));
                let ready = State::Ready(Arc::new(spec));
                self.retire(self.served.replace(name, *version, Some(ready)));
            }
            Err(why) if self.served.ready(name, *version).is_some() => {
                tracing::error!(
                    "model {name}:{version} changed and cannot be loaded: {why}; the old one stays"
                );
                return Err(why);
            }
            Err(why) => {
                tracing::error!("model {name}:{version} is unavailable: {why}");
                let state = State::Unavailable(why.clone());
                self.retire(self.served.replace(name, *version, Some(state)));
                return Err(why);
            }
        }
        Ok(())
    }

    /// Takes a version out of the catalogue whose files are gone.
    fn forget(&self, name: &str, version: u64) {
        if let Some(record) = self.books.lock().get_mut(name) {
            record.attempts.remove(&version);
        }
        self.retire(self.served.replace(name, version, None));
    }

    /// Forgets a model whose files are gone; should it come back, nobody has said anything of it.
    fn forget_model(&self, name: &str) {
        if let Some(record) = self.books.lock().get_mut(name) {
            record.wish = Wish::Unsaid;
        }
        self.served.versions(name).into_iter().for_each(|version| self.forget(name, version));
    }
}

fn look(root: PathBuf, name: &str) -> Result<Look, String> {
    let listing = scan::scan_one(&root, name)?;
    // A version whose file goes between the two looks is not there.
    let seen = |found: Found| Fingerprint::of(&found).ok().map(|mark| (found, mark));
    let seen = listing.found.into_iter().filter_map(seen).collect();
    Ok(Look { seen, left_out: listing.left_out.into_iter().map(|(_, version)| version).collect() })
}

pub(super) fn not_found(name: &str) -> InferError {
    let text = format!(
        "there is no model '{name}' in the model directory; \
         expected {name}.onnx or {name}/VERSION/model.onnx"
    );
    InferError::new(ErrorKind::NotFound, text)
}

fn interrupted(name: &str) -> InferError {
    let text = format!("model '{name}' was unloaded before it was loaded");
    InferError::new(ErrorKind::Unavailable, text)
}

fn described(spec: &ModelSpec) -> String {
    let keys = ["graftd.rows", "graftd.batch_rows", "graftd.sharing"];
    keys.iter().filter_map(|key| spec.findings.get(*key)).cloned().collect::<Vec<_>>().join("; ")
}
