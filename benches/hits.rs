//! Answers from the row store, 64 connections, against an HTTP echo with bodies of the same sizes.
//!
//! The same client loads both: one thread, in this process, that polls all connections.

use crate::support::Effort;
use crate::support::client::{Client, Load};
use crate::support::payload::Payload;
use crate::support::server::Server;
use crate::support::table::{Table, Target, alternate, rate};

const MODEL: &str = "iris";
const CONNECTIONS: usize = 64;
/// Rows that are asked for again and again.
const ROWS: u64 = 256;

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let daemon = Server::daemon(&[MODEL], &[]);
    let socket = daemon.socket();
    let request = Payload::of(&socket, MODEL, 1).request(true);
    let mut client = Client::connect(&socket);
    let mut bytes = request.bytes.clone();
    let answer_bytes = client.call(&bytes).len();
    // Rows are kept once they were run; whether they were is seen in the answers' heads.
    for round in 0..3 {
        for number in 0..ROWS {
            request.stamp(&mut bytes, &mut std::iter::once(number));
            let head = String::from_utf8_lossy(client.exchange(&bytes).0).into_owned();
            assert!(round < 2 || head.contains("hit=1"), "no hit: {head}");
        }
    }
    let echo = Server::echo(answer_bytes);
    let mut numbers = (0..ROWS).cycle();
    let mut side = |server: &Server| {
        let load =
            Load { socket: &server.socket(), connections: CONNECTIONS, request: &request.bytes };
        load.rate(effort.span(600), |bytes| request.stamp(bytes, &mut numbers))
    };
    let mut other = (0..ROWS).cycle();
    let mut echo_side = || {
        let socket = echo.socket();
        let load = Load { socket: &socket, connections: CONNECTIONS, request: &request.bytes };
        load.rate(effort.span(600), |bytes| request.stamp(bytes, &mut other))
    };
    let results = alternate(effort.rounds + 2, &mut [&mut || side(&daemon), &mut || echo_side()]);
    let (hits, echoes) = (&results[0], &results[1]);
    let against = format!("HTTP echo {}", rate(echoes.median()));
    let what = format!(
        "cached hits, {CONNECTIONS} connections, {} B in, {answer_bytes} B out",
        bytes.len()
    );
    // 80,000 of 132,000.
    table.add(&what, &rate(hits.median()), &against, &hits.over(echoes), Target::AtLeast(0.606));
}
