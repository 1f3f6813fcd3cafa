//! `graftd bench`: what it sends arrives, what it says was measured.

use super::stand_in::{Said, StandIn};
use super::{Ended, good, graftd};
use crate::serve::daemon::{Setup, needs_runtime};
use crate::serve::samples::models;
use graftd::cli::client::Client;
use graftd::traffic::report::Report;
use serde_json::Value;
use std::path::Path;

const QUICK: [&str; 6] = ["--duration", "0.3", "--warm-up", "0", "--repeats", "2"];

async fn report(socket: &Path, arguments: &[&str]) -> Report {
    let arguments = [&["bench"], arguments, &QUICK, &["--json", "-"]].concat();
    let text = good(socket, &arguments).await;
    serde_json::from_str(&text).expect("a report")
}

/// How many requests for a model the daemon has answered.
async fn answered(socket: &Path, model: &str) -> u64 {
    let mut client = Client::connect(socket).await.expect("a connection");
    let stats = client.get(&format!("/v2/models/{model}/stats")).await.expect("an answer");
    let stats: Value = serde_json::from_slice(&stats.body).expect("JSON");
    let count = &stats["model_stats"][0]["inference_stats"]["success"]["count"];
    count.as_u64().expect("a count")
}

#[tokio::test]
async fn every_request_arrives_in_both_protocols_and_both_loops() {
    needs_runtime!();
    let setup = Setup::new(&[]).serving(&models()).flags(&["--listen", "127.0.0.1:0"]);
    let daemon = setup.start().await;
    let socket = daemon.setup.socket();
    for (loops, protocol) in [
        (vec!["--rate", "200", "--rows", "1-3"], "http"),
        (vec!["--rate", "200", "--scenario", "s2"], "grpc"),
        (vec!["--connections", "2", "--streams", "3"], "grpc"),
        (vec!["--connections", "2"], "http"),
    ] {
        let before = [answered(&socket, "iris").await, answered(&socket, "digits_digit").await];
        let asked = ["iris=3", "digits_digit", "--protocol", protocol];
        let found = report(&socket, &[&asked[..], &loops].concat()).await;
        assert!(found.server.starts_with("graftd "), "{}", found.server);
        assert_eq!(found.runs.len(), 2);
        for run in &found.runs {
            assert_eq!((run.answered, run.errors.len()), (run.sent, 0), "{run:?}");
            assert!(run.sent > 10 && run.row_rate >= run.rate, "{run:?}");
        }
        let sent: u64 = found.runs.iter().map(|run| run.sent).sum();
        let after = [answered(&socket, "iris").await, answered(&socket, "digits_digit").await];
        let got = [after[0] - before[0], after[1] - before[1]];
        // One request of each model showed what it takes; a closed loop's last ones begin after the end.
        let shown = 2 + 2 * 2 * 3;
        assert!((sent..=sent + shown).contains(&(got[0] + got[1])), "{got:?} of {sent}");
        assert!(got[0] > got[1], "by weight: {got:?}");
    }
}

#[tokio::test]
async fn a_search_ends_with_a_rate_and_a_page() {
    needs_runtime!();
    let daemon = Setup::new(&[]).serving(&models()).start().await;
    let page = daemon.setup.beside("page.html");
    let file = page.to_str().expect("UTF-8");
    let asked = ["iris", "--search", "--target-ms", "2000", "--connections", "2", "--html", file];
    let found = report(&daemon.setup.socket(), &asked).await;
    assert!(!found.tried.is_empty() && found.highest_rates.values().all(|&rate| rate > 0.0));
    assert_eq!((found.target_ms, found.highest_rates.len()), (Some(2_000.0), 1));
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("Highest rate with 99 %") && page.contains("<svg"), "{page}");
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_quoted() {
    let server = StandIn::new("", |path: &str| -> Said {
        match path {
            "/v2" => (200, r#"{"name": "other", "version": "7"}"#),
            "/v2/models/m" => {
                (200, r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}"#)
            }
            "/v2/models/m/infer" => (400, r#"{"error": "rows of four only"}"#),
            _ => (404, r#"{"error": "no such model"}"#),
        }
    });
    for (arguments, told) in [
        (["bench", "m"].as_slice(), "rows of four only"),
        (&["bench", "m"], "--shape"),
        (&["bench", "other"], "no such model"),
        (&["bench", "m", "--shape", "y=4"], "its inputs: x"),
    ] {
        let Ended { code, out, err } = graftd(&server.socket(), arguments).await;
        assert_eq!((code, &*out), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
    let Ended { code, err, .. } = graftd(Path::new("/nowhere/s.sock"), &["bench", "m"]).await;
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("/nowhere/s.sock") && err.contains("--tcp"), "{err}");
}
