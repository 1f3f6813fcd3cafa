//! Answers of real models and of the fixtures: equal to those of ONNX Runtime in this process.
//!
//! Tolerance: the largest difference of a number from its expected value, relative to the largest value of
//! its output, is at most 1e-4 (1e-2 with FP16, 5e-2 with BF16), or the difference itself at most 1e-6;
//! everything that is no float is equal to the bit.
//! `GRAFTD_ALL_MODELS=1` takes every model that `make models` fetched instead of a few.

mod families;
mod memory;

use crate::daemon::{Chance, Daemon, Oracle, Settings, fixture, library, oracle, skipped};
use graftd::model::ModelSpec;
use graftd::model::probe::{self, Kind, Sample};
use graftd::rows::{Block, Inputs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Real models that are tried in any case: strings, int64, fp16, dynamic length, several inputs, state.
const FEW: [&str; 8] = [
    "langid",
    "minilm",
    "minilm_keywords",
    "orientation_fp16",
    "silero_vad",
    "magika",
    "rawi_v2",
    "kws_wake",
];
/// Fixtures that are no models, give no answer twice, or are answered with what a request's values say.
const NOT_HERE: [&str; 8] = [
    "badfile",
    "truncated",
    "random",
    "random_seeded",
    "random_in_if",
    "random_in_function",
    "blowup",
    "slow",
];
const AT_A_TIME: usize = 64;
/// Distinct requests to a model, and how often each comes.
const DISTINCT: u64 = 12;
const TIMES: usize = 4;

/// The folder of real models, if they were fetched.
fn fetched() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/real");
    folder.join("models.json").exists().then_some(folder)
}

/// A model's requests with the answers they must get.
struct Subject {
    spec: Arc<ModelSpec>,
    requests: Vec<(Inputs, Block)>,
}

/// Several rows as one request.
fn together(rows: &[Inputs]) -> Inputs {
    let runs: Vec<_> = rows.iter().map(|row| (row, 0, 1)).collect();
    let tensor = |index: usize| {
        let mut data = vec![0; Inputs::batch_bytes(index, &runs)];
        Inputs::gather(index, &runs, &mut data);
        let first = rows[0].tensors[index].clone();
        let shape = first.batch_shape(rows.len());
        graftd::rows::InputTensor { shape, data: data.into(), ..first }
    };
    Inputs { tensors: (0..rows[0].tensors.len()).map(tensor).collect(), rows: rows.len() }
}

/// Requests of one to three rows, and what they must be answered with.
fn requests(spec: &ModelSpec, oracle: &Oracle) -> Option<Vec<(Inputs, Block)>> {
    let row = |sample: Sample, kind| probe::row(&spec.inputs, sample, kind);
    let accepted = |sample: &Sample| oracle.answer(&row(*sample, Kind::Normal(1))).is_ok();
    let sample = probe::samples(&spec.inputs).find(accepted)?;
    // Some values are errors by themselves, such as a zero to divide by.
    let accepted = |seed: &u64| oracle.answer(&row(sample, Kind::Normal(*seed))).is_ok();
    let seeds: Vec<u64> = (1..).filter(accepted).take(DISTINCT as usize / 2 + 3).collect();
    let request = |number: u64| {
        let count = if spec.cuts_rows() { 1 + number % 3 } else { 1 };
        // Rows come back in other requests, as first, second or third.
        let rows: Vec<Inputs> = (0..count)
            .map(|place| row(sample, Kind::Normal(seeds[(number / 2 + place) as usize])))
            .collect();
        let inputs = together(&rows);
        let answer = oracle.answer(&inputs).unwrap();
        (inputs, answer)
    };
    Some((0..DISTINCT).map(request).collect())
}

/// Loads every model and compares its answers, alone and in a crowd.
async fn compare(test: &str, library: PathBuf, models: Vec<(String, PathBuf)>) {
    let mut settings = Settings::new(library.clone());
    settings.load.batch_bytes = 256 << 20;
    let daemon = Arc::new(Daemon::start(test, settings));
    let mut subjects = Vec::new();
    let mut worst = 0.0_f64;
    for (name, file) in models {
        let spec = daemon.load(&name, &file).await.unwrap_or_else(|why| panic!("{name}: {why}"));
        let Some(requests) = requests(&spec, &Oracle::load(&library, &file)) else {
            skipped(&format!("{test}: {name}"), "no made-up row is accepted");
            continue;
        };
        for (inputs, expected) in &requests {
            worst = worst.max(ask(&daemon, &spec, inputs, expected).await);
        }
        subjects.push(Subject { spec, requests });
    }
    let alone = worst;
    let worst = crowd(&daemon, Arc::new(subjects)).await;
    println!("{test}: at most {alone:.1e} apart alone, {worst:.1e} in a crowd");
    daemon.assert_empty().await;
    assert_eq!(daemon.deaths(), 0);
}

async fn ask(daemon: &Daemon, spec: &ModelSpec, inputs: &Inputs, expected: &Block) -> f64 {
    let answer = daemon.infer(spec, inputs).await;
    let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
    let apart = oracle::difference(expected, &answer);
    assert!(apart <= probe::tolerance(expected), "{}: {apart:.1e} apart", spec.name);
    apart
}

/// All requests of all models some times over, in random order and many at a time.
async fn crowd(daemon: &Arc<Daemon>, subjects: Arc<Vec<Subject>>) -> f64 {
    let mut order: Vec<(usize, usize)> = (0..subjects.len())
        .flat_map(|subject| (0..subjects[subject].requests.len()).map(move |r| (subject, r)))
        .flat_map(|pair| [pair; TIMES])
        .collect();
    let mut chance = Chance::new(11);
    (1..order.len()).rev().for_each(|last| order.swap(last, chance.below(last + 1)));
    let (mut worst, mut running) = (0.0_f64, tokio::task::JoinSet::new());
    println!("{} requests to {} models", order.len(), subjects.len());
    loop {
        while running.len() < AT_A_TIME
            && let Some((subject, request)) = order.pop()
        {
            let (daemon, subjects) = (daemon.clone(), subjects.clone());
            running.spawn(async move {
                let Subject { spec, requests } = &subjects[subject];
                let (inputs, expected) = &requests[request];
                ask(&daemon, spec, inputs, expected).await
            });
        }
        match running.join_next().await {
            Some(apart) => worst = worst.max(apart.unwrap()),
            None => return worst,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_models_answer_as_in_process() {
    const TEST: &str = "real_models_answer_as_in_process";
    let Some(library) = library(TEST) else { return };
    let Some(folder) = fetched() else { return skipped(TEST, "no models/real; type make models") };
    let listing = graftd::model::scan::scan(&folder).unwrap();
    let all = std::env::var_os("GRAFTD_ALL_MODELS").is_some();
    let wanted = |name: &str| all || FEW.contains(&name);
    let found = listing.found.into_iter().filter(|found| wanted(&found.name));
    compare("real", library, found.map(|found| (found.name, found.file)).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixtures_answer_as_in_process() {
    let Some(library) = library("fixtures_answer_as_in_process") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let listing = graftd::model::scan::scan(&folder).unwrap();
    let found = listing.found.into_iter();
    let found = found.filter(|found| !NOT_HERE.contains(&found.name.as_str()));
    let named = |found: graftd::model::scan::Found| {
        (format!("{}.{}", found.name, found.version), found.file)
    };
    let mut models: Vec<_> = found.map(named).collect();
    models.push(("add_one".into(), fixture("add_one")));
    compare("fixtures", library, models).await;
}
