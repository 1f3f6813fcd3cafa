//! Finding models in a directory: flat `NAME.onnx` files and `NAME/VERSION/model.onnx` folders.
//!
//! Looks at names only. Whatever is not a model is passed over; a model whose file turns out to be broken
//! is found here like any other and refused later, with its reason.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The longest name of a model.
const NAME_BYTES_MAX: usize = 128;

/// One version found on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The model's name.
    pub name: String,
    /// The version's number; 1 for a flat file.
    pub version: u64,
    /// The model file.
    pub file: PathBuf,
}

impl Found {
    /// Whether this is a `NAME.onnx` file, not a version's folder.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        let folder = Path::new(&self.name).join(self.version.to_string());
        !self.file.parent().is_some_and(|parent| parent.ends_with(folder))
    }
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The models, ordered by name and version.
    pub found: Vec<Found>,
    /// What looks like a model and is not taken, with the reason.
    pub refused: Vec<String>,
}

/// Lists the models of a directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn scan(root: &Path) -> io::Result<Listing> {
    let paths: io::Result<Vec<PathBuf>> =
        fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect();
    Ok(listing(paths?))
}

/// Lists the versions of one model of a directory.
///
/// # Errors
/// A name that no model can have, as a sentence for whoever asked for it.
pub fn scan_one(root: &Path, name: &str) -> Result<Listing, String> {
    check_name(name)?;
    Ok(listing(vec![root.join(format!("{name}.onnx")), root.join(name)]))
}

fn listing(paths: Vec<PathBuf>) -> Listing {
    let mut by_name: BTreeMap<(String, u64), PathBuf> = BTreeMap::new();
    let mut refused = Vec::new();
    for path in paths {
        for (name, version, file) in versions(&path) {
            if let Err(why) = check_name(&name) {
                refused.push(format!("{}: {why}", path.display()));
                continue;
            }
            if let Some(earlier) = by_name.insert((name.clone(), version), file.clone()) {
                let both = format!("{} and {}", earlier.display(), file.display());
                refused.push(format!("model '{name}' version {version} exists twice: {both}"));
                // Which of them the directory lists first is chance, so the choice is by name.
                by_name.insert((name, version), earlier.max(file));
            }
        }
    }
    let found = by_name.into_iter().map(|((name, version), file)| Found { name, version, file });
    refused.sort();
    Listing { found: found.collect(), refused }
}

/// The versions behind one entry of the directory.
fn versions(path: &Path) -> Vec<(String, u64, PathBuf)> {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return Vec::new() };
    if stem.starts_with('.') {
        return Vec::new();
    }
    if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
        return vec![(stem.to_owned(), 1, path.to_owned())];
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let version = version_number(folder.file_name()?.to_str()?)?;
            let file = folder.join("model.onnx");
            file.is_file().then(|| (name.to_owned(), version, file))
        })
        .collect()
}

/// A version folder's number: decimal, positive, without leading zeros.
fn version_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| *number > 0 && number.to_string() == text)
}

/// Names travel in paths, logs and metrics, so only a plain set of characters is taken.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+@ ".contains(c);
    let short = (1..=NAME_BYTES_MAX).contains(&name.len());
    if !short || name.starts_with('.') || !name.chars().all(plain) {
        return Err(format!(
            "a model's name is 1 to {NAME_BYTES_MAX} letters, digits or '._-+@ ', no dot first, not '{}'",
            name.escape_debug()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_found_and_the_rest_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            "flat.onnx",
            "tree/1/model.onnx",
            "tree/12/model.onnx",
            "tree/02/model.onnx",
            "tree/latest/model.onnx",
            "tree/3/other.onnx",
            "real/minilm/1/model.onnx",
            ".hidden/1/model.onnx",
            "notes.txt",
            "bad\nname.onnx",
        ];
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let listing = scan(root.path()).unwrap();
        let found: Vec<_> = listing.found.iter().map(|f| (f.name.as_str(), f.version)).collect();
        assert_eq!(found, [("flat", 1), ("tree", 1), ("tree", 12)]);
        assert_eq!(listing.refused.len(), 1, "{:?}", listing.refused);
    }
}
