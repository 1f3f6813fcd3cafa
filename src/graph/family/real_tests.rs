//! The real families and those of the repository, found without hints.
//!
//! Separate because it needs files, some of which must be fetched; without those it says so and passes.

use super::*;
use crate::graph::external::ExternalData;
use crate::graph::proto::TensorProto;
use crate::graph::read::{Model, read};
use bytes::Bytes;
use prost::Message as _;
use std::path::{Path, PathBuf};

fn none(_: &ExternalData) -> Result<Bytes, String> {
    Err("the model has no external data".into())
}

/// The models of a folder by name; none where it was not fetched.
fn models(folder: &str) -> Vec<(String, Model)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    let model = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let bytes = std::fs::read(path.join("1/model.onnx")).ok()?;
        Some((name, read(bytes.into()).unwrap()))
    };
    paths.into_iter().filter_map(model).collect()
}

/// A family tree as text: its members, and below it the families inside.
fn tree(family: &Family, names: &[&str], depth: usize) -> String {
    let members: Vec<&str> = family.members.iter().map(|&at| names[at]).collect();
    let whole = if family.is_whole { " whole" } else { "" };
    let children: Vec<String> =
        family.children.iter().map(|child| tree(child, names, depth + 1)).collect();
    let indent = "  ".repeat(depth);
    format!("{indent}{}{whole}\n{}", members.join(" "), children.concat())
}

/// Finds the families of a folder, splits every member, and checks that the legs agree.
fn found(folder: &str) -> Option<String> {
    let models = models(folder);
    if models.is_empty() {
        return None;
    }
    let mut sketches = Vec::new();
    let mut kept = Vec::new();
    for (name, model) in &models {
        match sketch(model, &none) {
            Ok(sketch) => {
                sketches.push(sketch);
                kept.push((name.as_str(), model));
            }
            Err(why) => println!("{name}: left whole: {why}"),
        }
    }
    let names: Vec<&str> = kept.iter().map(|(name, _)| *name).collect();
    let found = families(&sketches.iter().collect::<Vec<_>>(), Worth::Much);
    for note in &found.notes {
        let members: Vec<&str> = note.members.iter().map(|&at| names[at]).collect();
        println!("{members:?}: {}", note.why);
    }
    for family in &found.families {
        agree(family, &kept, &mut Vec::new());
    }
    Some(found.families.iter().map(|family| tree(family, &names, 0)).collect())
}

/// Checks a family's legs: equal bytes and digests from every member, heads with the model's own outputs.
fn agree(family: &Family, models: &[(&str, &Model)], below: &mut Vec<Family>) {
    below.push(family.clone());
    let mut first: Option<Leg> = None;
    for &member in &family.members {
        let place = |family: &Family| family.members.iter().position(|&own| own == member).unwrap();
        let cuts: Vec<&[String]> =
            below.iter().map(|family| family.cut[place(family)].as_slice()).collect();
        let (name, model) = models[member];
        let legs = split(model, &none, &cuts).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(legs.len(), cuts.len() + 1);
        let base = &legs[legs.len() - 2];
        assert_eq!(base.digest, family.digest, "{name}");
        let requests: Vec<usize> = base
            .inputs
            .iter()
            .filter_map(|source| match source {
                Source::Request(at) => Some(*at),
                Source::Below(_) => None,
            })
            .collect();
        assert_eq!(requests, family.inputs[place(family)], "{name}");
        let head = legs.last().unwrap();
        let read_back = read(head.bytes.clone()).unwrap();
        assert_eq!(read_back.outputs(), model.outputs(), "{name}");
        match &first {
            Some(first) => {
                assert_eq!(first.digest, base.digest);
                assert!(first.bytes == base.bytes, "{name}: the base's bytes differ");
            }
            None => first = Some(base.clone()),
        }
    }
    for child in &family.children {
        agree(child, models, below);
    }
    below.pop();
}

#[test]
fn the_families_of_the_repository_are_found() {
    let expected = "digits_digit digits_high digits_parity digits_tuned\n  digits_digit digits_high \
                    digits_parity\n";
    assert_eq!(found("models").as_deref(), Some(expected));
}

#[test]
fn real_families_are_found_without_hints() {
    let Some(found) = found("models/real") else {
        println!("skipped: real_families_are_found_without_hints: `make models` was not run");
        return;
    };
    let expected = "\
basic_pitch pitch_contour pitch_note pitch_onset
  basic_pitch pitch_note pitch_onset
    basic_pitch pitch_onset
kws_command kws_voice kws_wake
minilm minilm_embed minilm_keywords minilm_route minilm_sentiment minilm_topic
  minilm_embed minilm_route minilm_sentiment minilm_topic
";
    assert_eq!(found, expected);
}

/// The model with one bit of one weight flipped: the `nth` of its large constants.
fn flipped(model: &Model, nth: usize) -> (Model, Bytes) {
    let mut proto = model.proto().clone();
    let tensors = &mut proto.graph.as_mut().unwrap().initializer;
    let large =
        |tensor: &&mut TensorProto| tensor.raw_data.as_ref().is_some_and(|d| d.len() > 100_000);
    let tensor = tensors.iter_mut().filter(large).nth(nth).unwrap();
    let mut data = tensor.raw_data.clone().unwrap().to_vec();
    data[77] ^= 1;
    let data = Bytes::from(data);
    tensor.raw_data = Some(data.clone());
    (read(proto.encode_to_vec().into()).unwrap(), data)
}

/// Whether a leg holds a constant of these bytes.
fn holds(leg: &Leg, data: &Bytes) -> bool {
    let model = read(leg.bytes.clone()).unwrap();
    model.graph().initializer.iter().any(|tensor| tensor.raw_data.as_ref() == Some(data))
}

#[test]
fn a_real_pair_that_differs_in_one_weight_is_separated_below_it() {
    let models = models("models/real");
    let Some((_, model)) = models.iter().find(|(name, _)| name == "minilm_embed") else {
        println!("skipped: a_real_pair_that_differs: `make models` was not run");
        return;
    };
    let own = sketch(model, &none).unwrap();
    let mut shares = Vec::new();
    for nth in (0..35).step_by(5) {
        let (other, data) = flipped(model, nth);
        let found = families(&[&own, &sketch(&other, &none).unwrap()], Worth::Much);
        let [family] = &found.families[..] else {
            // Below it lies too little: the weight is one of the first.
            continue;
        };
        assert!(!family.is_whole && family.shares[0] < 1.0, "{family:?}");
        let legs = split(&other, &none, &[&family.cut[1]]).unwrap();
        assert!(!holds(&legs[0], &data) && holds(&legs[1], &data), "{nth}");
        let before = split(model, &none, &[&family.cut[0]]).unwrap();
        assert_eq!(before[0], legs[0]);
        assert_ne!(before[1].digest, legs[1].digest);
        shares.push(family.shares[0]);
    }
    assert!(!shares.is_empty());
}
