//! Graphs drawn at random, disguised at random, changed in one place, cut at random.
//!
//! Separate because it holds the generator as well as the properties.

use super::super::stage::Stage;
use super::{digests, none, weight};
use crate::graph::family::{Leg, Source, sketch, split};
use crate::graph::proto::*;
use crate::graph::read::{Model, read};
use crate::graph::testing::{Build, int, node, tensor};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Sizes of all values: `batch x WIDTH`.
const WIDTH: i64 = 4;

/// A node of a random graph: what it does to earlier values.
#[derive(Clone, Debug)]
struct Op {
    kind: usize,
    a: usize,
    b: usize,
    seed: i64,
}

/// How a graph is written.
#[derive(Clone, Debug, Default)]
struct Style {
    prefix: &'static str,
    opset: i64,
    swap: bool,
    constants: bool,
    raw: bool,
    identity: bool,
    /// Turns the order of nodes, initialisers and inputs.
    turn: bool,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (0..7_usize, any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_i64);
    prop::collection::vec(op, 1..14).prop_map(|drawn| {
        let earlier = |at: usize, index: prop::sample::Index| index.index(at + 3);
        let ops = drawn.into_iter().enumerate();
        ops.map(|(at, (kind, a, b, seed))| Op { kind, a: earlier(at, a), b: earlier(at, b), seed })
            .collect()
    })
}

fn style() -> impl Strategy<Value = Style> {
    let flags = any::<(bool, bool, bool, bool, bool)>();
    (prop_oneof![Just("k/"), Just("::9")], 15..18_i64, flags).prop_map(
        |(prefix, opset, (swap, constants, raw, identity, turn))| Style {
            prefix,
            opset,
            swap,
            constants,
            raw,
            identity,
            turn,
        },
    )
}

/// The model of a random graph: inputs 0 to 2, then a value an op; those that nobody reads are outputs.
fn build(ops: &[Op], style: &Style) -> Build {
    let name = |at: usize| match at {
        0..3 => format!("{}in_{at}", style.prefix),
        _ => format!("{}t{}", style.prefix, at - 3),
    };
    let mut build = Build::new(style.opset);
    let read: BTreeSet<usize> = ops
        .iter()
        .flat_map(|op| [op.a, if (3..6).contains(&op.kind) { op.b } else { op.a }])
        .collect();
    let mut inputs: Vec<usize> = (0..3).collect();
    let mut order: Vec<usize> = (0..ops.len()).collect();
    if style.turn {
        inputs.rotate_left(1);
        order.reverse();
    }
    for at in inputs {
        build = build.input(&name(at), "batch 4");
    }
    for at in order {
        let op = &ops[at];
        let (mut a, mut b, made) = (name(op.a), name(op.b), name(at + 3));
        if style.identity {
            let same = format!("{made}same");
            build = build.node("Identity", &a, &same, &[]);
            a = same;
        }
        if style.swap && matches!(op.kind, 3 | 4) {
            std::mem::swap(&mut a, &mut b);
        }
        build = match op.kind {
            0 => build.node("Relu", &a, &made, &[]),
            1 => build.node("Softmax", &a, &made, &[int("axis", 1)]),
            2 => build.node("Tanh", &a, &made, &[]),
            3 => build.node("Add", &format!("{a} {b}"), &made, &[]),
            4 => build.node("Mul", &format!("{a} {b}"), &made, &[]),
            5 => build.node("Sub", &format!("{a} {b}"), &made, &[]),
            _ => {
                let own = format!("{made}w");
                let mut values = weight(&own, WIDTH, WIDTH, op.seed);
                if style.raw {
                    let raw: Vec<u8> =
                        values.float_data.drain(..).flat_map(f32::to_le_bytes).collect();
                    values.raw_data = Some(raw.into());
                }
                build = match style.constants {
                    true => build.node("Constant", "", &own, &[tensor("value", values)]),
                    false => build.tensor(values),
                };
                build.node("MatMul", &format!("{a} {own}"), &made, &[])
            }
        };
    }
    for at in (3..ops.len() + 3).filter(|at| !read.contains(at)) {
        build = build.output(&name(at));
    }
    build
}

fn whole(model: &Model) -> [u8; 32] {
    let sketch = sketch(model, &none).unwrap();
    Stage::new(&sketch, &[], &sketch.dag.outputs, &[]).digest
}

