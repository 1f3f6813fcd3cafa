//! Configuration files as people write them, and as they should not.

use super::*;
use crate::graph::{Dim, Port};
use crate::tensor::DataType;
use proptest::prelude::*;

/// Rows, sessions, threads, and how many notes there are.
type Comes = (Option<usize>, Option<usize>, Option<usize>, usize);

/// Files that are taken, with what they come to.
const TAKEN: [(&str, Comes); 20] = [
    ("", (None, None, None, 0)),
    ("# nothing but a comment\n\n", (None, None, None, 0)),
    ("name: \"m\"\nplatform: \"onnxruntime_onnx\"\nmax_batch_size: 8\n", (Some(8), None, None, 0)),
    ("backend: 'onnxruntime', max_batch_size: 0;", (None, None, None, 0)),
    (
        "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]\n\
         output [ { name: \"y\" data_type: TYPE_FP32 dims: [ 1000 ] } ]\nmax_batch_size: 64",
        (Some(64), None, None, 0),
    ),
    (
        "input: [\n  {\n    name: \"x\"\n    data_type: TYPE_INT64\n    dims: [ -1 ]\n  },\n  {\n    \
         name: \"mask\"\n    data_type: TYPE_INT64\n    dims: [ -1 ]\n  }\n]\n",
        (None, None, None, 0),
    ),
    (
        "input { name: 'a' data_type: 11 dims: -1 dims: 3 } # numbers for names\n\
         input { name: 'b' data_type: 9 dims: 1 }",
        (None, None, None, 0),
    ),
    (
        "input < name: 's', data_type: TYPE_STRING, dims: [1], reshape: < shape: [] > >",
        (None, None, None, 0),
    ),
    ("instance_group [ { count: 2 kind: KIND_CPU } ]", (None, Some(2), None, 0)),
    (
        "instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0, 1 ] }, { kind: KIND_GPU } ]",
        (None, Some(2), None, 1),
    ),
    ("dynamic_batching { }\nmax_batch_size: 4", (Some(4), None, None, 0)),
    (
        "max_batch_size: 16\ndynamic_batching {\n  preferred_batch_size: [ 4, 8 ]\n  \
         max_queue_delay_microseconds: 100\n  preserve_ordering: true\n}",
        (Some(16), None, None, 1),
    ),
    (
        "dynamic_batching: {\n  priority_levels: 3 default_priority_level: 2\n  default_queue_policy \
         { timeout_action: DELAY default_timeout_microseconds: 500 allow_timeout_override: true \
         max_queue_size: 32 }\n  priority_queue_policy { key: 1 value: { \
         default_timeout_microseconds: 9 } }\n}",
        (None, None, None, 1),
    ),
    ("version_policy: { latest: { num_versions: 2 } }", (None, None, None, 0)),
    ("version_policy { specific { versions: [ 1, 4 ] } };", (None, None, None, 0)),
    (
        "parameters { key: \"intra_op_thread_count\" value: { string_value: \"3\" } }\n\
         parameters: { key: 'execution_mode' value { string_value: '1' } }\n\
         parameters [ { key: 'session.set_denormal_as_zero' value: { string_value: '1' } } ]\n\
         parameters { key: 'enable_mem_arena' value: { string_value: '0' } }",
        (None, None, Some(3), 1),
    ),
    (
        "optimization { graph { level: 1 } cuda { graphs: true } execution_accelerators { \
         gpu_execution_accelerator : [ { name : \"tensorrt\" parameters { key: \"precision_mode\" \
         value: \"FP16\" } } ] } input_pinned_memory { enable: true } }",
        (None, None, None, 3),
    ),
    (
        "max_batch_size: 2 model_warmup [ { name: 'zero' batch_size: 2 count: 3 inputs { key: 'x' \
         value: { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } } }, { name: \"made up\" inputs \
         { key: \"s\" value: { data_type: TYPE_STRING dims: 1 random_data: true } } } ]",
        (Some(2), None, None, 0),
    ),
    (
        "response_cache { enable: true } metric_tags { key: 'team' value: 'a' } \
         cc_model_filenames { key: '7.5' value: 'fast.onnx' } runtime: 'x.so'",
        (None, None, None, 3),
    ),
    (
        "output [ { name: \"p\\\"q\" data_type: TYPE_BF16 dims: [ 0x2, 010 ] label_filename: '' } ] \
         default_model_filename: \"net\" '.onnx'",
        (None, None, None, 0),
    ),
];

