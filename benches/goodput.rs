//! Answers in time at a target, told of the deadlines against eager batching, on a clock of its own.

use crate::machine::goodput::{Regime, Served};
use crate::support::table::{Rounds, Table, Target};
use crate::support::{Effort, note};
use graftd::simulate::machine::Policy;

const TINY: Regime = Regime {
    name: "tiny model (0.06 + 0.97 ms, 10 ms)",
    row_ms: 0.06,
    fixed_ms: 0.97,
    within_ms: 10.0,
    batch_max: 64,
    ..Regime::PLAIN
};
const TRANSFORMER: Regime = Regime {
    name: "transformer (8 + 12 ms, 150 ms)",
    row_ms: 8.0,
    fixed_ms: 12.0,
    within_ms: 150.0,
    batch_max: 16,
    ..Regime::PLAIN
};
const CONVOLUTIONS: Regime = Regime {
    name: "convolutions (10 + 0.3 ms, 100 ms)",
    row_ms: 10.0,
    fixed_ms: 0.3,
    within_ms: 100.0,
    batch_max: 16,
    ..Regime::PLAIN
};

/// Regimes with the least gain over eager batching.
const GAINS: [(Regime, f64); 5] = [
    (TINY, 1.0),
    (TRANSFORMER, 1.15),
    (Regime { cv: 2.0, ..TRANSFORMER }, 1.4),
    (CONVOLUTIONS, 1.15),
    (Regime { cv: 2.0, ..CONVOLUTIONS }, 1.8),
];
const REQUESTS: usize = 20_000;

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let requests = REQUESTS * effort.factor as usize;
    let seeds = 1..=effort.rounds.max(3) as u64;
    for (regime, least) in GAINS {
        note(&format!("{} at CV {} ...", regime.name, regime.cv));
        let goodput = |policy: Policy| {
            Rounds(seeds.clone().map(|seed| regime.goodput(policy, requests, seed)).collect())
        };
        let (ours, eager) = (goodput(Policy::Learned), goodput(Policy::Eager));
        let what = format!("goodput at 99 % in time: {}, CV {}", regime.name, regime.cv);
        let [a, b] = [&ours, &eager].map(|rounds| format!("{:.2} of capacity", rounds.median()));
        table.add(&what, &a, &format!("{b}, eager"), &ours.over(&eager), Target::AtLeast(least));
    }
    for regime in [TINY, TRANSFORMER, CONVOLUTIONS] {
        let served: Vec<Served> =
            seeds.clone().map(|seed| regime.serve(2.0, Policy::Learned, requests, seed)).collect();
        let of = |what: fn(&Served) -> f64| Rounds(served.iter().map(what).collect());
        let what = format!("twice the capacity, answers in time by capacity: {}", regime.name);
        table.add(&what, "-", "-", &of(|served| served.on_time_rate), Target::AtLeast(0.9));
        let what = format!("twice the capacity, time of cores for late answers: {}", regime.name);
        table.add(&what, "-", "-", &of(|served| served.wasted), Target::AtMost(0.02));
        let what = format!("twice the capacity, late answers of those given: {}", regime.name);
        table.add(&what, "-", "-", &of(|served| served.late), Target::AtMost(0.01));
    }
    for (regime, least) in [(TRANSFORMER, 0.999), (CONVOLUTIONS, 0.999)] {
        let within_ms = 10.0 * (regime.row_ms + regime.fixed_ms);
        let regime = Regime { within_ms, ..regime };
        let served =
            seeds.clone().map(|seed| regime.serve(0.6, Policy::Learned, requests, seed).in_time);
        let what = format!("in time at 0.6 of capacity, ten single runs' time: {}", regime.name);
        table.add(&what, "-", "-", &Rounds(served.collect()), Target::AtLeast(least));
    }
}
