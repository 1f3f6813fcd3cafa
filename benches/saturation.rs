//! Saturated throughput through the daemon against the best that the same process could do by itself over a
//! grid of batch size, threads and runs at a time.

use crate::support::client::Load;
use crate::support::direct::Direct;
use crate::support::payload::Payload;
use crate::support::server::Server;
use crate::support::table::{Table, Target, alternate, rate, time};
use crate::support::{Effort, model_file, real_models};

const CONNECTIONS: usize = 64;
/// Threads of a run, and runs at a time, on two cores; the daemon's own choice is among them.
const WAYS: [(usize, usize); 3] = [(1, 1), (1, 2), (2, 1)];
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// No point of the grid is tried whose one batch takes longer.
const BATCH_MAX_S: f64 = 0.2;

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    // Name, share of the limit that is to be reached.
    let models: &[(&str, f64)] = match real_models() {
        Some(_) => &[("speech_embedding", 0.95), ("minilm_route", 0.98)],
        None => &[("slow", 0.98)],
    };
    for &(model, share) in models {
        one(model, share, effort, table);
    }
}

fn one(model: &str, share: f64, effort: Effort, table: &mut Table) {
    let daemon = Server::daemon(&[model], &[]);
    let socket = daemon.socket();
    let payload = Payload::of(&socket, model, 1);
    let request = payload.request(false);
    let file = model_file(model).expect("the model's file");
    let alone = Direct::load(&file, 1, 1).p50(&payload.plan(1), 9);
    let points = search(&file, &payload, alone, effort);
    let span = effort.span(600);
    let mut numbers = 0..;
    let load = Load { socket: &socket, connections: CONNECTIONS, request: &request.bytes };
    let mut served = || load.rate(span, |bytes| request.stamp(bytes, &mut numbers));
    let plans: Vec<_> = points.iter().map(|point| payload.plan(point.rows)).collect();
    let mut direct: Vec<_> = points
        .iter()
        .zip(&plans)
        .map(|(point, plan)| move || point.direct.rate(plan, span))
        .collect();
    let mut sides: Vec<&mut dyn FnMut() -> f64> = vec![&mut served];
    sides.extend(direct.iter_mut().map(|side| side as &mut dyn FnMut() -> f64));
    let results = alternate(effort.rounds, &mut sides);
    // The limit is the way that was best over all rounds, not the luckiest in the search.
    let limits = points.iter().zip(&results[1..]);
    let best = limits.max_by(|a, b| a.1.median().total_cmp(&b.1.median()));
    let (Point { rows, threads, lanes, .. }, limit) = best.expect("a way to run");
    let served = &results[0];
    let what = format!(
        "saturated throughput, `{model}` ({} a row alone), {CONNECTIONS} connections",
        time(alone)
    );
    let against = format!(
        "in process {} (batch {rows}, {threads} threads, {lanes} at a time)",
        rate(limit.median())
    );
    table.add(&what, &rate(served.median()), &against, &served.over(limit), Target::AtLeast(share));
}

/// One point of the grid.
struct Point {
    direct: Direct,
    rows: usize,
    threads: usize,
    lanes: usize,
}

/// The best batch size of every way to use the cores.
fn search(file: &std::path::Path, payload: &Payload, alone: f64, effort: Effort) -> Vec<Point> {
    let point = |(threads, lanes)| {
        let direct = Direct::load(file, threads, lanes);
        let sizes = BATCHES.into_iter().filter(|&rows| rows as f64 * alone < BATCH_MAX_S);
        let rates = sizes.map(|rows| (direct.rate(&payload.plan(rows), effort.span(200)), rows));
        let (_, rows) = rates.max_by(|a, b| a.0.total_cmp(&b.0)).expect("one row at least");
        Point { direct, rows, threads, lanes }
    };
    WAYS.into_iter().map(point).collect()
}