/// Files that are refused, with the text.
const REFUSED: [(&str, &str); 30] = [
    ("max_batch: 4", "config.pbtxt: line 1: unknown field 'max_batch'; expected one of name, "),
    (
        "input { nmae: 'x' }",
        "config.pbtxt: line 1: unknown field 'nmae'; expected one of name, data_type, ",
    ),
    ("max_batch_size: 'four'", "config.pbtxt: line 1: expected an integer, but found '\"four\"'"),
    ("max_batch_size: -1", "max_batch_size is -1; expected 0 or more"),
    ("name: 'other'", "name is 'other'; expected the folder's name, 'm', or none"),
    (
        "platform: 'tensorrt_plan'",
        "platform is 'tensorrt_plan'; expected 'onnxruntime_onnx': models here are ONNX files",
    ),
    (
        "backend: 'python'",
        "backend is 'python'; expected 'onnxruntime': models here are ONNX files",
    ),
    (
        "ensemble_scheduling { step { model_name: 'a' } }",
        "ensemble_scheduling is not served: each model is asked by itself; call the models one after \
         another, or merge them into one ONNX file",
    ),
    (
        "sequence_batching { direct {} }",
        "sequence_batching is not served: requests keep no state between them; remove it, or give the \
         state as inputs and outputs",
    ),
    (
        "model_operations { op_library_filename: 'x.so' }",
        "model_operations is not served: libraries of operators are foreign code; remove it",
    ),
    (
        "model_repository_agents { agents { name: 'a' } }",
        "model_repository_agents is not served: no program changes a model before it is loaded; remove \
         it, and store the model as it is to be loaded",
    ),
    (
        "model_transaction_policy { decoupled: true }",
        "model_transaction_policy.decoupled is not served: a request has one answer; remove it",
    ),
    (
        "batch_input { kind: BATCH_ELEMENT_COUNT target_name: 'x' }",
        "batch_input is not served: a batch makes no inputs of its own; remove it",
    ),
    (
        "batch_output { target_name: 'x' }",
        "batch_output is not served: outputs are cut by row; remove it",
    ),
    (
        "input { name: 'x' data_type: TYPE_FP32 dims: 1 optional: true }",
        "input 'x': optional is not served: an ONNX model takes all of its inputs; remove it",
    ),
    (
        "input { name: 'x' data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }",
        "input 'x': allow_ragged_batch is not served: rows of one batch have one shape; remove it",
    ),
    (
        "input { name: 'x' data_type: TYPE_FP32 }",
        "input 'x': dims is missing; a scalar has dims [ 1 ] and reshape { shape: [ ] }",
    ),
    (
        "input { name: 'x' dims: 1 }",
        "input 'x': data_type is TYPE_INVALID; expected one such as TYPE_FP32",
    ),
    (
        "input { name: 'x' data_type: TYPE_FP32 dims: [ 3, 0 ] }",
        "input 'x': dims holds 0; expected 1 or more, or -1 for any",
    ),
    (
        "output { name: 'y' data_type: TYPE_FP32 dims: 1 } output { name: 'y' data_type: TYPE_FP32 dims: 1 }",
        "output 'y' is declared twice",
    ),
    (
        "instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]",
        "instance_group asks for the CPU and a GPU at once; expected one kind for all",
    ),
    ("instance_group { count: -2 }", "instance_group.count is -2; expected 1 or more"),
    (
        "instance_group { count: 2000 }",
        "instance_group asks for 2000 instances; expected at most 1024",
    ),
    (
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
        "dynamic_batching.preferred_batch_size is 8; expected 1 to max_batch_size",
    ),
    (
        "dynamic_batching { priority_levels: 12 default_priority_level: 1 }",
        "dynamic_batching.priority_levels is 12; expected at most 9",
    ),
    (
        "parameters { key: 'intra_op_thread_count' value: { string_value: 'many' } }",
        "parameters 'intra_op_thread_count' is \"many\"; expected a whole number, 1024 at most",
    ),
    (
        "optimization { graph { level: 7 } }",
        "optimization.graph.level is 7; expected 0 (all), -1 (basic), 1 (extended) or 2 (none)",
    ),
    (
        "model_warmup { name: 'w' batch_size: 2 }",
        "model_warmup 'w': batch_size is 2; expected at most max_batch_size, 0",
    ),
    (
        "model_warmup { name: 'w' inputs { key: 'x' value: { data_type: TYPE_FP32 dims: 1 } } }",
        "model_warmup 'w': input 'x' has no data; expected zero_data: true, random_data: true or \
         input_data_file",
    ),
    (
        "default_model_filename: '../model.onnx'",
        "default_model_filename is \"../model.onnx\"; expected the name of a file in the version's folder",
    ),
];

