//! Whole workloads: arrivals, rows, models, sizes, and rows that several models are asked for.

use super::Chance;
use super::arrivals::{Arrivals, Course, Process};
use super::rows::{Flash, Popularity, Rows};
use super::trace::Trace;
use rand_distr::weighted::WeightedIndex;
use rand_distr::{Distribution, StandardUniform, Uniform};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// When it is to be sent, from the start of the run.
    pub at: Duration,
    /// The place of its model in the workload's list.
    pub model: usize,
    /// Its first row; the others follow.
    pub row: u64,
    /// How many rows it has.
    pub rows: u32,
    /// The client hangs up before it has its answer.
    pub hangs_up: bool,
    /// Within what time its answer is wanted, where that is told.
    pub deadline: Option<Duration>,
}

/// What is asked for, but for the rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How bunched requests are.
    pub process: Process,
    /// How the rate goes.
    pub course: Course,
    /// How often rows come again.
    pub popularity: Popularity,
    /// One row that everybody wants for some time.
    pub flash: Option<Flash>,
    /// How often each model is asked, as weights.
    pub models: Vec<f64>,
    /// Seconds after which the models change places in their popularity.
    pub turns_s: Option<f64>,
    /// The least and the most rows of a request.
    pub rows: (u32, u32),
    /// A row is wanted by several models.
    pub fan: Option<Fan>,
    /// The share of requests whose client hangs up.
    pub hang_up: f64,
}

/// A row that several models are asked for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fan {
    /// After each model the chance that another is asked.
    pub more: f64,
    /// The most models that are asked for a row.
    pub most: usize,
    /// The time within which they are asked.
    pub within: Duration,
}

impl Fan {
    /// Requests a row, on average.
    fn mean(&self, models: usize) -> f64 {
        let most = self.most.min(models).max(1);
        (0..most).map(|more| self.more.powi(i32::try_from(more).unwrap_or(i32::MAX))).sum()
    }
}

impl Workload {
    /// Independent requests for one row each that no one asked for before, of `models` models alike.
    #[must_use]
    pub fn plain(models: usize) -> Self {
        Self {
            process: Process::Poisson,
            course: Course::Steady,
            popularity: Popularity::Unique,
            flash: None,
            models: vec![1.0; models],
            turns_s: None,
            rows: (1, 1),
            fan: None,
            hang_up: 0.0,
        }
    }
}

/// Where requests come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// They are made up.
    Made(Workload),
    /// They were recorded.
    Recorded(Arc<Trace>),
}

impl Source {
    /// The requests, in the order of their times; of recorded ones as they came where there is no rate.
    ///
    /// # Errors
    /// A sentence, when the workload makes no sense.
    pub fn traffic(
        &self,
        rate: Option<f64>,
        seed: u64,
        number: u32,
    ) -> Result<Box<dyn Iterator<Item = Ask>>, String> {
        Ok(match self {
            Self::Made(workload) => {
                Box::new(Traffic::new(workload.clone(), rate.unwrap_or(1.0), seed, number)?)
            }
            Self::Recorded(trace) => Box::new(trace.clone().replay(rate, number)),
        })
    }

    /// How often each model is asked, as weights.
    #[must_use]
    pub fn models(&self) -> Vec<f64> {
        match self {
            Self::Made(workload) => workload.models.clone(),
            Self::Recorded(trace) => trace.weights(),
        }
    }

    /// The most rows of a request.
    #[must_use]
    pub fn rows_most(&self) -> u32 {
        match self {
            Self::Made(workload) => workload.rows.1,
            Self::Recorded(trace) => trace.asks.iter().map(|ask| ask.rows).max().unwrap_or(1),
        }
    }

    /// Rows of a request, on average.
    #[must_use]
    pub fn rows_mean(&self) -> f64 {
        match self {
            Self::Made(workload) => f64::from(workload.rows.0 + workload.rows.1) / 2.0,
            Self::Recorded(trace) => {
                let rows: f64 = trace.asks.iter().map(|ask| f64::from(ask.rows)).sum();
                rows / trace.asks.len().max(1) as f64
            }
        }
    }

    /// What was recorded, if that is where they come from.
    #[must_use]
    pub fn recorded(&self) -> Option<&Trace> {
        match self {
            Self::Made(_) => None,
            Self::Recorded(trace) => Some(trace),
        }
    }

    /// Requests a second where they were recorded.
    #[must_use]
    pub fn own_rate(&self) -> Option<f64> {
        match self {
            Self::Made(_) => None,
            Self::Recorded(trace) => Some(trace.rate()),
        }
    }
}

/// The requests of a workload in the order of their times, without end.
#[derive(Debug)]
pub struct Traffic {
    workload: Workload,
    arrivals: Arrivals,
    rows: Rows,
    sizes: Uniform<u32>,
    models: WeightedIndex<f64>,
    turn: u64,
    /// When the next row is first asked for.
    next: Duration,
    /// Requests of fans that have begun.
    ahead: BinaryHeap<Reverse<Ask>>,
    chance: Chance,
}

