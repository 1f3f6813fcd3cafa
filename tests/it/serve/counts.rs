//! What the daemon counts: for clients, for Prometheus, for the dashboard and for people.

use super::ask::{Ask, Form, fp32};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use graftd::proto::{ModelStatistics, ModelStatisticsRequest};
use graftd::server::service::status::Status;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// So many rows of `mlp`, like no others with another `first`.
fn rows(first: u16, count: u16) -> Ask {
    let values: Vec<f32> = (first..first + count).flat_map(|row| [f32::from(row); 16]).collect();
    Ask::new("mlp", vec![fp32("x", &[usize::from(count), 16], &values)])
}

async fn page(daemon: &Daemon) -> String {
    let answer = daemon.client().await.get("/metrics").await.expect("an answer");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    String::from_utf8(answer.body.to_vec()).expect("UTF-8")
}

async fn read(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.client().await.get(path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test]
async fn statistics_grow_by_requests_and_rows_over_both_transports() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp", "div"]).start().await;
    let numbers = async || {
        let stats = read(&daemon, "/v2/models/mlp/stats").await["model_stats"][0].clone();
        let part = |key: &str| stats["inference_stats"][key]["count"].as_u64().expect(key);
        let whole = |key: &str| stats[key].as_u64().expect(key);
        let parts = ["success", "fail", "queue", "compute_infer", "cache_hit", "cache_miss"];
        (parts.map(part), [whole("inference_count"), whole("execution_count")])
    };
    assert_eq!(numbers().await, ([0; 6], [0; 2]));
    rows(0, 4).of(&daemon, Form::Binary).await.expect("an answer");
    assert_eq!(numbers().await, ([1, 0, 1, 1, 0, 1], [4, 1]));
    rows(0, 4).of(&daemon, Form::GrpcRaw).await.expect("an answer");
    assert_eq!(numbers().await, ([2, 0, 1, 1, 1, 1], [4, 1]), "kept rows were not run");
    rows(100, 1).of(&daemon, Form::GrpcRaw).await.expect("an answer");
    assert_eq!(numbers().await, ([3, 0, 2, 2, 1, 2], [5, 2]));
    let wrong = Ask::new("mlp", vec![fp32("x", &[1, 15], &[0.0; 15])]);
    wrong.of(&daemon, Form::Json).await.expect_err("a wrong shape");
    assert_eq!(numbers().await, ([3, 1, 2, 2, 1, 2], [5, 2]));

    let mut client = super::ask::grpc(&daemon.setup.socket()).await;
    let asked = ModelStatisticsRequest { name: "mlp".into(), version: "1".into() };
    let told = soon("statistics", client.model_statistics(asked)).await.expect("statistics");
    let [stats] = &told.get_ref().model_stats[..] else { panic!("{told:?}") };
    let ModelStatistics { name, version, inference_count, .. } = stats;
    assert_eq!((name.as_str(), version.as_str(), *inference_count), ("mlp", "1", 5));
    let sizes: Vec<u64> = stats.batch_stats.iter().map(|batch| batch.batch_size).collect();
    assert_eq!(sizes, [1, 4]);
    let times = stats.inference_stats.expect("times");
    let ns = |part: Option<graftd::proto::StatisticDuration>| part.expect("a duration").ns;
    let phases = [times.queue, times.compute_input, times.compute_infer, times.compute_output];
    let parts: u64 = phases.map(ns).iter().sum();
    assert!(parts > 0 && parts <= ns(times.success), "{times:?}");
    let since = graftd::clock::wall().as_millis() as u64 - stats.last_inference;
    assert!(since < 3_600_000, "{since} ms");
    let all = read(&daemon, "/v2/models/stats").await;
    assert_eq!(all["model_stats"].as_array().map(Vec::len), Some(2));
    let asked = ModelStatisticsRequest { name: "nobody".into(), version: String::new() };
    let refused = client.model_statistics(asked).await.expect_err("no such model");
    assert_eq!(refused.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn many_at_once_are_counted_each_once() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let task = async |first: u16| {
        let mut client = daemon.client().await;
        for n in 0..40 {
            // Some rows are asked for by all, some by one.
            let ask = if n % 2 == 0 { rows(n, 1) } else { rows(1000 + first * 100 + n, 2) };
            ask.over(&mut client, Form::Binary).await.expect("an answer");
        }
    };
    tokio::join!(task(0), task(1), task(2), task(3), task(4), task(5), task(6), task(7));
    let hit = daemon.metric("graftd_rows_hit_total").await;
    let joined = daemon.metric("graftd_rows_joined_total").await;
    let run = daemon.metric("graftd_rows_executed_total").await;
    assert_eq!(hit + joined + run, 8.0 * (20.0 + 40.0));
    assert_eq!(run, 20.0 + 8.0 * 40.0);
    assert_eq!(daemon.metric("nv_inference_request_success").await, 320.0);
    assert_eq!(daemon.metric("graftd_request_seconds_count").await, 320.0);
    assert_eq!(daemon.metric("nv_inference_count").await, run);
    assert_eq!(
        daemon.metric("nv_inference_exec_count").await,
        daemon.metric("graftd_batch_rows_count").await
    );
    assert_eq!(daemon.metric("nv_inference_pending_request_count").await, 0.0);
}

/// The families of a page with their kinds; samples without a family before them are faults.
fn families(page: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut last = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(found.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            name.clone_into(&mut last);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().expect("a name");
            let histogram = found.get(&last).is_some_and(|kind| kind == "histogram");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|_| histogram).unwrap_or(name);
            assert_eq!(base, last, "{line}");
            let value = line.rsplit(' ').next().expect("a value");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
    found
}

#[tokio::test]
async fn the_page_has_tritons_names_and_all_that_the_dashboard_shows() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp", "div"]).start().await;
    for _ in 0..2 {
        rows(0, 2).of(&daemon, Form::Binary).await.expect("an answer");
    }
    let text = page(&daemon).await;
    let families = families(&text);
    for name in [
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_cache_num_hits_per_model",
        "nv_cache_num_misses_per_model",
        "nv_cache_hit_duration_per_model",
        "nv_cache_miss_duration_per_model",
    ] {
        assert_eq!(families.get(name).map(String::as_str), Some("counter"), "{name}");
        for model in ["mlp", "div"] {
            let series = format!("{name}{{model=\"{model}\",version=\"1\"");
            assert!(text.contains(&series), "{series} in\n{text}");
        }
    }
    for reason in ["REJECTED", "CANCELED", "BACKEND", "OTHER"] {
        let series = format!("nv_inference_request_failure{{reason=\"{reason}\"}}");
        assert_eq!(daemon.metric(&series).await, 0.0);
    }
    assert_eq!(families["nv_inference_pending_request_count"], "gauge");
    let dashboard = include_str!("../../../configs/grafana.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    let mut shown = BTreeSet::new();
    for target in dashboard["panels"].as_array().expect("panels").iter().flat_map(targets) {
        let words = target.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = |word: &&str| {
            ["graftd_", "nv_", "process_"].iter().any(|prefix| word.starts_with(prefix))
        };
        shown.extend(words.filter(ours).map(str::to_owned));
    }
    assert!(shown.len() > 20, "{shown:?}");
    for name in shown {
        let there = text
            .lines()
            .any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(there, "the dashboard shows {name}, which is not in\n{text}");
    }
}

fn targets(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    targets.iter().map(|target| target["expr"].as_str().expect("an expression")).collect()
}

#[tokio::test]
async fn names_that_nobody_serves_make_no_series_and_models_that_go_take_theirs() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp", "div"]).start().await;
    rows(0, 1).of(&daemon, Form::Binary).await.expect("an answer");
    let before = page(&daemon).await.lines().count();
    let mut client = daemon.client().await;
    for n in 0..2000 {
        let path = format!("/v2/models/m{n}/versions/{n}/infer");
        let body = br#"{"inputs":[]}"#.as_slice().into();
        assert_eq!(client.post(&path, None, body).await.expect("an answer").status, 404);
    }
    assert_eq!(page(&daemon).await.lines().count(), before);
    assert_eq!(daemon.metric("graftd_requests_unplaced_total{reason=\"unknown\"}").await, 2000.0);
    std::fs::remove_dir_all(daemon.setup.models().join("mlp")).expect("it is there");
    daemon.signal(Signal::HUP);
    let gone = async { while page(&daemon).await.contains("model=\"mlp\"") {} };
    soon("the series of a model that went to go", gone).await;
    assert!(page(&daemon).await.contains("nv_inference_count{model=\"div\""));
}

