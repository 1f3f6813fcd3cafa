//! Figures of runs, to be kept, compared and read.

use super::measured::Measured;
use super::study::{Found, Study};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a benchmark found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was asked for, as it was typed.
    pub command: String,
    /// Who answered, by its own words.
    pub server: String,
    /// The time that answers are to be there in, in milliseconds.
    pub target_ms: Option<f64>,
    /// The share of answers that have to be.
    pub quantile: f64,
    /// The highest rate that was found to hold the target, where one was looked for, in requests a second; by name.
    #[serde(default)]
    pub highest_rates: BTreeMap<String, f64>,
    /// Runs that a search tried.
    #[serde(default)]
    pub tried: Vec<Run>,
    /// Runs at the rate that was asked for, or found.
    pub runs: Vec<Run>,
    /// What is to be known when figures are read: a client that was too slow, errors.
    pub doubts: Vec<String>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What tells it from others beside its number, such as a policy; often nothing.
    #[serde(default)]
    pub name: String,
    /// The seed of its requests.
    pub seed: u64,
    /// Requests a second that were to be sent; none in a closed loop.
    pub offered_rate: Option<f64>,
    /// Seconds that counted.
    pub span_s: f64,
    /// Requests.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Answers a second.
    pub rate: f64,
    /// Rows a second.
    pub row_rate: f64,
    /// The share of requests answered within the target.
    pub on_time: f64,
    /// Answers within the target, a second.
    pub goodput: f64,
    /// Clients that hung up, as they were to.
    pub hung_up: u64,
    /// Errors by what they are.
    pub errors: BTreeMap<String, u64>,
    /// The mean time to an answer, in milliseconds.
    pub mean_ms: f64,
    /// Times to answers in milliseconds, by the share that stays within them.
    pub latency_ms: Vec<(f64, f64)>,
    /// How far the client was behind at the 99th percentile, in milliseconds.
    pub behind_p99_ms: f64,
    /// How much of the devices' time runs took, where that is known, as a share.
    #[serde(default)]
    pub busy: Option<f64>,
    /// How much of that went into answers that came late, or that nobody waited for, as a share of it.
    #[serde(default)]
    pub wasted: Option<f64>,
    /// The run by time.
    pub course: Vec<Moment>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its begin, in seconds.
    pub at_s: f64,
    /// Requests to be sent a second.
    pub sent_rate: f64,
    /// Answers to them a second.
    pub rate: f64,
    /// Half of these took no longer, in milliseconds.
    pub p50_ms: f64,
    /// All but a hundredth of these took no longer, in milliseconds.
    pub p99_ms: f64,
}

/// The shares that latency is told for: ever closer to all.
pub const SHARES: [f64; 15] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0];

impl Report {
    /// The report of what a study found.
    #[must_use]
    pub fn of(command: String, server: String, study: &Study, found: Found) -> Self {
        let Found { highest_rate, tried, runs, doubts } = found;
        let target_ms = study.target.map(|target| target.as_secs_f64() * 1e3);
        let quantile = study.quantile;
        let mut highest_rates = BTreeMap::new();
        let name = runs.first().map_or_else(String::new, |run| run.name.clone());
        highest_rates.extend(highest_rate.map(|rate| (name, rate)));
        Self { command, server, target_ms, quantile, highest_rates, tried, runs, doubts }
    }

    /// Adds what a study of the same found under another name.
    pub fn join(&mut self, other: Self) {
        self.highest_rates.extend(other.highest_rates);
        self.tried.extend(other.tried);
        self.runs.extend(other.runs);
        self.doubts.extend(other.doubts);
    }

    /// The names of its runs, in their order, each once; one that is empty where they have none.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        names.dedup();
        names
    }
}

