//! The round trip of a tiny model, one client, against an HTTP echo plus a run of the model in process.

use crate::support::client::Client;
use crate::support::direct::{Direct, p50};
use crate::support::payload::{Payload, Request};
use crate::support::server::Server;
use crate::support::table::{Table, Target, alternate, time};
use crate::support::{Effort, model_file};

/// Requests of one side of a round in quick mode.
const REQUESTS: usize = 4_000;

/// One client of one server, with rows never sent before.
struct Caller {
    client: Client,
    request: Request,
    numbers: std::ops::RangeFrom<u64>,
}

impl Caller {
    fn new(server: &Server, request: &Request) -> Self {
        let (client, request) = (Client::connect(&server.socket()), request.clone());
        Self { client, request, numbers: 0.. }
    }

    fn p50(&mut self, requests: usize) -> f64 {
        let Self { client, request, numbers } = self;
        let mut bytes = request.bytes.clone();
        p50(requests, || {
            request.stamp(&mut bytes, numbers);
            client.exchange(&bytes);
        })
    }
}

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    for model in ["digits_digit", "iris"] {
        one(model, effort, table);
    }
}

fn one(model: &str, effort: Effort, table: &mut Table) {
    let worker = Server::daemon(&[model], &["--isolation", "worker"]);
    let inside = Server::daemon(&[model], &["--isolation", "none"]);
    let payload = Payload::of(&worker.socket(), model, 1);
    let request = payload.request(false);
    let answer_bytes = Client::connect(&worker.socket()).call(&request.bytes).len();
    let echo = Server::echo(answer_bytes);
    let direct = Direct::load(&model_file(model).expect("a sample model"), 1, 1);
    let plan = payload.plan(1);
    let requests = REQUESTS * effort.factor as usize;
    let [mut to_echo, mut to_worker, mut to_inside] =
        [&echo, &worker, &inside].map(|server| Caller::new(server, &request));
    let results = alternate(
        effort.rounds + 2,
        &mut [
            &mut || to_echo.p50(requests),
            &mut || direct.p50(&plan, requests),
            &mut || to_worker.p50(requests),
            &mut || to_inside.p50(requests),
        ],
    );
    let [echo, run, worker, inside] = results.as_slice() else { return };
    let floor = echo.plus(run);
    let against = format!("echo {} + run {}", time(echo.median()), time(run.median()));
    for (how, took) in [("none", inside), ("worker", worker)] {
        let what = format!("latency p50, `{model}`, one client, `--isolation {how}`");
        let ratio = took.over(&floor);
        table.add(&what, &time(took.median()), &against, &ratio, Target::AtMost(2.0));
    }
}
