//! What is served: which models and versions, from which files, with which facts found at load.

pub(crate) mod beneath;
pub mod cell;
pub mod check;
pub mod config;
pub mod fingerprint;
pub mod padding;
pub mod probe;
pub mod runs;
pub mod scan;
pub mod settings;
pub mod shelf;
mod spec;
pub mod stage;
pub mod stash;
pub mod way;

pub use spec::{Face, ModelSpec, Rows, TensorSpec};

use crate::error::{ErrorKind, InferError};
use crate::text;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Models that an error names, at most.
const NAMES_TOLD_MAX: usize = 20;

/// Where a version is on its way.
#[derive(Clone, Debug)]
pub enum State {
    /// Its files are read and its sessions started.
    Loading,
    /// It answers.
    Ready(Arc<ModelSpec>),
    /// It takes no more requests; those in flight are answered.
    Unloading,
    /// It is on disk and not to be served, for this reason.
    Absent(&'static str),
    /// It cannot answer, for this reason.
    Unavailable(String),
}

impl State {
    /// The version, if it answers.
    #[must_use]
    pub const fn ready(&self) -> Option<&Arc<ModelSpec>> {
        match self {
            Self::Ready(spec) => Some(spec),
            Self::Loading | Self::Unloading | Self::Absent(_) | Self::Unavailable(_) => None,
        }
    }
}

/// Every model and version found, with its state; replaced whole when something changes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Versions by number, by model name.
    pub models: BTreeMap<String, BTreeMap<u64, State>>,
}

impl Catalog {
    /// The version that a request means: the one it names, or the newest that answers.
    ///
    /// # Errors
    /// `NotFound` for what does not exist, `Unavailable` for what cannot answer now.
    pub fn find(&self, model: &str, version: Option<&str>) -> Result<&Arc<ModelSpec>, InferError> {
        let (number, state) = self.version(model, version)?;
        match state {
            State::Ready(spec) => Ok(spec),
            State::Loading => {
                let text =
                    format!("model '{model}' version {number} is still loading; try again soon");
                let wait = std::time::Duration::from_secs(1);
                Err(InferError::new(ErrorKind::Unavailable, text).retry_after(wait))
            }
            State::Unloading => Err(not_loaded(model, "is being unloaded")),
            State::Absent(why) => Err(not_loaded(model, why)),
            State::Unavailable(reason) => {
                let text = format!("model '{model}' version {number} is unavailable: {reason}");
                Err(InferError::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// A version and its state.
    ///
    /// # Errors
    /// `NotFound`, naming what exists; `NoVersion` for what can be no version.
    pub fn version(&self, model: &str, version: Option<&str>) -> Result<(u64, &State), InferError> {
        let Some(versions) = self.models.get(model) else {
            return Err(self.unknown(model));
        };
        if let Some((_, State::Unloading | State::Absent(_))) = versions.last_key_value()
            && !self.wants(model)
        {
            return Err(not_loaded(model, "is not loaded"));
        }
        let found = match version {
            Some(text) => versions.get_key_value(&asked_number(text)?),
            None => versions
                .iter()
                .rev()
                .find(|(_, state)| matches!(state, State::Ready(_)))
                .or_else(|| versions.last_key_value()),
        };
        found.map(|(&number, state)| (number, state)).ok_or_else(|| {
            let known: Vec<String> = versions.keys().map(u64::to_string).collect();
            let asked = version.unwrap_or_default();
            let text = format!(
                "model '{model}' has no version '{asked}'; its versions are {}",
                known.join(", ")
            );
            InferError::new(ErrorKind::NotFound, text)
        })
    }

    /// The error for a model that does not exist, which names some that answer.
    fn unknown(&self, model: &str) -> InferError {
        let ready = |versions: &&BTreeMap<u64, State>| {
            versions.values().any(|state| matches!(state, State::Ready(_)))
        };
        let served = self.models.iter().filter(|(_, versions)| ready(versions));
        let mut names: Vec<&str> = served.map(|(name, _)| name.as_str()).collect();
        let more = names.len().saturating_sub(NAMES_TOLD_MAX);
        names.truncate(NAMES_TOLD_MAX);
        let mut text = match names.join(", ") {
            names if names.is_empty() => {
                format!("model '{model}' is not known; none is served now")
            }
            names => format!("model '{model}' is not known; served here: {names}"),
        };
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        InferError::new(ErrorKind::NotFound, text)
    }

    /// Whether anything of a model is served, loads or is to be.
    #[must_use]
    pub fn wants(&self, model: &str) -> bool {
        let versions = self.models.get(model).into_iter().flatten();
        versions.into_iter().any(|(_, s)| !matches!(s, State::Unloading | State::Absent(_)))
    }

    /// Every version with its state, by name and number.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &State)> {
        self.models.iter().flat_map(|(name, versions)| {
            versions.iter().map(move |(&version, state)| (name.as_str(), version, state))
        })
    }
}

/// A version's number as it is written; in any other spelling, such as 01, it is another name.
pub fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == text)
}

/// The number of a version that a request names.
///
/// # Errors
/// `NoVersion`, saying what a version is.
pub fn asked_number(text: &str) -> Result<u64, InferError> {
    number(text).ok_or_else(|| {
        let why = format!(
            "'{}' is no version; expected a whole number from 1 on without leading zeros, such as 1, or \
             none for the newest that answers",
            text::name(text)
        );
        InferError::new(ErrorKind::NoVersion, why)
    })
}

fn not_loaded(model: &str, why: &str) -> InferError {
    let text = format!(
        "model '{model}' {why}; an administrator can load it by POST /v2/repository/models/{model}/load"
    );
    InferError::new(ErrorKind::NotFound, text)
}
