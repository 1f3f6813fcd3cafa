//! Tests of the batch verdict: one graph a row, and what is said of it.
//!
//! Separate from the rule for length.

use super::*;
use crate::graph::constant::elem;
use crate::graph::testing::{
    Build, branch, floats, function, graph, int, int64s, ints, node, text,
};

/// How a verdict begins: `I` with the outputs' axes, `U`, `M` or `N` with a piece of the reason.
fn check(build: &Build, expected: &str) {
    let verdict = batch_axes(&build.model());
    let axis = |axis: &Option<usize>| axis.map_or("-".to_owned(), |axis| axis.to_string());
    let (letter, found) = match &verdict {
        BatchVerdict::Independent { outputs, .. } => {
            ("I", outputs.iter().map(axis).collect::<Vec<_>>().join(" "))
        }
        BatchVerdict::Undecided { why, .. } => ("U", why.clone()),
        BatchVerdict::Mixes { why } => ("M", why.clone()),
        BatchVerdict::None { why } => ("N", why.clone()),
    };
    let (wanted, piece) = expected.split_once(' ').unwrap_or((expected, ""));
    let fits = if letter == "I" { found == piece } else { found.contains(piece) };
    assert!(letter == wanted && fits, "wanted {expected}, got {verdict:?}");
}

/// One node over `x [batch, 4, 6]`, constants and `y [batch, 4, 6]`.
fn one(op: &str, inputs: &str, attrs: &[crate::graph::proto::AttributeProto], expected: &str) {
    one_in(17, op, inputs, attrs, expected);
}

fn one_in(
    opset: i64,
    op: &str,
    inputs: &str,
    attrs: &[crate::graph::proto::AttributeProto],
    expected: &str,
) {
    let build = consts(Build::new(opset))
        .input("x", "batch 4 6")
        .input("y", "batch 4 6")
        .input("m", "batch 6")
        .node(op, inputs, "out", attrs)
        .output("out");
    check(&build, expected);
}

fn consts(build: Build) -> Build {
    build
        .weight("w", &[6, 5])
        .weight("tall", &[4, 6])
        .weight("rows3", &[3, 1, 1])
        .weight("vector", &[6])
        .weight("number", &[])
        .ints("i0", &[0])
        .ints("i1", &[1])
        .ints("i2", &[2])
        .ints("i01", &[0, 1])
        .ints("imax", &[i64::MAX])
        .ints("to24", &[-1, 24])
        .ints("to8", &[-1, 8])
        .ints("to5", &[-1, 5])
        .ints("to48", &[-1, 48])
        .ints("fixed", &[2, 24])
        .ints("copy", &[0, -1])
        .ints("pads0", &[0, 0, 1, 0, 0, 1])
        .ints("pads1", &[1, 0, 0, 0, 0, 0])
        .scalar("zero", 0)
        .scalar("one", 1)
        .scalar("two", 2)
}

#[test]
fn elementwise_operators_line_rows_up() {
    one("Relu", "x", &[], "I 0");
    one("Add", "x y", &[], "I 0");
    one("Add", "x vector", &[], "I 0");
    one("Add", "x tall", &[], "I 0");
    one("Add", "x number", &[], "I 0");
    one("Add", "x rows3", &[], "U 'rows3' has size 3 where 'x' has its rows");
    one("Add", "x m", &[], "M every row of 'x' (axis 0) meets every row of 'm' (axis 1)");
    one("Clip", "x number", &[], "I 0");
    one("Clip", "x m", &[], "U its input 'm' is not the same for all rows");
    one("Where", "x y tall", &[], "I 0");
    one("com.microsoft:BiasGelu", "x vector", &[], "I 0");
}

