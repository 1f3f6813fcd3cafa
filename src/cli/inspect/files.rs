//! Families among model files, found without a daemon.

use crate::digest::StageDigest;
use crate::graph::family::{self, Family, Sketch};
use crate::graph::{ExternalData, Model, read};
use crate::model::{beneath, stash};
use crate::server::service::families::{Base, Families, Head, Left, Total};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// How deep folders are looked through for models.
const DEPTH_MAX: usize = 4;

/// A model file that was read.
struct Read {
    name: String,
    file: PathBuf,
    model: Model,
    /// Bytes of the file and of the weights beside it.
    bytes: u64,
    sketch: Sketch,
}

/// The model files below a folder, in the order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            // Links are not followed: they could lead in circles.
            let is_folder = path.symlink_metadata().is_ok_and(|facts| facts.is_dir());
            if is_folder && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|end| end == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Finds the families among files.
pub(super) fn families(files: &[PathBuf]) -> Families {
    let mut left = Vec::new();
    let mut models = Vec::new();
    for (file, name) in files.iter().zip(names(files)) {
        match open(file, name.clone()) {
            Ok(model) => models.push(model),
            Err(why) => left.push(Left { members: vec![name], why }),
        }
    }
    let sketches: Vec<&Sketch> = models.iter().map(|model| &model.sketch).collect();
    let found = family::families(&sketches, family::Worth::Much);
    let named = |members: &[usize]| members.iter().map(|&at| models[at].name.clone()).collect();
    let noted = found.notes.into_iter();
    left.extend(noted.map(|note| Left { members: named(&note.members), why: note.why }));
    let mut lone: Vec<usize> = (0..models.len()).collect();
    lone.retain(|at| !found.families.iter().any(|family| family.members.contains(at)));
    if !lone.is_empty() {
        let why = "nothing large enough in common with another".to_owned();
        left.push(Left { members: named(&lone), why });
    }
    let mut families = Vec::new();
    for family in &found.families {
        let sizes = sizes(&models, family);
        let mut base = base(&models, family, None, sizes.as_ref().unwrap_or(&BTreeMap::new()));
        let wholes = base.all_heads().iter().map(|head| head.whole_bytes).sum::<u64>();
        let shared = base.all_bytes();
        let total = Total { wholes, shared, saved: wholes.saturating_sub(shared) };
        base.total = sizes.map(|_| total);
        families.push(base);
    }
    Families { families, left }
}

/// What files are called: by the folder of the model where the file's own name says nothing.
fn names(files: &[PathBuf]) -> Vec<String> {
    let name = |file: &PathBuf| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let above = file.ancestors().nth(2).and_then(Path::file_name);
        match above.filter(|_| stem == "model") {
            Some(above) => above.to_string_lossy().into_owned(),
            None => stem.into_owned(),
        }
    };
    let short: Vec<String> = files.iter().map(name).collect();
    let is_one = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    let whole = |(name, file): (&String, &PathBuf)| {
        if is_one(name) { name.clone() } else { file.display().to_string() }
    };
    short.iter().zip(files).map(whole).collect()
}

fn open(file: &Path, name: String) -> Result<Read, String> {
    let bytes = Bytes::from(std::fs::read(file).map_err(|error| error.to_string())?);
    let model = read(bytes.clone()).map_err(|error| error.to_string())?;
    let beside = |location: &&str| beside(file, location).ok()?.metadata().ok();
    let external = model.external_files();
    let weights: u64 = external.iter().filter_map(|it| beside(&&**it)).map(|it| it.len()).sum();
    let sketch = family::sketch(&model, &|data| weights_of(file, data));
    let sketch = sketch.map_err(|reason| reason.to_string())?;
    Ok(Read { name, file: file.to_owned(), bytes: bytes.len() as u64 + weights, model, sketch })
}

/// A file of weights beside a model, and nowhere else.
fn beside(file: &Path, location: &str) -> Result<std::fs::File, String> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    beneath::open(folder.unwrap_or_else(|| Path::new(".")), location)
}

fn weights_of(file: &Path, data: &ExternalData) -> Result<Bytes, String> {
    let source = beside(file, &data.location)?;
    stash::external(&source, data).map_err(|error| format!("'{}': {error}", data.location))
}

