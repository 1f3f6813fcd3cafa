//! Tests of the safe list: every entry passes in its place, and what is near it does not.
//!
//! Separate from the list for length.

use super::*;
use crate::graph::testing::{Build, graph, int, int64s, ints, tensor};

fn refused(build: &Build) -> Option<String> {
    safe_in_process(&build.model()).err().map(|reason| reason.0)
}

fn base(op: &str, inputs: &str, attrs: &[AttributeProto]) -> Build {
    let opset = if matches!(op, "Gelu") { 20 } else { 17 };
    Build::new(opset)
        .input("x", "batch 4 6")
        .input("image", "batch 4 8 8")
        .weight("w", &[6, 5])
        .weight("kernel", &[2, 4, 3, 3])
        .weight("four", &[4])
        .weight("six", &[6])
        .weight("number", &[])
        .ints("i0", &[0])
        .ints("i1", &[1])
        .ints("i2", &[2])
        .ints("flat", &[-1, 24])
        .node(op, inputs, "out", attrs)
        .output("out")
}

/// A node of each entry that is safe.
fn example(op: &str) -> Build {
    match op {
        "BatchNormalization" => base(op, "x four four four four", &[]),
        "Cast" => base(op, "i0", &[int("to", 1)]).node("Add", "x out", "sum", &[]).output("sum"),
        "Clip" => base(op, "x number number", &[]),
        "Concat" => base(op, "x x", &[int("axis", 1)]),
        "Constant" => base(op, "", &[tensor("value", int64s("", &[1], &[1]))]).output("x"),
        "Conv" => base(op, "image kernel", &[ints("pads", &[1, 1, 1, 1])]),
        "Add" | "Div" | "Max" | "Mean" | "Min" | "Mul" | "Pow" | "Sub" | "Sum" | "Equal"
        | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => base(op, "x six", &[]),
        "Dropout" => base(op, "x", &[]),
        "Gather" => base(op, "x i2", &[int("axis", 1)]),
        "Gemm" => base("Flatten", "x", &[int("axis", 1)])
            .weight("dense", &[24, 3])
            .node(op, "out dense", "y", &[])
            .output("y"),
        "GroupNormalization" => base(op, "x four four", &[int("num_groups", 2)]),
        "InstanceNormalization" => base(op, "x four four", &[]),
        "LRN" => base(op, "image", &[int("size", 3)]),
        "LayerNormalization" => base(op, "x six", &[]),
        "MatMul" => base(op, "x w", &[]),
        "MeanVarianceNormalization" => base(op, "x", &[ints("axes", &[1, 2])]),
        "PRelu" => base(op, "x six", &[]),
        "Reshape" => base(op, "x flat", &[]),
        "Slice" => base(op, "x i0 i1 i1", &[]),
        "Squeeze" => base("Unsqueeze", "x i1", &[]).node(op, "out i1", "y", &[]).output("y"),
        "Unsqueeze" => base(op, "x i1", &[]),
        _ => base(op, "x", &[]),
    }
}

#[test]
fn every_entry_has_a_safe_example() {
    for (op, _) in SAFE {
        let build = example(op);
        assert!(build.model().operators().iter().any(|used| used.op_type == op), "{op}");
        assert_eq!(refused(&build), None, "{op}");
    }
}

#[test]
fn every_entry_is_refused_outside_its_domain() {
    for (op, _) in SAFE {
        let mut build = example(op);
        for node in build.graph().node.iter_mut().filter(|node| node.op_type() == op) {
            node.domain = Some("my.ops".into());
        }
        assert!(refused(&build).is_some(), "{op}");
    }
}

#[test]
fn every_float_entry_is_refused_on_whole_numbers() {
    let floats = SAFE.iter().filter(|(_, ask)| matches!(ask, Ask::Floats | Ask::FloatsAndWeights));
    for (op, _) in floats {
        let mut build = example(op);
        for input in &mut build.graph().input {
            let dims = if input.name() == "x" { "batch 4 6" } else { "batch 4 8 8" };
            *input = crate::graph::testing::port(input.name.as_deref().unwrap_or(""), 7, dims);
        }
        let why = refused(&build).unwrap_or_default();
        assert!(why.contains("is not of floats"), "{op}: {why}");
    }
}

#[test]
fn parameters_must_be_constant() {
    let check = |build: Build, piece: &str| {
        let why = refused(&build).unwrap_or_default();
        assert!(why.contains(piece), "wanted '{piece}', got '{why}'");
    };
    let indexed = |op: &str, inputs: &str, attrs: &[_]| {
        base(op, inputs, attrs).input_of("n", elem::INT64, "1").input("k", "2 4 3 3")
    };
    check(indexed("Gather", "x n", &[int("axis", 1)]), "'n' is not constant");
    check(indexed("Gather", "w n", &[]), "no output depends on the rows");
    check(base("Gather", "x big", &[int("axis", 1)]).ints("big", &[4]), "outside 0..4");
    check(base("Gather", "x low", &[int("axis", 1)]).ints("low", &[-5]), "outside 0..4");
    check(indexed("Conv", "image k", &[]), "'k' is not constant");
    check(indexed("Reshape", "x n", &[]), "not every shape is known");
    check(
        base("Conv", "image kernel", &[ints("strides", &[0, 1])]),
        "its strides holds a number below 1",
    );
    check(base("Conv", "image kernel", &[ints("pads", &[0, -9, 0, 0])]), "its pads holds");
    check(base("Conv", "image none", &[]).weight("none", &[2, 4, 0, 3]), "shape");
    check(
        base("Conv", "image wide", &[]).weight("wide", &[2, 4, 9, 9]),
        "has shape [batch, 2, 0, 0]",
    );
    check(
        base("Dropout", "x _ t", &[]).input_of("t", elem::BOOL, ""),
        "it may be in training mode",
    );
    check(base("Cast", "x", &[int("to", 7)]), "it does not cast to floats");
}

#[test]
fn what_is_not_on_the_list_is_refused() {
    let check = |build: Build, piece: &str| {
        let why = refused(&build).unwrap_or_default();
        assert!(why.contains(piece), "wanted '{piece}', got '{why}'");
    };
    let unlisted = "it is not on the safe list";
    for op in ["Mod", "MaxPool", "ReduceMean", "TopK", "Where", "Tile"] {
        let build = Build::new(17).input("x", "4 6").node(op, "x x", "y", &[]);
        check(build, unlisted);
    }
    check(base("com.microsoft:Gelu", "x", &[]), unlisted);
    let body = graph("then_branch", crate::graph::testing::branch(vec![], &["x"]));
    check(Build::new(17).input("x", "4").node("If", "x", "y", &[body]), unlisted);
    check(
        Build::new(17).input("x", "batch length").node("Relu", "x", "out", &[]).output("out"),
        "input 'x' has shape [batch, d2]",
    );
    check(
        Build::new(17)
            .input("x", "batch 4")
            .node("Softmax", "x", "out", &[int("axis", 0)])
            .output("out"),
        "not every shape is known: Softmax",
    );
    let div = Build::new(17)
        .input_of("x", elem::INT64, "batch 4")
        .node("Div", "x x", "out", &[])
        .output("out");
    check(div, "Div 'n_out': 'x' is not of floats");
}
