//! The learned choice between base and whole against both fixed ones, at every point of a grid, on a clock of its own.
//!
//! The same requests are served three ways by the daemon's scheduler on an imagined machine of two cores, a seed a round.

use crate::machine::device::Outcome;
use crate::machine::grid::{Compared, compare, points};
use crate::machine::trace::{Point, USUAL};
use crate::support::table::{Rounds, Table, Target};
use crate::support::{Effort, note};
use std::collections::BTreeMap;

const SHARES: [f64; 4] = [0.2, 0.5, 0.8, 0.95];
const REUSE: [f64; 4] = [0.0, 0.25, 0.5, 0.9];
const LOADS: [f64; 4] = [0.2, 0.6, 0.95, 1.3];
const HEADS: [u32; 3] = [2, 4, 8];
const REQUESTS: usize = 6_000;

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let points = points(&SHARES, &REUSE, &LOADS, &HEADS);
    let seeds: Vec<u64> = (1..=effort.rounds as u64).collect();
    let requests = REQUESTS * effort.factor as usize;
    let all: Vec<(Point, Vec<Compared>)> = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let parts = points.chunks(points.len().div_ceil(threads)).map(|part| {
            let rounds = |&point| {
                let served = seeds.iter().map(|&seed| compare(point, &USUAL, requests, seed));
                (point, served.collect())
            };
            scope.spawn(move || part.iter().map(rounds).collect::<Vec<_>>())
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("no round panics")).collect()
    });
    note(
        "| base | reuse | load | heads | auto/best | worst/auto | auto, always, never: mean ms | p99 ms | good/s |",
    );
    note("|---|---|---|---|---|---|---|---|---|---|");
    all.iter().for_each(|(point, rounds)| line(point, rounds));
    for load in LOADS {
        summary(load, &all, table);
    }
    // Near saturation a queue grows long by little more work, so this says less than the answers in time do.
    let slower = all.iter().filter(|(point, _)| point.load > 0.9 && point.load < 1.0);
    let slower = slower.map(|(_, rounds)| of(rounds, Compared::mean_to_best));
    if let Some(ratio) = slower.max_by(|a, b| a.median().total_cmp(&b.median())) {
        let what = "decision grid near saturation: the learned choice over the better fixed one, at its worst point";
        table.add(what, "mean latency", "-", &ratio, Target::None);
    }
    let worst = |rounds: &[Compared]| of(rounds, Compared::to_worst).median();
    let gains = all.iter().map(|(_, rounds)| worst(rounds)).fold(0.0, f64::max);
    let what = "decision grid: the worse fixed choice over the learned one, at its best point";
    table.add(what, "-", "-", &Rounds(vec![gains]), Target::AtLeast(1.5));
    let unshared = all.iter().filter(|(point, _)| point.reuse == 0.0 && point.load > 1.0);
    let rate = |one: &Compared| one.auto.rate / one.never.rate;
    let kept = unshared.map(|(_, rounds)| of(rounds, rate).median()).fold(f64::INFINITY, f64::min);
    let what =
        "decision grid: throughput with nothing to share over whole models, at its worst point";
    table.add(what, "-", "-", &Rounds(vec![kept]), Target::AtLeast(0.97));
}

fn of(rounds: &[Compared], what: impl Fn(&Compared) -> f64) -> Rounds {
    Rounds(rounds.iter().map(what).collect())
}

fn line(point: &Point, rounds: &[Compared]) {
    let Point { share, reuse, load, heads } = point;
    let three = |what: fn(&Outcome) -> f64, digits: usize| {
        let [auto, always, never] = [
            of(rounds, |one| what(&one.auto)).median(),
            of(rounds, |one| what(&one.always)).median(),
            of(rounds, |one| what(&one.never)).median(),
        ];
        format!("{auto:.digits$}, {always:.digits$}, {never:.digits$}")
    };
    note(&format!(
        "| {share} | {reuse} | {load} | {heads} | {:.3} | {:.2} | {} | {} | {} | {:.0} % |",
        of(rounds, Compared::to_best).median(),
        of(rounds, Compared::to_worst).median(),
        three(|outcome| outcome.mean * 1e3, 2),
        three(|outcome| outcome.p99 * 1e3, 1),
        three(|outcome| outcome.good, 0),
        of(rounds, whole).median(),
    ));
}

/// The share in a hundred of rows for which the learned choice ran the whole model.
fn whole(one: &Compared) -> f64 {
    let routes = one.auto.routes;
    100.0 * f64::from(routes.whole) / f64::from((routes.run() + routes.join + routes.hit).max(1))
}

/// One line for all points of a load: the worst of them.
fn summary(load: f64, all: &[(Point, Vec<Compared>)], table: &mut Table) {
    let mut by_point = BTreeMap::new();
    for (number, (_, rounds)) in all.iter().enumerate().filter(|(_, (p, _))| p.load == load) {
        let ratio = of(rounds, Compared::to_best);
        by_point.insert((ratio.median() * 1e9) as u64, (number, ratio));
    }
    let Some((_, (number, ratio))) = by_point.pop_last() else { return };
    let (Point { share, reuse, heads, .. }, _) = all[number];
    let measured = match load {
        load if load > 1.0 => "time an answer takes up",
        load if load > 0.9 => "answers in time, inverse",
        _ => "mean latency",
    };
    let what = format!(
        "decision grid at load {load}: the learned choice over the better fixed one, at its worst point"
    );
    let place = format!("base {share}, reuse {reuse}, {heads} heads");
    table.add(&what, measured, &place, &ratio, Target::AtMost(1.05));
}
