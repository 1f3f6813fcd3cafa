//! A daemon that is killed leaves no worker behind, whatever the worker is doing; nothing less takes one away.

use crate::daemon::{Daemon, Settings, fixture, library, process};
use graftd::model::probe::{self, Kind, Sample};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

#[test]
fn a_killed_daemon_leaves_no_process_behind() {
    let Some(library) = library("a_killed_daemon_leaves_no_process_behind") else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    for name in ["add_one", "mlp", "loop"] {
        fs::copy(fixture(name), models.join(format!("{name}.onnx"))).unwrap();
    }
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_graftd"))
        .arg("serve")
        .args(["--models".as_ref(), models.as_os_str()])
        .args(["--socket".as_ref(), folder.path().join("socket").as_os_str()])
        .args(["--work-dir".as_ref(), folder.path().join("work").as_os_str()])
        .args(["--onnxruntime".as_ref(), library.as_os_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("serves 3 models"), "{line}");
    let workers = process::children(i32::try_from(daemon.id()).unwrap());
    assert_eq!(workers.len(), 3);
    // One that cannot even notice.
    workers[0].signal(Signal::STOP);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    for worker in &workers {
        assert!(worker.ended_within(2), "worker {} lives on", worker.pid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_the_thread_that_asked_for_it() {
    let Some(library) = library("a_worker_outlives_the_thread_that_asked_for_it") else { return };
    let daemon = Arc::new(Daemon::start("outlives", Settings::new(library)));
    let (asked, runtime) = (daemon.clone(), tokio::runtime::Handle::current());
    let load = move || runtime.block_on(asked.load_fixture("mlp"));
    let loading = std::thread::Builder::new().spawn(load).expect("a thread");
    let ended = tokio::task::spawn_blocking(move || loading.join()).await;
    let spec = ended.expect("it was waited for").expect("a model");
    let before = daemon.workers("mlp");
    let sample = Sample { fill: 1, int_max: 1, scalar: 1 };
    let row = probe::row(&spec.inputs, sample, Kind::Normal(1));
    daemon.infer(&spec, &row).await.expect("an answer");
    assert_eq!(daemon.deaths(), 0);
    assert_eq!(daemon.workers("mlp").len(), before.len());
}
