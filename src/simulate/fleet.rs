//! A fleet in virtual time: every machine in a thread of its own, all fed from one stream of requests.

use super::machine::{Machine, Policy};
use super::plan::{Placed, Plan};
use crate::traffic::measured::Measured;
use crate::traffic::study::{Subject, Told};
use crate::traffic::workload::{Ask, Source};
use crossbeam::channel::{Receiver, bounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests that are handed to a machine at once.
const HANDFUL: usize = 4096;
/// Handfuls that wait for a machine, at most.
const HANDFULS: usize = 4;

/// What is simulated.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// The machines and what they serve.
    pub plan: &'a Plan,
    /// Where each model runs.
    pub placed: Vec<Placed>,
    /// What is asked.
    pub source: Source,
    /// How batches are formed.
    pub policy: Policy,
    /// The time that answers are to be there in.
    pub target: Option<Duration>,
    /// The time before anything counts.
    pub warm_up: Duration,
    /// The time that counts at a rate.
    pub counted: Duration,
    /// Requests so far, for whoever watches.
    pub asked: &'a AtomicU64,
}

impl Fleet<'_> {
    /// What was recorded is over sooner at a higher rate.
    fn counted_at(&self, rate: f64) -> Duration {
        let Some(trace) = self.source.recorded() else { return self.counted };
        let span = trace.span().mul_f64(trace.rate() / rate);
        // The last request is to be sent before the end.
        let left = span.saturating_sub(self.warm_up) + Duration::from_millis(1);
        self.counted.min(left)
    }

    /// Serves a workload at a rate.
    ///
    /// # Errors
    /// A sentence, when the workload makes no sense.
    pub fn serve(&self, rate: f64, seed: u64, number: u32) -> Result<Measured, String> {
        let traffic = self.source.traffic(Some(rate), seed, number)?;
        let counted = self.counted_at(rate);
        let end = self.warm_up + counted;
        let measured = Measured::new(self.warm_up, counted, self.target);
        let machine = |number: usize| {
            let Self { plan, placed, policy, target, .. } = self;
            Machine::new(plan, placed, number, *policy, *target, measured.clone())
        };
        std::thread::scope(|scope| {
            let (tell, machines): (Vec<_>, Vec<_>) = (0..self.plan.machines)
                .map(|number| {
                    let (tell, told) = bounded(HANDFULS);
                    let machine = machine(number);
                    (tell, scope.spawn(move || follow(machine, &told)))
                })
                .unzip();
            let mut handfuls = vec![Vec::with_capacity(HANDFUL); self.plan.machines];
            for ask in traffic.take_while(|ask| ask.at < end) {
                let machine = self.placed[ask.model].machine;
                let handful: &mut Vec<Ask> = &mut handfuls[machine];
                handful.push(ask);
                if handful.len() == HANDFUL {
                    self.asked.fetch_add(HANDFUL as u64, Ordering::Relaxed);
                    let full = std::mem::replace(handful, Vec::with_capacity(HANDFUL));
                    if tell[machine].send(full).is_err() {
                        break;
                    }
                }
            }
            for (tell, rest) in tell.into_iter().zip(handfuls) {
                // A machine that ended has told why by its end.
                let _ = tell.send(rest);
            }
            let mut all = measured.clone();
            for machine in machines {
                all.merge(&machine.join().map_err(|_| "a machine of the simulation panicked")?);
            }
            let runs = (self.plan.machines * self.plan.devices * self.plan.runs) as f64;
            all.work.capacity = counted.mul_f64(runs);
            Ok(all)
        })
    }
}

fn follow(mut machine: Machine, told: &Receiver<Vec<Ask>>) -> Measured {
    while let Ok(handful) = told.recv() {
        handful.iter().for_each(|ask| machine.take(ask));
    }
    machine.finish()
}

