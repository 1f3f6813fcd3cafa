//! Sessions that are set up in another way while they serve.

use super::crowd::all;
use super::load::quotient;
use crate::daemon::{Daemon, Settings, library};
use graftd::sched::spread::{Measured, Size, Spread};
use std::sync::Arc;

/// What somebody may have measured of a spread.
fn measured(threads: usize, sessions: usize) -> Measured {
    let sizes = vec![
        Size { rows: 1, rate: 1_000_000, run_ns: 2_000_000, high_ns: 3_000_000 },
        Size { rows: 4, rate: 2_000_000, run_ns: 4_000_000, high_ns: 6_000_000 },
    ];
    Measured { spread: Spread { threads, sessions }, alone_ns: 2_000_000, sizes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_replaced_under_load_and_every_row_is_answered() {
    let Some(library) = library("sessions_are_replaced_under_load") else { return };
    let mut settings = Settings::new(library);
    settings.load.batch_rows_max = None;
    let daemon = Arc::new(Daemon::start("replaced", settings));
    let spec = daemon.load_fixture("div").await;
    let before = daemon.workers("div");
    let crowd = |from: i64| {
        (from..from + 4_000).map(|number| quotient(12 * number, 12, Ok(number))).collect()
    };
    let asking = tokio::spawn({
        let (daemon, spec) = (daemon.clone(), spec.clone());
        async move {
            all(&daemon, &spec, crowd(1)).await;
        }
    });
    for (threads, sessions) in [(2, 1), (1, 3), (1, 2)] {
        daemon.loader.set_up(&spec, &measured(threads, sessions)).await.unwrap();
        let runs = spec.runs.get().unwrap();
        assert_eq!(runs.spread, Spread { threads, sessions });
        let costs = daemon.driver.costs(spec.stage, 9).unwrap();
        assert!(costs.iter().all(|size| size.runs < 1_000), "learned anew: {costs:?}");
    }
    asking.await.unwrap();
    all(&daemon, &spec, crowd(10_000)).await;
    daemon.assert_empty().await;
    assert!(before.iter().all(|worker| worker.ended_within(30)), "they left");
    let after = daemon.workers("div");
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before[0].pid, after[0].pid);
    assert_eq!(daemon.deaths(), 0, "a worker that leaves does not die");
}