#[test]
fn operators_along_the_batch_axis_mix() {
    let along = "M it works along axis 0 of 'x', the batch axis";
    one("Softmax", "x", &[], "I 0");
    one("Softmax", "x", &[int("axis", 0)], along);
    one("Softmax", "x", &[int("axis", -3)], along);
    one_in(12, "Softmax", "x", &[int("axis", 1)], "I 0");
    one_in(12, "Softmax", "x", &[int("axis", 0)], along);
    one("ReduceMean", "x", &[ints("axes", &[1, -1])], "I 0");
    one("ReduceMean", "x", &[ints("axes", &[0])], along);
    one("ReduceMean", "x", &[], along);
    one("ReduceSum", "x i1", &[int("keepdims", 0)], "I 0");
    one("ReduceSum", "x i0", &[], along);
    one("ReduceSum", "x", &[int("noop_with_empty_axes", 1)], "I 0");
    one("ReduceMax", "x", &[], along);
    one("ArgMax", "x", &[], along);
    one("ArgMax", "x", &[int("axis", 2)], "I 0");
    one("CumSum", "x zero", &[], along);
    one("CumSum", "x two", &[], "I 0");
    one("TopK", "x i2", &[int("axis", 0)], along);
    one("LpNormalization", "x", &[int("axis", 0)], along);
    one("LayerNormalization", "x vector", &[], "I 0");
    one("LayerNormalization", "x vector", &[int("axis", 0)], along);
    one("MeanVarianceNormalization", "x", &[ints("axes", &[0, 2])], along);
    one("InstanceNormalization", "x number number", &[], "I 0");
    one("BatchNormalization", "x vector vector vector vector", &[], "I 0");
    one(
        "BatchNormalization",
        "x vector vector vector vector",
        &[int("training_mode", 1)],
        "M it normalises over the batch",
    );
    one("DynamicQuantizeLinear", "x", &[], "M it takes one scale over all rows of 'x'");
    one("com.microsoft:DynamicQuantizeMatMul", "x w", &[], "M it takes one scale");
    one("NonMaxSuppression", "x y", &[], "M it makes one list over all rows");
    one("NonZero", "x", &[], "U how many elements it makes depends on all rows");
}

#[test]
fn reshapes_keep_move_fold_or_cut_rows() {
    one("Reshape", "x to24", &[], "I 0");
    one("Reshape", "x copy", &[], "I 0");
    one("Flatten", "x", &[], "I 0");
    one("Reshape", "x to8", &[], "U holds rows folded into axis 0");
    one("Reshape", "x to48", &[], "M cuts through rows of 24 elements");
    one("Reshape", "x to5", &[], "M cuts through rows");
    one("Reshape", "x fixed", &[], "M is constant, so only one number of rows fits");
    one("Transpose", "x", &[], "I 2");
    one("Transpose", "x", &[ints("perm", &[1, 0, 2])], "I 1");
    one("Transpose", "x", &[ints("perm", &[1, 1, 2])], "U its permutation is none");
    one("Unsqueeze", "x i0", &[], "I 1");
    one("Squeeze", "x i0", &[], "M it removes the batch axis");
    one("Squeeze", "x", &[], "U it removes whatever axes");
    one("Tile", "x pads0", &[], "U it repeats the batch axis");
}

#[test]
fn rows_fold_and_unfold() {
    let build = consts(Build::new(17))
        .input("x", "batch 4 6")
        .ints("to6", &[-1, 6])
        .ints("back", &[-1, 4, 5])
        .node("Reshape", "x to6", "flat", &[])
        .node("MatMul", "flat w", "h", &[])
        .node("Reshape", "h back", "out", &[])
        .output("out");
    check(&build, "I 0");
    let softmax = build.clone().node("Softmax", "flat", "s", &[int("axis", 0)]).output("s");
    check(&softmax, "M along axis 0 of 'flat'");
}

#[test]
fn products_keep_or_sum() {
    one("MatMul", "x w", &[], "I 0");
    one("MatMul", "tall m", &[], "M it sums over the batch axis of 'm'");
    one("MatMul", "m w", &[], "I 0");
    one("Gemm", "m w", &[], "I 0");
    one("Gemm", "m w", &[int("transA", 1)], "M it sums over the batch axis of 'm'");
    one("Gemm", "tall m", &[int("transB", 1)], "I 1");
    one("Gemm", "m m", &[int("transB", 1)], "M every row of 'm' meets every row of 'm'");
    one("com.microsoft:FusedMatMul", "x y", &[int("transB", 1)], "I 0");
    one("com.microsoft:FusedMatMul", "x y", &[int("transBatchA", 1)], "U it moves stacked axes");
    one("Einsum", "x y", &[text("equation", "bij,bkj->bik")], "I 0");
    one("Einsum", "x y", &[text("equation", "bij,bij->ij")], "M it sums over the batch axis");
    one("Einsum", "x y", &[text("equation", "aij,bij->ab")], "M every row of 'x' meets");
    one("Einsum", "x w", &[text("equation", "bij,jk->kb")], "I 1");
    one("MatMulInteger", "x w", &[], "I 0");
}

