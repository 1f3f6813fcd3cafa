//! Models that say which of many contents they are: one number is added to every row, and it is the content.

use crate::daemon::fixture;
use std::fs;
use std::path::{Path, PathBuf};

/// The model file that adds `number` to its input.
pub(super) fn adds(number: f32) -> Vec<u8> {
    let bytes = fs::read(fixture("versions")).unwrap();
    let one = 1.0_f32.to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 3).filter(|&at| bytes[at..at + 4] == one).collect();
    assert_eq!(places.len(), 1, "the fixture holds its weight once");
    let (before, after) = (&bytes[..places[0]], &bytes[places[0] + 4..]);
    [before, &number.to_le_bytes(), after].concat()
}

/// Puts a version's file into place at once, as careful people do.
pub(super) fn publish(models: &Path, model: &str, version: u64, bytes: &[u8]) -> PathBuf {
    let folder = models.join(model).join(version.to_string());
    fs::create_dir_all(&folder).unwrap();
    let (new, file) = (folder.join(".new"), folder.join("model.onnx"));
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, &file).unwrap();
    file
}
