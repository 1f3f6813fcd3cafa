//! What verbs take that make traffic and measure: the workload, the runs, and where the figures go.

pub mod show;

use super::exit::Failure;
use super::table;
use crate::traffic::arrivals::Process;
use crate::traffic::page::page;
use crate::traffic::report::Report;
use crate::traffic::rows::Popularity;
use crate::traffic::scenario::Scenario;
use crate::traffic::study::Study;
use crate::traffic::trace::Trace;
use crate::traffic::workload::{Source, Workload};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a run counts that does not say.
const USUAL_DURATION: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug, Args)]
pub struct TrafficArgs {
    /// Requests a second [default: closed loop]
    #[arg(long, value_name = "N", conflicts_with = "search", help_heading = "Traffic")]
    pub rate: Option<f64>,
    /// Requests that `graftd serve --record FILE` recorded: at their times, or at --rate on average
    #[arg(long, value_name = "FILE", help_heading = "Traffic")]
    #[arg(conflicts_with_all = ["scenario", "arrivals", "popularity", "rows", "hang_up"])]
    pub trace: Option<PathBuf>,
    /// A workload by name; other flags change it
    #[arg(long, value_enum, ignore_case = true, value_name = "NAME", help_heading = "Traffic")]
    pub scenario: Option<Scenario>,
    /// How bunched requests are: even, poisson, gamma:CV or bursts:ON_S,OFF_S [default: poisson]
    #[arg(long, value_name = "HOW", value_parser = process, help_heading = "Traffic")]
    pub arrivals: Option<Process>,
    /// How often rows come again: unique, or zipf:EXPONENT,ROWS,ONCE, of which the last two may be left out;
    /// ONCE is the share of requests for a row that comes once [default: unique]
    #[arg(long, value_name = "HOW", value_parser = popularity, help_heading = "Traffic")]
    pub popularity: Option<Popularity>,
    /// Rows of a request: N, or LEAST-MOST [default: 1]
    #[arg(long, value_name = "N", value_parser = sizes, help_heading = "Traffic")]
    pub rows: Option<(u32, u32)>,
    /// The share of clients that hang up before they have their answer
    #[arg(long, value_name = "SHARE", help_heading = "Traffic")]
    pub hang_up: Option<f64>,
    /// The number that all chance follows from; each repeat takes the next one
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Traffic")]
    pub seed: u64,
}

/// How often and how long, and what has to hold.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// How long a run counts, in seconds [default: 10, or all that was recorded]
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Runs")]
    pub duration: Option<Duration>,
    /// How long requests are sent before, in seconds
    #[arg(long, value_name = "S", default_value = "2", value_parser = lead, help_heading = "Runs")]
    pub warm_up: Duration,
    /// Runs, each with other requests
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Runs")]
    pub repeats: u32,
    /// The time that answers are to be there in [default: what --deadline-ms says]
    #[arg(long, value_name = "MS", value_parser = millis, help_heading = "Runs")]
    pub target_ms: Option<Duration>,
    /// The share of answers that have to be there in time
    #[arg(long, value_name = "SHARE", default_value = "0.99", value_parser = share, help_heading = "Runs")]
    pub quantile: f64,
    /// Look for the highest rate at which the target holds, and run at it
    #[arg(long, help_heading = "Runs")]
    pub search: bool,
}

/// Where figures go.
#[derive(Clone, Debug, Args)]
pub struct AnswerArgs {
    /// Write all figures as JSON to a file; - for standard output, instead of the table
    #[arg(long, value_name = "FILE|-", help_heading = "Answer")]
    pub json: Option<PathBuf>,
    /// Write a page with plots, which needs nothing else
    #[arg(long, value_name = "FILE", help_heading = "Answer")]
    pub html: Option<PathBuf>,
}

impl TrafficArgs {
    /// What was recorded, where that is asked for.
    ///
    /// # Errors
    /// A sentence, when it cannot be read.
    pub fn recorded(&self) -> Result<Option<Trace>, String> {
        let Some(file) = &self.trace else { return Ok(None) };
        let named = |why: String| format!("--trace {}: {why}", file.display());
        let bytes = std::fs::read(file).map_err(|error| named(error.to_string()))?;
        let trace = Trace::read(&bytes).map_err(named)?;
        if trace.asks.is_empty() {
            return Err(named("no requests were recorded".to_owned()));
        }
        Ok(Some(trace))
    }

    /// The requests that are meant: `recorded` ones, or made up over `models` with these weights of their own for a
    /// run of so long.
    ///
    /// # Errors
    /// A sentence that names a recorded model that is not among these.
    pub fn source(
        &self,
        recorded: Option<Trace>,
        models: &[(String, Option<f64>)],
        span: Duration,
    ) -> Result<Source, String> {
        if let Some(trace) = recorded {
            let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
            return Ok(Source::Recorded(Arc::new(trace.ordered(&names)?)));
        }
        let named = self.scenario.map(|scenario| scenario.workload(models.len(), span));
        let mut workload = named.unwrap_or_else(|| Workload::plain(models.len()));
        workload.process = self.arrivals.unwrap_or(workload.process);
        workload.popularity = self.popularity.unwrap_or(workload.popularity);
        workload.rows = self.rows.unwrap_or(workload.rows);
        workload.hang_up = self.hang_up.unwrap_or(workload.hang_up);
        for (weight, (_, own)) in workload.models.iter_mut().zip(models) {
            *weight = own.unwrap_or(*weight);
        }
        Ok(Source::Made(workload))
    }
}

