//! Sketches and splits that an earlier start made of the same content, found again instead of made again.
//!
//! Damage is told and costs what making them costs; a shelf that cannot be written costs the next start.

use super::{BaseDigest, Material};
use crate::digest::StageDigest;
use crate::graph::family::{self, Leg, Sketch, Source};
use crate::model::shelf::{Found, Shelf};
use crate::model::stash::Stashed;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is kept is told apart by what made it: another number where sketches or splits are made otherwise. A test
/// remembers what they were.
const SKETCH: &str = "sketch1";
const SPLIT: &str = "split1";
/// Base and head files, each by its own content: members of a family have bases in common.
const LEG: &str = "leg1";

/// A leg whose file lies beside this.
#[derive(Serialize, Deserialize)]
struct Part {
    file: [u8; 32],
    inputs: Vec<Source>,
    outputs: usize,
    digest: [u8; 32],
}

/// What the search for families needs of a model, or why it can be in none.
///
/// # Errors
/// Why the model can only be run whole.
pub(in crate::driver::load) fn sketch(shelf: &Shelf, stashed: &Stashed) -> Result<Sketch, String> {
    let digest = &stashed.digest;
    found(shelf, SKETCH, digest).unwrap_or_else(|| {
        let made = stashed.copy.sketch(&stashed.model);
        // What failed may have failed for want of a descriptor, and not for what the model is.
        if made.is_ok() {
            put(shelf, SKETCH, digest, &made);
        }
        made
    })
}

/// The legs of a model's way with these cuts, lowest first; those of bases that are `known` may be without their file.
///
/// # Errors
/// A sentence, when it cannot be split there.
pub(super) fn legs(
    shelf: &Shelf,
    material: &Material,
    cuts: &[Vec<String>],
    known: &BTreeSet<BaseDigest>,
) -> Result<Vec<Leg>, String> {
    let key = key(&material.content, cuts);
    let parts: Option<Vec<Part>> = found(shelf, SPLIT, &key);
    if let Some(legs) = parts.and_then(|parts| from(shelf, parts, known)) {
        return Ok(legs);
    }
    let legs = material.split(cuts)?;
    let part = |leg: &Leg| {
        let file = StageDigest(*blake3::hash(&leg.bytes).as_bytes());
        // Members of a family have their bases in common.
        if looked_up(shelf, LEG, &file).is_none() {
            keep(shelf, LEG, &file, &leg.bytes);
        }
        let Leg { inputs, outputs, digest, .. } = leg.clone();
        Part { file: file.0, inputs, outputs, digest }
    };
    put(shelf, SPLIT, &key, &legs.iter().map(part).collect::<Vec<_>>());
    Ok(legs)
}

/// The legs that were kept; none where one that is needed is not there.
fn from(shelf: &Shelf, parts: Vec<Part>, known: &BTreeSet<BaseDigest>) -> Option<Vec<Leg>> {
    let head = parts.len().checked_sub(1)?;
    let mut below = None;
    let leg = |(at, part): (usize, Part)| {
        let Part { file, inputs, outputs, digest } = part;
        let base = below.map_or(digest, |below| family::upon(&below, &digest));
        below = Some(base);
        let bytes = match at < head && known.contains(&base) {
            true => Bytes::new(),
            false => looked_up(shelf, LEG, &StageDigest(file))?,
        };
        Some(Leg { bytes, inputs, outputs, digest })
    };
    parts.into_iter().enumerate().map(leg).collect()
}

fn key(content: &StageDigest, cuts: &[Vec<String>]) -> StageDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.0);
    for cut in cuts {
        hasher.update(&(cut.len() as u64).to_le_bytes());
        for name in cut {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
    }
    StageDigest(*hasher.finalize().as_bytes())
}

fn found<T: DeserializeOwned>(shelf: &Shelf, kind: &str, digest: &StageDigest) -> Option<T> {
    let bytes = looked_up(shelf, kind, digest)?;
    let read = postcard::from_bytes(&bytes);
    read.map_err(|error| {
        tracing::warn!("{kind} {digest} in --splits-dir cannot be read ({error}) and is made anew");
    })
    .ok()
}

fn looked_up(shelf: &Shelf, kind: &str, digest: &StageDigest) -> Option<Bytes> {
    match shelf.get(kind, digest) {
        Found::Entry(bytes) => Some(bytes),
        Found::Nothing => None,
        Found::Damaged => {
            tracing::warn!("{kind} {digest} in --splits-dir is damaged and is made anew");
            None
        }
    }
}

fn put<T: Serialize>(shelf: &Shelf, kind: &str, digest: &StageDigest, value: &T) {
    match postcard::to_stdvec(value) {
        Ok(bytes) => keep(shelf, kind, digest, &bytes),
        Err(error) => tracing::debug!("{kind} {digest} cannot be kept: {error}"),
    }
}

fn keep(shelf: &Shelf, kind: &str, digest: &StageDigest, bytes: &[u8]) {
    if let Err(error) = shelf.put(kind, digest, bytes) {
        tracing::warn!(
            "{kind} {digest} cannot be kept in --splits-dir: {error}; the next start makes it anew"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ExternalData, read};
    use std::path::Path;

    /// Sketch and legs of a model of the tests, as they are kept.
    fn made() -> (Vec<u8>, Vec<Vec<u8>>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
        let model = |name: &str| {
            let bytes = std::fs::read(root.join(name).join("1/model.onnx")).unwrap();
            read(bytes.into()).unwrap()
        };
        let none = |_: &ExternalData| Err("no external data".to_owned());
        let models = ["kin_left", "kin_far"].map(model);
        let sketches = models.each_ref().map(|model| family::sketch(model, &none).unwrap());
        let found = family::families(&sketches.each_ref(), family::Worth::Much);
        let legs = family::split(&models[0], &none, &[&found.families[0].cut[0]]).unwrap();
        let sketch = postcard::to_stdvec(&Ok::<_, String>(&sketches[0])).unwrap();
        (sketch, legs.into_iter().map(|leg| leg.bytes.to_vec()).collect())
    }

    #[test]
    fn what_is_kept_is_still_what_would_be_made() {
        let (sketch, legs) = made();
        let short = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        let legs: Vec<String> = legs.iter().map(|leg| short(leg)).collect();
        // Where these change, SKETCH or SPLIT get another number: what older daemons left is not found any more.
        assert_eq!((SKETCH, short(&sketch).as_str()), ("sketch1", "43ab28650e2b5ef4"));
        assert_eq!(
            (SPLIT, legs.join(" ").as_str()),
            ("split1", "9513973aa9f47fe8 e47c878fc17d8e71")
        );
    }

    #[test]
    fn a_sketch_comes_back_as_it_was() {
        let (sketch, _) = made();
        let back: Result<Sketch, String> = postcard::from_bytes(&sketch).unwrap();
        assert_eq!(postcard::to_stdvec(&back).unwrap(), sketch);
    }

    #[test]
    fn other_cuts_have_other_keys() {
        let key = |cuts: &[&[&str]]| {
            let cuts: Vec<Vec<String>> = cuts
                .iter()
                .map(|cut| cut.iter().map(|name| (*name).to_owned()).collect())
                .collect();
            key(&StageDigest([1; 32]), &cuts)
        };
        let keys = [
            key(&[&["a", "b"]]),
            key(&[&["ab"]]),
            key(&[&["a"], &["b"]]),
            key(&[&["b", "a"]]),
            key(&[]),
        ];
        assert_eq!(BTreeSet::from(keys.map(|key| key.0)).len(), keys.len());
    }
}
