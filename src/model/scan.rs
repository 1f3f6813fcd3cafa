//! Finding models in a directory: flat `NAME.onnx` files and `NAME/VERSION/model.onnx` folders.
//!
//! Looks at names, and at the settings that say which versions are served. Whatever is not a model is passed
//! over; a model whose file turns out to be broken is found here like any other and refused later, with its
//! reason.

use super::{config, number};
use crate::text;
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

/// What looks like a model and is not taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Where it lies and why it is not taken.
    pub why: String,
    /// The model that is not served for it, as a whole or in part; none where another file is served in its place.
    pub model: Option<String>,
    /// The folder in it that would be a version; none for the model as a whole.
    pub version: Option<String>,
}

/// What a directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The models, ordered by name and version.
    pub found: Vec<Found>,
    /// Versions that are there and that the policy of their model leaves out.
    pub left_out: Vec<(String, u64)>,
    /// What looks like a model and is not taken.
    pub refused: Vec<Refused>,
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
    let mut left_out = Vec::new();
    let mut refused = Vec::new();
    let refuse = |why, model| Refused { why, model, version: None };
    for path in paths {
        let Some(Entry { name, versions, others, absent, misfits, lacks }) = entry(&path) else {
            continue;
        };
        if let Err(why) = check_name(&name) {
            if !versions.is_empty() {
                refused.push(refuse(format!("{}: {why}", path.display()), Some(text::name(&name))));
            }
            continue;
        }
        let lacks = lacks.map(|why| format!("{}: {why}", path.display()));
        refused.extend(lacks.map(|why| refuse(why, Some(name.clone()))));
        left_out.extend(others.into_iter().map(|version| (name.clone(), version)));
        refused.extend(misfits.into_iter().map(|folder| misfit(&path, &name, folder)));
        refused.extend(absent.into_iter().map(|version| missing(&path, &name, version)));
        for (version, file) in versions {
            if let Some(earlier) = by_name.insert((name.clone(), version), file.clone()) {
                // One is a file and the other a folder, which may have settings.
                let (folder, flat) = (earlier.clone().min(file.clone()), earlier.max(file));
                let why = format!(
                    "{}: model '{name}' version {version} exists twice, and {} is served; move one of them away",
                    flat.display(),
                    folder.display()
                );
                refused.push(refuse(why, None));
                by_name.insert((name.clone(), version), folder);
            }
        }
    }
    // Names come from whoever may write there, and reasons go to the log.
    refused
        .iter_mut()
        .for_each(|refused| refused.why = text::plain(std::mem::take(&mut refused.why)));
    let found = by_name.into_iter().map(|((name, version), file)| Found { name, version, file });
    refused.sort();
    Listing { found: found.collect(), left_out, refused }
}

fn misfit(path: &Path, name: &str, folder: String) -> Refused {
    let shown = folder.escape_debug();
    let why = format!(
        "{}: '{shown}' is no version; a version's folder is a whole number from 1 on without leading \
         zeros, such as {name}/1",
        path.join(&folder).display()
    );
    Refused { why, model: Some(name.to_owned()), version: Some(shown.to_string()) }
}

fn missing(path: &Path, name: &str, version: u64) -> Refused {
    let why = format!(
        "{}: version_policy names version {version}, which is not there; add {name}/{version} or leave it out of \
         config.pbtxt",
        path.display()
    );
    Refused { why, model: Some(name.to_owned()), version: Some(version.to_string()) }
}

/// What is behind one entry of the directory.
#[derive(Default)]
struct Entry {
    name: String,
    /// The versions to be served, with their model files.
    versions: Vec<(u64, PathBuf)>,
    /// Versions that the policy leaves out.
    others: Vec<u64>,
    /// Versions that the policy names and that are not there.
    absent: Vec<u64>,
    /// Folders that hold a model, or are called like a number, and are no versions.
    misfits: Vec<String>,
    /// Why there is nothing to serve, where it looks as if there should be.
    lacks: Option<String>,
}

fn entry(path: &Path) -> Option<Entry> {
    let stem = path.file_stem()?.to_str().filter(|stem| !stem.starts_with('.'))?;
    if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
        let versions = vec![(1, path.to_owned())];
        return Some(Entry { name: stem.to_owned(), versions, ..Entry::default() });
    }
    let name = path.file_name()?.to_str()?.to_owned();
    if let Some(stem) = misspelt(path) {
        let lacks = Some(format!("a model's file ends in .onnx; rename it to {stem}.onnx"));
        return Some(Entry { name: stem.to_owned(), lacks, ..Entry::default() });
    }
    let folders = fs::read_dir(path).ok()?.filter_map(|entry| {
        let folder = entry.ok().filter(|entry| entry.file_type().is_ok_and(|t| !t.is_file()))?;
        Some(folder.file_name().to_str()?.to_owned())
    });
    let (numbers, others): (Vec<_>, Vec<_>) = folders.partition(|folder| number(folder).is_some());
    let layout = config::layout(path);
    let file = |folder: &str| model_file(&path.join(folder), &layout.filename);
    let there = numbers.iter().filter_map(|folder| Some((number(folder)?, file(folder)?)));
    let there: BTreeMap<u64, PathBuf> = there.collect();
    let chosen = layout.choose(there.keys().copied().collect());
    let like_a_number = |folder: &str| folder.bytes().all(|byte| byte.is_ascii_digit());
    let misfits = others.into_iter().filter(|folder| {
        !folder.starts_with('.') && (like_a_number(folder) || file(folder).is_some())
    });
    let misfits: Vec<_> = misfits.collect();
    let empty = there.is_empty() && misfits.is_empty();
    let absent = if empty { Vec::new() } else { layout.absent(&there) };
    Some(Entry {
        lacks: empty.then(|| lacks(path, &name, &layout.filename, &numbers)).flatten(),
        others: there.keys().copied().filter(|version| !chosen.contains(version)).collect(),
        absent,
        misfits,
        versions: there.into_iter().filter(|(version, _)| chosen.contains(version)).collect(),
        name,
    })
}

