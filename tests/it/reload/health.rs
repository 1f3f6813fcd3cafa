//! Ready means that work gets done.

use super::generation::{adds, publish};
use super::{asked, load, until};
use crate::daemon::{Daemon, Settings, library};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_process_stands_still_is_not_ready_until_it_moves() {
    let Some(library) = library("a_model_whose_process_stands_still_is_not_ready") else { return };
    let daemon = Arc::new(Daemon::start("still", Settings::new(library)));
    let model = daemon.name("m");
    let ready = || daemon.service.model_ready(&model, None).unwrap();
    publish(&daemon.models(), &model, 1, &adds(1.0));
    load(&daemon, &model).await.unwrap();
    assert_eq!(asked(&daemon, &model, 1.0).await.unwrap(), 1.0);
    daemon.workers("m").iter().for_each(|worker| worker.stop());
    assert!(ready(), "nothing is asked of it");
    let clock = graftd::clock::Clock::start();
    let waits = tokio::spawn({
        let (daemon, model) = (daemon.clone(), model.clone());
        async move { asked(&daemon, &model, 2.0).await }
    });
    until(&daemon, "it is not ready", || !ready()).await;
    let took = clock.now().since(graftd::time::MonoTime::ZERO);
    assert!(took >= Duration::from_secs(1), "not at once: {took:?}");
    daemon.workers("m").iter().for_each(|worker| worker.signal(Signal::CONT));
    assert_eq!(waits.await.unwrap().unwrap(), 1.0);
    assert!(ready());
}
