//! Learned costs: shown, and kept from start to start.

use super::daemon::{Daemon, PROGRAM, Setup, needs_runtime, soon};
use super::families::family;
use super::samples::models;
use graftd::server::service::status::{CostStatus, Status};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;

async fn status(daemon: &Daemon) -> Status {
    let answer = daemon.client().await.get("/v2/graftd/status").await.expect("an answer");
    serde_json::from_slice(&answer.body).expect("a status")
}

/// What single rows of a model cost.
async fn single(daemon: &Daemon, model: &str) -> CostStatus {
    let status = status(daemon).await;
    let model = status.models.into_iter().find(|found| found.name == model).expect("the model");
    *model.costs.iter().find(|cost| cost.rows == 1).expect("single rows")
}

async fn start(splits: &Path) -> Daemon {
    let flags = ["--splits-dir", splits.to_str().expect("UTF-8"), "--cache-bytes", "0"];
    Setup::new(&[]).serving(&models()).flags(&flags).start().await
}

async fn stop(mut daemon: Daemon) {
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

/// What a verb that asks the daemon prints.
async fn verb(daemon: &Daemon, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(PROGRAM);
    let ended = command.args(arguments).arg("--socket").arg(daemon.setup.socket()).output().await;
    let ended = ended.expect("it runs");
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).expect("UTF-8")
}

/// Asks for a row that nobody asked for before.
async fn ask(daemon: &Daemon, number: usize) {
    let mut row = vec![1.0; 13];
    row[0] = number as f64;
    let x = json!({"name": "x", "shape": [1, 13], "datatype": "FP32", "data": row});
    let body = json!({ "inputs": [x] }).to_string();
    let answer = daemon.client().await.post("/v2/models/wine/infer", None, body.into()).await;
    assert_eq!(answer.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_restart_knows_what_runs_cost() {
    needs_runtime!();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = folder.path().join("splits");
    let daemon = start(&splits).await;
    let measured = single(&daemon, "wine").await;
    assert_eq!(measured.runs, 0, "loading measured it: {measured:?}");
    assert!(measured.mean_us > 0 && measured.p95_us <= measured.p99_us, "{measured:?}");
    for number in 0..20 {
        ask(&daemon, number).await;
    }
    let learned = single(&daemon, "wine").await;
    // Runs that were far from those before begin the count anew.
    assert!(learned.runs >= 1, "{learned:?}");
    let page = daemon.client().await.get("/metrics").await.expect("an answer");
    let page = String::from_utf8(page.body.to_vec()).expect("UTF-8");
    let series = "graftd_run_cost_seconds{model=\"wine\",version=\"1\",stage=\"whole\",rows=\"1\",quantile=\"0.95\"}";
    assert!(page.contains(series), "{page}");
    stop(daemon).await;

    let daemon = start(&splits).await;
    let recalled = single(&daemon, "wine").await;
    assert_eq!((recalled.mean_us, recalled.p95_us), (learned.mean_us, learned.p95_us));
    assert!((1..=4).contains(&recalled.runs), "believed as a few runs are: {recalled:?}");
    stop(daemon).await;

    // Damage is told, and costs what learning costs.
    for entry in std::fs::read_dir(&splits).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().contains("costs1") {
            let length = std::fs::metadata(&path).expect("a file").len();
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
            file.set_len(length - 1).expect("a shorter file");
        }
    }
    let daemon = start(&splits).await;
    daemon.logged("costs are learned anew", 0).await;
    assert_eq!(single(&daemon, "wine").await.runs, 0);
}

#[tokio::test]
async fn what_was_learned_of_bases_and_heads_is_kept_and_shown_too() {
    needs_runtime!();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = folder.path().join("splits");
    let flags = ["--splits-dir", splits.to_str().expect("UTF-8")];
    let daemon = family(&flags).await;
    let learned = status(&daemon).await;
    assert_eq!(learned.base_costs.len(), 2, "{:?}", learned.base_costs);
    stop(daemon).await;

    let daemon = family(&flags).await;
    let recalled = status(&daemon).await;
    // What was made up to try the ways again has changed nothing.
    let times = |costs: &[CostStatus]| -> Vec<(usize, u64)> {
        costs.iter().map(|cost| (cost.rows, cost.mean_us)).collect()
    };
    for (base, costs) in &learned.base_costs {
        assert!(!costs.is_empty());
        assert_eq!(times(costs), times(&recalled.base_costs[base]), "base {base}");
    }
    for (model, again) in learned.models.iter().zip(&recalled.models) {
        assert!(!model.head_costs.is_empty());
        assert_eq!(times(&model.head_costs), times(&again.head_costs), "{}", model.name);
        assert!(again.head_costs.iter().all(|cost| (1..=4).contains(&cost.runs)), "{again:?}");
    }
    let text = verb(&daemon, &["status", "--costs"]).await;
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    for stage in [["kin_left", "1", "whole"], ["kin_left", "1", "head"]] {
        assert!(lines.iter().any(|line| line.starts_with(&stage)), "{stage:?} is not in\n{text}");
    }
    let bases = lines.iter().filter(|line| line.get(2) == Some(&"base"));
    assert!(bases.count() >= 2, "{text}");
    let page = daemon.client().await.get("/metrics").await.expect("an answer");
    let page = String::from_utf8(page.body.to_vec()).expect("UTF-8");
    for series in ["graftd_base_run_cost_seconds{base=\"", "version=\"1\",stage=\"head\",rows=\""] {
        assert!(page.contains(series), "{page}");
    }
}

#[tokio::test]
async fn what_was_learned_of_a_model_that_is_unloaded_is_kept() {
    needs_runtime!();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = folder.path().join("splits");
    let daemon = start(&splits).await;
    for number in 0..8 {
        ask(&daemon, number).await;
    }
    let learned = single(&daemon, "wine").await;
    verb(&daemon, &["unload", "wine"]).await;
    let kept = async {
        loop {
            let names = std::fs::read_dir(&splits).expect("the folder").flatten();
            if names.into_iter().any(|name| name.file_name().to_string_lossy().contains("costs1")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("what was learned to be written", kept).await;
    verb(&daemon, &["load", "wine"]).await;
    let recalled = single(&daemon, "wine").await;
    assert_eq!((recalled.mean_us, recalled.p99_us), (learned.mean_us, learned.p99_us));
}