#[test]
fn picking_rows_mixes_and_picking_inside_them_does_not() {
    one("Gather", "x i01", &[int("axis", 1)], "I 0");
    one("Gather", "x zero", &[int("axis", 1)], "I 0");
    one("Gather", "x i01", &[], "M it picks rows of 'x' by 'i01'");
    one("Gather", "w y", &[], "I 0");
    one("Gather", "x y", &[int("axis", 1)], "M every row of 'x' is picked from");
    one("Gather", "x y", &[], "U it picks rows of 'x' by data");
    one("GatherElements", "x y", &[int("axis", 2)], "I 0");
    one("GatherElements", "x y", &[], "U it picks rows of 'x' by data");
    one("Slice", "x i0 i1 i1", &[], "I 0");
    one("Slice", "x i0 imax i0", &[], "I 0");
    one("Slice", "x i0 i1 i0", &[], "M it takes 0..1 step 1 of 'x' along the batch axis");
    one("Slice", "x i1 imax i0", &[], "M along the batch axis");
    one("Concat", "x y", &[int("axis", 1)], "I 0");
    one("Concat", "x y", &[int("axis", 0)], "U it joins tensors along the batch axis of 'x'");
    one("Concat", "x rows3", &[int("axis", 1)], "U 'rows3' has rows of its own");
    one("Split", "x", &[int("axis", 0)], "M it splits 'x' along the batch axis");
    one("Split", "x", &[int("axis", 1)], "I 0");
    one("Pad", "x pads0", &[], "I 0");
    one("Pad", "x pads1", &[], "M it pads 'x' along the batch axis");
    one("OneHot", "x one number", &[], "I 0");
    one("OneHot", "x one number", &[int("axis", 0)], "I 1");
    one("ScatterND", "x y y", &[], "U what it does to rows is not known");
    one("my.ops:Magic", "x", &[], "U what it does to rows is not known");
    one("RandomNormalLike", "x", &[], "U it draws random numbers");
}

#[test]
fn windows_keep_rows_on_the_first_axis() {
    let image = |op: &str, inputs: &str, attrs: &[_], expected: &str| {
        let build = Build::new(17)
            .input("x", "batch 3 8 8")
            .weight("w", &[5, 3, 3, 3])
            .tensor(floats("one", &[4]))
            .tensor(int64s("same", &[2], &[16, 16]))
            .node(op, inputs, "out", attrs)
            .output("out");
        check(&build, expected);
    };
    image("Conv", "x w", &[], "I 0");
    image("ConvTranspose", "x w", &[], "I 0");
    image("MaxPool", "x", &[ints("kernel_shape", &[2, 2])], "I 0");
    image("GlobalAveragePool", "x", &[], "I 0");
    image("DepthToSpace", "x", &[int("blocksize", 2)], "I 0");
    image("Resize", "x _ _ same", &[ints("axes", &[2, 3])], "I 0");
    image("Resize", "x _ one", &[], "U it may resize the batch axis");
    let turned = Build::new(17)
        .input("x", "batch 3 8 8")
        .weight("w", &[5, 3, 3, 3])
        .node("Transpose", "x", "t", &[ints("perm", &[1, 0, 2, 3])])
        .node("Conv", "t w", "out", &[])
        .output("out");
    check(&turned, "U the batch axis of 't' is 1");
}

#[test]
fn recurrence_has_rows_second() {
    let layer = |dims: &str, op: &str, attrs: &[_], expected: &str| {
        let build = Build::new(17)
            .input("x", dims)
            .input("h", "1 batch 7")
            .weight("w", &[1, 28, 6])
            .weight("r", &[1, 28, 7])
            .node(op, "x w r _ _ h h", "out last", attrs)
            .output("out")
            .output("last");
        check(&build, expected);
    };
    layer("5 batch 6", "LSTM", &[], "I 2 1");
    layer("time batch 6", "LSTM", &[], "I 2 1");
    layer("batch 5 6", "LSTM", &[], "M the batch axis of 'x' is its time axis");
    layer("batch 5 6", "LSTM", &[int("layout", 1)], "U 'h' does not carry rows as its data does");
    layer("5 batch 6", "com.microsoft:DynamicQuantizeLSTM", &[], "M it takes one scale");
}