impl RunArgs {
    /// The time that a run counts for, of traffic that was recorded or not, at a rate.
    #[must_use]
    pub fn counted(&self, recorded: Option<&Trace>, rate: Option<f64>) -> Duration {
        let Some(trace) = recorded else { return self.duration.unwrap_or(USUAL_DURATION) };
        let slower = rate.map_or(1.0, |rate| trace.rate() / rate);
        // The last request is to be sent before the end.
        let whole = trace.span().mul_f64(slower) + Duration::from_millis(1);
        let left = whole.saturating_sub(self.warm_up);
        self.duration.map_or(left, |asked| asked.min(left)).max(Duration::from_millis(1))
    }

    /// The study that is meant, at a rate, by answers within `target`.
    #[must_use]
    pub const fn study(&self, rate: Option<f64>, target: Option<Duration>, seed: u64) -> Study {
        let Self { search, quantile, repeats, .. } = *self;
        Study { rate, search, target, quantile, repeats, seed }
    }
}

/// What was typed.
#[must_use]
pub fn command() -> String {
    // Where the program lies says nothing of what was measured.
    let words = std::env::args().skip(1);
    ["graftd".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

impl AnswerArgs {
    /// Writes a report where it was asked for; `show` writes it for people.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn tell<W: Write>(
        &self,
        report: &Report,
        out: &mut W,
        show: impl FnOnce(&mut W) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        if let Some(file) = &self.html {
            write(file, page(report).as_bytes())?;
        }
        let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        match self.json.as_deref() {
            Some(file) if file == Path::new("-") => {
                return Ok(table::print(out, |out| writeln!(out, "{json}"))?);
            }
            Some(file) => write(file, json.as_bytes())?,
            None => {}
        }
        Ok(table::print(out, show)?)
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = std::fs::write(file, bytes);
    Ok(written.map_err(|error| format!("{} cannot be written: {error}", file.display()))?)
}

/// A number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("'{text}'; expected a number above 0"))
}

fn time(text: &str, unit_s: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)? * unit_s).map_err(|error| error.to_string())
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    time(text, 1.0)
}

/// Seconds, or none of them.
fn lead(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { seconds(text) }
}

pub(super) fn millis(text: &str) -> Result<Duration, String> {
    time(text, 1e-3)
}

fn share(text: &str) -> Result<f64, String> {
    let share = positive(text)?;
    if share < 1.0 { Ok(share) } else { Err("expected a share below 1, such as 0.99".to_owned()) }
}

fn process(text: &str) -> Result<Process, String> {
    let expected = || "expected even, poisson, gamma:CV or bursts:ON_S,OFF_S".to_owned();
    match text.split_once(':') {
        None if text == "even" => Ok(Process::Even),
        None if text == "poisson" => Ok(Process::Poisson),
        Some(("gamma", cv)) => Ok(Process::Gamma { cv: positive(cv)? }),
        Some(("bursts", times)) => {
            let (on, off) = times.split_once(',').ok_or_else(expected)?;
            Ok(Process::Bursts { on_s: positive(on)?, off_s: positive(off)? })
        }
        _ => Err(expected()),
    }
}

fn popularity(text: &str) -> Result<Popularity, String> {
    let expected = || "expected unique or zipf:EXPONENT[,ROWS[,ONCE]]".to_owned();
    if text == "unique" {
        return Ok(Popularity::Unique);
    }
    let mut parts = text.strip_prefix("zipf:").ok_or_else(expected)?.split(',');
    let mut number = |default: f64| match parts.next() {
        None => Ok(default),
        Some(part) => part.parse::<f64>().map_err(|_| expected()),
    };
    let (exponent, keys, once) = (number(f64::NAN)?, number(10_000.0)?, number(0.0)?);
    let fits = exponent >= 0.0 && (1.0..1e12).contains(&keys) && (0.0..=1.0).contains(&once);
    if !fits || parts.next().is_some() {
        return Err(expected());
    }
    Ok(Popularity::Zipf { keys: keys as u64, exponent, once })
}

fn sizes(text: &str) -> Result<(u32, u32), String> {
    let expected = || "expected N or LEAST-MOST, from 1".to_owned();
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let [least, most] = [least, most].map(|size| size.parse::<u32>().map_err(|_| expected()));
    let (least, most) = (least?, most?);
    if least >= 1 && least <= most { Ok((least, most)) } else { Err(expected()) }
}
