//! Workers hurt from outside at random points under load from several models.

use crate::daemon::{Chance, Daemon, Oracle, Settings, fixture, library};
use graftd::model::ModelSpec;
use graftd::model::probe::{self, Kind};
use graftd::rows::Inputs;
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;

const MODELS: [&str; 4] = ["add_one", "conv", "two_outputs", "mlp"];
/// Distinct rows of each model.
const ROWS: u64 = 100;
const AT_A_TIME: usize = 64;
/// Rows that one death makes suspect: two sessions' batches. Once more are answered, a new worker has served,
/// so that no model is hurt three times in a row while it starts: that would make it unavailable.
const SUSPECTS_MAX: usize = 16;

/// A model and what it answers by itself.
struct Subject {
    name: &'static str,
    spec: Arc<ModelSpec>,
    rows: Vec<Inputs>,
    oracle: Oracle,
}

async fn subjects(daemon: &Daemon, library: &std::path::Path) -> Arc<Vec<Subject>> {
    let mut subjects = Vec::new();
    for name in MODELS {
        let spec = daemon.load_fixture(name).await;
        let sample = probe::samples(&spec.inputs).next().unwrap();
        let row = |seed| probe::row(&spec.inputs, sample, Kind::Normal(seed));
        let rows = (0..ROWS).map(row).collect();
        let oracle = Oracle::load(library, &fixture(name));
        subjects.push(Subject { name, spec, rows, oracle });
    }
    Arc::new(subjects)
}

/// Asks `requests` times and hurts a worker with one of the signals after one answer in `every`; says how
/// often it did.
async fn under_fire(
    daemon: &Arc<Daemon>,
    subjects: &Arc<Vec<Subject>>,
    (requests, every): (usize, usize),
    signals: &[Signal],
) -> usize {
    let mut chance = Chance::new(7);
    let mut running = tokio::task::JoinSet::new();
    let (mut asked, mut answered, mut hurt) = (0, 0, 0);
    let mut answers_since = [0; MODELS.len()];
    while answered < requests {
        while running.len() < AT_A_TIME && asked < requests {
            let (which, row) = (chance.below(subjects.len()), chance.below(ROWS as usize));
            let (daemon, subjects) = (daemon.clone(), subjects.clone());
            running.spawn(async move {
                let Subject { spec, rows, oracle, .. } = &subjects[which];
                let answer = daemon.infer(spec, &rows[row]).await;
                let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
                oracle.check(&rows[row], &answer, 1e-5);
                which
            });
            asked += 1;
        }
        answers_since[running.join_next().await.unwrap().unwrap()] += 1;
        answered += 1;
        let which = chance.below(subjects.len());
        if chance.once_in(every) && answers_since[which] > SUSPECTS_MAX {
            answers_since[which] = 0;
            let victims = daemon.workers(subjects[which].name);
            let signal = *chance.pick(signals);
            victims.iter().for_each(|victim| victim.signal(signal));
            hurt += victims.len();
        }
    }
    daemon.assert_empty().await;
    hurt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_cost_nobody_an_answer() {
    let Some(library) = library("killed_workers_cost_nobody_an_answer") else { return };
    let daemon = Arc::new(Daemon::start("killed", Settings::new(library.clone())));
    let subjects = subjects(&daemon, &library).await;
    let signals = [Signal::KILL, Signal::SEGV, Signal::ABORT, Signal::FPE];
    let hurt = under_fire(&daemon, &subjects, (4000, 40), &signals).await;
    println!("{hurt} workers killed, {} ended in all", daemon.deaths());
    assert!(hurt > 20, "{hurt} workers killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_workers_are_replaced() {
    let Some(library) = library("stopped_workers_are_replaced") else { return };
    let settings = Settings::new(library.clone()).watchdog(Duration::from_secs(1));
    let daemon = Arc::new(Daemon::start("stopped", settings));
    let subjects = subjects(&daemon, &library).await;
    let hurt = under_fire(&daemon, &subjects, (600, 100), &[Signal::STOP]).await;
    println!("{hurt} workers stopped, {} ended in all", daemon.deaths());
    assert!(hurt > 0, "none was stopped");
}