#[test]
fn shapes_computed_in_the_graph_are_followed() {
    let build = consts(Build::new(17))
        .input("x", "batch length 6")
        .node("Shape", "x", "shape", &[])
        .node("Gather", "shape zero", "rows", &[])
        .node("Gather", "shape one", "length", &[])
        .node("Unsqueeze", "rows i0", "rows1", &[])
        .node("Unsqueeze", "length i0", "length1", &[])
        .node("Concat", "rows1 length1 i2 minus", "target", &[int("axis", 0)])
        .ints("minus", &[-1])
        .node("Reshape", "x target", "heads", &[])
        .node("Transpose", "heads", "out", &[ints("perm", &[0, 2, 1, 3])])
        .output("out");
    check(&build, "I 0");
    let filled = build
        .clone()
        .node("ConstantOfShape", "shape", "zeros", &[])
        .node("Add", "zeros x", "sum", &[])
        .output("sum");
    check(&filled, "I 0 0");
    let counted = build.clone().node("Add", "x rows", "sum", &[]).output("sum");
    check(&counted, "U 'rows' depends on the number of rows");
    check(&build.clone().output("shape"), "U output 'shape' depends on the number of rows");
    let ranged = build
        .clone()
        .node("Range", "zero rows one", "numbers", &[])
        .node("Gather", "x numbers", "same", &[])
        .output("same");
    check(&ranged, "I 0 0");
    let told = ranged.node("Gather", "w numbers", "places", &[]).output("places");
    check(&told, "U output 'places' may tell a row's place in the batch");
}

#[test]
fn expanded_constants_carry_rows() {
    let build = |target: &str| {
        consts(Build::new(17))
            .input("x", "batch 4 6")
            .node("Shape", "x", "shape", &[])
            .node("Slice", "shape i0 i1", "rows", &[])
            .node("Concat", "rows i1 i1", "target", &[int("axis", 0)])
            .weight("token", &[1, 1, 6])
            .node("Expand", &format!("token {target}"), "tokens", &[])
            .node("Concat", "tokens x", "out", &[int("axis", 1)])
            .output("out")
    };
    check(&build("target"), "I 0");
    check(&build("i1"), "U 'tokens' has rows of its own beside those of 'x'");
}

#[test]
fn branches_follow_their_condition() {
    let then = || graph("then_branch", branch(vec![node("Relu", "x", "a", &[])], &["a"]));
    let other = |op: &str, attrs: &[_]| {
        graph("else_branch", branch(vec![node(op, "x", "b", attrs)], &["b"]))
    };
    let build = |condition: &str, other| {
        Build::new(17)
            .input("x", "batch 4")
            .input_of("rate", elem::BOOL, "")
            .input_of("flags", elem::BOOL, "batch")
            .scalar("never", 0)
            .scalar("always", 1)
            .node("If", condition, "out", &[then(), other])
            .output("out")
    };
    let softmax = || other("Softmax", &[int("axis", 0)]);
    check(&build("rate", other("Sigmoid", &[])), "I 0");
    check(&build("rate", softmax()), "M Softmax 'n_b': it works along axis 0");
    check(&build("always", softmax()), "I 0");
    check(&build("never", softmax()), "M Softmax 'n_b'");
    check(&build("flags", other("Sigmoid", &[])), "U its branch depends on the data");
    check(&build("rate", other("Transpose", &[])), "U its branches carry rows differently");
    let body = branch(vec![node("Relu", "x", "b", &[])], &["b"]);
    let looped = build("rate", other("Sigmoid", &[]))
        .node("Loop", "always _", "l", &[graph("body", body)])
        .output("l");
    check(&looped, "U its body is not followed");
}

#[test]
fn functions_are_followed() {
    let build = |axis: i64| {
        let mut build = Build::new(17)
            .input("x", "batch 4")
            .node("local:F", "x", "out", &[int("along", axis)])
            .output("out");
        let mut attribute = int("axis", 0);
        attribute.ref_attr_name = Some("along".into());
        let body = vec![node("Softmax", "a", "b", &[attribute])];
        build.proto.functions.push(function("F", "a", "b", body));
        build
    };
    check(&build(1), "I 0");
    check(&build(0), "M Softmax 'n_b': it works along axis 0 of 'a'");
    let recursive = |body| {
        let mut build = Build::new(17).input("x", "batch 4").node("local:F", "x", "out", &[]);
        build.proto.functions.push(function("F", "a", "c", body));
        build.output("out")
    };
    let once = vec![node("local:F", "a", "c", &[])];
    check(&recursive(once), "U functions call each other too deep");
    let twice = vec![node("local:F", "a", "b", &[]), node("local:F", "b", "c", &[])];
    check(&recursive(twice), "U the graph is too large to follow");
}

