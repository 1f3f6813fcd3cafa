//! `graftd tune`: how each model's runs are best spread over the cores, tried out at length and written down.

use super::exit::Failure;
use super::serve::ServeArgs;
use super::table::{Table, micros};
use crate::daemon;
use crate::driver::load::{Effort, Loader, Tuning};
use crate::engine::{cores, runtime};
use crate::model::config::{Written, rewrite};
use crate::model::scan::{self, Found};
use crate::model::{ModelSpec, Rows};
use crate::progress::{Foot, LATE};
use crate::sched::spread::{Goal, Measured, Spread};
use clap::Args;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// What `--help` says last.
pub const AFTER_HELP: &str = "\
Takes the flags, variables and configuration file of `graftd serve`. Each model is loaded as a start
would and run on made-up rows, with as many sessions and threads as it has now and, by turns, with
others. Best is what answers most rows, under a latency target in time; among those that are as
good, what answers a row ALONE soonest. BATCH is the smallest that is as good as the best, P95 what
nineteen of its runs in twenty stay under while all sessions are busy.

Run it while nothing else needs the cores: a daemon that serves is in the way of what is measured.
It takes about half a minute a model on two cores; it writes sessions, threads and max_batch_rows.";

/// Turns of either side that no figure is worth more than.
const ROUNDS_MAX: u16 = 1_000;

/// What `graftd tune` takes.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// What `graftd serve` takes.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// What it takes beside.
    #[command(flatten)]
    pub own: TuneOnly,
}

/// What only `graftd tune` takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Tuning")]
pub struct TuneOnly {
    /// The models to try out [default: all]
    #[arg(value_name = "MODEL", help_heading = "Arguments")]
    pub only: Vec<String>,
    /// Write nothing: show what was found
    #[arg(long)]
    pub dry_run: bool,
    /// How often each is measured by turns with what is in place; more tell smaller differences
    #[arg(long, value_name = "N", default_value_t = 9)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(ROUNDS_MAX)))]
    pub rounds: u16,
    /// Print one JSON object for each model instead of a table
    #[arg(long)]
    pub json: bool,
}

/// One spread, as it is told.
#[derive(Debug, Serialize)]
struct Told {
    sessions: usize,
    threads: usize,
    batch_rows: usize,
    rows_per_s: f64,
    p95_ms: f64,
    alone_ms: f64,
    now: bool,
    best: bool,
}

/// One model, as it is told.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    latency_target_ms: Option<u128>,
    spreads: Vec<Told>,
    written: Option<String>,
}

/// Tries models out, tells what was found, and writes it down.
///
/// # Errors
/// How many models could not be tuned, or why none could be tried.
pub async fn tune(
    args: &ServeArgs,
    own: &TuneOnly,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let plan = args.plan().map_err(Failure::configuration)?;
    runtime::try_out(&plan.load.program, &plan.load.library).map_err(Failure::configuration)?;
    let wanted = wanted(&plan.repository.root, &own.only)?;
    let loader = daemon::loader(&plan)?;
    let at = Arc::new(Mutex::new(String::new()));
    let drawn = at.clone();
    let _shown = Foot::of_stderr().show(LATE, move || drawn.lock().clone());
    let mut problems = Vec::new();
    for found in wanted {
        *at.lock() = format!("trying out {}", found.name);
        let told = match tuned(&loader, &found, own).await {
            Ok((spec, tuning)) => tell(&found, &spec, &tuning, own, (width, out)),
            Err(why) => Err(why),
        };
        if let Err(why) = told {
            problems.push(format!("{}: {why}", found.name));
        }
    }
    for why in &problems {
        writeln!(out, "problem: {why}").map_err(printing)?;
    }
    out.flush().map_err(printing)?;
    match problems.len() {
        0 => Ok(()),
        1 => Err("a model could not be tuned".to_owned().into()),
        many => Err(format!("{many} models could not be tuned").into()),
    }
}

