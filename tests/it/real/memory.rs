//! Sessions of one model share its weights: four cost little more memory than one.

use super::fetched;
use crate::daemon::{Daemon, Settings, library, skipped};
use graftd::id::DeviceId;
use graftd::model::probe::{self, Kind, Sample};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The share of memory that is a process's own, in kB.
fn proportional_kb(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

async fn worker_kb(library: &Path, file: &Path, sessions: usize) -> u64 {
    let mut settings = Settings::new(library.to_owned());
    settings.load.session.lanes = sessions;
    settings.sched.devices = vec![(DeviceId(0), 4)];
    let daemon = Arc::new(Daemon::start(&format!("memory{sessions}"), settings));
    let spec = daemon.load("model", file).await.unwrap();
    // Batches in all sessions at once, so that each has its own memory for what is in between.
    let mut running = tokio::task::JoinSet::new();
    for seed in 0..128 {
        let (daemon, spec) = (daemon.clone(), spec.clone());
        running.spawn(async move {
            let sample = Sample { fill: 16, int_max: 1, scalar: 1 };
            let row = probe::row(&spec.inputs, sample, Kind::Normal(seed));
            daemon.infer(&spec, &row).await.unwrap();
        });
    }
    while let Some(answered) = running.join_next().await {
        answered.unwrap();
    }
    let workers = daemon.workers("model");
    assert_eq!(workers.len(), 1);
    proportional_kb(workers[0].pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_sessions_of_a_model_cost_little_more_memory_than_one() {
    const TEST: &str = "four_sessions_of_a_model_cost_little_more_memory_than_one";
    let Some(library) = library(TEST) else { return };
    let Some(folder) = fetched() else { return skipped(TEST, "no models/real; type make models") };
    let file = folder.join("minilm/1/model.onnx");
    let one = worker_kb(&library, &file, 1).await;
    let four = worker_kb(&library, &file, 4).await;
    let ratio = four as f64 / one as f64;
    println!("one session {one} kB, four {four} kB: {ratio:.2} times");
    assert!(ratio <= 1.3, "four sessions take {four} kB, one takes {one} kB");
}