#[test]
fn axes_are_found_by_name_and_place() {
    let sum =
        |inputs: &[(&str, &str)], nodes: &[(&str, &str, &str)], expected: &str, axes: &[_]| {
            let mut build = Build::new(17);
            for (name, dims) in inputs {
                build = build.input(name, dims);
            }
            for (op, inputs, outputs) in nodes {
                build = build.node(op, inputs, outputs, &[]);
            }
            let build = build.output("out");
            check(&build, expected);
            if let BatchVerdict::Independent { inputs, .. } = batch_axes(&build.model()) {
                assert_eq!(inputs, axes);
            }
        };
    let relu = [("Relu", "a", "out")];
    sum(&[("a", "? 4")], &relu, "I 0", &[Some(0)]);
    sum(&[("a", "4 ?")], &relu, "N no input has a first axis that varies", &[]);
    sum(&[("a", "4 batch")], &relu, "I 1", &[Some(1)]);
    sum(&[("a", "time batch")], &relu, "I 1", &[Some(1)]);
    sum(&[("a", "4 5")], &relu, "N every axis of every input has a fixed size", &[]);
    sum(&[("a", "-")], &relu, "N the number of axes of input 'a' is not declared", &[]);
    let add = [("Add", "a b", "out")];
    sum(&[("a", "n 4"), ("b", "")], &add, "I 0", &[Some(0), None]);
    sum(&[("a", "n 4"), ("b", "m 4")], &add, "I 0", &[Some(0), Some(0)]);
    // A table that all rows share, its first axis named otherwise.
    let product = [("Transpose", "b", "t"), ("MatMul", "a t", "out")];
    sum(&[("a", "batch 4"), ("b", "labels 4")], &product, "I 0", &[Some(0), None]);
    // State with its rows second, nothing named.
    let state = [("Transpose", "s", "t"), ("Gather", "t zero", "u"), ("Relu", "s", "out")];
    sum(&[("a", "? 4"), ("s", "2 ? 8")], &state, "I 1", &[Some(0), Some(1)]);
}

#[test]
fn order_and_dead_nodes_do_not_matter() {
    let build = Build::new(17)
        .input("x", "batch 4")
        .node("Sigmoid", "h", "out", &[])
        .node("Relu", "x", "h", &[])
        .node("Softmax", "x", "unused", &[int("axis", 0)])
        .output("out");
    check(&build, "I 0");
    let cycle = Build::new(17).input("x", "batch 4").node("Add", "x out", "out", &[]).output("out");
    check(&cycle, "U nothing makes output 'out'");
    let constant = Build::new(17).input("x", "batch 4").weight("out", &[2]).output("out");
    check(&constant, "U no output depends on the rows of any input");
}

#[test]
fn absurd_sizes_are_no_matter() {
    let check = |build: Build| drop(batch_axes(&build.output("out").model()));
    let base = || Build::new(17).input("x", "batch 4").ints("k", &[0]).ints("big", &[i64::MAX, 4]);
    let empty = |dims: &[i64]| int64s("e", dims, &[]);
    let huge = i64::MAX / 2;
    check(base().tensor(empty(&[0, huge])).node("Slice", "e k k k", "out", &[]));
    check(base().tensor(empty(&[huge, 0])).node("Transpose", "e", "out", &[]));
    check(base().tensor(empty(&[0, huge])).node("Gather", "e k", "out", &[int("axis", 1)]));
    check(base().tensor(empty(&[-1, 4])).node("Slice", "e k k", "out", &[]));
    check(base().tensor(empty(&[i64::MIN])).node("Split", "e", "out", &[]));
    check(base().tensor(int64s("e", &[1], &[7])).node("Reshape", "e big", "out", &[]));
    check(base().node("Slice", "w k k k m", "out", &[]).weight("w", &[0]).ints("m", &[i64::MIN]));
    let kernel = [ints("kernel_shape", &[i64::MAX]), ints("dilations", &[i64::MAX])];
    check(Build::new(17).input("x", "batch 4 9").node("MaxPool", "x", "out", &kernel));
    let many = vec![1; 100_000];
    check(base().tensor(int64s("e", &many, &[1])).node(
        "ReduceSum",
        "e",
        "out",
        &[ints("axes", &many)],
    ));
}
