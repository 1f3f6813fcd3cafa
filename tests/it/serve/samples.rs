//! The sample models answer what was computed for them without ONNX Runtime.

use super::ask::{Ask, Form, fp32, singles};
use super::daemon::{Setup, needs_runtime, soon};
use bytes::Bytes;
use graftd::tensor::{DataType, Tensor, bytes_element_ends};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What numpy or scikit-learn computed and ONNX Runtime computes may part by rounding.
const TOLERANCE: f64 = 2e-6;

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

pub(super) fn samples() -> Value {
    let text = std::fs::read(models().join("samples.json")).expect("samples.json");
    serde_json::from_slice(&text).expect("JSON")
}

/// All numbers in a nest of lists.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the models take singles")]
fn input(name: &str, values: &Value, row_shape: &[usize], scale: f64) -> Tensor {
    let data: Vec<f32> = flat(values).into_iter().map(|value| (value * scale) as f32).collect();
    let rows = data.len() / row_shape.iter().product::<usize>();
    fp32(name, &[&[rows], row_shape].concat(), &data)
}

/// Every sample model with its input and what it should answer, by the name of the output.
pub(super) fn cases() -> Vec<(Ask, Value)> {
    let samples = samples();
    let digits = &samples["digits"];
    let scale = digits["scale"].as_f64().expect("a number");
    let names = ["digits_digit", "digits_parity", "digits_high", "digits_tuned", "digits_other"];
    let mut cases: Vec<(Ask, Value)> = names
        .iter()
        .map(|name| {
            let input_name = if *name == "digits_high" { "pixels" } else { "image" };
            let image = input(input_name, &digits["image"], &[1, 8, 8], scale);
            (Ask::new(name, vec![image]), samples[name].clone())
        })
        .collect();
    for (name, columns) in [("iris", 4), ("wine", 13)] {
        let mut expected = samples[name].clone();
        let x = expected.as_object_mut().and_then(|e| e.remove("x")).expect("inputs");
        cases.push((Ask::new(name, vec![input("x", &x, &[columns], 1.0)]), expected));
    }
    cases
}

fn agrees(what: &str, output: &Tensor, expected: &Value) {
    if output.datatype == DataType::Fp32 {
        let (found, expected) = (singles(output), flat(expected));
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{what}: {found} {expected}");
        }
        return;
    }
    let labels: Vec<Value> = match output.datatype {
        DataType::Bytes => {
            let ends = bytes_element_ends(&output.data).expect("whole elements");
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let text =
                |(start, end): (usize, &usize)| Bytes::from(output.data[start + 4..*end].to_vec());
            let texts = starts.zip(&ends).map(text);
            texts.map(|text| Value::from(str::from_utf8(&text).expect("UTF-8"))).collect()
        }
        DataType::Int64 => output
            .data
            .as_chunks()
            .0
            .iter()
            .map(|raw| Value::from(i64::from_le_bytes(*raw)))
            .collect(),
        other => panic!("{what} is {other}"),
    };
    assert_eq!(&Value::Array(labels), expected, "{what}");
}

#[tokio::test]
async fn every_sample_is_reproduced_in_every_form() {
    needs_runtime!();
    let daemon = Setup::new(&[]).serving(&models()).start().await;
    assert!(daemon.said.starts_with("graftd serves 7 models; try: curl "), "{}", daemon.said);
    for (ask, expected) in cases() {
        for form in Form::ALL {
            for ask in [ask.clone(), ask.clone().parameter("no_cache", true)] {
                let got = ask.of(&daemon, form).await.expect("an answer");
                let expected = expected.as_object().expect("outputs by name");
                assert_eq!(got.outputs.len(), expected.len());
                for output in &got.outputs {
                    let what = format!("{} {} over {form:?}", ask.model, output.name);
                    agrees(&what, output, &expected[&output.name]);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_announced_line_works_as_it_stands() {
    needs_runtime!();
    let mut daemon = Setup::new(&["mlp"]).start().await;
    let path = daemon.said.trim().rsplit_once("http://localhost").expect("a URL").1.to_owned();
    let answer = daemon.client().await.get(&path).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let metadata: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(metadata["name"], "mlp");
    assert_eq!(metadata["inputs"][0]["shape"], serde_json::json!([-1, 16]));
    soon("the kill", daemon.child.kill()).await.expect("it can be killed");
}
