//! The log: a line for each request where asked for, a warning for each problem, and nobody waits for it.

use super::ask::{Ask, Form, fp32};
use super::daemon::{PROGRAM, Setup, needs_runtime, soon};
use serde_json::Value;

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
        assert_eq!((&line["transport"], &line["id"]), (&"unix".into(), &id));
        let us = ["queue_us", "run_us", "took_us"].map(|key| line[key].as_u64().expect(key));
        assert!(us[0] + us[1] <= us[2], "{line}");
    }
    let seen = daemon.lines().len();
    let wrong = Ask::new("mlp", vec![fp32("x", &[1, 15], &[0.0; 15])]);
    wrong.of(&daemon, Form::Json).await.expect_err("a wrong shape");
    daemon.logged("\"outcome\":\"invalid\"", seen).await;
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
async fn a_wrong_filter_is_told_what_is_allowed() {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["serve", "--log", "graftd=loud"]).stdin(std::process::Stdio::null());
    let output = soon("its end", command.output()).await.expect("it ends");
    let why = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success(), "{why}");
    assert!(why.contains("--log") && why.contains("MODULE=LEVEL"), "{why}");
}
