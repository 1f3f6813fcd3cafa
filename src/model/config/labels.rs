//! What the values of an output mean, line by line.

use super::tensors::Declared;
use crate::model::beneath;
use blake3::Hasher;
use std::path::Path;

/// The largest file of labels.
const LABELS_BYTES_MAX: u64 = 16 << 20;

/// Reads the label files of all outputs from the model's folder.
pub(super) fn read(
    declared: &mut Declared,
    folder: &Path,
    hasher: &mut Hasher,
) -> Result<(), String> {
    for output in &mut declared.outputs {
        let name = &output.label_filename;
        if name.is_empty() {
            continue;
        }
        let place =
            |why: String| format!("output '{}' label_filename '{name}': {why}", output.name);
        let bytes = beneath::read(folder, name, LABELS_BYTES_MAX).map_err(place)?;
        hasher.update(blake3::hash(&bytes).as_bytes());
        let text = String::from_utf8(bytes).map_err(|_| place("is not UTF-8 text".into()))?;
        output.labels = Some(text.lines().map(str::to_owned).collect());
    }
    Ok(())
}
