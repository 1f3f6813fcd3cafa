//! Tests of families on built graphs: what digests must not see, what they must, and what a cut keeps.
//!
//! Separate for length; the graphs that proptest draws are built in `random`.

mod random;

use super::dag::Dag;
use super::find::{Found, Worth, families};
use super::hash::{Digest, Fields};
use super::net::net;
use super::sketch::{Sketch, sketch};
use super::split::{Leg, Source, split};
use crate::graph::constant::elem;
use crate::graph::external::ExternalData;
use crate::graph::proto::*;
use crate::graph::read::{Model, read};
use crate::graph::testing::{Build, branch, function, graph, int, ints, node};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

pub(super) fn none(_: &ExternalData) -> Result<Bytes, String> {
    Err("there are no files".into())
}

fn sketches(models: &[Model]) -> Vec<Sketch> {
    models.iter().map(|model| sketch(model, &none).unwrap()).collect()
}

fn find(builds: &[Build]) -> Found {
    let models: Vec<Model> = builds.iter().map(Build::model).collect();
    families(&sketches(&models).iter().collect::<Vec<_>>(), Worth::Much)
}

fn legs(build: &Build, cuts: &[&[&str]]) -> Vec<Leg> {
    let cuts: Vec<Vec<String>> =
        cuts.iter().map(|cut| cut.iter().map(|name| (*name).to_owned()).collect()).collect();
    split(&build.model(), &none, &cuts.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// The digest of every named value, inputs told by their place.
pub(super) fn digests(model: &Model) -> BTreeMap<String, Digest> {
    let net = net(model).unwrap();
    let dag = Dag::new(&net, &none).unwrap();
    let leaves: Vec<Digest> =
        (0..net.inputs).map(|at| Fields::new(b"test").count(at).finish()).collect();
    let found = dag.digests(&leaves, &HashMap::new());
    let named = net.names.iter().zip(found.values).filter(|(name, _)| !name.is_empty());
    let mut named: BTreeMap<String, Digest> =
        named.map(|(name, digest)| ((*name).to_owned(), digest)).collect();
    for (port, &id) in model.outputs().iter().zip(&net.outputs) {
        let first = dag.first[id] as usize;
        named.insert(
            format!("output {}", port.name),
            dag.digests(&leaves, &HashMap::new()).values[first],
        );
    }
    named
}

/// A weight whose values follow from a seed.
pub(super) fn weight(name: &str, rows: i64, columns: i64, seed: i64) -> TensorProto {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let value = |at: i64| ((at * 7 + seed * 13) % 31 - 15) as f32 / 16.0;
    TensorProto {
        name: Some(name.to_owned()),
        dims: vec![rows, columns],
        data_type: Some(elem::FLOAT),
        float_data: (0..rows * columns).map(value).collect(),
        ..TensorProto::default()
    }
}

/// A chain of layers on `x`; each layer's weights follow from its seed.
fn chain(seeds: &[i64], prefix: &str) -> Build {
    let mut build = Build::new(17).input("x", "batch 32");
    let mut last = "x".to_owned();
    for (at, &seed) in seeds.iter().enumerate() {
        let (w, m) = (format!("{prefix}w{at}"), format!("{prefix}m{at}"));
        let made = if at + 1 == seeds.len() { "y".to_owned() } else { format!("{prefix}r{at}") };
        build = build
            .tensor(weight(&w, 32, 32, seed))
            .node("MatMul", &format!("{last} {w}"), &m, &[])
            .node("Relu", &m, &made, &[]);
        last = made;
    }
    build.output("y")
}

#[test]
fn models_that_share_layers_are_a_tree() {
    let found = find(&[
        chain(&[1, 2, 3, 4, 5, 11], "a/"),
        chain(&[1, 2, 3, 4, 5, 12], "b/"),
        chain(&[1, 2, 3, 13, 14, 15], ""),
        chain(&[21, 22], "d/"),
    ]);
    let [family] = &found.families[..] else { panic!("{found:?}") };
    assert_eq!(family.members, [0, 1, 2]);
    assert_eq!(family.cut, [["a/r2"], ["b/r2"], ["r2"]]);
    assert_eq!(family.inputs, [[0], [0], [0]]);
    assert_eq!((family.bytes_per_row, family.nodes, family.parameters), (Some(128), 6, 3072));
    assert!(family.shares.iter().all(|share| (share - 0.5).abs() < 0.01), "{:?}", family.shares);
    let [inner] = &family.children[..] else { panic!("{found:?}") };
    assert_eq!(inner.members, [0, 1]);
    assert_eq!(inner.cut, [["a/r4"], ["b/r4"]]);
    let one = legs(&chain(&[1, 2, 3, 4, 5, 11], "a/"), &[&["a/r2"], &["a/r4"]]);
    let other = legs(&chain(&[1, 2, 3, 4, 5, 12], "b/"), &[&["b/r2"], &["b/r4"]]);
    assert_eq!(one[..2], other[..2]);
    assert_ne!(one[2].digest, other[2].digest);
    assert_eq!((one[0].digest, one[1].digest), (family.digest, inner.digest));
    assert_eq!(one[2].inputs, [Source::Below(0)]);
}

#[test]
fn a_layer_that_differs_ends_the_base_below_it() {
    let mut other = chain(&[1, 2, 3, 4, 5, 6], "");
    other.graph().initializer[3].float_data[7] += 1.0;
    let found = find(&[chain(&[1, 2, 3, 4, 5, 6], ""), other]);
    assert_eq!(found.families[0].cut, [["r2"], ["r2"]]);
}

#[test]
fn too_little_in_common_is_no_family() {
    let found = find(&[chain(&[1, 2, 3, 4, 5, 6, 7], ""), chain(&[1, 8, 9, 10, 11, 12, 13], "")]);
    assert_eq!(found.families, []);
    assert_eq!(found.notes.len(), 1);
    assert!(found.notes[0].why.contains("less than 20 %"), "{}", found.notes[0].why);
}

#[test]
fn equal_models_are_one_base_with_empty_heads() {
    let found = find(&[chain(&[1, 2], "a/"), chain(&[1, 2], "b/")]);
    assert!(found.families[0].is_whole);
    assert_eq!(found.families[0].cut, [["y"], ["y"]]);
    let legs = legs(&chain(&[1, 2], "a/"), &[&["y"]]);
    let head = read(legs[1].bytes.clone()).unwrap();
    assert_eq!(head.graph().node.len(), 1);
    assert_eq!(head.graph().node[0].op_type(), "Identity");
    assert_eq!(head.outputs()[0].name, "y");
}

#[test]
fn a_member_that_is_the_base_has_an_empty_head() {
    let found = find(&[chain(&[1, 2, 3], ""), chain(&[1, 2, 3, 4], "b/")]);
    assert_eq!(found.families[0].cut, [["y"], ["b/r2"]]);
    assert!(!found.families[0].is_whole);
}

/// `f(a) + g(b)`, products both.
fn two(a: &str, b: &str, inputs: &[&str]) -> Build {
    let mut build = Build::new(17);
    for name in inputs {
        build = build.input(name, "batch 32");
    }
    build
        .tensor(weight("f", 32, 32, 1))
        .tensor(weight("g", 32, 32, 2))
        .node("MatMul", &format!("{a} f"), "fa", &[])
        .node("MatMul", &format!("{b} g"), "gb", &[])
        .node("Add", "fa gb", "s", &[])
        .tensor(weight("h", 32, 32, 3))
        .node("MatMul", "s h", "y", &[])
        .output("y")
}

#[test]
fn inputs_are_told_apart_by_use_not_by_name() {
    let found = find(&[two("x", "y0", &["x", "y0"]), two("y0", "x", &["x", "y0"])]);
    assert!(found.families[0].is_whole, "{found:?}");
    assert_eq!(
        found.families[0].inputs[0],
        [found.families[0].inputs[1][1], found.families[0].inputs[1][0]]
    );
    // One input in two places is not two inputs, though only the sum tells.
    let found = find(&[two("x", "x", &["x"]), two("x", "z", &["x", "z"])]);
    let family = &found.families[0];
    assert!(!family.is_whole);
    assert_eq!(family.cut.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1], "{found:?}");
    assert!(family.cut[0][0] == "fa" || family.cut[0][0] == "gb", "{found:?}");
}

#[test]
fn sizes_that_differ_end_a_match_and_names_of_sizes_do_not() {
    let wide = |dims: &str| {
        Build::new(17)
            .input("x", dims)
            .tensor(weight("w", 32, 32, 1))
            .node("MatMul", "x w", "y", &[])
            .output("y")
    };
    assert_eq!(find(&[wide("batch 4 32"), wide("batch 8 32")]).families, []);
    assert!(find(&[wide("batch n 32"), wide("b seq 32")]).families[0].is_whole);
}

#[test]
fn versions_of_operators_count_and_versions_of_sets_do_not() {
    let relu = |opset| {
        let mut build = chain(&[1, 2], "");
        build.proto.opset_import[0].version = Some(opset);
        build
    };
    assert!(find(&[relu(14), relu(17)]).families[0].is_whole);
    let found = find(&[relu(13), relu(17)]);
    assert_eq!(found.families[0].cut, [["m0"], ["m0"]], "Relu changed with set 14, MatMul did not");
}

#[test]
fn random_operators_are_in_no_base() {
    let noisy = |seed| {
        Build::new(17)
            .input("x", "batch 32")
            .tensor(weight("w", 32, 32, 1))
            .node("MatMul", "x w", "m", &[])
            .node("RandomUniformLike", "m", "r", &[])
            .node("Add", "m r", "s", &[])
            .tensor(weight("v", 32, 32, seed))
            .node("MatMul", "s v", "y", &[])
            .output("y")
    };
    let found = find(&[noisy(2), noisy(2)]);
    assert_eq!(found.families.len(), 1, "{found:?}");
    assert_eq!(found.families[0].cut, [["m"], ["m"]]);
    let legs = legs(&noisy(2), &[&["m"]]);
    assert_eq!(legs[1].inputs, [Source::Below(0)]);
}

#[test]
fn functions_are_opened() {
    let mut build = Build::new(17)
        .input("x", "batch 32")
        .tensor(weight("w", 32, 32, 1))
        .node("local:Layer", "x w", "r0", &[])
        .tensor(weight("w2", 32, 32, 2))
        .node("local:Layer", "r0 w2", "y", &[])
        .output("y");
    let layer = vec![node("MatMul", "a b", "m", &[]), node("Relu", "m", "c", &[])];
    build.proto.functions.push(function("Layer", "a b", "c", layer));
    assert!(find(&[build.clone(), chain(&[1, 2], "")]).families[0].is_whole);
    let legs = legs(&build, &[]);
    assert!(read(legs[0].bytes.clone()).unwrap().proto().functions.is_empty());
}

/// A product chosen between two weights that lie in the branches.
fn branching(then: (&str, i64), captured: &str) -> Build {
    let body = |name: &str, seed: i64| {
        let out = format!("{name}_out");
        let mut body =
            branch(vec![node("MatMul", &format!("{captured} {name}"), &out, &[])], &[out.as_str()]);
        body.initializer.push(weight(name, 32, 32, seed));
        body
    };
    Build::new(17)
        .input("x", "batch 64 32")
        .tensor(weight("w", 32, 32, 1))
        .node("MatMul", "x w", captured, &[])
        .input_of("flag", elem::BOOL, "")
        .node(
            "If",
            "flag",
            "y",
            &[graph("then_branch", body(then.0, then.1)), graph("else_branch", body("no", 9))],
        )
        .output("y")
}

#[test]
fn bodies_are_compared_by_what_they_do() {
    let outputs = |build: &Build| digests(&build.model())["output y"];
    let expected = outputs(&branching(("a", 3), "m"));
    assert_eq!(outputs(&branching(("other", 3), "n")), expected);
    assert_ne!(outputs(&branching(("a", 4), "m")), expected);
    let found = find(&[branching(("a", 3), "m"), branching(("b", 4), "n")]);
    assert_eq!(found.families[0].cut, [["m"], ["n"]]);
    let (one, other) = (legs(&branching(("a", 3), "m"), &[]), legs(&branching(("b", 3), "n"), &[]));
    assert_eq!(one, other);
    let written = read(one[0].bytes.clone()).unwrap();
    let again = legs(&Build { proto: written.proto().clone() }, &[]);
    assert_eq!((&again[0].bytes, again[0].digest), (&one[0].bytes, one[0].digest));
}

#[test]
fn what_is_cheap_is_made_again_rather_than_carried() {
    let masked = |seed| {
        Build::new(17)
            .input("x", "batch s 32")
            .input("mask", "batch s")
            .tensor(weight("w", 32, 32, 1))
            .ints("axes", &[2])
            .node("Unsqueeze", "mask axes", "wide", &[])
            .node("Neg", "wide", "negative", &[])
            .node("MatMul", "x w", "m", &[])
            .node("Mul", "m negative", "r", &[])
            .tensor(weight("v", 32, 32, seed))
            .node("MatMul", "r v", "h", &[])
            .node("Add", "h negative", "y", &[])
            .output("y")
    };
    let found = find(&[masked(2), masked(3)]);
    assert_eq!(found.families[0].cut, [["r"], ["r"]]);
    let legs = legs(&masked(2), &[&["r"]]);
    assert_eq!(legs[1].inputs, [Source::Request(1), Source::Below(0)]);
}

#[test]
fn dropout_identity_and_typed_data_vanish() {
    let plain = chain(&[1, 2], "");
    let mut other = chain(&[1, 2], "");
    let graph = other.graph();
    graph.node.push(node("Identity", "r0", "same", &[]));
    graph.node.push(node("Dropout", "same", "kept", &[]));
    graph.node[2].input[0] = "kept".into();
    graph.initializer.reverse();
    for tensor in &mut graph.initializer {
        let raw = tensor.float_data.drain(..).flat_map(f32::to_le_bytes).collect::<Vec<_>>();
        tensor.raw_data = Some(raw.into());
    }
    assert!(find(&[plain.clone(), other.clone()]).families[0].is_whole);
    assert_eq!(legs(&plain, &[&["r0"]]), legs(&other, &[&["r0"]]));
}

#[test]
fn a_cut_that_cannot_be_is_refused_with_the_reason() {
    let build = Build::new(17)
        .input("x", "batch 4 32")
        .node("Transpose", "x", "t", &[ints("perm", &[1, 0, 2])])
        .node("Transpose", "t", "y", &[ints("perm", &[1, 0, 2])])
        .node("ArgMax", "x", "a", &[int("axis", 2)])
        .output("y");
    let why = |name: &str| {
        split(&build.model(), &none, &[&[name.to_owned()]]).map_err(|reason| reason.0).unwrap_err()
    };
    assert!(
        why("t").starts_with("it cannot be cut at 't': its rows are not known"),
        "{}",
        why("t")
    );
    assert_eq!(why("nothing"), "it cannot be cut at 'nothing': nothing makes it");
    let legs = legs(&build, &[&["a"]]);
    let base = read(legs[0].bytes.clone()).unwrap();
    assert_eq!(base.outputs()[0].datatype, crate::tensor::DataType::Int64);
}

#[test]
fn a_sketch_survives_its_file() {
    let model = chain(&[1, 2, 3], "a/").model();
    let made = sketch(&model, &none).unwrap();
    let text = serde_json::to_string(&made).unwrap();
    let back: Sketch = serde_json::from_str(&text).unwrap();
    let other = sketch(&chain(&[1, 2, 4], "").model(), &none).unwrap();
    let found = |sketch| families(&[sketch, &other], Worth::Much);
    assert_eq!(found(&made), found(&back));
}
