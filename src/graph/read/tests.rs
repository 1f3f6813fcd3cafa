//! Tests of reading: ports, operators, external files, refusals.
//!
//! Separate from the reader for length.

use super::*;
use crate::graph::constant::elem;
use crate::graph::proto::*;
use crate::graph::testing::{
    Build, branch, floats, function, graph, int64s, node, port as build_port, tensor,
};
use proptest::prelude::*;

#[test]
fn ports_are_typed_and_initialisers_are_not_inputs() {
    let model = Build::new(17)
        .input("x", "batch 3 ? 0 -1")
        .input_of("n", elem::INT64, "")
        .input("u", "-")
        .input("w", "2")
        .weight("w", &[2])
        .node("Relu", "x", "y", &[])
        .output("y")
        .model();
    let dims = |index: usize| model.inputs()[index].dims.clone();
    assert_eq!(model.inputs().len(), 3);
    assert_eq!(
        dims(0),
        Some(vec![
            Dim::Named("batch".into()),
            Dim::Fixed(3),
            Dim::Unknown,
            Dim::Unknown,
            Dim::Unknown
        ])
    );
    assert_eq!(dims(1), Some(vec![]));
    assert_eq!(model.inputs()[1].datatype, DataType::Int64);
    assert_eq!(dims(2), None);
    assert_eq!(model.outputs()[0].name, "y");
    assert_eq!(model.opsets().get(""), Some(&17));
}

fn external(name: &str, location: &str) -> TensorProto {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    TensorProto {
        raw_data: None,
        data_location: Some(1),
        external_data: vec![entry("location", location), entry("offset", "8")],
        ..floats(name, &[1])
    }
}

#[test]
fn external_files_are_found_everywhere() {
    let inner = node("Constant", "", "c", &[tensor("value", external("t", "in_branch"))]);
    let sparse = SparseTensorProto {
        values: Some(external("sv", "sparse_values")),
        indices: Some(external("si", "sparse_indices")),
        dims: vec![1],
    };
    let mut build = Build::new(17)
        .input_of("x", elem::BOOL, "")
        .tensor(external("w", "main"))
        .node(
            "If",
            "x",
            "y",
            &[
                graph("then_branch", branch(vec![inner.clone()], &["c"])),
                graph("else_branch", {
                    let mut other = branch(vec![], &["k"]);
                    other.initializer.push(external("k", "branch_initialiser"));
                    other
                }),
            ],
        )
        .output("y");
    build.graph().sparse_initializer.push(sparse);
    let body = node("Constant", "", "c", &[tensor("value", external("t", "./in_function"))]);
    build.proto.functions.push(function("F", "", "c", vec![body]));
    let model = build.model();
    let files: Vec<&str> = model.external_files().iter().map(String::as_str).collect();
    assert_eq!(
        files,
        [
            "./in_function",
            "branch_initialiser",
            "in_branch",
            "main",
            "sparse_indices",
            "sparse_values"
        ]
    );
    let operators: Vec<&str> = model.operators().iter().map(|op| op.op_type.as_str()).collect();
    assert_eq!(operators, ["Constant", "If"]);
}

#[test]
fn refusals() {
    let check = |build: Build, sentence: &str| {
        let error = read(build.bytes()).expect_err(sentence);
        assert_eq!(error.to_string(), sentence);
    };
    let base = || Build::new(17).input("x", "1");
    check(
        base().tensor(external("w", "../w")),
        "tensor 'w' refers to '../w', which leaves the model's folder",
    );
    check(
        base().node("Constant", "", "c", &[tensor("value", external("t", "/w"))]),
        "tensor 't' refers to '/w', which is not relative to the model's folder",
    );
    let mut nowhere = external("w", "a");
    nowhere.external_data.remove(0);
    check(base().tensor(nowhere), "tensor 'w' refers to '', which names no file");
    let mut offset = external("w", "a");
    offset.external_data[1].value = Some("-8".into());
    check(base().tensor(offset), "tensor 'w' has external data with a bad offset");
    check(
        base().tensor(TensorProto { data_location: Some(7), ..int64s("w", &[], &[1]) }),
        "tensor 'w' has external data with a bad data_location",
    );
    check(
        base().input_of("z", 14, "1"),
        "input 'z' has element type complex64, which the protocol cannot carry",
    );
    check(base().opset("ai.onnx", 18), "operator set '' is imported in two versions");
    check(base().input("x", "2"), "input 'x' appears twice");
    let mut sequence = base();
    let element = TypeValue::Sequence(Box::default());
    sequence.graph().output.push(ValueInfoProto {
        r#type: Some(TypeProto { value: Some(element), denotation: None }),
        ..build_port("s", 1, "")
    });
    check(sequence, "output 's' is not a tensor but a sequence");
    check(Build::default(), "the file holds no graph");
}

