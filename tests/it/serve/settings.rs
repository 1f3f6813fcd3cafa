//! Models with files of settings beside them: repositories made for Triton, and settings of our own.

use super::ask::{Ask, Form, Refused, fp32, singles};
use super::daemon::{Daemon, Setup, needs_runtime};
use graftd::tensor::DataType;
use serde_json::{Value, json};
use std::fs;

/// A repository as Triton's users write one for a classifier.
const CLASSIFIER: &str = r#"
name: "mlp"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 16 ]
  }
]
output [
  {
    name: "y"   # scores
    data_type: TYPE_FP32
    dims: [ 8 ]
    label_filename: "labels.txt"
  }
]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 }
version_policy: { latest { num_versions: 1 } }
model_warmup [
  {
    name: "two rows"
    batch_size: 2
    count: 3
    inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 16 ] random_data: true } }
  }
]
metric_tags { key: "team" value: "sorting" }
"#;

/// Writes a file into a model's folder.
fn write(setup: &Setup, model: &str, file: &str, content: impl AsRef<[u8]>) {
    let path = setup.models().join(model).join(file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of ours");
    fs::write(path, content).expect("a file of ours");
}

async fn json_of(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.client().await.get(path).await.expect("an answer");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Rows of 16 that differ from each other.
fn rows(count: usize) -> Ask {
    let values: Vec<f32> = (0..count * 16).map(|n| n as f32 / 100.0).collect();
    Ask::new("mlp", vec![fp32("x", &[count, 16], &values)])
}

fn refused(result: Result<super::ask::Got, Refused>) -> String {
    result.expect_err("it is refused").message
}

#[tokio::test]
async fn a_repository_made_for_triton_is_served_as_it_is() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    write(&setup, "mlp", "config.pbtxt", CLASSIFIER);
    write(&setup, "mlp", "labels.txt", "a\nb\nc\nd\ne\nf\ng\nh\n");
    let daemon = setup.start().await;
    let config = json_of(&daemon, "/v2/models/mlp/config").await;
    assert_eq!(config["max_batch_size"], 4);
    assert_eq!(config["backend"], "onnxruntime");
    assert_eq!(config["input"][0]["dims"], json!([16]));
    assert_eq!(config["output"][0]["label_filename"], "labels.txt");
    assert_eq!(config["instance_group"][0]["count"], 2);
    assert_eq!(config["default_model_filename"], "model.onnx");
    let batching = &config["dynamic_batching"];
    assert_eq!(batching["preferred_batch_size"], json!([2, 4]));
    assert_eq!(batching["max_queue_delay_microseconds"], 100);
    let metadata = json_of(&daemon, "/v2/models/mlp").await;
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 16]));
    let ignored = metadata["properties"]["graftd.config_ignored"].as_str().expect("a note");
    assert!(ignored.contains("metric_tags"), "{ignored}");
    for form in Form::ALL {
        let got = rows(4).of(&daemon, form).await.expect("four rows are allowed");
        assert_eq!(got.outputs[0].shape.0, [4, 8]);
        let why = refused(rows(5).of(&daemon, form).await);
        assert!(why.contains("a batch of 5; expected at most 4") && why.contains("'x'"), "{why}");
    }
}

#[tokio::test]
async fn shapes_are_as_declared_and_the_model_sees_its_own() {
    needs_runtime!();
    let setup = Setup::new(&["scalar_io", "id_fp32", "two_outputs"]);
    let scalar = "input { name: 'x' data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }
                  output { name: 'y' data_type: TYPE_FP32 dims: [1] reshape: { shape: [] } }";
    write(&setup, "scalar_io", "config.pbtxt", scalar);
    let folded = "max_batch_size: 8
        input { name: 'x' data_type: TYPE_FP32 dims: [2, 3] reshape { shape: [6] } }
        output { name: 'y' data_type: TYPE_FP32 dims: [3, 2] reshape { shape: [6] } }";
    write(&setup, "id_fp32", "config.pbtxt", folded);
    let one = "output { name: 'label' data_type: TYPE_INT64 dims: [-1] }";
    write(&setup, "two_outputs", "config.pbtxt", one);
    let daemon = setup.start().await;
    for form in Form::ALL {
        let ask = Ask::new("scalar_io", vec![fp32("x", &[1], &[21.0])]);
        let got = ask.of(&daemon, form).await.expect("an answer");
        assert_eq!((&got.outputs[0].shape.0[..], singles(&got.outputs[0])), (&[1][..], vec![42.0]));
        let values: Vec<f32> = (0..12).map(|n| n as f32).collect();
        let ask = Ask::new("id_fp32", vec![fp32("x", &[2, 2, 3], &values)]);
        let got = ask.of(&daemon, form).await.expect("an answer");
        assert_eq!(
            (&got.outputs[0].shape.0[..], singles(&got.outputs[0])),
            (&[2, 3, 2][..], values)
        );
        let ask = Ask::new("id_fp32", vec![fp32("x", &[2, 6], &[0.0; 12])]);
        let why = refused(ask.of(&daemon, form).await);
        assert!(why.contains("shape [2,6]; expected [-1,2,3]"), "{why}");
    }
    let x = fp32("x", &[1, 4], &[0.0, 9.0, 0.0, 0.0]);
    let got = Ask::new("two_outputs", vec![x.clone()]).of(&daemon, Form::Binary).await;
    let outputs = got.expect("an answer").outputs;
    assert_eq!(outputs.iter().map(|output| output.datatype).collect::<Vec<_>>(), [DataType::Int64]);
    let ask = Ask::new("two_outputs", vec![x]).outputs(&["probabilities"]);
    let why = refused(ask.of(&daemon, Form::Binary).await);
    assert!(why.contains("no output 'probabilities'; its outputs are label"), "{why}");
    let metadata = json_of(&daemon, "/v2/models/id_fp32").await;
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 2, 3]));
    assert_eq!(metadata["outputs"][0]["shape"], json!([-1, 3, 2]));
}