fn read(text: &str) -> Result<Setup, String> {
    triton::check(&triton::parse(text)?, "m")
}

#[test]
fn files_as_people_write_them_are_taken() {
    for (text, (rows, sessions, threads, notes)) in TAKEN {
        let setup = read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(setup.request_rows_max(), rows, "{text}");
        let settings = (setup.settings.sessions, setup.settings.threads);
        assert_eq!(settings, (sessions, threads), "{text}");
        assert_eq!(setup.notes.len(), notes, "{text}: {:?}", setup.notes);
    }
}

#[test]
fn what_is_wrong_or_not_served_is_refused_by_name() {
    for (text, expected) in REFUSED {
        let why = read(text).unwrap_err();
        let same =
            if expected.ends_with(", ") { why.starts_with(expected) } else { why == expected };
        assert!(same, "{text}: {why}; expected {expected}");
    }
    let why = read("parameters { key: 'session.load_model_format' value: { string_value: 'x' } }");
    assert!(why.unwrap_err().contains("session.disable_prepacking"));
}

fn port(name: &str, datatype: DataType, dims: &[i64]) -> Port {
    let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Unknown, Dim::Fixed);
    Port { name: name.into(), datatype, dims: Some(dims.iter().map(dim).collect()) }
}

const X: &str = "input { name: 'x' data_type: TYPE_FP32 ";

#[test]
fn declarations_narrow_what_the_model_takes() {
    type Case<'a> = (String, &'a [i64], &'a [Dim], Option<&'a [usize]>);
    let table: [Case<'_>; 6] = [
        ("max_batch_size: 8".into(), &[-1, 4], &[Dim::Unknown, Dim::Fixed(4)], None),
        (
            format!("max_batch_size: 8 {X} dims: 4 }}"),
            &[-1, 4],
            &[Dim::Unknown, Dim::Fixed(4)],
            None,
        ),
        (
            format!("max_batch_size: 8 {X} dims: 9 }}"),
            &[-1, -1],
            &[Dim::Unknown, Dim::Fixed(9)],
            None,
        ),
        (format!("{X} dims: [ 1, -1 ] }}"), &[-1, 5], &[Dim::Fixed(1), Dim::Fixed(5)], None),
        (
            format!("max_batch_size: 8 {X} dims: 1 reshape: {{ shape: [ ] }} }}"),
            &[-1],
            &[Dim::Unknown],
            Some(&[3, 1]),
        ),
        (format!("{X} dims: 1 reshape {{ }} }}"), &[], &[], Some(&[1])),
    ];
    for (text, own, expected, wire) in table {
        let declared = read(&text).unwrap().declared;
        let fitted = declared.fit(&[port("x", DataType::Fp32, own)], &[]).unwrap();
        let face = &fitted.inputs[0];
        assert_eq!(face.port.dims.as_deref(), Some(expected), "{text}");
        let back = wire.map(|shape| face.wire.as_ref().unwrap().to_model(shape).unwrap().len());
        assert_eq!(back, wire.map(|_| own.len()), "{text}");
    }
}

