//! Throughput with batching on and off: the same closed loop on two daemons.

use crate::support::client::Load;
use crate::support::payload::Payload;
use crate::support::server::Server;
use crate::support::table::{Table, Target, alternate, rate};
use crate::support::{Effort, real_models};

const CONNECTIONS: usize = 64;

/// Samples, with one row a request.
const SAMPLES: [&str; 3] = ["iris", "wine", "digits_digit"];
/// Requests of many rows, where the runs and not HTTP are what costs.
const MANY_ROWS: [(&str, usize); 2] = [("iris", 64), ("digits_digit", 64)];
/// Published models, small and large, that gain and that do not.
const PUBLISHED: [&str; 5] =
    ["speech_embedding", "magika", "minilm_route", "orientation", "ocr_rec"];

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let published: &[&str] = if real_models().is_some() { &PUBLISHED } else { &[] };
    let models = [&SAMPLES, published].concat();
    let on = Server::daemon(&models, &[]);
    let off = Server::daemon(&models, &["--max-batch-rows", "1"]);
    let single = models.iter().map(|model| (*model, 1));
    for (model, rows) in single.chain(MANY_ROWS) {
        let request = Payload::of(&on.socket(), model, rows).request(false);
        let mut numbers = 0..;
        let mut side = |server: &Server| {
            let socket = server.socket();
            let connections = if SAMPLES.contains(&model) { CONNECTIONS } else { CONNECTIONS / 2 };
            let load = Load { socket: &socket, connections, request: &request.bytes };
            let requests = load.rate(effort.span(400), |bytes| request.stamp(bytes, &mut numbers));
            requests * rows as f64
        };
        let sides = std::cell::RefCell::new(&mut side);
        let results = alternate(
            effort.rounds.min(9),
            &mut [&mut || sides.borrow_mut()(&on), &mut || sides.borrow_mut()(&off)],
        );
        let (with, without) = (&results[0], &results[1]);
        let target = Target::AtLeast(if rows > 1 { 5.0 } else { 0.99 });
        let what = format!("batching on against off, `{model}`, {rows} row(s) a request");
        let measured = format!("{} rows", rate(with.median()));
        let against = format!("{} rows", rate(without.median()));
        table.add(&what, &measured, &against, &with.over(without), target);
    }
    if published.is_empty() {
        table.skip("batching on against off, published models", "no models (`make models`)");
    }
}
