//! The list of all models with their states, in the protocol's words.

use super::Repository;
use crate::model::State;

/// One version of one model and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is unavailable, or why newer files are not served; empty where all is well.
    pub reason: String,
}

impl Repository {
    /// Every version that is served, loads, failed or was unloaded; or only those that answer.
    #[must_use]
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let catalog = self.served().catalog();
        let entries = catalog.iter().map(|(name, version, state)| {
            let (state, reason) = match state {
                State::Ready(_) => ("READY", self.problem(name, version).unwrap_or_default()),
                State::Loading => ("LOADING", String::new()),
                State::Unloading => ("UNLOADING", String::new()),
                State::Absent(why) => ("UNAVAILABLE", (*why).to_owned()),
                State::Unavailable(why) => ("UNAVAILABLE", why.clone()),
            };
            IndexEntry { name: name.to_owned(), version, state, reason }
        });
        entries.filter(|entry| !ready_only || entry.state == "READY").collect()
    }

    /// Why the newest files of a version that answers are not what answers.
    fn problem(&self, name: &str, version: u64) -> Option<String> {
        let books = self.books.lock();
        let problem = books.get(name)?.attempts.get(&version)?.problem.as_ref()?;
        Some(format!("its files changed and cannot be loaded, so older ones answer: {problem}"))
    }
}