/// What a leg is of, for its size: a base, or the head of a model.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Base([u8; 32]),
    Head(usize),
}

fn base(
    models: &[Read],
    family: &Family,
    below: Option<[u8; 32]>,
    sizes: &BTreeMap<Of, u64>,
) -> Base {
    let digest = below.map_or(family.digest, |below| family::upon(&below, &family.digest));
    let name = |at: usize| models[at].name.clone();
    let size = |of| sizes.get(&of).copied().unwrap_or(0);
    let shares = family.members.iter().zip(&family.shares);
    let is_inner = |at: &&usize| family.children.iter().any(|child| child.members.contains(at));
    let head = |&at: &usize| Head {
        model: name(at),
        bytes: size(Of::Head(at)),
        whole_bytes: models[at].bytes,
        ..Head::default()
    };
    let inner = family.children.iter().map(|child| base(models, child, Some(digest), sizes));
    Base {
        base: StageDigest(digest).to_string(),
        nodes: family.nodes,
        parameters: family.parameters,
        bytes: size(Of::Base(family.digest)),
        bytes_per_row: family.bytes_per_row,
        shares: shares.map(|(&at, &share)| (name(at), share)).collect(),
        heads: family.members.iter().filter(|at| !is_inner(at)).map(head).collect(),
        bases: inner.collect(),
        total: None,
    }
}

/// Bytes of a family's bases and heads; none where a member cannot be split.
fn sizes(models: &[Read], family: &Family) -> Option<BTreeMap<Of, u64>> {
    let mut sizes = BTreeMap::new();
    for &member in &family.members {
        let mut cuts = Vec::new();
        let mut level = Some(family);
        while let Some(here) = level {
            let place = here.members.iter().position(|&at| at == member)?;
            cuts.push(&*here.cut[place]);
            level = here.children.iter().find(|child| child.members.contains(&member));
        }
        let Read { file, model, .. } = &models[member];
        let mut legs = family::split(model, &|data| weights_of(file, data), &cuts).ok()?;
        sizes.insert(Of::Head(member), legs.pop()?.bytes.len() as u64);
        sizes.extend(legs.into_iter().map(|leg| (Of::Base(leg.digest), leg.bytes.len() as u64)));
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn kin() -> Families {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let file = |name: &str| root.join(name).join("1/model.onnx");
        families(&["kin_far", "kin_left", "kin_right", "mlp", "badfile"].map(file))
    }

    fn models(heads: &[Head]) -> Vec<&str> {
        heads.iter().map(|head| head.model.as_str()).collect()
    }

    #[test]
    fn files_are_a_family_with_what_stands_on_what() {
        let found = kin();
        let [family] = &found.families[..] else { panic!("{found:?}") };
        assert_eq!(models(&family.heads), ["kin_far"]);
        assert_eq!(models(&family.bases[0].heads), ["kin_left", "kin_right"]);
        assert_eq!(family.parameters, 2 * (64 * 64 + 64));
        let weights = family.parameters * 4;
        assert!((weights..weights + 2048).contains(&family.bytes), "{family:?}");
        let Total { wholes, shared, saved } = family.total.unwrap();
        assert_eq!((family.all_bytes(), wholes - shared), (shared, saved));
        let expected = ["kin_far", "kin_left", "kin_right"];
        let file = |name: &&str| format!("tests/fixtures/models/{name}/1/model.onnx");
        let bytes = expected.iter().map(file).map(|file| std::fs::metadata(file).unwrap().len());
        assert_eq!(wholes, bytes.sum::<u64>());
        let left: Vec<&str> =
            found.left.iter().flat_map(|left| &left.members[..]).map(|it| &**it).collect();
        assert_eq!(left, ["badfile", "mlp"], "{:?}", found.left);
    }

    #[test]
    fn a_family_is_drawn_with_what_stands_on_what() {
        let mut out = Vec::new();
        tree::draw(&kin(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let starts = [
            "family of 3 models",
            "base ",
            "├─ base ",
            "│  ├─ kin_left: ",
            "│  └─ kin_right: ",
            "└─ kin_far: ",
        ];
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{text}");
        }
        assert!(text.contains("left whole: mlp: nothing large enough in common"), "{text}");
    }
}