impl Traffic {
    /// The requests of a workload at so many a second, by seed. Runs of one server that are told apart by `run` ask
    /// for other new rows.
    ///
    /// # Errors
    /// A sentence, when the workload makes no sense.
    pub fn new(workload: Workload, rate: f64, seed: u64, run: u32) -> Result<Self, String> {
        let (least, most) = workload.rows;
        if least == 0 || least > most {
            return Err(format!(
                "{least} to {most} rows a request; expected 1 or more, the less first"
            ));
        }
        if !(0.0..=1.0).contains(&workload.hang_up) {
            let share = workload.hang_up;
            return Err(format!("the share of clients that hang up is {share}; expected 0 to 1"));
        }
        let models = WeightedIndex::new(&workload.models)
            .map_err(|error| format!("the weights of the models: {error}"))?;
        let asks = workload.fan.map_or(1.0, |fan| fan.mean(workload.models.len()));
        let mut arrivals = Arrivals::new(workload.process, workload.course, rate / asks)?;
        let rows = Rows::new(workload.popularity, workload.flash, run)?;
        let sizes = Uniform::new_inclusive(least, most).map_err(|error| error.to_string())?;
        let mut chance = Chance::new(u128::from(seed) << 32 | u128::from(run));
        let next = arrivals.next(&mut chance);
        let ahead = BinaryHeap::new();
        Ok(Self { workload, arrivals, rows, sizes, models, turn: 0, next, ahead, chance })
    }

    fn unit(&mut self) -> f64 {
        StandardUniform.sample(&mut self.chance)
    }

    /// One model by weight, as places stand at a time.
    fn model(&mut self, at: Duration) -> usize {
        if let Some(turns_s) = self.workload.turns_s {
            self.turn = (at.as_secs_f64() / turns_s) as u64;
        }
        let drawn = self.models.sample(&mut self.chance) as u64 + self.turn;
        (drawn % self.workload.models.len() as u64) as usize
    }

    /// Draws the next row and who asks for it.
    fn row(&mut self) {
        let at = self.next;
        self.next = self.arrivals.next(&mut self.chance);
        let rows = self.sizes.sample(&mut self.chance);
        let row = self.rows.next(at.as_secs_f64(), rows, &mut self.chance);
        let mut ask = Ask { at, model: self.model(at), row, rows, hangs_up: false, deadline: None };
        ask.hangs_up = self.unit() < self.workload.hang_up;
        self.ahead.push(Reverse(ask));
        let Some(fan) = self.workload.fan else { return };
        let mut asked = vec![ask.model];
        let most = fan.most.min(self.workload.models.len());
        while asked.len() < most && self.unit() < fan.more {
            let model = loop {
                let model = self.model(at);
                if !asked.contains(&model) {
                    break model;
                }
            };
            asked.push(model);
            let later = at + fan.within.mul_f64(self.unit());
            let hangs_up = self.unit() < self.workload.hang_up;
            self.ahead.push(Reverse(Ask { at: later, model, hangs_up, ..ask }));
        }
    }
}

impl Iterator for Traffic {
    type Item = Ask;

    fn next(&mut self) -> Option<Ask> {
        // What a row that is not drawn yet brings comes after it.
        while self.ahead.peek().is_none_or(|Reverse(first)| first.at > self.next) {
            self.row();
        }
        self.ahead.pop().map(|Reverse(ask)| ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn asks(workload: &Workload, rate: f64, count: usize) -> Vec<Ask> {
        Traffic::new(workload.clone(), rate, 5, 0).unwrap().take(count).collect()
    }

    #[test]
    fn equal_seeds_are_equal_traffic_and_others_are_not() {
        let workload = Workload::plain(3);
        let first = asks(&workload, 100.0, 500);
        assert_eq!(first, asks(&workload, 100.0, 500));
        let other: Vec<Ask> = Traffic::new(workload, 100.0, 6, 0).unwrap().take(500).collect();
        assert_ne!(first, other);
    }

    #[test]
    fn fans_ask_different_models_for_one_row_in_time_and_in_order() {
        let within = Duration::from_millis(50);
        let fan = Fan { more: 0.5, most: 4, within };
        let workload = Workload { fan: Some(fan), ..Workload::plain(8) };
        let asks = asks(&workload, 1_000.0, 20_000);
        assert!(asks.is_sorted_by_key(|ask| ask.at));
        let rate = asks.len() as f64 / asks[asks.len() - 1].at.as_secs_f64();
        assert!((rate - 1_000.0).abs() < 40.0, "{rate} requests a second, all of them counted");
        let mut by_row = BTreeMap::<u64, Vec<Ask>>::new();
        asks.iter().for_each(|ask| by_row.entry(ask.row).or_default().push(*ask));
        let mut sizes = BTreeSet::new();
        for fan in by_row.values() {
            let models: BTreeSet<usize> = fan.iter().map(|ask| ask.model).collect();
            assert_eq!(models.len(), fan.len(), "no model twice");
            assert!(fan[fan.len() - 1].at - fan[0].at <= within);
            sizes.insert(fan.len());
        }
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn models_come_by_weight_and_change_places_by_turns() {
        let workload = Workload {
            models: vec![3.0, 1.0],
            turns_s: Some(10.0),
            rows: (2, 5),
            ..Workload::plain(2)
        };
        let asks = asks(&workload, 1_000.0, 20_000);
        let of = |from: u64| {
            let within = |ask: &&Ask| ask.at.as_secs() / 10 == from;
            let all = asks.iter().filter(within).count() as f64;
            asks.iter().filter(within).filter(|ask| ask.model == 0).count() as f64 / all
        };
        assert!((of(0) - 0.75).abs() < 0.03, "{}", of(0));
        assert!((of(1) - 0.25).abs() < 0.03, "{}", of(1));
        assert!(asks.iter().all(|ask| (2..=5).contains(&ask.rows)));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let wrong = |workload| Traffic::new(workload, 1.0, 1, 0).map(|_| ()).unwrap_err();
        assert!(wrong(Workload { rows: (3, 2), ..Workload::plain(1) }).contains("3 to 2 rows"));
        assert!(wrong(Workload { hang_up: 2.0, ..Workload::plain(1) }).contains("0 to 1"));
        assert!(wrong(Workload::plain(0)).contains("weights"));
    }
}
