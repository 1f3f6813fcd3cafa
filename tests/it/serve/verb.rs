//! `graftd infer` against a real daemon.

use super::ask::fp32;
use super::daemon::{Daemon, PROGRAM, Setup, needs_runtime, soon};
use super::samples::{cases, models, samples};
use graftd::cli::npy;
use graftd::tensor::{DataType, Tensor};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What the verb wrote to standard output, or else to standard error.
async fn infer(socket: &Path, arguments: &[&str], stdin: &str) -> Result<String, String> {
    let mut child = Command::new(PROGRAM);
    child.arg("infer").args(arguments).env("GRAFTD_SOCKET", socket);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A verb that does not read it closes it.
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    let output = soon("graftd infer", child.wait_with_output()).await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        code => Err(format!("{code:?}: {}", text(output.stderr))),
    }
}

async fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    infer(&daemon.setup.socket(), arguments, "").await.expect_err("a refusal")
}

fn npy_file(daemon: &Daemon, name: &str, tensor: &Tensor) -> String {
    let path = daemon.setup.beside(name);
    npy::write(tensor, File::create(&path).expect("a new file")).expect("it can be written");
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn npy_files_go_in_and_come_out() {
    needs_runtime!();
    let daemon = Setup::new(&[]).serving(&models()).start().await;
    let (ask, expected) = cases().into_iter().find(|(ask, _)| ask.model == "iris").expect("iris");
    let x = npy_file(&daemon, "x.npy", &ask.inputs[0]);
    let saved = daemon.setup.beside("saved");
    let (input, save) = (format!("x={x}"), saved.to_str().expect("UTF-8"));
    let arguments = ["iris", "--input", &input, "--save", save, "--param", "graftd_rows=true"];
    let text = infer(&daemon.setup.socket(), &arguments, "").await.expect("an answer");
    let start = format!(
        "iris version 1\nroute hit=0 join=0 run=16\ngraftd_rows \"whole{}\"\n",
        ",whole".repeat(15)
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("\nlabel BYTES [16]\n[\"virginica\", "), "{text}");
    assert!(text.contains("\nprobabilities FP32 [16,3]\n[["), "{text}");
    let label = File::open(saved.join("label.npy")).expect("a saved output");
    let label = npy::read("label", label, DataType::Bytes).expect("a .npy file");
    let texts: Vec<Value> = npy::elements(&label.data)
        .expect("whole elements")
        .iter()
        .map(|raw| Value::from(str::from_utf8(raw).expect("UTF-8")))
        .collect();
    assert_eq!(Value::Array(texts), expected["label"]);
    let only =
        infer(&daemon.setup.socket(), &["iris", "--input", &input, "--outputs", "label"], "").await;
    let only = only.expect("an answer");
    assert!(
        only.contains("route hit=16 join=0 run=0") && !only.contains("probabilities"),
        "{only}"
    );
}

#[tokio::test]
async fn json_comes_from_text_file_or_standard_input() {
    needs_runtime!();
    let daemon = Setup::new(&[]).serving(&models()).start().await;
    let socket = daemon.setup.socket();
    let row = &samples()["iris"]["x"][0];
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": row });
    let request = json!({ "id": "seven", "inputs": [input] }).to_string();
    let text = infer(&socket, &["iris", "--json", &request], "").await.expect("an answer");
    assert!(text.starts_with("iris version 1, id seven\nroute "), "{text}");
    let file = daemon.setup.beside("request.json");
    std::fs::write(&file, &request).expect("a new file");
    let file = file.to_str().expect("UTF-8");
    let from_file =
        infer(&socket, &["iris", "--json", file, "--raw"], "").await.expect("an answer");
    let raw: Value = serde_json::from_str(&from_file).expect("JSON");
    assert_eq!((&raw["id"], &raw["outputs"][0]["data"]), (&json!("seven"), &json!(["virginica"])));
    let arguments = ["iris", "--version", "1", "--json", "-", "--outputs", "label"];
    let from_stdin = infer(&socket, &arguments, &request).await.expect("an answer");
    assert!(from_stdin.ends_with("\nlabel BYTES [1]\n[\"virginica\"]\n"), "{from_stdin}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_type() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let good = npy_file(&daemon, "good.npy", &fp32("x", &[1, 16], &[0.5; 16]));
    let wide = npy_file(&daemon, "wide.npy", &fp32("x", &[1, 17], &[0.5; 17]));
    let double = Tensor { datatype: DataType::Fp64, ..fp32("x", &[2, 16], &[0.5; 64]) };
    let double = npy_file(&daemon, "double.npy", &double);
    let input = |name: &str, file: &str| format!("{name}={file}");
    let table = [
        (vec!["nope"], "404: model 'nope' is not known"),
        (
            vec!["mlp"],
            "input 'x' is missing; model 'mlp' takes x (FP32 [-1,16]); type --input x=FILE.npy",
        ),
        (
            vec!["mlp", "--input", &input("x", &wide)],
            "is FP32 [1,17]; the model takes FP32 [-1,16]",
        ),
        (vec!["mlp", "--input", &input("x", &double)], "convert it: .astype('float32')"),
        (vec!["mlp", "--input", &input("x", "gone.npy")], "cannot be opened"),
        (
            vec!["mlp", "--input", &input("x", &good), "--outputs", "z"],
            "--outputs z: model 'mlp' has no output 'z'; its outputs are y (FP32 [-1,8])",
        ),
        (
            vec!["mlp", "--input", &input("z", "gone.npy")],
            "--input z=gone.npy: model 'mlp' has no input 'z'; its inputs are x (FP32 [-1,16])",
        ),
        (
            vec!["mlp", "--input", &input("x", &good), "--input", &input("X", &good)],
            "model 'mlp' has no input 'X'; its inputs are x (FP32 [-1,16])",
        ),
        (
            vec!["mlp", "--input", &input("x", &good), "--param", "timeout=soon"],
            "parameter 'timeout'",
        ),
        (vec!["mlp", "--json", "{"], "is no JSON"),
        (vec!["mlp", "--json", "gone.json"], "--json gone.json: No such file"),
        (vec!["mlp", "--input", "x"], "expected a name, '=', and a value"),
    ]
    .map(|(arguments, expected)| {
        (arguments.into_iter().map(str::to_owned).collect::<Vec<_>>(), expected)
    });
    for (arguments, expected) in table {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let why = refused(&daemon, &arguments).await;
        assert!(why.contains(expected), "{arguments:?}: {why}");
    }
    let gone = daemon.setup.beside("gone.sock");
    let why = infer(&gone, &["mlp"], "").await.expect_err("nobody is there");
    assert!(why.contains("no daemon") && why.contains("graftd serve --socket"), "{why}");
}
