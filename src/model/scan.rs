//! Finding models in a directory: flat `NAME.onnx` files and `NAME/VERSION/model.onnx` folders.
//!
//! Looks at names, and at the settings that say which versions are served. Whatever is not a model is passed
//! over; a model whose file turns out to be broken is found here like any other and refused later, with its
//! reason.

use super::config;
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
    /// The model's folder, which holds the version's; none for a flat file.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        let version = self.version.to_string();
        // The model file may be a folder itself, with the file and its weights in it.
        let mut above = self.file.ancestors().skip(1).take(2);
        let folder = above.find(|path| path.file_name().is_some_and(|name| *name == *version))?;
        folder.parent().filter(|parent| parent.file_name().is_some_and(|name| *name == *self.name))
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
    let folders = entries.filter_map(|entry| {
        let folder = entry.ok()?.path();
        Some((version_number(folder.file_name()?.to_str()?)?, folder))
    });
    let folders: BTreeMap<u64, PathBuf> = folders.collect();
    if folders.is_empty() {
        return Vec::new();
    }
    let layout = config::layout(path);
    let there = folders
        .iter()
        .filter_map(|(&version, folder)| Some((version, model_file(folder, &layout.filename)?)));
    let there: BTreeMap<u64, PathBuf> = there.collect();
    let chosen = layout.choose(there.keys().copied().collect());
    let there = there.into_iter().filter(|(version, _)| chosen.contains(version));
    there.map(|(version, file)| (name.to_owned(), version, file)).collect()
}

/// The model file of a version: a file of that name, or one in a folder of that name, beside its weights.
fn model_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = folder.join(name);
    let inside = file.join(config::FILENAME);
    [file, inside].into_iter().find(|file| file.is_file())
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
            "named/2/net.onnx",
            "named/1/net.onnx",
            "named/3/model.onnx",
            "weights/7/model.onnx/model.onnx",
            "broken/1/model.onnx",
            "broken/2/model.onnx",
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
        let text = "version_policy { all {} } default_model_filename: 'net.onnx'";
        fs::write(root.path().join("named/config.pbtxt"), text).unwrap();
        fs::write(root.path().join("broken/config.pbtxt"), "no such field").unwrap();
        let listing = scan(root.path()).unwrap();
        let found: Vec<_> = listing.found.iter().map(|f| (f.name.as_str(), f.version)).collect();
        let expected = [
            ("broken", 1),
            ("broken", 2),
            ("flat", 1),
            ("named", 1),
            ("named", 2),
            ("tree", 12),
            ("weights", 7),
        ];
        assert_eq!(found, expected);
        for found in &listing.found {
            let folder = (found.name != "flat").then(|| root.path().join(&found.name));
            assert_eq!(found.folder(), folder.as_deref());
        }
        assert_eq!(listing.refused.len(), 1, "{:?}", listing.refused);
    }
}
