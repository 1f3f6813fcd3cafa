//! The log: a line for each request where asked for, a warning for each problem, and nobody waits for it.

use super::ask::{Ask, Form, fp32, grpc_on};
use super::daemon::{PROGRAM, Setup, needs_runtime, soon};
use graftd::cli::client::Client;
use serde_json::Value;
use std::io::Write;
use tokio::net::TcpStream;

fn row(value: f32) -> Ask {
    Ask { id: "a \"b\"\n".into(), ..Ask::new("mlp", vec![fp32("x", &[1, 16], &[value; 16])]) }
}

#[tokio::test]
async fn each_request_leaves_a_line_of_json_with_its_numbers() {
    needs_runtime!();
    let flags = ["--log", "warn,graftd=debug", "--log-format=json"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    for (outcome, tally) in [("ok", [0, 0, 1]), ("ok", [1, 0, 0])] {
        let seen = daemon.lines().len();
        row(0.5).of(&daemon, Form::GrpcRaw).await.expect("an answer");
        let line = daemon.logged("\"took_us\":", seen).await;
        let line: Value = serde_json::from_str(&line).expect("one JSON object a line");
        assert_eq!((&line["level"], &line["message"]), (&"DEBUG".into(), &"request".into()));
        assert_eq!((&line["model"], &line["version"]), (&"mlp".into(), &1.into()));
        assert_eq!((&line["outcome"], &line["rows"]), (&outcome.into(), &1.into()));
        assert_eq!(["hit", "join", "run"].map(|key| line[key].as_u64().unwrap_or(99)), tally);
        // Whatever is in an id, the line stays one line.
        let id: Value = "a \"b\"\n".escape_debug().to_string().into();
        assert_eq!(line["id"], id);
        let us = ["queue_us", "run_us", "took_us"].map(|key| line[key].as_u64().expect(key));
        assert!(us[0] + us[1] <= us[2], "{line}");
    }
    let seen = daemon.lines().len();
    let wrong = Ask::new("mlp", vec![fp32("x", &[1, 15], &[0.0; 15])]);
    wrong.of(&daemon, Form::Json).await.expect_err("a wrong shape");
    daemon.logged("\"outcome\":\"invalid\"", seen).await;
}

#[tokio::test]
async fn a_line_says_by_which_door_and_in_which_form_a_request_came() {
    needs_runtime!();
    // Over TCP with all rights: what a peer may do says nothing of where it came in.
    let flags = ["--log=debug", "--log-format=json", "--listen", "127.0.0.1:0", "--tcp-admin"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let address = line.split("listening on ").nth(1).and_then(|rest| rest.split('"').next());
    let address = address.expect("an address").to_owned();
    let tcp = async || TcpStream::connect(&address).await.expect("it listens");
    for (transport, codec) in [("unix", "rest"), ("unix", "grpc"), ("tcp", "rest"), ("tcp", "grpc")]
    {
        let seen = daemon.lines().len();
        let ask = Ask { id: format!("{transport}-{codec}"), ..row(0.5) };
        match (transport, codec) {
            ("unix", "rest") => drop(ask.of(&daemon, Form::Json).await.expect("an answer")),
            ("unix", _) => drop(ask.of(&daemon, Form::GrpcRaw).await.expect("an answer")),
            (_, "rest") => {
                let mut client = Client::over(tcp().await).await.expect("HTTP");
                ask.over(&mut client, Form::Json).await.expect("an answer");
            }
            _ => {
                let mut client = grpc_on(tcp().await).await;
                let answer = client.model_infer(ask.message(Form::GrpcRaw));
                soon("an answer", answer).await.expect("an answer");
            }
        }
        let line = daemon.logged(&format!("\"id\":\"{transport}-{codec}\""), seen).await;
        let line: Value = serde_json::from_str(&line).expect("one JSON object a line");
        assert_eq!((&line["transport"], &line["codec"]), (&transport.into(), &codec.into()));
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_answer() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]).flags(&["--log=debug"]);
    let pipe = setup.beside("log").display().to_string();
    // The shell holds the pipe open and leaves it to the daemon, which does not read its own log.
    let script = r#"mkfifo "$0" && exec 3<>"$0" && exec "$@" 2>&3"#;
    let daemon = setup.under(&["sh", "-c", script, &pipe]).start().await;
    let mut client = daemon.client().await;
    // More than the pipe and the lines that may wait hold together.
    for _ in 0..6000 {
        row(0.5).over(&mut client, Form::Binary).await.expect("an answer");
    }
    assert!(daemon.metric("graftd_log_lines_dropped_total").await > 0.0);
    assert_eq!(daemon.metric("nv_inference_request_success").await, 6000.0);
}

#[tokio::test]
async fn what_a_worker_writes_comes_with_the_name_of_its_model() {
    needs_runtime!();
    let daemon = Setup::new(&["gather"]).flags(&["--log-format=json"]).start().await;
    // Its standard error is a pipe, which whoever may trace it may open too.
    let worker = daemon.workers().pop().expect("a worker");
    let path = format!("/proc/{}/fd/2", worker.pid);
    let mut pipe = std::fs::File::options().write(true).open(path).expect("it is our child's");
    pipe.write_all(b"out of \xff luck\n").expect("it is read");
    let line = daemon.logged("its worker says: out of", 0).await;
    let line: Value = serde_json::from_str(&line).expect("one JSON object a line");
    assert_eq!((&line["level"], &line["model"]), (&"WARN".into(), &"gather:1".into()));
}

#[tokio::test]
async fn a_wrong_filter_is_told_what_is_allowed() {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--log", "graftd=loud"]).stdin(std::process::Stdio::null());
    let output = soon("its end", command.output()).await.expect("it ends");
    let why = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success(), "{why}");
    assert!(why.contains("--log") && why.contains("MODULE=LEVEL"), "{why}");
}
