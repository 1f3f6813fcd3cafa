//! Classes instead of scores, and what is too much or does not go together.

use super::ask::{Ask, Form, fp32, grpc, tensor};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use bytes::Bytes;
use graftd::cli::client::model_path;
use graftd::proto::InferParameter;
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::InferRequestedOutputTensor;
use graftd::tensor::{DataType, Tensor, bytes_element_ends};
use serde_json::{Value, json};

/// What is answered over REST and over gRPC to a question for the classes of one output: shape and texts.
async fn classes(
    daemon: &Daemon,
    ask: &Ask,
    output: &str,
    n: i64,
) -> [Result<(Vec<i64>, Vec<String>), String>; 2] {
    let outputs = json!([{ "name": output, "parameters": { "classification": n } }]);
    let (body, _) = ask.body(Form::Json);
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    body["outputs"] = outputs;
    let mut client = daemon.client().await;
    let path = model_path(&ask.model, None, "/infer");
    let body = Bytes::from(body.to_string());
    let answer = soon("an answer", client.post(&path, None, body)).await.expect("one");
    let text: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let rest = if answer.status == 200 {
        let output = &text["outputs"][0];
        assert_eq!(output["datatype"], "BYTES");
        let texts = output["data"].as_array().expect("an array").iter();
        let texts = texts.map(|text| text.as_str().expect("a text").to_owned()).collect();
        let shape = output["shape"].as_array().expect("an array").iter();
        Ok((shape.map(|size| size.as_i64().expect("a size")).collect(), texts))
    } else {
        assert_eq!(answer.status, 400, "{text}");
        Err(text["error"].as_str().expect("an error").to_owned())
    };
    let mut message = ask.message(Form::GrpcRaw);
    let choice = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(n)) };
    message.outputs = vec![InferRequestedOutputTensor {
        name: output.to_owned(),
        parameters: [("classification".to_owned(), choice)].into(),
    }];
    let mut client = grpc(&daemon.setup.socket()).await;
    let over_grpc = match soon("an answer", client.model_infer(message)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let data = &answer.raw_output_contents[0];
            let ends = bytes_element_ends(data).expect("whole elements");
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let text = |(start, &end): (usize, &usize)| {
                String::from_utf8(data[start + 4..end].to_vec()).expect("text")
            };
            Ok((answer.outputs[0].shape.clone(), starts.zip(&ends).map(text).collect()))
        }
        Err(status) => {
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
            Err(status.message().to_owned())
        }
    };
    [rest, over_grpc]
}

#[tokio::test]
async fn the_highest_come_first_in_words() {
    needs_runtime!();
    let daemon = Setup::new(&["versions", "strings"]).start().await;
    let x = fp32("x", &[2, 4], &[1.0, 4.0, 2.0, 4.0, -1.5, -3.0, -9.0, -0.5]);
    let ask = Ask::new("versions", vec![x]);
    for got in classes(&daemon, &ask, "y", 2).await {
        let texts = ["7.000000:1", "7.000000:3", "2.500000:3", "1.500000:0"].map(str::to_owned);
        assert_eq!(got, Ok((vec![2, 2], texts.to_vec())));
    }
    for got in classes(&daemon, &ask, "y", 99).await {
        let (shape, texts) = got.expect("all there are");
        assert_eq!((shape, texts.len()), (vec![2, 4], 8));
    }
    for got in classes(&daemon, &ask, "y", -1).await {
        assert!(got.expect_err("negative").contains("0 for none, but it is -1"));
    }
    let texts = tensor("x", DataType::Bytes, &[1], b"\x01\0\0\0a".to_vec());
    for got in classes(&daemon, &Ask::new("strings", vec![texts]), "y", 1).await {
        assert!(got.expect_err("texts").contains("'y' is BYTES, which cannot be classified"));
    }
}

#[tokio::test]
async fn inputs_of_one_request_have_as_many_rows_as_each_other() {
    needs_runtime!();
    let daemon = Setup::new(&["div"]).start().await;
    let numbers = |name: &str, rows: usize| -> Tensor {
        let data = [8_i64, 4, 2, 2].map(i64::to_le_bytes).concat().repeat(rows);
        tensor(name, DataType::Int64, &[rows, 4], data)
    };
    let pair = |a, b| Ask::new("div", vec![numbers("a", a), numbers("b", b)]);
    for form in [Form::Json, Form::Binary, Form::GrpcRaw] {
        let refused = pair(2, 3).of(&daemon, form).await.expect_err("unequal");
        let words = "input 'b' has 3 rows and input 'a' has 2; expected the same of both, or 1";
        assert_eq!(refused.message, words);
        // One row goes with many where the model lets it.
        let got = pair(3, 1).of(&daemon, form).await.expect("it broadcasts");
        assert_eq!(got.outputs[0].shape.0, [3, 4]);
    }
}

#[tokio::test]
async fn what_an_idle_daemon_would_refuse_is_not_put_off() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32"]).flags(&["--rows-max", "4"]).start().await;
    let rows = |from: u8, rows: u8| {
        let values: Vec<f32> = (from..from + rows).map(f32::from).collect();
        Ask::new("id_fp32", vec![fp32("x", &[rows.into(), 1], &values)])
    };
    for (form, code) in [(Form::Binary, 413), (Form::GrpcRaw, 8)] {
        let refused = rows(0, 5).of(&daemon, form).await.expect_err("too many");
        assert_eq!((refused.code, refused.retry_after), (code, None), "{}", refused.message);
        assert_eq!(
            refused.message,
            "the request has 5 rows; 4 may wait or run, the limit of --rows-max; send it in parts"
        );
    }
    for part in [rows(0, 4), rows(4, 1)] {
        part.of(&daemon, Form::Binary).await.expect("it fits");
    }
}
