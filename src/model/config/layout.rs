//! Which versions of a model are served, and under which name their files go.

use super::{FILENAME, TRITON};
use crate::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::proto::{ModelConfig, ModelVersionPolicy};
use std::collections::BTreeMap;
use std::path::Path;

/// Which versions are served.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Versions {
    /// The highest so many.
    Latest(usize),
    All,
    Specific(Vec<u64>),
}

/// How the folder of a model is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The name of the model file in a version's folder.
    pub filename: String,
    versions: Versions,
}

impl Layout {
    /// The versions to be served of those that are there.
    #[must_use]
    pub fn choose(&self, mut there: Vec<u64>) -> Vec<u64> {
        there.sort_unstable();
        match &self.versions {
            Versions::All => there,
            Versions::Latest(count) => there.split_off(there.len().saturating_sub(*count)),
            Versions::Specific(wanted) => {
                there.retain(|version| wanted.contains(version));
                there
            }
        }
    }

    /// Versions that are to be served by their number and are not there.
    #[must_use]
    pub fn absent<T>(&self, there: &BTreeMap<u64, T>) -> Vec<u64> {
        let Versions::Specific(wanted) = &self.versions else { return Vec::new() };
        wanted.iter().copied().filter(|version| !there.contains_key(version)).collect()
    }
}

/// The layout of a model's folder, by its `config.pbtxt`: without one the highest version is served.
///
/// Under a file that cannot be read every version is listed, so that each can say so and none that answers
/// goes away for it.
#[must_use]
pub fn layout(folder: &Path) -> Layout {
    let read = || -> Result<Layout, String> {
        let Some(text) = super::contents(folder, TRITON)? else {
            return of(&ModelConfig::default());
        };
        of(&super::triton::parse(&text)?)
    };
    read().unwrap_or_else(|_| Layout { filename: FILENAME.into(), versions: Versions::All })
}

/// The layout that a configuration declares.
///
/// # Errors
/// A sentence, for a file's name or a version that cannot be.
pub(super) fn of(config: &ModelConfig) -> Result<Layout, String> {
    let name = match config.default_model_filename.as_str() {
        "" => FILENAME,
        name => name,
    };
    if name.starts_with('.') || name.contains('/') || name.contains('\0') {
        return Err(format!(
            "default_model_filename is {name:?}; expected the name of a file in the version's folder"
        ));
    }
    Ok(Layout { filename: name.to_owned(), versions: versions(config.version_policy.as_ref())? })
}

fn versions(policy: Option<&ModelVersionPolicy>) -> Result<Versions, String> {
    let Some(ModelVersionPolicy { policy_choice }) = policy else { return Ok(Versions::Latest(1)) };
    Ok(match policy_choice {
        None => Versions::Latest(1),
        Some(PolicyChoice::All(All {})) => Versions::All,
        Some(PolicyChoice::Latest(Latest { num_versions })) => {
            Versions::Latest(usize::try_from(*num_versions).unwrap_or(usize::MAX).max(1))
        }
        Some(PolicyChoice::Specific(Specific { versions })) => {
            let number = |&version: &i64| {
                u64::try_from(version).ok().filter(|&version| version > 0).ok_or_else(|| {
                    format!("version_policy.specific names version {version}; expected 1 or more")
                })
            };
            Versions::Specific(versions.iter().map(number).collect::<Result<_, _>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::triton;
    use super::*;

    #[test]
    fn policies_choose_versions() {
        let table: [(&str, &[u64]); 6] = [
            ("", &[12]),
            ("version_policy { }", &[12]),
            ("version_policy: { latest { num_versions: 2 } }", &[3, 12]),
            ("version_policy { latest { num_versions: 9 } }", &[1, 3, 12]),
            ("version_policy: { all { } }", &[1, 3, 12]),
            ("version_policy { specific { versions: [1, 12, 5] } }", &[1, 12]),
        ];
        for (text, expected) in table {
            let layout = of(&triton::parse(text).unwrap()).unwrap();
            assert_eq!(layout.choose(vec![12, 1, 3]), expected, "{text}");
        }
        let wrong = [
            "version_policy { specific { versions: 0 } }",
            "default_model_filename: '../x'",
            "default_model_filename: '.hidden'",
        ];
        for text in wrong {
            let why = of(&triton::parse(text).unwrap()).unwrap_err();
            assert!(why.contains("expected"), "{why}");
        }
    }
}