#[tokio::test]
async fn the_status_tells_models_workers_load_and_limits() {
    needs_runtime!();
    let flags = ["--sessions", "1", "--requests-max", "77"];
    let daemon = Setup::new(&["mlp", "badfile"]).flags(&flags).start().await;
    for n in 0..3 {
        rows(n * 10, 2).of(&daemon, Form::Binary).await.expect("an answer");
    }
    let status = read(&daemon, "/v2/graftd/status").await;
    let status: Status = serde_json::from_value(status).expect("a status");
    assert_eq!((status.version.as_str(), status.ready), (env!("CARGO_PKG_VERSION"), true));
    assert_eq!(status.limits.requests, 77);
    assert_eq!(status.load.kept_rows, 6);
    assert!(status.load.connections >= 1);
    let [bad, mlp] = &status.models[..] else { panic!("{:?}", status.models) };
    assert_eq!((bad.name.as_str(), bad.state.as_str()), ("badfile", "unavailable"));
    assert!(!bad.reason.is_empty());
    assert_eq!((mlp.name.as_str(), mlp.state.as_str()), ("mlp", "ready"));
    assert_eq!((mlp.answered, mlp.failed), (3, 0));
    assert!(mlp.p50_us.is_some_and(|p50| p50 > 0) && mlp.p50_us <= mlp.p99_us);
    assert_eq!(mlp.batch_sizes, BTreeMap::from([(2, 3)]));
    let [worker] = &status.workers[..] else { panic!("{:?}", status.workers) };
    assert_eq!((worker.model.as_str(), worker.apart), ("mlp:1", false));
    assert!(worker.rss_bytes > 1 << 20, "{worker:?}");
}
