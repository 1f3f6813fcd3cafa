//! How runs are spread over the cores: found out while nobody asks, shown, and kept from start to start.

use super::daemon::{Daemon, Setup, needs_runtime};
use graftd::server::service::status::Status;
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;

async fn start(splits: &Path, flags: &[&str]) -> Daemon {
    let flags = [&["--splits-dir", splits.to_str().expect("UTF-8")], flags].concat();
    let setup = Setup::new(&["mlp"]).flags(&flags);
    setup.variable("GRAFTD_NO_AUTOTUNE", "false").start().await
}

async fn stop(mut daemon: Daemon) {
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

/// How a model's runs are spread, as the status says.
async fn runs(daemon: &Daemon, model: &str) -> String {
    let answer = daemon.client().await.get("/v2/graftd/status").await.expect("an answer");
    let status: Status = serde_json::from_slice(&answer.body).expect("a status");
    let model = status.models.into_iter().find(|found| found.name == model).expect("the model");
    model.findings.get("graftd.sessions").cloned().expect("how its runs are spread")
}

#[tokio::test]
async fn what_is_found_best_is_kept_for_the_next_start() {
    needs_runtime!();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = folder.path().join("splits");
    let daemon = start(&splits, &[]).await;
    // It waits until nobody asks, so the log is looked at.
    daemon.logged("model mlp:1: its runs were tried out", 0).await;
    let found = runs(&daemon, "mlp").await;
    assert!(found.ends_with(", found best by trying"), "{found}");
    let sessions: u64 = found.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    let config = daemon.client().await.get("/v2/models/mlp/config").await.expect("an answer");
    let config: Value = serde_json::from_slice(&config.body).expect("a configuration");
    assert_eq!(config["instance_group"][0]["count"], sessions, "{config}");
    stop(daemon).await;

    let daemon = start(&splits, &["--no-autotune"]).await;
    assert_eq!(runs(&daemon, "mlp").await, found, "known from the start, and frozen");
    stop(daemon).await;
    let daemon = start(&splits, &["--set", "mlp.threads=2"]).await;
    assert!(runs(&daemon, "mlp").await.ends_with(" of 2 threads, as set"));
    stop(daemon).await;
}

#[tokio::test]
async fn nothing_is_tried_where_that_is_not_wanted() {
    needs_runtime!();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let daemon = start(&folder.path().join("splits"), &["--no-autotune"]).await;
    assert!(runs(&daemon, "mlp").await.ends_with(", as usual"));
    stop(daemon).await;
    let daemon = start(&folder.path().join("splits"), &["--sessions", "1"]).await;
    assert_eq!(runs(&daemon, "mlp").await, "1 session of 1 thread, as set");
    stop(daemon).await;
}
