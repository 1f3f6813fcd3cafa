//! Workloads by name, for figures that can be compared: from plain to hostile.

use super::arrivals::{Course, Process};
use super::rows::{Flash, Popularity};
use super::workload::{Fan, Workload};
use clap::ValueEnum;
use std::time::Duration;

/// A workload by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Poisson, all rows different: nothing to be saved
    S0,
    /// Poisson, 10,000 rows by Zipf 1.0, 8 % of requests for a row that comes once
    S1,
    /// Gaps with a CV of 2, rows by Zipf 1.35, 1 % come once
    S2,
    /// Gaps with a CV of 4, models by a power law that change places every minute
    S3,
    /// Bursts of 9 s in which six times as much comes, 44 s apart
    S4,
    /// S1, and for 5 s in the middle 30 % ask for one row
    S5,
    /// The rate goes from half up to twice and back
    S6,
    /// Heads by Zipf 1.0; each row is asked of 1 to 4 of them within 50 ms
    S7,
    /// S1, and 1 % of clients hang up before they have their answer
    S8,
}

/// The weights of so many models where the k-th is asked 1 / k as often as the first.
fn power(models: usize) -> Vec<f64> {
    (1..=models).map(|rank| 1.0 / rank as f64).collect()
}

impl Scenario {
    /// The workload over so many models, for a run of so many seconds.
    #[must_use]
    pub fn workload(self, models: usize, span: Duration) -> Workload {
        let plain = Workload::plain(models);
        let popularity = Popularity::Zipf { keys: 10_000, exponent: 1.0, once: 0.08 };
        let span_s = span.as_secs_f64();
        match self {
            Self::S0 => plain,
            Self::S1 => Workload { popularity, ..plain },
            Self::S2 => Workload {
                process: Process::Gamma { cv: 2.0 },
                popularity: Popularity::Zipf { keys: 10_000, exponent: 1.35, once: 0.01 },
                ..plain
            },
            Self::S3 => Workload {
                process: Process::Gamma { cv: 4.0 },
                models: power(models),
                turns_s: Some(60.0),
                ..plain
            },
            // Counts of the Azure code trace at its 2.6 requests a second: an index of dispersion of 13 over a second
            // and 164 over a minute. Two phases cannot have its busiest second, 26 times the mean, too.
            Self::S4 => Workload { process: Process::Bursts { on_s: 9.5, off_s: 44.0 }, ..plain },
            Self::S5 => {
                let flash = Flash { from_s: (span_s / 2.0 - 2.5).max(0.0), for_s: 5.0, share: 0.3 };
                Workload { popularity, flash: Some(flash), ..plain }
            }
            Self::S6 => Workload { course: Course::Ramp { over_s: span_s }, ..plain },
            Self::S7 => Workload {
                models: power(models),
                fan: Some(Fan { more: 0.5, most: 4, within: Duration::from_millis(50) }),
                ..plain
            },
            Self::S8 => Workload { popularity, hang_up: 0.01, ..plain },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::Traffic;
    use super::*;

    #[test]
    fn every_scenario_makes_traffic() {
        for scenario in Scenario::value_variants() {
            let workload = scenario.workload(4, Duration::from_secs(60));
            let asks: Vec<_> = Traffic::new(workload, 200.0, 1, 0).unwrap().take(2_000).collect();
            assert!(asks.is_sorted_by_key(|ask| ask.at), "{scenario:?}");
        }
    }

    #[test]
    fn bursts_are_as_uneven_as_the_trace_they_stand_for() {
        let workload = Scenario::S4.workload(1, Duration::from_secs(60));
        // The index of dispersion of counts over windows, over many days.
        let asks: Vec<f64> = Traffic::new(workload, 2.57, 1, 0)
            .unwrap()
            .take(2_000_000)
            .map(|ask| ask.at.as_secs_f64())
            .collect();
        let dispersion = |window_s: f64| {
            let mut counts = vec![0.0; (asks[asks.len() - 1] / window_s) as usize + 1];
            asks.iter().for_each(|at| counts[(at / window_s) as usize] += 1.0);
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            let squares = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>();
            squares / counts.len() as f64 / mean
        };
        for (window_s, expected) in [(1.0, 13.0), (60.0, 164.0)] {
            let found = dispersion(window_s);
            assert!((found / expected - 1.0).abs() < 0.15, "over {window_s} s: {found}");
        }
    }
}
