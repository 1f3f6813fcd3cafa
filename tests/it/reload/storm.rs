//! Contents that change many times under load: nothing fails, and nothing is stale once a change is told.

use super::generation::{adds, publish};
use super::{added, asked, load};
use crate::daemon::{Daemon, Settings, library};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Reloads; all of them only where time is given.
fn reloads() -> u32 {
    if std::env::var_os("GRAFTD_LONG").is_some() { 1_000 } else { 50 }
}

/// Asks without a pause; every answer must be of a content that was told of or is just being loaded.
struct Askers {
    /// The last content that was told to serve, and the last that was put into place.
    told: Arc<AtomicU32>,
    placed: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Askers {
    fn start(daemon: &Arc<Daemon>, model: &str) -> Self {
        let mut askers = Self {
            told: Arc::default(),
            placed: Arc::default(),
            over: Arc::default(),
            answers: Arc::default(),
            tasks: Vec::new(),
        };
        for number in 0..4_u16 {
            let (daemon, model) = (daemon.clone(), model.to_owned());
            let (told, placed) = (askers.told.clone(), askers.placed.clone());
            let (over, answers) = (askers.over.clone(), askers.answers.clone());
            askers.tasks.push(tokio::spawn(async move {
                // Small, so that a content's number is read exactly; different for nearly every request.
                for value in (0..1024_u16).cycle() {
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                    let oldest = told.load(Ordering::Acquire);
                    let got = asked(&daemon, &model, f32::from(value * 4 + number)).await;
                    let newest = placed.load(Ordering::Acquire);
                    let got = got.unwrap_or_else(|error| panic!("a request failed: {error}"));
                    let range = oldest as f32..=newest as f32;
                    assert!(range.contains(&got), "{got} is not within {range:?}");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        askers
    }

    async fn stop(self) -> u64 {
        self.over.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.answers.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_by_name_fail_no_request_and_leave_no_stale_answer() {
    let Some(library) = library("loads_by_name_fail_no_request") else { return };
    let daemon = Arc::new(Daemon::start("stormload", Settings::new(library)));
    let model = daemon.name("m");
    publish(&daemon.models(), &model, 1, &adds(0.0));
    load(&daemon, &model).await.unwrap();
    let askers = Askers::start(&daemon, &model);
    for number in 1..=reloads() {
        askers.placed.store(number, Ordering::Release);
        publish(&daemon.models(), &model, 1, &adds(number as f32));
        load(&daemon, &model).await.unwrap();
        askers.told.store(number, Ordering::Release);
        assert_eq!(asked(&daemon, &model, 0.0).await.unwrap(), number as f32);
    }
    let answers = askers.stop().await;
    println!("{} reloads by name, {answers} answers", reloads());
    daemon.assert_empty().await;
    super::until(&daemon, "old workers end", || daemon.workers("m").len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_noticed_fail_no_request_and_leave_no_stale_answer() {
    let Some(library) = library("changes_that_are_noticed_fail_no_request") else { return };
    let daemon = Arc::new(Daemon::start("stormwatch", Settings::new(library)));
    let model = daemon.name("m");
    tokio::spawn(daemon.repository.clone().follow());
    publish(&daemon.models(), &model, 1, &adds(0.0));
    added(&daemon, &model, 0.0).await;
    let askers = Askers::start(&daemon, &model);
    for number in 1..=reloads() {
        askers.placed.store(number, Ordering::Release);
        publish(&daemon.models(), &model, 1, &adds(number as f32));
        added(&daemon, &model, number as f32).await;
        // Once it answered, nothing older does.
        askers.told.store(number, Ordering::Release);
    }
    let answers = askers.stop().await;
    println!("{} noticed changes, {answers} answers", reloads());
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_while_they_load_do_not_keep_a_content_from_serving() {
    let Some(library) = library("workers_that_are_killed_while_they_load") else { return };
    let daemon = Arc::new(Daemon::start("stormkill", Settings::new(library)));
    let model = daemon.name("m");
    publish(&daemon.models(), &model, 1, &adds(0.0));
    load(&daemon, &model).await.unwrap();
    let serving = daemon.workers("m")[0].pid;
    for number in 1..=10_u8 {
        publish(&daemon.models(), &model, 1, &adds(f32::from(number)));
        let loads = tokio::spawn({
            let (daemon, model) = (daemon.clone(), model.clone());
            async move { load(&daemon, &model).await }
        });
        let killed = async {
            loop {
                let others = daemon.workers("m").into_iter().filter(|worker| worker.pid != serving);
                if let Some(worker) = others.last() {
                    return worker.signal(Signal::KILL);
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), killed).await.unwrap();
        // One death is not the last word; whichever came of it, an answer is one of the contents so far.
        let loaded = loads.await.unwrap();
        let got = asked(&daemon, &model, f32::from(number)).await.unwrap();
        assert!((0.0..=f32::from(number)).contains(&got), "{got} after {loaded:?}");
        if loaded.is_ok() {
            assert_eq!(got, f32::from(number));
        }
        if daemon.workers("m").iter().all(|worker| worker.pid != serving) {
            break;
        }
    }
    load(&daemon, &model).await.unwrap();
    daemon.assert_empty().await;
}