/// The name of a model whose file is called .ONNX, as systems that mind no case write it.
fn misspelt(path: &Path) -> Option<&str> {
    let onnx = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
    path.file_stem()?.to_str().filter(|_| onnx && path.is_file())
}

/// Why a folder without a version to serve is none, where it looks as if it were meant as a model.
fn lacks(path: &Path, name: &str, filename: &str, numbers: &[String]) -> Option<String> {
    let expected = format!("{name}/1/{filename}");
    let own = format!("{name}.onnx");
    if let Some(file) = [filename, &own].into_iter().find(|file| path.join(file).is_file()) {
        let above = if number(name).is_some() {
            "; if this is the version of a model, give --models the folder that holds the model's"
        } else {
            ""
        };
        return Some(format!("'{file}' lies in no version's folder; move it to {expected}{above}"));
    }
    if let Some(why) = config::unservable(path, name, &expected) {
        return Some(why);
    }
    if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) {
        return Some(format!("an empty folder; expected {expected}"));
    }
    let there = |version: &&String| path.join(version).join(filename).symlink_metadata().is_ok();
    if let Some(version) = numbers.iter().find(there) {
        return Some(format!("'{version}/{filename}' is no plain file; expected one"));
    }
    let versions = numbers.join(", ");
    (!numbers.is_empty())
        .then(|| format!("no '{filename}' in version {versions}; expected {expected}"))
}

/// The model file of a version: a file of that name, or one in a folder of that name, beside its weights.
fn model_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = folder.join(name);
    let inside = file.join(config::FILENAME);
    [file, inside].into_iter().find(|file| file.is_file())
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

    /// A folder with these files, empty but for those with a text.
    fn folder(files: &[&str], texts: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files.iter().map(|&file| (file, "")).chain(texts.iter().copied()) {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn both_layouts_are_found_and_the_rest_is_passed_over() {
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
            "tree/labels/animals.txt",
            "hub/onnx/model.onnx",
            "tree/3/other.onnx",
            "real/minilm/1/model.onnx",
            ".hidden/1/model.onnx",
            "notes.txt",
            "bad\nname.onnx",
        ];
        let policy = "version_policy { all {} } default_model_filename: 'net.onnx'";
        let texts = [("named/config.pbtxt", policy), ("broken/config.pbtxt", "no such field")];
        let root = folder(&files, &texts);
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
        assert_eq!(listing.left_out, [("tree".to_owned(), 1)]);
        let misfits = listing.refused.iter().map(|refused| {
            let Refused { model, version, .. } = refused;
            format!("{}/{}", model.as_deref().unwrap(), version.as_deref().unwrap_or_default())
        });
        let misfits: Vec<_> = misfits.collect();
        assert_eq!(misfits, ["bad\\nname/", "hub/onnx", "tree/02", "tree/latest"]);
    }

    #[test]
    fn what_looks_like_a_model_and_holds_nothing_to_serve_says_so() {
        let files = [
            "loose/model.onnx",
            "own/own.onnx",
            "torch/1/model.pt",
            "pending/config.pbtxt",
            "2/model.onnx",
            "labels/animals.txt",
        ];
        let ensemble = "ensemble_scheduling { step { model_name: 'a' } }";
        let root = folder(&files, &[("ensemble/config.pbtxt", ensemble)]);
        let listing = scan(root.path()).unwrap();
        assert!(listing.found.is_empty(), "{:?}", listing.found);
        let root = format!("{}/", root.path().display());
        let refused: Vec<_> =
            listing.refused.iter().map(|refused| refused.why.replace(&root, "")).collect();
        let expected = [
            "2: 'model.onnx' lies in no version's folder; move it to 2/1/model.onnx; if this is the version of a \
             model, give --models the folder that holds the model's",
            "ensemble: config.pbtxt: line 1: ensemble_scheduling is not served: each model is asked by itself; call the models \
             one after another, or merge them into one ONNX file",
            "loose: 'model.onnx' lies in no version's folder; move it to loose/1/model.onnx",
            "own: 'own.onnx' lies in no version's folder; move it to own/1/model.onnx",
            "pending: a config.pbtxt and no model file beside it; expected pending/1/model.onnx",
            "torch: no 'model.onnx' in version 1; expected torch/1/model.onnx",
        ];
        assert_eq!(refused, expected);
    }
}
