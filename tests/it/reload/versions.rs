//! Versions of one model that take each other's place, and folders that are no versions.

use super::generation::{adds, publish};
use super::{added, asked};
use crate::daemon::{Daemon, Settings, library};
use crate::serve::ask::{Ask, Form, fp32};
use crate::serve::daemon::{Setup, needs_runtime, soon};
use graftd::repository::IndexEntry;
use rustix::process::Signal;
use std::fs;
use std::sync::Arc;

/// The versions of a model in the index, with their states.
fn entries(daemon: &Daemon, model: &str) -> Vec<(String, &'static str)> {
    let index: Vec<IndexEntry> = daemon.repository.index(false);
    let of_it = index.into_iter().filter(|entry| entry.name == model);
    of_it.map(|entry| (entry.version, entry.state)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_answers_until_a_newer_one_does() {
    let Some(library) = library("an_older_version_answers_until_a_newer_one_does") else { return };
    let daemon = Arc::new(Daemon::start("newer", Settings::new(library)));
    let models = daemon.models();
    let version = |number: &str, state| (number.to_owned(), state);
    publish(&models, "m", 1, &adds(1.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 1.0);
    // By default only the highest version is served; this one cannot be.
    publish(&models, "m", 2, b"no model");
    for value in [2.0, 3.0] {
        daemon.repository.scan().await.unwrap();
        assert_eq!(asked(&daemon, "m", value).await.unwrap(), 1.0);
        assert!(daemon.service.model_ready("m", None).unwrap());
        let both = [version("1", "READY"), version("2", "UNAVAILABLE")];
        assert_eq!(entries(&daemon, "m"), both);
    }
    // Repaired, it takes over, and in between there is always one that answers.
    publish(&models, "m", 2, &adds(2.0));
    let looked = tokio::spawn({
        let daemon = daemon.clone();
        async move { daemon.repository.scan().await }
    });
    let mut value = 4.0;
    while asked(&daemon, "m", value).await.expect("one of them answers") != 2.0 {
        value += 1.0;
    }
    looked.await.unwrap().unwrap();
    assert_eq!(entries(&daemon, "m"), [version("2", "READY")]);
    // A version whose folder is gone goes, whatever becomes of the others.
    publish(&models, "m", 3, b"no model");
    fs::remove_dir_all(models.join("m/2")).unwrap();
    daemon.repository.scan().await.unwrap();
    assert_eq!(entries(&daemon, "m"), [version("3", "UNAVAILABLE")]);
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followed_too_an_older_version_stays_for_one_that_fails() {
    let Some(library) = library("followed_too_an_older_version_stays") else { return };
    let daemon = Arc::new(Daemon::start("stays", Settings::new(library)));
    tokio::spawn(daemon.repository.clone().follow());
    let models = daemon.models();
    publish(&models, "m", 1, &adds(1.0));
    added(&daemon, "m", 1.0).await;
    publish(&models, "m", 2, b"no model");
    super::until(&daemon, "version 2 was tried", || {
        entries(&daemon, "m").iter().any(|(_, state)| *state == "UNAVAILABLE")
    })
    .await;
    assert_eq!(asked(&daemon, "m", 2.0).await.unwrap(), 1.0);
    publish(&models, "m", 2, &adds(2.0));
    added(&daemon, "m", 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_failed_says_when() {
    let Some(library) = library("a_change_that_failed_says_when") else { return };
    let daemon = Daemon::start("when", Settings::new(library));
    publish(&daemon.models(), "m", 1, &adds(1.0));
    daemon.repository.scan().await.unwrap();
    publish(&daemon.models(), "m", 1, b"no model");
    daemon.repository.scan().await.unwrap();
    let reason = super::entry(&daemon, "m").unwrap().reason;
    let told = reason.split(['(', ')']).nth(1).expect("a time in brackets");
    assert!(httpdate::parse_http_date(told).is_ok(), "{reason}");
}

#[tokio::test]
async fn folders_that_are_no_versions_are_told_of_once_and_shown() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    for folder in ["01", "latest"] {
        let source = daemon.setup.models().join("mlp/1");
        crate::serve::daemon::copy(&source, &daemon.setup.models().join("mlp").join(folder));
    }
    daemon.reload().await;
    daemon.reload().await;
    for folder in ["01", "latest"] {
        let told = format!("'{folder}' is no version");
        let lines = daemon.lines();
        assert_eq!(lines.iter().filter(|line| line.contains(&told)).count(), 1, "{lines:?}");
        let mut client = daemon.client().await;
        let status = client.get("/v2/graftd/status").await.expect("an answer");
        assert!(String::from_utf8_lossy(&status.body).contains(&told));
        let index = client.post("/v2/repository/index", None, "".into()).await.expect("an answer");
        let index: serde_json::Value = serde_json::from_slice(&index.body).expect("JSON");
        let entry = index.as_array().expect("a list").iter().find(|it| it["version"] == folder);
        let entry = entry.unwrap_or_else(|| panic!("no {folder} in {index}"));
        assert_eq!((&entry["name"], &entry["state"]), (&"mlp".into(), &"UNAVAILABLE".into()));
        assert!(entry["reason"].as_str().is_some_and(|why| why.contains(&told)), "{entry}");
    }
    let row = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]);
    assert_eq!(row.of(&daemon, Form::Json).await.expect("it is served").version, "1");
}

#[tokio::test]
async fn model_folders_that_are_refused_are_in_the_index_with_the_reason() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let models = setup.models();
    let write = |file: &str, text: &str| {
        let path = models.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a new file");
    };
    write("ensemble/config.pbtxt", "ensemble_scheduling { step { model_name: 'mlp' } }");
    write("loose/model.onnx", "a model");
    write("torch/1/model.pt", "a model");
    write("bad:name/1/model.onnx", "a model");
    let daemon = setup.start().await;
    let mut client = daemon.client().await;
    let index = client.post("/v2/repository/index", None, "".into()).await.expect("an answer");
    let index: serde_json::Value = serde_json::from_slice(&index.body).expect("JSON");
    for (name, reason) in [
        ("ensemble", "ensemble: config.pbtxt: line 1: ensemble_scheduling is not served"),
        ("loose", "loose: 'model.onnx' lies in no version's folder"),
        ("torch", "torch: no 'model.onnx' in version 1; expected torch/1/model.onnx"),
        ("bad:name", "bad:name: a model's name is 1 to 128 letters"),
    ] {
        let entry = index.as_array().expect("a list").iter().find(|it| it["name"] == name);
        let entry = entry.unwrap_or_else(|| panic!("no {name} in {index}"));
        assert_eq!((&entry["version"], &entry["state"]), (&"".into(), &"UNAVAILABLE".into()));
        assert!(entry["reason"].as_str().is_some_and(|why| why.starts_with(reason)), "{entry}");
    }
    // Put right, it is as any other.
    write("torch/1/model.onnx", "");
    let fixture = crate::serve::daemon::fixtures().join("models/mlp/1/model.onnx");
    fs::copy(fixture, models.join("torch/1/model.onnx")).expect("a copy");
    daemon.reload().await;
    let ready = serde_json::json!({ "ready": true }).to_string();
    let index = client.post("/v2/repository/index", None, ready.into()).await.expect("an answer");
    let index: serde_json::Value = serde_json::from_slice(&index.body).expect("JSON");
    let names: Vec<_> = index.as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["mlp", "torch"]);
}

#[tokio::test]
async fn a_slow_load_keeps_nobody_from_looking_again() {
    needs_runtime!();
    let setup = Setup::new(&["mlp", "div", "loop"]).flags(&["--load-timeout-s", "3600"]);
    let daemon = setup.start().await;
    daemon.setup.add("mlp", "slow");
    daemon.signal(Signal::HUP);
    let loading = async {
        loop {
            let slow = daemon.workers().into_iter().find(|worker| worker.serves("slow:1"));
            match slow {
                Some(worker) => return worker,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let slow = soon("a worker for it", loading).await;
    slow.signal(Signal::STOP);
    fs::remove_dir_all(daemon.setup.models().join("div")).unwrap();
    daemon.signal(Signal::HUP);
    let mut client = daemon.client().await;
    let gone =
        async { while client.get("/v2/models/div").await.expect("an answer").status != 404 {} };
    soon("div to be gone", gone).await;
    let ready = |line: &String| line.contains("model slow:1 is ready");
    assert!(!daemon.lines().iter().any(ready), "it is still being loaded");
    slow.signal(Signal::CONT);
    daemon.logged("model slow:1 is ready", 0).await;
}
