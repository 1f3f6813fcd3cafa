//! What is imagined: machines, their devices, and what models cost on them.

use crate::sched::quantile::Quantile;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Machines, and devices of each, at most: every machine is a thread.
const DEVICES_MAX: usize = 1024;

/// A fleet as a file describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Machines, all alike; each has a scheduler of its own.
    #[serde(default = "one")]
    pub machines: usize,
    /// Devices of a machine.
    #[serde(default = "one")]
    pub devices: usize,
    /// Runs that a device does side by side, such as the cores of a CPU.
    #[serde(default = "one")]
    pub runs: usize,
    /// Bytes of kept answers on a machine.
    #[serde(default)]
    pub cache_bytes: u64,
    /// Bytes of kept base outputs on a machine.
    #[serde(default)]
    pub base_cache_bytes: u64,
    /// What is served.
    pub model: Vec<Kind>,
}

/// Models that cost the same.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Their name; several have `_1` and so on behind it.
    pub name: String,
    /// How many there are.
    #[serde(default = "one")]
    pub count: usize,
    /// How often the first of them is asked beside other kinds; the scenario's weight where there is none.
    pub weight: Option<f64>,
    /// The k-th of them is asked 1 / k^skew as often.
    #[serde(default)]
    pub skew: f64,
    /// Milliseconds of a run, whatever its rows.
    pub fixed_ms: f64,
    /// Milliseconds that each row of a run adds.
    pub row_ms: f64,
    /// How much longer runs take than that on average, by an exponential law, as a share.
    #[serde(default = "usual_noise")]
    pub noise: f64,
    /// Rows of a batch, at most.
    #[serde(default = "usual_batch")]
    pub batch_rows_max: usize,
    /// Bytes of a row of the answer.
    #[serde(default = "usual_bytes")]
    pub output_bytes: u64,
    /// The share of their answers that are to be in time, where there is a target.
    #[serde(default)]
    pub latency_quantile: Quantile,
    /// They are heads of one base, which takes this share of the time.
    pub base_share: Option<f64>,
    /// Bytes of a row of the base's output.
    #[serde(default = "usual_base_bytes")]
    pub base_bytes: u64,
}

const fn one() -> usize {
    1
}

const fn usual_noise() -> f64 {
    0.05
}

const fn usual_batch() -> usize {
    32
}

const fn usual_bytes() -> u64 {
    256
}

const fn usual_base_bytes() -> u64 {
    4096
}

/// A model and where it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The place of its kind in the plan.
    pub kind: usize,
    /// The machine.
    pub machine: usize,
    /// The device of that machine.
    pub device: usize,
    /// How often it is asked, by itself.
    pub weight: f64,
}

impl Kind {
    /// What a run of so many rows takes on average, in milliseconds.
    #[must_use]
    pub fn run_ms(&self, rows: usize) -> f64 {
        (self.fixed_ms + self.row_ms * rows as f64) * (1.0 + self.noise)
    }

    /// What a row takes in the batches that do most, in milliseconds.
    #[must_use]
    pub fn best_row_ms(&self) -> f64 {
        self.run_ms(self.batch_rows_max) / self.batch_rows_max as f64
    }

    /// The fewest rows whose throughput is within a twentieth of the best, as loading measures it.
    #[must_use]
    pub fn knee(&self) -> usize {
        let best = self.best_row_ms();
        let near = |rows: &usize| self.run_ms(*rows) / *rows as f64 * 0.95 <= best;
        (1..=self.batch_rows_max).find(near).unwrap_or(self.batch_rows_max)
    }
}

