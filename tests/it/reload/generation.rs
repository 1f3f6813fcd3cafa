//! Models that say which of many contents they are: one number is added to every row, and it is the content.

use crate::daemon::fixture;
use std::fs::{self, File};
use std::io::Write;
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

/// Writes over a file in place, as careless people do: cut off, then written in two pieces.
pub(super) fn overwrite(file: &Path, bytes: &[u8]) {
    let mut file = File::create(file).unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first).unwrap();
    file.sync_all().unwrap();
    file.write_all(second).unwrap();
}