#[test]
fn declarations_that_the_model_does_not_have_are_refused() {
    let table: [(String, &[i64], &str); 7] = [
        (
            format!("{X} dims: [ -1, 3 ] }}"),
            &[-1, 4],
            "input 'x' is declared with shape [-1,3]; the model has [-1,4]",
        ),
        (
            format!("max_batch_size: 2 {X} dims: 3 }}"),
            &[-1, 4],
            "input 'x' is declared with shape [-1,3], the batch axis included; the model has [-1,4]",
        ),
        (
            format!("{X} dims: 4 }}"),
            &[-1, 4],
            "input 'x' is declared with shape [4]; the model has [-1,4]",
        ),
        (
            "max_batch_size: 2".into(),
            &[1, 4],
            "input 'x' cannot be batched: max_batch_size is 2, but the model has size 1 along the first \
             axis; expected one of any size, or max_batch_size 0 and all axes in dims",
        ),
        (
            "input { name: 'x' data_type: TYPE_INT8 dims: [ -1, 4 ] }".into(),
            &[-1, 4],
            "input 'x' is declared TYPE_INT8; the model has TYPE_FP32",
        ),
        (
            "input { name: 'z' data_type: TYPE_FP32 dims: 1 }".into(),
            &[1],
            "the model's input 'x' is not declared; declare it, or no input at all",
        ),
        (
            format!("{X} dims: 4 }} output {{ name: 'q' data_type: TYPE_FP32 dims: 1 }}"),
            &[4],
            "output 'q' is declared, but the model has none of that name; its outputs are y, w",
        ),
    ];
    let outputs = [port("y", DataType::Fp32, &[-1, 2]), port("w", DataType::Fp32, &[-1])];
    for (text, own, expected) in table {
        let declared = read(&text).unwrap().declared;
        let why = declared.fit(&[port("x", DataType::Fp32, own)], &outputs).unwrap_err();
        assert_eq!(why, expected, "{text}");
    }
    let text = "output { name: 'w' data_type: TYPE_FP32 dims: -1 }";
    let fitted = read(text).unwrap().declared.fit(&[], &outputs).unwrap();
    assert_eq!(fitted.outputs.iter().map(|face| face.hidden).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn files_of_the_folder_are_read_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("m");
    std::fs::create_dir_all(folder.join("1")).unwrap();
    std::fs::create_dir_all(folder.join("warmup")).unwrap();
    let found = Found { name: "m".into(), version: 1, file: folder.join("1/model.onnx") };
    let bare = Setup::read(&found).unwrap();
    assert_eq!((bare.digest, bare.config), ([0; 32], None));
    let text = "output { name: 'y' data_type: TYPE_FP32 dims: 2 label_filename: 'labels.txt' } \
                model_warmup { name: 'w' inputs { key: 'x' value: { data_type: TYPE_INT16 dims: 2 \
                input_data_file: 'x.bin' } } }";
    std::fs::write(folder.join("config.pbtxt"), text).unwrap();
    let why = Setup::read(&found).unwrap_err();
    assert!(why.starts_with("config.pbtxt: output 'y' label_filename 'labels.txt': "), "{why}");
    std::fs::write(folder.join("labels.txt"), "cat\nblue whale\n").unwrap();
    std::fs::write(folder.join("warmup/x.bin"), [1, 0, 2]).unwrap();
    let why = Setup::read(&found).unwrap_err();
    assert!(why.ends_with("holds 3 bytes; expected 4"), "{why}");
    std::fs::write(folder.join("warmup/x.bin"), [1, 0, 2, 0]).unwrap();
    let setup = Setup::read(&found).unwrap();
    let labels = setup.declared.outputs[0].labels.clone().unwrap();
    assert_eq!(*labels, ["cat", "blue whale"]);
    assert_eq!(setup.warmup[0].request("m").unwrap().inputs[0].data, [1, 0, 2, 0][..]);
    let digest = setup.digest;
    std::fs::write(folder.join("model.toml"), "threads = 2").unwrap();
    let setup = Setup::read(&found).unwrap();
    assert_eq!(setup.settings.threads, Some(2));
    assert_ne!(setup.digest, digest);
    std::fs::write(root.path().join("flat.toml"), "threads = 0").unwrap();
    let flat = Found { name: "flat".into(), version: 1, file: root.path().join("flat.onnx") };
    assert!(Setup::read(&flat).unwrap_err().starts_with("flat.toml: line 1: "));
}

#[test]
fn json_of_load_requests_says_the_same() {
    let json = r#" {"backend": "onnxruntime", "max_batch_size": 2,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]}"#;
    let text = format!("max_batch_size: 2 {X} dims: -1 }}");
    assert_eq!(read(json).unwrap().declared, read(&text).unwrap().declared);
    assert!(read(r#"{"max_batch": 2}"#).unwrap_err().contains("max_batch"));
}

#[test]
fn deep_and_endless_files_are_refused() {
    for piece in ["[", "{", "input {", "input [", "a: <", "'", "\\", "optimization { cuda {"] {
        let text = piece.repeat(100_000 / piece.len());
        assert!(read(&text).is_err(), "{piece}");
    }
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(text in "[ -~\n]{0,200}") {
        let _ = read(&text);
        let _ = own::parse(&text);
    }

    #[test]
    fn no_change_to_a_good_file_makes_the_reader_panic(
        which in 0..TAKEN.len(),
        cut in any::<prop::sample::Index>(),
        drop in 0..40_usize,
        put in "[ -~]{0,12}",
    ) {
        let text = TAKEN[which].0;
        let at = cut.index(text.len() + 1);
        let text = [&text[..at], &put, &text[(at + drop).min(text.len())..]].concat();
        if let Ok(setup) = read(&text) {
            let x = port("x", DataType::Fp32, &[-1, 4]);
            let _ = setup.declared.fit(std::slice::from_ref(&x), std::slice::from_ref(&x));
            setup.warmup.iter().for_each(|warmup| drop_result(warmup.request("m")));
        }
    }
}

fn drop_result<T>(result: Result<T, String>) {
    // Only that it comes is of interest.
    let _ = result;
}
