//! Goodput: the highest rate at which 99 in a hundred answers are there in time, on a machine of two cores.
//!
//! One model or several alike, all rows different, every request with the same time to its answer. Told of the target the scheduler
//! cuts batches and gives up what would be late; eager batches are what servers form that take whatever waits.

use graftd::simulate::fleet::Fleet;
use graftd::simulate::machine::Policy;
use graftd::simulate::plan::{Kind, Plan};
use graftd::traffic::arrivals::Process;
use graftd::traffic::measured::Measured;
use graftd::traffic::search::Search;
use graftd::traffic::workload::{Source, Workload};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const CORES: usize = 2;

/// The share of answers in time that goodput asks for.
const IN_TIME: f64 = 0.99;

/// How exactly goodput is found, as a share of it.
const PRECISION: f64 = 0.01;

/// A kind of model and of traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime {
    pub name: &'static str,
    /// What a row adds to a run, in milliseconds.
    pub row_ms: f64,
    /// What a run costs beside, in milliseconds.
    pub fixed_ms: f64,
    /// How much longer a run takes on average than it would undisturbed, by an exponential law.
    pub noise: f64,
    /// The time to an answer, in milliseconds.
    pub within_ms: f64,
    /// Rows of a batch, at most.
    pub batch_max: usize,
    /// The standard deviation of the time between requests, by its mean.
    pub cv: f64,
    /// Models of this kind that share the machine, all asked alike.
    pub models: usize,
    /// They are heads of one base, which takes this share of the time.
    pub base_share: Option<f64>,
    /// The share of answers that are to be in time.
    pub quantile: &'static str,
}

/// What became of the requests of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    /// Answered in time, as a share of all.
    pub in_time: f64,
    /// Answers in time, as a share of what full batches could give at most.
    pub on_time_rate: f64,
    /// Late answers, as a share of those that were given.
    pub late: f64,
    /// Time of cores spent on answers that came late, as a share of all.
    pub wasted: f64,
}

impl Regime {
    /// One model of runs of 10 ms that gain nothing from batches, asked at random.
    pub(crate) const PLAIN: Self = Self {
        name: "plain",
        row_ms: 10.0,
        fixed_ms: 0.0,
        noise: 0.05,
        within_ms: 100.0,
        batch_max: 1,
        cv: 1.0,
        models: 1,
        base_share: None,
        quantile: "0.99",
    };

    fn plan(&self) -> Plan {
        let model = Kind {
            name: self.name.to_owned(),
            count: self.models,
            weight: None,
            skew: 0.0,
            fixed_ms: self.fixed_ms,
            row_ms: self.row_ms,
            noise: self.noise,
            latency_quantile: self.quantile.parse().expect("a share"),
            batch_rows_max: self.batch_max,
            output_bytes: 64,
            base_share: self.base_share,
            base_bytes: 0,
        };
        let (cache_bytes, base_cache_bytes) = (0, 0);
        let (machines, devices, runs) = (1, 1, CORES);
        Plan { machines, devices, runs, cache_bytes, base_cache_bytes, model: vec![model] }
    }

    /// The highest load at which enough answers are in time, as a share of capacity.
    pub(crate) fn goodput(&self, policy: Policy, requests: usize, seed: u64) -> f64 {
        let mut search = Search::from(0.8, PRECISION);
        while let Some(load) = search.next() {
            search.learn(self.serve(load, policy, requests, seed).in_time >= IN_TIME);
        }
        search.found()
    }

    /// Serves so many requests at a load, which is a share of capacity.
    pub(crate) fn serve(&self, load: f64, policy: Policy, requests: usize, seed: u64) -> Served {
        let plan = self.plan();
        let placed = plan.placed(&vec![1.0; self.models]);
        let capacity = plan.capacity(&placed);
        let counted = Duration::from_secs_f64(requests as f64 / (load * capacity));
        let process = Process::Gamma { cv: self.cv };
        let fleet = Fleet {
            plan: &plan,
            placed,
            source: Source::Made(Workload { process, ..Workload::plain(self.models) }),
            policy,
            target: Some(Duration::from_secs_f64(self.within_ms / 1e3)),
            warm_up: counted / 10,
            counted,
            asked: &AtomicU64::new(0),
        };
        let found: Measured = fleet.serve(load * capacity, seed, 0).expect("a workload");
        Served {
            in_time: found.on_time_share(),
            late: 1.0 - found.on_time as f64 / found.answered.max(1) as f64,
            on_time_rate: found.rate(found.on_time) / capacity,
            wasted: found.work.late.as_secs_f64() / found.work.busy.as_secs_f64(),
        }
    }
}
