//! The list of all models with their states, in the protocol's words.

use super::Repository;
use super::books::Attempt;
use crate::model::State;
use crate::model::scan::Refused;
use httpdate::fmt_http_date;

/// One version of one model and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// The version's number, or what stands in its place; empty for a model that has none.
    pub version: String,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// How far a load is, why it is unavailable, or why newer files are not served; empty where all is well.
    pub reason: String,
}

impl Repository {
    /// Every version that is served, loads, failed or was unloaded, and what was passed over; or only those that
    /// answer.
    #[must_use]
    pub fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let catalog = self.served().catalog();
        let entries = catalog.iter().map(|(name, version, state)| {
            let (state, reason) = match state {
                State::Ready(_) => ("READY", self.problem(name, version).unwrap_or_default()),
                State::Loading => ("LOADING", self.step(name, version).to_owned()),
                State::Unloading => ("UNLOADING", String::new()),
                State::Absent(why) => ("UNAVAILABLE", (*why).to_owned()),
                State::Unavailable(why) => ("UNAVAILABLE", why.clone()),
            };
            let version = version.to_string();
            IndexEntry { name: name.to_owned(), version, state, reason }
        });
        let passed_over = self.passed_over();
        let misfits = passed_over.into_iter().filter_map(|Refused { why, model, version }| {
            // A model whose files came with a request is served whatever its folder holds.
            let name =
                model.filter(|name| version.is_some() || !catalog.models.contains_key(name))?;
            let (version, reason) = (version.unwrap_or_default(), self.within(&why).to_owned());
            Some(IndexEntry { name, version, state: "UNAVAILABLE", reason })
        });
        entries.chain(misfits).filter(|entry| !ready_only || entry.state == "READY").collect()
    }

    /// A sentence that begins with a path of the directory, without the folders above: they are nobody's business.
    pub(super) fn within<'a>(&self, why: &'a str) -> &'a str {
        let root = self.options.root.display().to_string();
        let below = why.strip_prefix(&root).and_then(|rest| rest.strip_prefix('/'));
        below.unwrap_or(why)
    }

    /// What looks like a model in the directory and is not taken, as the last look showed it.
    #[must_use]
    pub fn passed_over(&self) -> Vec<Refused> {
        self.refused.lock().iter().cloned().collect()
    }

    /// Why the newest files of a version that answers are not what answers.
    fn problem(&self, name: &str, version: u64) -> Option<String> {
        let books = self.books.lock();
        let Attempt { problem, at, .. } = books.get(name)?.attempts.get(&version)?;
        let (problem, at) = (problem.as_ref()?, fmt_http_date(*at));
        Some(format!(
            "its files changed and could not be loaded ({at}), so older ones answer: {problem}"
        ))
    }
}
