//! `graftd status`: a running daemon at a glance.

use super::client::Client;
use super::exit::Failure;
use super::table::{self, Table, bytes, micros};
use crate::server::service::status::{
    CostStatus, ModelStatus, StageStatus, Status, TargetStatus, WorkerStatus,
};
use clap::Args;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What `graftd status` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
BATCH: rows of one batch at most. ANSWERED, FAILED: requests since the start; half of the answered
took P50 at most, all but a hundredth P99. QUEUED: rows that wait. Below: what is in use now, of what
its limit allows; kept rows are answers for requests to come, base bytes what shared bases keep.")]
pub struct StatusArgs {
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
    /// Show what runs cost, as learned, by stage and rows of a batch; RUNS tells how much that is worth
    #[arg(long)]
    pub costs: bool,
    /// Print the JSON as it came
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon how it is and writes that to `out`, in lines of `width` characters.
///
/// # Errors
/// When no daemon answers.
pub async fn status(
    args: &StatusArgs,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let answer = client.get("/v2/graftd/status").await?.success()?;
    if args.json {
        return Ok(table::print(out, |out| {
            out.write_all(&answer.body).and_then(|()| writeln!(out))
        })?);
    }
    let status: Status = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("the daemon's status cannot be read: {error}; try --json"))?;
    if args.costs {
        return Ok(table::print(out, |out| costs(&status).write(out, width))?);
    }
    Ok(table::print(out, |out| show(out, &status, &args.socket, width))?)
}

fn show(
    out: &mut impl Write,
    status: &Status,
    socket: &Path,
    width: Option<usize>,
) -> io::Result<()> {
    let ready = if status.ready { "ready" } else { "not ready" };
    let Status {
        version, pid, uptime_s, models, passed_over, workers, resting, load, limits, ..
    } = status;
    writeln!(out, "graftd {version}  {ready}  up {}  pid {pid}", uptime(*uptime_s))?;
    writeln!(out, "socket {}\n", socket.display())?;
    self::models(models).write(out, width)?;
    for model in models.iter().filter(|model| !model.reason.is_empty()) {
        writeln!(out, "{}:{} is {}: {}", model.name, model.version, model.state, model.reason)?;
    }
    for line in models.iter().filter_map(on_time) {
        writeln!(out, "{line}")?;
    }
    for why in passed_over {
        writeln!(out, "passed over {why}")?;
    }
    if !workers.is_empty() {
        writeln!(out)?;
        self::workers(workers, resting).write(out, width)?;
    }
    let of = |what, used, limit| (what, format!("{used} of {limit}"));
    let lines = [
        of("requests", load.requests.to_string(), limits.requests.to_string()),
        of("rows", load.flights.to_string(), limits.rows.to_string()),
        of("row bytes", bytes(load.held_bytes), bytes(limits.held_bytes)),
        of("slots", load.slots_used.to_string(), limits.slots.to_string()),
        of("kept bytes", bytes(load.kept_bytes), bytes(limits.kept_bytes)),
        of("base bytes", bytes(load.base_bytes), bytes(limits.base_bytes)),
        ("kept rows", load.kept_rows.to_string()),
        ("connections", load.connections.to_string()),
    ];
    writeln!(out)?;
    lines.iter().try_for_each(|(what, now)| writeln!(out, "{what:<12} {now}"))
}

/// How a model's answers hold its latency target, if it has one and answered anything.
fn on_time(model: &ModelStatus) -> Option<String> {
    let TargetStatus { ms, quantile, in_time, late } = model.target?;
    let answers = in_time + late;
    if answers == 0 {
        return None;
    }
    let (name, version, of) = (&model.name, model.version, answers as f64 / 100.0);
    // Rounded down: what is not quite reached does not look so.
    let share = (in_time as f64 / of * 100.0).floor() / 100.0;
    let goal = quantile * 100.0;
    Some(format!("{name}:{version} answered {share:.2} % within {ms} ms; wanted are {goal} %"))
}