impl Plan {
    /// The plan that a file's text means.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn read(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let positive = |what: &str, value: usize| match value {
            0 => Err(format!("{what} = 0; expected 1 or more")),
            _ => Ok(()),
        };
        positive("machines", plan.machines)?;
        positive("devices", plan.devices)?;
        positive("runs", plan.runs)?;
        for (what, value) in [("machines", plan.machines), ("devices", plan.devices)] {
            if value > DEVICES_MAX {
                return Err(format!("{what} = {value}; expected {DEVICES_MAX} at most"));
            }
        }
        positive("[[model]]", plan.model.len())?;
        for kind in &plan.model {
            let of = |what: &str| format!("model '{}': {what}", kind.name);
            positive(&of("count"), kind.count)?;
            positive(&of("batch_rows_max"), kind.batch_rows_max)?;
            let time = |what: &str, value: f64| match (0.0..=1e7).contains(&value) {
                true => Ok(()),
                false => Err(format!("{} = {value}; expected 0 to 10000000", of(what))),
            };
            time("fixed_ms", kind.fixed_ms)?;
            time("row_ms", kind.row_ms)?;
            time("noise", kind.noise)?;
            time("skew", kind.skew)?;
            if kind.fixed_ms + kind.row_ms <= 0.0 {
                return Err(of("a run takes no time; give fixed_ms or row_ms"));
            }
            if let Some(share) = kind.base_share.filter(|share| !(0.0..1.0).contains(share)) {
                return Err(format!("{} = {share}; expected 0 to 1", of("base_share")));
            }
        }
        Ok(plan)
    }

    /// The models in the order in which they are numbered, each with the weight that it has of its own.
    #[must_use]
    pub fn models(&self) -> Vec<(String, Option<f64>)> {
        let of = |kind: &Kind| {
            let Kind { name, weight, skew, count, .. } = kind.clone();
            let model = move |at: usize| {
                let weight = weight.map(|weight| weight / (at as f64 + 1.0).powf(skew));
                let name = if count == 1 { name.clone() } else { format!("{name}_{}", at + 1) };
                (name, weight)
            };
            (0..count).map(model)
        };
        self.model.iter().flat_map(of).collect()
    }

    /// Where each model runs that is asked so often: the most wanted first, each where least is to be done so far.
    ///
    /// Heads of one base run on one device.
    #[must_use]
    pub fn placed(&self, weights: &[f64]) -> Vec<Placed> {
        let kinds = self.model.iter().enumerate();
        let kinds = kinds.flat_map(|(at, kind)| std::iter::repeat_n(at, kind.count));
        let mut models: Vec<(usize, usize, f64)> = kinds
            .zip(weights)
            .enumerate()
            .map(|(at, (kind, &weight))| (at, kind, weight))
            .collect();
        let work = |kind: usize, weight: f64| self.model[kind].best_row_ms() * weight;
        models.sort_by(|a, b| work(b.1, b.2).total_cmp(&work(a.1, a.2)));
        let mut loads = vec![0.0; self.machines * self.devices];
        let mut bases = BTreeMap::<usize, usize>::new();
        let mut placed = vec![Placed { kind: 0, machine: 0, device: 0, weight: 0.0 }; models.len()];
        for (model, kind, weight) in models {
            let least = || {
                let by = |a: &usize, b: &usize| f64::total_cmp(&loads[*a], &loads[*b]);
                (0..loads.len()).min_by(by).unwrap_or(0)
            };
            let device = match self.model[kind].base_share {
                Some(_) => *bases.entry(kind).or_insert_with(least),
                None => least(),
            };
            loads[device] += work(kind, weight);
            let (machine, device) = (device / self.devices, device % self.devices);
            placed[model] = Placed { kind, machine, device, weight };
        }
        placed
    }

    /// Requests a second of single rows that the devices can answer at most, all rows different and nothing shared.
    #[must_use]
    pub fn capacity(&self, placed: &[Placed]) -> f64 {
        let all: f64 = placed.iter().map(|model| model.weight).sum();
        let mut loads = vec![0.0; self.machines * self.devices];
        for model in placed {
            let device = model.machine * self.devices + model.device;
            loads[device] += self.model[model.kind].best_row_ms() / 1e3 * model.weight / all;
        }
        let busiest = loads.into_iter().fold(0.0, f64::max);
        self.runs as f64 / busiest.max(1e-12)
    }

    /// A time that a run of one row of any model stays within.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let longest = self.model.iter().map(|kind| kind.run_ms(1)).fold(0.0, f64::max);
        Duration::from_secs_f64(longest / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_wanted_is_spread_first_and_heads_stay_together() {
        let plan = Plan::read(
            "machines = 2\ndevices = 2\n[[model]]\nname = 'a'\ncount = 6\nweight = 1.0\nfixed_ms = 1\nrow_ms = 1\n\
             [[model]]\nname = 'h'\ncount = 3\nbase_share = 0.9\nfixed_ms = 1\nrow_ms = 1",
        )
        .unwrap();
        let weights: Vec<f64> = plan.models().iter().map(|(_, own)| own.unwrap_or(0.1)).collect();
        let placed = plan.placed(&weights);
        assert_eq!(placed.len(), 9);
        let device = |at: usize| (placed[at].machine, placed[at].device);
        let mut first: Vec<_> = (0..4).map(device).collect();
        first.sort_unstable();
        assert_eq!(first, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert!(device(6) == device(7) && device(7) == device(8));
        // Each of two devices has two of six and a third of what is asked, at most.
        let capacity = plan.capacity(&placed);
        let row = plan.model[0].best_row_ms() / 1e3;
        assert!((capacity * row * 2.0 / 6.3 - 1.0).abs() < 0.01, "{capacity}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let kind = "[[model]]\nname = 'a'\nfixed_ms = 1\nrow_ms = 1\n";
        assert!(Plan::read(kind).is_ok());
        for (text, word) in [
            (String::new(), "model"),
            (format!("runs = 0\n{kind}"), "runs = 0"),
            (format!("{kind}count = 0"), "'a': count = 0"),
            (format!("{kind}noise = -1"), "noise = -1"),
            (format!("{kind}latency_quantile = 99"), "expected a share"),
            (format!("{kind}base_share = 1.5"), "base_share"),
            (format!("{kind}colour = 1"), "colour"),
            ("[[model]]\nname = 'a'\nfixed_ms = 0\nrow_ms = 0".to_owned(), "no time"),
        ] {
            let why = Plan::read(&text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
