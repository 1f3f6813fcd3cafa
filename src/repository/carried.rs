//! Models that come in a request: their files, written into a folder of our own.

use crate::error::InferError;
use bytes::Bytes;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// What a load request brings along.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The model's configuration, as JSON.
    pub config: Option<String>,
    /// Files by their place below the model's folder: `VERSION/NAME`.
    pub files: Vec<(String, Bytes)>,
}

/// Files that came with a request, in a folder laid out like a model directory; it goes when they do.
#[derive(Debug)]
pub(super) struct Carried(TempDir);

impl Carried {
    /// Writes a model's files below a new folder.
    pub(super) fn write(
        place: TempDir,
        name: &str,
        files: &[(String, Bytes)],
    ) -> Result<Self, InferError> {
        for (path, bytes) in files {
            check(path).map_err(|why| InferError::bad_request(format!("file:{path} {why}")))?;
            let target = place.path().join(name).join(path);
            let folder = target.parent().unwrap_or_else(|| place.path());
            let written = fs::create_dir_all(folder).and_then(|()| fs::write(&target, bytes));
            written.map_err(|error| {
                tracing::error!("{} cannot be written: {error}", target.display());
                let text = format!("file:{path} cannot be kept: {}", error.kind());
                InferError::new(crate::error::ErrorKind::Unavailable, text)
            })?;
        }
        Ok(Self(place))
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }
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