/// The nodes of a leg under other names, reading what it is fed with.
fn splice(
    graph: &mut GraphProto,
    leg: &Leg,
    prefix: &str,
    model: &Model,
    below: &[String],
) -> Vec<String> {
    let part = read(leg.bytes.clone()).unwrap();
    let part = part.graph();
    let renamed = |name: &String| match part.input.iter().position(|info| info.name() == name) {
        _ if name.is_empty() => String::new(),
        Some(at) => match leg.inputs[at] {
            Source::Request(at) => model.inputs()[at].name.clone(),
            Source::Below(at) => below[at].clone(),
        },
        None => format!("{prefix}{name}"),
    };
    for own in &part.node {
        graph.node.push(NodeProto {
            input: own.input.iter().map(renamed).collect(),
            output: own.output.iter().map(renamed).collect(),
            ..own.clone()
        });
    }
    for own in &part.initializer {
        let name = Some(format!("{prefix}{}", own.name()));
        graph.initializer.push(TensorProto { name, ..own.clone() });
    }
    part.output.iter().map(|info| renamed(&info.name().to_owned())).collect()
}

/// One model of all legs.
fn recomposed(model: &Model, legs: &[Leg]) -> Model {
    let mut proto = model.proto().clone();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.clear();
    graph.initializer.clear();
    let mut below = Vec::new();
    for (at, leg) in legs.iter().enumerate() {
        below = splice(graph, leg, &format!("leg{at}/"), model, &below);
    }
    for (info, made) in model.graph().output.iter().zip(&below) {
        graph.node.push(node("Identity", made, info.name(), &[]));
    }
    Build { proto }.model()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_disguise_hides_a_function(ops in ops(), style in style()) {
        let plain = build(&ops, &Style { prefix: "p", opset: 17, ..Style::default() }).model();
        let other = build(&ops, &style).model();
        prop_assert_eq!(whole(&plain), whole(&other));
    }

    #[test]
    fn a_change_is_seen_above_it_and_nowhere_else(
        ops in ops(), at in any::<prop::sample::Index>(), bit in 0..32_u32,
    ) {
        let style = Style { prefix: "", opset: 17, ..Style::default() };
        let at = at.index(ops.len());
        let mut other = ops.clone();
        let mut changed = build(&ops, &style);
        match ops[at].kind {
            6 => {
                let name = format!("t{at}w");
                let tensors = &mut changed.graph().initializer;
                let own = tensors.iter_mut().find(|own| own.name() == name).unwrap();
                own.float_data[3] = f32::from_bits(own.float_data[3].to_bits() ^ (1 << bit));
            }
            1 => {
                let nodes = &mut changed.graph().node;
                let own = nodes.iter_mut().find(|own| own.output[0] == format!("t{at}")).unwrap();
                own.attribute[0].i = Some(-1);
            }
            kind => {
                other[at].kind = [2, 1, 0, 4, 5, 3][kind];
                changed = build(&other, &style);
            }
        }
        let mut touched = vec![false; ops.len() + 3];
        for (index, op) in ops.iter().enumerate() {
            let two = (3..6).contains(&op.kind);
            touched[index + 3] = index == at || touched[op.a] || (two && touched[op.b]);
        }
        let (before, after) = (digests(&build(&ops, &style).model()), digests(&changed.model()));
        for index in 0..ops.len() {
            let name = format!("t{index}");
            prop_assert_eq!(before[&name] != after[&name], touched[index + 3], "{}", name);
        }
    }

    #[test]
    fn the_legs_make_the_whole(ops in ops(), style in style(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let model = build(&ops, &style).model();
        let name = |index: &prop::sample::Index| format!("{}t{}", style.prefix, index.index(ops.len()));
        let mut names: Vec<String> = cuts.iter().map(name).collect();
        names.sort();
        names.dedup();
        let parts: Vec<&[String]> = vec![&names];
        let legs = split(&model, &none, &parts).unwrap();
        prop_assert_eq!(legs.len(), 2);
        let again = recomposed(&model, &legs);
        let (before, after) = (digests(&model), digests(&again));
        for port in model.outputs() {
            let key = format!("output {}", port.name);
            prop_assert_eq!(before[&key], after[&key], "{}", &key);
        }
        let plain = Style { prefix: style.prefix, opset: 17, ..Style::default() };
        let plain = split(&build(&ops, &plain).model(), &none, &parts).unwrap();
        prop_assert_eq!(&plain[0].bytes, &legs[0].bytes);
    }
}