#[test]
fn weights_stay_slices_of_the_file() {
    let bytes = Build::new(17).weight("w", &[256]).bytes();
    let model = read(bytes.clone()).expect("well formed");
    let raw = model.graph().initializer[0].raw_data.clone().expect("raw");
    let file = bytes.as_ptr_range();
    assert!(file.contains(&raw.as_ptr()));
}

/// Any node: every operator that has a rule, with inputs and settings that need not fit.
fn any_node() -> impl Strategy<Value = NodeProto> {
    let ops: Vec<&str> = OPERATORS.split_whitespace().collect();
    let inputs = proptest::collection::vec(0..9_usize, 0..5);
    let settings = proptest::collection::vec((0..8_usize, -3..9_i64), 0..4);
    (proptest::sample::select(ops), inputs, settings, 0..4_usize).prop_map(
        |(op, inputs, settings, output)| {
            let names = ["x", "y", "w", "k", "a", "b", "c", "d", "_"];
            let inputs: Vec<&str> =
                inputs.iter().filter_map(|&at| names.get(at).copied()).collect();
            let settings = settings.into_iter().flat_map(|(at, value)| {
                let names = ["axis", "axes", "perm", "pads", "keepdims", "split", "starts", "ends"];
                let name = names.get(at).copied().unwrap_or("axis");
                let both = crate::graph::testing::ints(name, &[value, value + 1]);
                [AttributeProto { i: Some(value), ..both }]
            });
            let outputs = ["a", "b", "c", "d"].get(output).copied().unwrap_or("a");
            let settings: Vec<AttributeProto> = settings.collect();
            node(op, &inputs.join(" "), outputs, &settings)
        },
    )
}

const OPERATORS: &str = "Abs Cast Clip DequantizeLinear Add Mod Div Where Equal Reshape Flatten \
    Squeeze Unsqueeze Transpose Expand ConstantOfShape Tile DepthToSpace Concat Split Slice Gather \
    GatherElements ScatterElements GatherND Pad OneHot Trilu Range ReduceSum ReduceProd ArgMax \
    Softmax LayerNormalization CumSum TopK BatchNormalization InstanceNormalization LRN \
    MeanVarianceNormalization DynamicQuantizeLinear MatMul Gemm Einsum Conv ConvTranspose MaxPool \
    GlobalAveragePool Resize GridSample LSTM GRU Shape Size Constant Identity Neg Not Max If Loop \
    Dropout com.microsoft:Attention com.microsoft:MatMulNBits com.microsoft:SkipLayerNormalization \
    ai.onnx.ml:LinearClassifier ai.onnx.ml:ArrayFeatureExtractor com.microsoft:FusedMatMul";

proptest! {
    #[test]
    fn senseless_graphs_never_panic(nodes in proptest::collection::vec(any_node(), 1..12), opset in 6..22_i64) {
        let mut build = Build::new(opset)
            .input("x", "batch 4 6")
            .input_of("y", elem::INT64, "batch length")
            .weight("w", &[4, 6])
            .ints("k", &[-1, 0, i64::MIN, i64::MAX]);
        build.graph().node = nodes;
        let model = build.output("a").output("b").output("c").output("d").model();
        crate::graph::rules::judge_all(&model);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(bytes.into());
    }

    #[test]
    fn damaged_models_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let build = Build::new(17)
            .input("x", "batch 4")
            .weight("w", &[4, 4])
            .node("MatMul", "x w", "h", &[])
            .node("Softmax", "h", "y", &[crate::graph::testing::int("axis", -1)])
            .output("y");
        let mut bytes = build.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = bytes.clone();
        bytes.truncate(cut.index(bytes.len()));
        for bytes in [whole, bytes] {
            if let Ok(model) = read(bytes.into()) {
                crate::graph::rules::judge_all(&model);
            }
        }
    }
}