impl Run {
    /// The figures of what was measured.
    #[must_use]
    pub fn of(measured: &Measured, seed: u64, offered_rate: Option<f64>) -> Self {
        let each = measured.interval().as_secs_f64();
        let moment = |(place, part): (usize, &super::measured::Interval)| Moment {
            at_s: place as f64 * each,
            sent_rate: part.sent as f64 / each,
            rate: part.answered as f64 / each,
            p50_ms: part.times.quantile_ms(0.5),
            p99_ms: part.times.quantile_ms(0.99),
        };
        let latency = |share: f64| (share, measured.times.quantile_ms(share));
        let work = measured.work;
        let of = |part: Duration, whole: Duration| {
            (!whole.is_zero()).then(|| part.as_secs_f64() / whole.as_secs_f64())
        };
        Self {
            name: String::new(),
            busy: of(work.busy, work.capacity),
            wasted: of(work.late, work.busy),
            seed,
            offered_rate,
            span_s: measured.span.as_secs_f64(),
            sent: measured.sent,
            answered: measured.answered,
            rate: measured.rate(measured.answered),
            row_rate: measured.rate(measured.rows),
            on_time: measured.on_time_share(),
            goodput: measured.rate(measured.on_time),
            hung_up: measured.hung_up,
            errors: measured.errors.clone(),
            mean_ms: measured.times.mean_ms(),
            latency_ms: SHARES.into_iter().map(latency).collect(),
            behind_p99_ms: measured.behind.quantile_ms(0.99),
            course: measured.intervals.iter().enumerate().map(moment).collect(),
        }
    }

    /// The time that a share of answers stays within, where it is one of those told.
    #[must_use]
    pub fn within(&self, share: f64) -> Option<f64> {
        let same = |(told, _): &&(f64, f64)| (told - share).abs() < 1e-9;
        self.latency_ms.iter().find(same).map(|&(_, ms)| ms)
    }

    /// What keeps its figures from being believed as they stand.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let p50 = self.within(0.5).unwrap_or(0.0);
        if self.behind_p99_ms > (0.1 * p50).max(1.0) {
            doubts.push(format!(
                "the client was up to {:.1} ms behind (p99), half of the answers took {p50:.1} ms: it shares the \
                 machine, or the rate is beyond it; times count from when requests were to be sent, so they hold this",
                self.behind_p99_ms
            ));
        }
        let errors: u64 = self.errors.values().sum();
        if errors > 0 {
            let told = self.errors.iter().take(3).map(|(why, count)| format!("{count} x {why}"));
            let told = told.collect::<Vec<_>>().join("; ");
            doubts.push(format!("{errors} of {} requests had no answer: {told}", self.sent));
        }
        if self.answered < 1_000 {
            doubts.push(format!(
                "{} answers say little of the slowest hundredth; give --duration more",
                self.answered
            ));
        }
        doubts
    }
}

/// The middle of values, their least and their most; none of none.
#[must_use]
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied();
    let median =
        f64::midpoint(middle(values.len().checked_sub(1)? / 2)?, middle(values.len() / 2)?);
    Some((median, *values.first()?, *values.last()?))
}

#[cfg(test)]
mod tests {
    use super::super::measured::End;
    use super::*;

    #[test]
    fn a_run_is_told_in_figures_and_comes_back_from_json() {
        let mut measured =
            Measured::new(Duration::ZERO, Duration::from_secs(2), Some(Duration::from_millis(1)));
        for us in 1..=2_000 {
            let at = Duration::from_millis(us - 1);
            measured.ended(at, 2, Duration::from_micros(us), End::Answered);
        }
        let run = Run::of(&measured, 9, Some(1_000.0));
        assert_eq!((run.sent, run.answered, run.course.len()), (2_000, 2_000, 8));
        let near = |found: f64, expected: f64| (found - expected).abs() < expected * 2e-3;
        assert!(near(run.rate, 1_000.0) && near(run.row_rate, 2_000.0) && near(run.goodput, 500.0));
        assert!(near(run.within(0.99).unwrap(), 1.98));
        let report = Report { runs: vec![run], ..Report::default() };
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn figures_that_cannot_be_believed_say_why() {
        let good = Run {
            answered: 5_000,
            latency_ms: vec![(0.5, 2.0)],
            behind_p99_ms: 0.1,
            ..Run::default()
        };
        assert_eq!(good.doubts(), Vec::<String>::new());
        let bad = Run {
            answered: 10,
            sent: 12,
            behind_p99_ms: 4.0,
            errors: BTreeMap::from([("503".to_owned(), 2)]),
            ..good
        };
        let doubts = bad.doubts().join("\n");
        for word in ["4.0 ms behind", "2 of 12", "2 x 503", "10 answers"] {
            assert!(doubts.contains(word), "{doubts}");
        }
    }

    #[test]
    fn spreads() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread([4.0, 1.0, 2.0, 8.0]), Some((3.0, 1.0, 8.0)));
    }
}