#[tokio::test]
async fn what_cannot_be_honoured_makes_the_model_unavailable_and_says_why() {
    needs_runtime!();
    let table = [
        (
            "name: 'm'\nmax_batch: 4",
            "config.pbtxt: line 2: unknown field 'max_batch'; expected one of",
        ),
        ("\nsequence_batching { }", "config.pbtxt: line 2: sequence_batching is not served"),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 15 ] }",
            "input 'x' is declared with shape [-1,15]; the model has [-1,16]",
        ),
        (
            "output { name: 'z' data_type: TYPE_FP32 dims: 1 }",
            "output 'z' is declared, but the model has none of that name; its outputs are y",
        ),
        (
            "max_batch_size: 2 model_warmup { name: 'short' inputs { key: 'x' value: { data_type: \
             TYPE_FP32 dims: 15 zero_data: true } } }",
            "model_warmup 'short': input 'x' has shape [1,15]; expected [-1,16]",
        ),
    ];
    let setup = Setup::new(&["gather"]);
    for (number, (text, _)) in table.iter().enumerate() {
        setup.add("mlp", &format!("m{number}"));
        write(&setup, &format!("m{number}"), "config.pbtxt", text);
    }
    let outside =
        "max_batch_size: 1 model_warmup { name: 'outside' inputs { key: 'indices' value: {
        data_type: TYPE_INT64 dims: 3 input_data_file: 'far' } } }";
    write(&setup, "gather", "config.pbtxt", outside);
    write(&setup, "gather", "warmup/far", [0xFF, 0, 0, 0, 0, 0, 0, 0].repeat(3));
    let daemon = setup.start().await;
    let unavailable = async |name: &str| {
        let error = json_of(&daemon, &format!("/v2/models/{name}")).await["error"].clone();
        error.as_str().expect("an error").to_owned()
    };
    for (number, (_, expected)) in table.iter().enumerate() {
        let why = unavailable(&format!("m{number}")).await;
        assert!(why.contains("unavailable") && why.contains(expected), "{why}");
    }
    let why = unavailable("gather").await;
    assert!(why.contains("model_warmup 'outside'"), "{why}");
}

#[tokio::test]
async fn a_change_of_settings_is_a_change_of_the_model_and_keeps_its_rows() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    write(&setup, "mlp", "config.pbtxt", "max_batch_size: 4");
    let daemon = setup.start().await;
    rows(3).of(&daemon, Form::Binary).await.expect("three rows are allowed");
    write(&daemon.setup, "mlp", "config.pbtxt", "max_batch_size: 2");
    daemon.reload().await;
    let why = refused(rows(3).of(&daemon, Form::Binary).await);
    assert!(why.contains("expected at most 2"), "{why}");
    let got = rows(2).of(&daemon, Form::Binary).await.expect("two rows are allowed");
    assert_eq!(got.route, "hit=2 join=0 run=0");
    write(&daemon.setup, "mlp", "config.pbtxt", "max_batch_size: two");
    daemon.reload().await;
    rows(2).of(&daemon, Form::Binary).await.expect("the old one stays");
    fs::remove_file(daemon.setup.models().join("mlp/config.pbtxt")).expect("a file of ours");
    daemon.reload().await;
    let got = rows(40).of(&daemon, Form::Binary).await.expect("any number is allowed");
    assert_eq!(got.route, "hit=3 join=0 run=37");
    // Another level of optimisation may round otherwise, so its rows are others.
    let text = "optimization { graph { level: -1 } }";
    write(&daemon.setup, "mlp", "config.pbtxt", text);
    daemon.reload().await;
    let got = rows(2).of(&daemon, Form::Binary).await.expect("an answer");
    assert_eq!(got.route, "hit=0 join=0 run=2");
}

#[tokio::test]
async fn what_is_typed_counts_over_the_files_and_ours_over_tritons() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let text = "response_cache { enable: true } instance_group { count: 3 }";
    write(&setup, "mlp", "config.pbtxt", text);
    write(&setup, "mlp", "model.toml", "cache = false\nsessions = 2\n");
    for (name, text) in [("off", "cache = false"), ("wrong", "cahce = false")] {
        let source = setup.models().join("mlp/1/model.onnx");
        fs::copy(source, setup.models().join(format!("{name}.onnx"))).expect("a copy");
        fs::write(setup.models().join(format!("{name}.toml")), text).expect("a file of ours");
    }
    let daemon = setup.flags(&["--set", "mlp.sessions=1"]).start().await;
    let config = json_of(&daemon, "/v2/models/mlp/config").await;
    assert_eq!(config["instance_group"][0]["count"], 1);
    assert_eq!(config["response_cache"]["enable"], false);
    for model in ["mlp", "off"] {
        for _ in 0..2 {
            let ask = Ask { model: model.to_owned(), ..rows(1) };
            let got = ask.of(&daemon, Form::Binary).await.expect("an answer");
            assert_eq!(got.route, "hit=0 join=0 run=1", "{model}");
        }
    }
    let error = json_of(&daemon, "/v2/models/wrong").await["error"].clone();
    let why = error.as_str().expect("an error");
    assert!(why.contains("wrong.toml: line 1: cahce = false: unknown field `cahce`"), "{why}");
    assert!(why.contains("queue_delay_max_us"), "{why}");
}
