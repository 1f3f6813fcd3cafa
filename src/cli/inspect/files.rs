//! Families among model files, found without a daemon: as a tree for people, as JSON, as a graph for Graphviz.

use crate::digest::StageDigest;
use crate::graph::family::{self, Family, Sketch};
use crate::graph::{ExternalData, Model, read};
use crate::model::{beneath, stash};
use crate::text;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
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

/// What some model files have in common.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// Each with all that is drawn of it.
    families: Vec<Node>,
    /// Files in no family, and why where that is known.
    left: Vec<(Vec<String>, String)>,
}

/// A base and what stands on it.
#[derive(Debug)]
struct Node {
    digest: StageDigest,
    nodes: usize,
    parameters: u64,
    bytes_per_row: Option<u64>,
    /// The share of each member's compute that lies in the base and below it.
    shares: BTreeMap<String, f64>,
    /// Members that stand on this base and on none above it.
    heads: Vec<String>,
    bases: Vec<Self>,
    /// Bytes of the members' files, and of base and heads; of outermost bases alone.
    bytes: Option<(u64, u64)>,
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
            Err(why) => left.push((vec![name], why)),
        }
    }
    let sketches: Vec<&Sketch> = models.iter().map(|model| &model.sketch).collect();
    let found = family::families(&sketches);
    let named = |members: &[usize]| members.iter().map(|&at| models[at].name.clone()).collect();
    left.extend(found.notes.into_iter().map(|note| (named(&note.members), note.why)));
    let mut lone: Vec<usize> = (0..models.len()).collect();
    lone.retain(|at| !found.families.iter().any(|family| family.members.contains(at)));
    if !lone.is_empty() {
        left.push((named(&lone), "nothing large enough in common with another".to_owned()));
    }
    let families = found.families.iter().map(|family| {
        let mut node = node(&models, family, None);
        node.bytes = bytes(&models, family);
        node
    });
    Families { families: families.collect(), left }
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

fn node(models: &[Read], family: &Family, below: Option<[u8; 32]>) -> Node {
    let digest = below.map_or(family.digest, |below| family::upon(&below, &family.digest));
    let inner = |at: &&usize| family.children.iter().any(|child| child.members.contains(at));
    let name = |at: usize| models[at].name.clone();
    let shares = family.members.iter().zip(&family.shares);
    Node {
        digest: StageDigest(digest),
        nodes: family.nodes,
        parameters: family.parameters,
        bytes_per_row: family.bytes_per_row,
        shares: shares.map(|(&at, &share)| (name(at), share)).collect(),
        heads: family.members.iter().filter(|at| !inner(at)).map(|&at| name(at)).collect(),
        bases: family.children.iter().map(|child| node(models, child, Some(digest))).collect(),
        bytes: None,
    }
}

/// Bytes of all members as they are, and of their bases and heads; none where one cannot be split.
fn bytes(models: &[Read], family: &Family) -> Option<(u64, u64)> {
    let (mut wholes, mut heads) = (0, 0);
    let mut bases = BTreeMap::new();
    for &member in &family.members {
        let mut cuts = Vec::new();
        let mut level = Some(family);
        while let Some(here) = level {
            let place = here.members.iter().position(|&at| at == member)?;
            cuts.push(&*here.cut[place]);
            level = here.children.iter().find(|child| child.members.contains(&member));
        }
        let Read { file, model, bytes, .. } = &models[member];
        let mut legs = family::split(model, &|data| weights_of(file, data), &cuts).ok()?;
        heads += legs.pop()?.bytes.len() as u64;
        wholes += bytes;
        bases.extend(legs.into_iter().map(|leg| (leg.digest, leg.bytes.len() as u64)));
    }
    Some((wholes, heads + bases.values().sum::<u64>()))
}

impl Families {
    /// Draws them for people.
    pub(super) fn draw(&self, out: &mut impl Write) -> io::Result<()> {
        for family in &self.families {
            writeln!(out, "family of {} models", family.shares.len())?;
            family.draw(out, "", "")?;
            if let Some((wholes, shared)) = family.bytes {
                let (wholes, shared) = (size(wholes), size(shared));
                writeln!(out, "weights: {wholes} as they are, {shared} with the base once")?;
            }
            writeln!(out)?;
        }
        for (members, why) in &self.left {
            let members: Vec<String> = members.iter().map(text::plain).collect();
            writeln!(out, "left whole: {}: {}", members.join(", "), text::plain(why))?;
        }
        Ok(())
    }

