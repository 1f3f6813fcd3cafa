//! Models that come in a request: their files, written into a folder of our own.

use crate::error::{ErrorKind, InferError};
use bytes::Bytes;
use std::path::Path;
use std::{fs, io};
use tempfile::TempDir;

/// The file of a model's configuration.
const TRITON: &str = "config.pbtxt";
/// Folders of a model's folder that are looked into.
const DEPTH_MAX: usize = 8;

/// What a load request brings along.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The model's configuration, as JSON.
    pub config: Option<String>,
    /// Files by their place below the model's folder: `VERSION/NAME`.
    pub files: Vec<(String, Bytes)>,
}

impl Overrides {
    /// Whether the directory's files hold as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.config.is_none() && self.files.is_empty()
    }
}

/// Files that came with a request, in a folder laid out like a model directory; it goes when they do.
#[derive(Debug)]
pub(super) struct Carried(TempDir);

impl Carried {
    /// Writes what came with a request below a new folder; a configuration alone is put beside the versions
    /// of the model that are in the directory.
    pub(super) fn write(
        place: TempDir,
        root: &Path,
        name: &str,
        overrides: &Overrides,
    ) -> Result<Self, InferError> {
        let Overrides { config, files } = overrides;
        let folder = place.path().join(name);
        for (path, _) in files {
            check(path).map_err(|why| InferError::bad_request(format!("file:{path} {why}")))?;
        }
        if files.is_empty() {
            let original = root.join(name);
            if !original.is_dir() {
                let text = format!(
                    "a configuration for model '{name}' needs a folder {name} in the model directory, or \
                     the model's files in the request"
                );
                return Err(InferError::bad_request(text));
            }
            link(&original, &folder, DEPTH_MAX).map_err(|error| no_room(&folder, &error))?;
        }
        for (path, bytes) in files {
            put(&folder.join(path), bytes)?;
        }
        if let Some(config) = config {
            put(&folder.join(TRITON), config.as_bytes())?;
        }
        Ok(Self(place))
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }
}

fn put(target: &Path, bytes: &[u8]) -> Result<(), InferError> {
    let folder = target.parent().unwrap_or(target);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(target, bytes));
    written.map_err(|error| no_room(target, &error))
}

fn no_room(target: &Path, error: &io::Error) -> InferError {
    tracing::error!("{} cannot be written: {error}", target.display());
    let text = format!("the files of this request cannot be kept: {}", error.kind());
    InferError::new(ErrorKind::Unavailable, text)
}

/// Puts the files of a folder into another one, uncopied where the file system can; settings stay behind.
fn link(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            link(&source, &target, depth - 1)?;
        } else if kind.is_file() && entry.file_name() != TRITON {
            // What cannot be linked, as on another file system, is copied.
            fs::hard_link(&source, &target).or_else(|_| fs::copy(&source, &target).map(drop))?;
        }
    }
    Ok(())
}

/// A place below a version's folder, and nothing else.
fn check(path: &str) -> Result<(), &'static str> {
    let wrong = "is no place for a file; expected VERSION/NAME, such as file:1/model.onnx";
    let whole = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let (version, name) = path.split_once('/').ok_or(wrong)?;
    let number = version.parse().ok().filter(|number: &u64| *number > 0);
    if whole
        && !name.contains(char::is_control)
        && number.is_some_and(|number| number.to_string() == version)
    {
        Ok(())
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_below_a_version_and_nowhere_else() {
        for path in ["1/model.onnx", "12/model.onnx.data", "1/data/weights.bin"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        let wrong = [
            "",
            "1",
            "1/",
            "/1/model.onnx",
            "../1/model.onnx",
            "1/../../x",
            "1/./x",
            "x/model.onnx",
            "01/model.onnx",
            "0/model.onnx",
            "1/a\0b",
            "1/a/",
            "-1/x",
            "config.pbtxt",
            "1/..",
        ];
        for path in wrong {
            assert!(check(path).is_err(), "{path:?}");
        }
    }
}
