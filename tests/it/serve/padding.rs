//! Rows of differing length that are padded to run together.

use super::ask::{Ask, Form, fp32, singles, tensor};
use super::daemon::{Daemon, Setup, needs_runtime};
use graftd::tensor::{DataType, Tensor};
use serde_json::Value;
use std::fs;

const PADDED: &str = "max_batch_rows = 2
queue_delay_max_us = 10000000

[[padding]]
inputs = { x = { axis = 'length' }, mask = { axis = 1, value = 0 } }
mask = 'mask'
to = [8, 4]
outputs = { y = 'length' }
";

fn with(toml: &str) -> Setup {
    let setup = Setup::new(&["masked"]);
    fs::write(setup.models().join("masked/model.toml"), toml).expect("a file of ours");
    setup
}

fn mask(values: &[i64]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor("mask", DataType::Int64, &[1, values.len()], data)
}

/// One row of these numbers, with no mask.
fn row(values: &[f32]) -> Ask {
    Ask::new("masked", vec![fp32("x", &[1, values.len()], values)])
}

async fn properties(daemon: &Daemon) -> Value {
    let answer = daemon.client().await.get("/v2/models/masked").await.expect("an answer");
    serde_json::from_slice::<Value>(&answer.body).expect("JSON")["properties"].clone()
}

#[tokio::test]
async fn rows_of_differing_length_share_a_batch_and_get_their_own_answers() {
    needs_runtime!();
    let daemon = with(PADDED).start().await;
    let found = properties(&daemon).await["graftd.padding"].as_str().expect("a finding").to_owned();
    assert!(found.contains("tried with sizes 1, 3, 5, 7"), "{found}");
    // A batch of two starts when it is full, long before the delay is over.
    let batches = "nv_inference_exec_count";
    // One pair: later on the scheduler may try single rows to see whether batches are worth it.
    let (short, long) = (row(&[1.0, 2.0]), row(&[1.0, 2.0, 6.0]));
    let before = daemon.metric(batches).await;
    let (a, b) = tokio::join!(short.of(&daemon, Form::Binary), long.of(&daemon, Form::GrpcRaw));
    for (got, mean, values) in [(a, 1.5, &[1.0, 2.0][..]), (b, 3.0, &[1.0, 2.0, 6.0])] {
        let got = got.expect("an answer");
        assert_eq!(singles(&got.outputs[0]), [mean]);
        let (shape, found) = (got.outputs[1].shape.0.clone(), singles(&got.outputs[1]));
        assert_eq!((&shape[..], &found[..]), (&[1, values.len()][..], values));
    }
    let more = daemon.metric(batches).await - before;
    assert!((more - 1.0).abs() < f64::EPSILON, "{more} batches");
    // Kept as it came: the same row is a hit, whatever it ran with.
    let again = short.of(&daemon, Form::Json).await.expect("an answer");
    assert_eq!(again.route, "hit=1 join=0 run=0");
    assert_eq!(singles(&again.outputs[1]), [1.0, 2.0]);
}

#[tokio::test]
async fn masks_count_as_sent_and_sizes_past_the_last_run_as_they_come() {
    needs_runtime!();
    let daemon = with(&PADDED.replace("10000000", "0")).start().await;
    for form in Form::ALL {
        let mut ask = row(&[1.0, 3.0, 50.0]);
        ask.inputs.push(mask(&[1, 1, 0]));
        let got = ask.of(&daemon, form).await.expect("an answer");
        let outputs = (singles(&got.outputs[0]), singles(&got.outputs[1]));
        assert_eq!(outputs, (vec![2.0], vec![1.0, 3.0, 0.0]));
        // The same numbers with all of them real are another row.
        let got = row(&[1.0, 3.0, 50.0]).of(&daemon, form).await.expect("an answer");
        assert_eq!(singles(&got.outputs[0]), [18.0]);
        let long: Vec<f32> = (0..11).map(|n| n as f32).collect();
        let got = row(&long).of(&daemon, form).await.expect("an answer");
        assert_eq!((singles(&got.outputs[0]), singles(&got.outputs[1])), (vec![5.0], long));
        let mut ask = row(&[1.0, 2.0, 3.0]);
        ask.inputs.push(mask(&[1, 1]));
        let why = ask.of(&daemon, form).await.expect_err("they differ").message;
        assert!(why.contains("expected the same of both"), "{why}");
    }
    let why = Ask::new("masked", vec![mask(&[1])]).of(&daemon, Form::Json).await;
    assert!(why.expect_err("no x").message.contains("input 'x' of model 'masked' is missing"));
}

#[tokio::test]
async fn padding_that_changes_results_is_refused_with_the_difference() {
    needs_runtime!();
    let table = [
        // The model takes the padding for real.
        (
            "mask = { axis = 1, value = 0 } }\nmask = 'mask'",
            "mask = { axis = 1, value = 1 } }",
            "differs by",
        ),
        (
            "outputs = { y = 'length' }",
            "",
            "with shape [1, 4] when it is padded and [1, 1] when it is not",
        ),
        (
            "x = { axis = 'length' }",
            "x = { axis = 'width' }",
            "input 'x' axis 'width' cannot be padded",
        ),
    ];
    for (good, bad, expected) in table {
        assert!(PADDED.contains(good), "{good}");
        let daemon = with(&PADDED.replace(good, bad)).start().await;
        let answer = daemon.client().await.get("/v2/models/masked").await.expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let why = body["error"].as_str().expect("an error");
        assert!(why.contains("unavailable: [[padding]]") && why.contains(expected), "{why}");
    }
}
