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

pub fn bench(effort: Effort, table: &mut Table) {
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
    let best = search(&file, &payload, alone, effort);
    let Best { direct, rows, threads, lanes, .. } = &best;
    let plan = payload.plan(*rows);
    let mut numbers = 0..;
    let results = alternate(
        effort.rounds + 2,
        &mut [
            &mut || {
                let load =
                    Load { socket: &socket, connections: CONNECTIONS, request: &request.bytes };
                load.rate(effort.span(800), |bytes| request.stamp(bytes, &mut numbers))
            },
            &mut || direct.rate(&plan, effort.span(800)),
        ],
    );
    let (served, limit) = (&results[0], &results[1]);
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

/// The best point of the grid.
struct Best {
    direct: Direct,
    rows: usize,
    threads: usize,
    lanes: usize,
    rate: f64,
}

fn search(file: &std::path::Path, payload: &Payload, alone: f64, effort: Effort) -> Best {
    let mut best: Option<Best> = None;
    for (threads, lanes) in WAYS {
        let direct = Direct::load(file, threads, lanes);
        for rows in BATCHES.into_iter().filter(|&rows| rows as f64 * alone < BATCH_MAX_S) {
            let rate = direct.rate(&payload.plan(rows), effort.span(200));
            if best.as_ref().is_none_or(|best| rate > best.rate) {
                best = Some(Best { direct: direct.clone(), rows, threads, lanes, rate });
            }
        }
    }
    best.expect("a batch of one row is in the grid")
}