/// The newest version of each model that is asked for: settings are those of all versions.
fn wanted(root: &std::path::Path, only: &[String]) -> Result<Vec<Found>, Failure> {
    let shown = root.display();
    let listing = scan::scan(root).map_err(|error| {
        Failure::configuration(format!("--models {shown}: {error}; name a directory of models"))
    })?;
    let mut newest: BTreeMap<String, Found> = BTreeMap::new();
    for found in listing.found {
        newest.insert(found.name.clone(), found);
    }
    for name in only {
        if !newest.contains_key(name) {
            let known: Vec<&str> = newest.keys().map(String::as_str).collect();
            let why = format!("no model '{name}' in {shown}; there are: {}", known.join(", "));
            return Err(Failure::configuration(why));
        }
    }
    newest.retain(|name, _| only.is_empty() || only.contains(name));
    if newest.is_empty() {
        let why = format!("no models in {shown}; name a directory of models with --models");
        return Err(Failure::configuration(why));
    }
    Ok(newest.into_values().collect())
}

async fn tuned(
    loader: &Loader,
    found: &Found,
    own: &TuneOnly,
) -> Result<(ModelSpec, Tuning), String> {
    let spec = loader.load(found, None).await?.ok_or("it is loaded already")?;
    let effort = Effort { rounds: usize::from(own.rounds), turn: Duration::from_millis(60) };
    let tuning = loader.tune(spec.stage, &Spread::around(cores::available()), effort).await;
    loader.retire(spec.stage);
    Ok((spec, tuning?))
}

fn tell<W: Write>(
    found: &Found,
    spec: &ModelSpec,
    tuning: &Tuning,
    own: &TuneOnly,
    (width, out): (Option<usize>, &mut W),
) -> Result<(), String> {
    let best = tuning.best();
    let cut = matches!(spec.rows, Rows::Independent { .. });
    let batch_rows_max = best.best(tuning.goal).map(|size| size.rows).filter(|_| cut);
    let path = if own.dry_run {
        None
    } else {
        Some(rewrite(found, Written { spread: best.spread, batch_rows_max })?)
    };
    let written = path.map(|path| path.display().to_string());
    let spreads =
        tuning.all.iter().enumerate().map(|(place, measured)| {
            told(measured, tuning.goal, (place == 0, place == tuning.best))
        });
    let target = tuning.goal.map(|goal| goal.target.as_millis());
    let report = Report {
        model: &found.name,
        latency_target_ms: target,
        spreads: spreads.collect(),
        written,
    };
    let printed = if own.json { json(&report, out) } else { table(&report, width, out) };
    printed.and_then(|()| out.flush()).map_err(|error| format!("cannot print: {error}"))
}

fn told(measured: &Measured, goal: Option<Goal>, (now, best): (bool, bool)) -> Told {
    let size = measured.best(goal);
    let ms = |ns: u64| ns as f64 / 1e6;
    Told {
        sessions: measured.spread.sessions,
        threads: measured.spread.threads,
        batch_rows: size.map_or(1, |size| size.rows),
        rows_per_s: measured.answers(goal) as f64 / 1e3,
        p95_ms: size.map_or(0.0, |size| ms(size.high_ns)),
        alone_ms: ms(measured.alone_ns),
        now,
        best,
    }
}

fn json(report: &Report<'_>, out: &mut impl Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

fn table(report: &Report<'_>, width: Option<usize>, out: &mut impl Write) -> std::io::Result<()> {
    let in_time = report.latency_target_ms.map(|ms| format!("ROWS/S IN {ms} MS"));
    let rate = in_time.as_deref().unwrap_or("ROWS/S");
    let headings = ["MODEL", "SESSIONS", "THREADS", "BATCH", rate, "P95", "ALONE", ""];
    let mut table = Table::new(&headings).with_text_last();
    for told in &report.spreads {
        let mark = match (told.now, told.best) {
            (true, true) => "now, best",
            (true, false) => "now",
            (false, true) => "best",
            (false, false) => "",
        };
        table.row(vec![
            report.model.to_owned(),
            told.sessions.to_string(),
            told.threads.to_string(),
            told.batch_rows.to_string(),
            format!("{:.*}", usize::from(told.rows_per_s < 100.0), told.rows_per_s),
            micros((told.p95_ms * 1e3).ceil() as u64),
            micros((told.alone_ms * 1e3).ceil() as u64),
            mark.to_owned(),
        ]);
    }
    table.write(out, width)?;
    match &report.written {
        Some(path) => writeln!(out, "written to {path}\n"),
        None => writeln!(out),
    }
}

fn printing(error: std::io::Error) -> Failure {
    format!("cannot print: {error}").into()
}