    /// The same as JSON: `families` (each a base with `heads` and inner `bases`) and what is `left`.
    pub(super) fn json(&self) -> Value {
        let left = self.left.iter().map(|(members, why)| json!({"members": members, "why": why}));
        json!({
            "families": self.families.iter().map(Node::json).collect::<Vec<_>>(),
            "left": left.collect::<Vec<_>>(),
        })
    }

    /// The same for Graphviz.
    pub(super) fn dot(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "digraph families {{\n  rankdir=BT;\n  node [shape=box];")?;
        self.families.iter().try_for_each(|family| family.dot(out, None))?;
        writeln!(out, "}}")
    }
}

impl Node {
    fn draw(&self, out: &mut impl Write, first: &str, rest: &str) -> io::Result<()> {
        let shares = || self.shares.values().map(|share| share * 100.0);
        let least = shares().fold(100.0_f64, f64::min);
        let most = shares().fold(0.0_f64, f64::max);
        let row = self.bytes_per_row.map_or_else(|| "?".to_owned(), size);
        let (nodes, parameters) = (self.nodes, count(self.parameters));
        writeln!(
            out,
            "{first}base {}: {nodes} nodes, {parameters} parameters, {row} a row across the cut, {least:.1} to {most:.1} % of the compute",
            self.digest
        )?;
        let all = self.bases.len() + self.heads.len();
        let branch =
            |at: usize| if at + 1 == all { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        for (at, base) in self.bases.iter().enumerate() {
            let (here, after) = branch(at);
            base.draw(out, &format!("{rest}{here}"), &format!("{rest}{after}"))?;
        }
        for (at, head) in self.heads.iter().enumerate() {
            writeln!(out, "{rest}{}{}", branch(self.bases.len() + at).0, text::plain(head))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "base": self.digest.to_string(),
            "nodes": self.nodes,
            "parameters": self.parameters,
            "bytes_per_row": self.bytes_per_row,
            "shares": self.shares,
            "heads": self.heads,
            "bases": self.bases.iter().map(Self::json).collect::<Vec<_>>(),
        });
        if let Some((wholes, shared)) = self.bytes {
            value["weights_bytes"] = json!({"wholes": wholes, "shared": shared});
        }
        value
    }

    fn dot(&self, out: &mut impl Write, below: Option<&str>) -> io::Result<()> {
        let base = quoted(&format!("base {}", self.digest));
        writeln!(out, "  {base} [style=filled];")?;
        if let Some(below) = below {
            writeln!(out, "  {base} -> {below};")?;
        }
        for head in &self.heads {
            writeln!(out, "  {} -> {base};", quoted(head))?;
        }
        self.bases.iter().try_for_each(|inner| inner.dot(out, Some(&base)))
    }
}

/// A name as Graphviz takes it, whatever it holds.
fn quoted(name: &str) -> String {
    let plain = text::plain(name);
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn size(bytes: u64) -> String {
    let shown = crate::cli::table::bytes(bytes);
    if bytes < 1 << 10 { format!("{shown} bytes") } else { format!("{shown}B") }
}

fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{:.1}k", number as f64 / 1e3),
        _ => format!("{:.1}M", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin() -> Families {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let file = |name: &str| root.join(name).join("1/model.onnx");
        families(&["kin_far", "kin_left", "kin_right", "mlp", "badfile"].map(file))
    }

    #[test]
    fn a_family_is_drawn_with_what_stands_on_what() {
        let mut out = Vec::new();
        kin().draw(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        println!("{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "family of 3 models");
        assert!(lines[1].starts_with("base ") && lines[2].starts_with("├─ base "), "{text}");
        assert_eq!(lines[3..6], ["│  ├─ kin_left", "│  └─ kin_right", "└─ kin_far"]);
        assert!(lines[6].starts_with("weights: "), "{text}");
        assert!(text.contains("left whole: mlp: nothing large enough in common"), "{text}");
    }

    #[test]
    fn json_says_the_same_and_names_are_quoted_for_graphviz() {
        let found = kin();
        let value = found.json();
        let [family] = &value["families"].as_array().unwrap()[..] else { panic!("{value}") };
        assert_eq!(family["heads"], json!(["kin_far"]));
        assert_eq!(family["bases"][0]["heads"], json!(["kin_left", "kin_right"]));
        let bytes = &family["weights_bytes"];
        assert!(bytes["wholes"].as_u64() > bytes["shared"].as_u64(), "{value}");
        let mut out = Vec::new();
        found.dot(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\"kin_far\" -> \"base "), "{text}");
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\\\n\"");
    }
}