fn models(models: &[ModelStatus]) -> Table {
    let headings = ["MODEL", "VER", "STATE", "BATCH", "ANSWERED", "FAILED", "P50", "P99", "QUEUED"];
    let mut table = Table::new(&headings);
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), micros);
    for model in models {
        table.row(vec![
            model.name.clone(),
            model.version.to_string(),
            model.state.clone(),
            if model.batch_rows_max > 0 { model.batch_rows_max.to_string() } else { "-".into() },
            model.answered.to_string(),
            model.failed.to_string(),
            time(model.p50_us),
            time(model.p99_us),
            model.queued_rows.to_string(),
        ]);
    }
    table
}

fn costs(status: &Status) -> Table {
    let headings = ["MODEL", "VER", "STAGE", "ROWS", "RUNS", "MEAN", "P95", "P99", "A ROW"];
    let mut table = Table::new(&headings);
    let mut stage = |of: [&str; 3], costs: &[CostStatus]| {
        for cost in costs {
            let row = cost.mean_us / cost.rows.max(1) as u64;
            let counts = [cost.rows.to_string(), cost.runs.to_string()];
            let times = [cost.mean_us, cost.p95_us, cost.p99_us, row].map(micros);
            table.row(of.map(str::to_owned).into_iter().chain(counts).chain(times).collect());
        }
    };
    for model in &status.models {
        let version = model.version.to_string();
        stage([&model.name, &version, "whole"], &model.costs);
        stage([&model.name, &version, "head"], &model.head_costs);
    }
    for (base, costs) in &status.base_costs {
        stage([base, "-", "base"], costs);
    }
    table
}

fn workers(workers: &[WorkerStatus], resting: &[StageStatus]) -> Table {
    let mut table = Table::new(&["WORKER", "PID", "BATCHES", "MEMORY", "ROWS"]);
    for worker in workers {
        let rows = if worker.apart { "suspects" } else { "all" };
        table.row(vec![
            worker.model.clone(),
            worker.pid.to_string(),
            worker.batches.to_string(),
            bytes(worker.rss_bytes),
            rows.to_owned(),
        ]);
        // One alone is what the line above says.
        for stage in worker.stages.iter().filter(|_| worker.stages.len() > 1) {
            table.row(vec![
                format!("  {}", stage.name),
                dash(),
                dash(),
                bytes(stage.bytes),
                dash(),
            ]);
        }
    }
    for stage in resting {
        table.row(vec![stage.name.clone(), dash(), dash(), bytes(0), "rests".to_owned()]);
    }
    table
}

fn dash() -> String {
    "-".to_owned()
}

fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_daemon_fits_eighty_columns() {
        let model = |name: &str| ModelStatus {
            name: name.to_owned(),
            version: 12,
            state: "unavailable".to_owned(),
            batch_rows_max: 128,
            answered: 123_456_789,
            failed: 123_456,
            p50_us: Some(1234),
            p99_us: Some(999_999),
            queued_rows: 131_072,
            ..ModelStatus::default()
        };
        let mut long = model("a_model_with_quite_a_long_name");
        long.reason = "its file is gone".to_owned();
        long.target = Some(TargetStatus { ms: 30, quantile: 0.99, in_time: 98_999, late: 1_001 });
        let worker = WorkerStatus { model: "iris:1".to_owned(), ..WorkerStatus::default() };
        let models = vec![model("iris"), long];
        let status = Status { models, workers: vec![worker], ..Status::default() };
        let mut out = Vec::new();
        show(&mut out, &status, Path::new("graftd.sock"), Some(80)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let on_time = "name:12 answered 98.99 % within 30 ms; wanted are 99 %";
        let reason = "is unavailable: its file is gone";
        for part in ["iris  ", "a_mo", "…", "131072", "999ms", on_time, reason] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn times_are_short() {
        let shown = [59, 61, 3700, 90_000].map(uptime);
        assert_eq!(shown, ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
