//! When requests come, by the usual processes, at a rate that may change over the run.

use super::Chance;
use rand_distr::{Distribution, Exp1, Gamma};
use std::time::Duration;

/// How regular or bunched arrivals are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// One gap after the other of the same length.
    Even,
    /// Independent requests.
    Poisson,
    /// Gaps of a Gamma distribution.
    Gamma {
        /// Their standard deviation by their mean; 1 is Poisson.
        cv: f64,
    },
    /// Poisson while on, nothing while off; both last exponential times.
    Bursts {
        /// Seconds that it is on, on average.
        on_s: f64,
        /// Seconds that it is off, on average.
        off_s: f64,
    },
}

/// How the rate goes over the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// The same all along.
    Steady,
    /// From half the rate up to twice and down again.
    Ramp {
        /// Seconds of the whole run.
        over_s: f64,
    },
}

impl Course {
    /// The rate at a time, as a multiple of the one asked for.
    fn factor(self, at_s: f64) -> f64 {
        match self {
            Self::Steady => 1.0,
            Self::Ramp { over_s } => {
                let way = (at_s / over_s).clamp(0.0, 1.0);
                0.5 + 1.5 * (1.0 - (2.0 * way - 1.0).abs())
            }
        }
    }
}

/// The times of arrivals from a start, without end.
#[derive(Clone, Debug)]
pub struct Arrivals {
    gaps: Gaps,
    course: Course,
    rate: f64,
    at_s: f64,
}

#[derive(Clone, Debug)]
enum Gaps {
    Even,
    Poisson,
    Gamma(Gamma<f64>),
    Bursts { on_s: f64, off_s: f64, left_s: f64 },
}

impl Arrivals {
    /// Arrivals at so many a second.
    ///
    /// # Errors
    /// A sentence, when a figure makes no process.
    pub fn new(process: Process, course: Course, rate: f64) -> Result<Self, String> {
        let positive = |what: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(value),
            false => Err(format!("{what} is {value}; expected a number above 0")),
        };
        let rate = positive("the rate", rate)?;
        let gaps = match process {
            Process::Even => Gaps::Even,
            Process::Poisson => Gaps::Poisson,
            Process::Gamma { cv } => {
                let squared = positive("the CV of gaps", cv)?.powi(2);
                let gamma = Gamma::new(1.0 / squared, squared);
                Gaps::Gamma(gamma.map_err(|error| format!("the CV of gaps is {cv}: {error}"))?)
            }
            Process::Bursts { on_s, off_s } => {
                let on_s = positive("the time that a burst lasts", on_s)?;
                let off_s = positive("the time between bursts", off_s)?;
                Gaps::Bursts { on_s, off_s, left_s: 0.0 }
            }
        };
        Ok(Self { gaps, course, rate, at_s: 0.0 })
    }

    /// The next arrival.
    pub fn next(&mut self, chance: &mut Chance) -> Duration {
        let rate = self.rate * self.course.factor(self.at_s);
        self.at_s += match &mut self.gaps {
            Gaps::Even => 1.0 / rate,
            Gaps::Poisson => exponential(chance) / rate,
            Gaps::Gamma(gamma) => gamma.sample(chance) / rate,
            Gaps::Bursts { on_s, off_s, left_s } => {
                // All requests come in the time that is on, so there are as many more then.
                let mut gap = exponential(chance) * *on_s / (*on_s + *off_s) / rate;
                let mut passed = 0.0;
                while gap > *left_s {
                    gap -= *left_s;
                    passed += *left_s + exponential(chance) * *off_s;
                    *left_s = exponential(chance) * *on_s;
                }
                *left_s -= gap;
                passed + gap
            }
        };
        Duration::try_from_secs_f64(self.at_s).unwrap_or(Duration::MAX)
    }
}

fn exponential(chance: &mut Chance) -> f64 {
    Exp1.sample(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(process: Process, course: Course, rate: f64, count: usize) -> Vec<f64> {
        let (mut arrivals, mut chance) =
            (Arrivals::new(process, course, rate).unwrap(), Chance::new(7));
        (0..count).map(|_| arrivals.next(&mut chance).as_secs_f64()).collect()
    }

    /// The mean of gaps and their standard deviation by it.
    fn moments(times: &[f64]) -> (f64, f64) {
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        (mean, (squares / gaps.len() as f64).sqrt() / mean)
    }

    #[test]
    fn every_process_keeps_its_rate_and_its_spread() {
        let bursts = Process::Bursts { on_s: 0.02, off_s: 0.08 };
        let table = [
            (Process::Even, 0.0, 1e-6),
            (Process::Poisson, 1.0, 0.03),
            (Process::Gamma { cv: 2.0 }, 2.0, 0.06),
            (Process::Gamma { cv: 0.5 }, 0.5, 0.03),
            // Of an interrupted Poisson process: the root of 1 + 2 * 5000 * 50 / (50 + 12.5)^2.
            (bursts, 11.36, 0.6),
        ];
        for (process, spread, within) in table {
            let (mean, cv) = moments(&times(process, Course::Steady, 1_000.0, 200_000));
            assert!((mean * 1_000.0 - 1.0).abs() < 0.06, "{process:?}: gaps of {mean}");
            assert!((cv - spread).abs() <= within, "{process:?}: CV {cv}");
        }
    }

    #[test]
    fn a_ramp_goes_from_half_to_twice_and_back() {
        let times = times(Process::Even, Course::Ramp { over_s: 10.0 }, 1_000.0, 13_000);
        let within = |from: f64| times.iter().filter(|&&at| at >= from && at < from + 0.5).count();
        for (from, expected) in [(0.0, 287), (4.75, 981), (9.5, 287), (2.25, 625)] {
            assert!(within(from).abs_diff(expected) < 8, "{from} s: {}", within(from));
        }
    }

    #[test]
    fn what_makes_no_process_is_said() {
        for (process, rate, word) in [
            (Process::Poisson, 0.0, "rate"),
            (Process::Poisson, f64::NAN, "rate"),
            (Process::Gamma { cv: -1.0 }, 1.0, "CV"),
            (Process::Bursts { on_s: 0.0, off_s: 1.0 }, 1.0, "burst"),
        ] {
            let why = Arrivals::new(process, Course::Steady, rate).unwrap_err();
            assert!(why.contains(word) && why.contains("expected"), "{why}");
        }
    }
}