impl Subject for Fleet<'_> {
    async fn most(&mut self) -> Result<f64, String> {
        Ok(self.plan.capacity(&self.placed) / self.source.rows_mean())
    }

    async fn run(&mut self, told: &Told) -> Result<Measured, String> {
        let rate = told.rate.ok_or("simulated clients wait for nobody; give --rate N")?;
        self.serve(rate, told.seed, told.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::scenario::Scenario;
    use crate::traffic::workload::Workload;

    const CORES: &str =
        "runs = 2\n[[model]]\nname = 'transformer'\nfixed_ms = 12\nrow_ms = 8\nbatch_rows_max = 16";

    fn served(plan: &str, scenario: Scenario, policy: Policy, load: f64) -> Measured {
        let plan = Plan::read(plan).unwrap();
        let weights: Vec<f64> = plan.models().iter().map(|(_, own)| own.unwrap_or(1.0)).collect();
        let placed = plan.placed(&weights);
        let (warm_up, counted) = (Duration::from_secs(5), Duration::from_secs(60));
        let workload = Workload {
            models: weights.clone(),
            ..scenario.workload(weights.len(), warm_up + counted)
        };
        let asked = AtomicU64::new(0);
        let target = Some(Duration::from_millis(150));
        let rate = load * plan.capacity(&placed);
        let fleet = Fleet {
            plan: &plan,
            placed,
            source: Source::Made(workload),
            policy,
            target,
            warm_up,
            counted,
            asked: &asked,
        };
        fleet.serve(rate, 1, 0).unwrap()
    }

    #[test]
    fn equal_seeds_are_equal_figures_whatever_the_threads_do() {
        let fleet =
            format!("machines = 3\ndevices = 2\n{CORES}\ncount = 20\nweight = 1.0\nskew = 1.0");
        let run = || served(&fleet, Scenario::S3, Policy::Learned, 0.5);
        let (a, b) = (run(), run());
        assert!(a.sent > 1_000);
        assert_eq!(
            (a.sent, a.answered, a.on_time, &a.errors),
            (b.sent, b.answered, b.on_time, &b.errors)
        );
        assert_eq!(a.times.quantile_ms(0.999), b.times.quantile_ms(0.999));
        assert_eq!(a.work.busy, b.work.busy);
    }

    #[test]
    fn whoever_is_told_of_the_target_keeps_it_where_eager_batches_do_not() {
        let share = |policy| served(CORES, Scenario::S0, policy, 0.78).on_time_share();
        let (learned, eager, timeout) =
            (share(Policy::Learned), share(Policy::Eager), share(Policy::Timeout));
        assert!(learned > 0.97 && learned > eager + 0.01, "{learned} against {eager}");
        assert!(timeout <= eager + 0.01, "{timeout} against {eager}");
    }

    #[test]
    fn every_request_ends_once_whatever_the_scenario() {
        let family = format!("{CORES}\ncount = 8\nbase_share = 0.9");
        let family = format!("cache_bytes = 1000000\nbase_cache_bytes = 1000000\n{family}");
        for scenario in [Scenario::S5, Scenario::S6, Scenario::S7, Scenario::S8] {
            let found = served(&family, scenario, Policy::Learned, 0.7);
            let errors: u64 = found.errors.values().sum();
            assert_eq!(found.sent, found.answered + found.hung_up + errors, "{scenario:?}");
            assert!(found.answered > found.sent / 2, "{scenario:?}: {found:?}");
            let busy = found.work.busy.as_secs_f64() / found.work.capacity.as_secs_f64();
            assert!(busy > 0.0 && busy < 1.05, "{scenario:?}: {busy}");
        }
    }

    #[test]
    fn what_waits_less_than_it_runs_follows_the_closed_form() {
        // One server, Poisson, no batches, service as good as constant: the mean of M/D/1.
        let plan =
            "[[model]]\nname = 'a'\nfixed_ms = 0\nrow_ms = 10\nnoise = 0\nbatch_rows_max = 1";
        let found = served(plan, Scenario::S0, Policy::Eager, 0.5);
        let expected = 10.0 + 0.5 * 10.0 / (2.0 * 0.5);
        assert!((found.times.mean_ms() / expected - 1.0).abs() < 0.05, "{}", found.times.mean_ms());
    }
}
