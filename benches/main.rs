//! All benchmarks: ratios of two things measured alternately in one run, as one Markdown table.
//!
//! `cargo bench --locked` runs all, `cargo bench --locked -- hits latency` those; GRAFTD_BENCH_LONG=1 takes
//! more time. The daemon, the echo that it is held against and the load are processes of their own: the
//! daemon and the echo are spawned, and this process is the client of both.
//!
//! For profiling, the same load on a server of one's own: `ratios load SOCKET MODEL CONNECTIONS SECONDS
//! kept|unique`; several models, as `a,b,c`, are each asked every row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its table")]

mod batching;
mod crossing;
mod families;
mod goodput;
mod grid;
mod hits;
mod kept;
mod latency;
#[path = "../tests/it/machine/mod.rs"]
mod machine;
mod memory;
mod saturation;
mod scheduler;
mod support;

use std::path::Path;
use std::time::Duration;
use support::Effort;
use support::client::Load;
use support::payload::Payload;
use support::table::{Table, rate};

type Bench = fn(Effort, &mut Table);

const BENCHES: [(&str, Bench); 11] = [
    ("latency", latency::bench),
    ("crossing", crossing::bench),
    ("hits", hits::bench),
    ("scheduler", scheduler::bench),
    ("goodput", goodput::bench),
    ("grid", grid::bench),
    ("kept", kept::bench),
    ("memory", memory::bench),
    ("saturation", saturation::bench),
    ("batching", batching::bench),
    ("families", families::bench),
];

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, bytes, _, socket] = given.as_slice()
        && verb == "echo"
    {
        let bytes = bytes.parse().expect("a number of bytes");
        return support::server::echo_main(bytes, Path::new(socket));
    }
    if let [verb, socket, model, connections, seconds, kind] = given.as_slice()
        && verb == "load"
    {
        let connections = connections.parse().expect("a number of connections");
        let span = Duration::from_secs(seconds.parse().expect("a number of seconds"));
        let models: Vec<&str> = model.split(',').collect();
        return load(Path::new(socket), &models, connections, span, kind == "kept");
    }
    // Cargo adds this flag when it runs benchmarks; without it, it only wants to see them built.
    if !given.iter().any(|argument| argument == "--bench") {
        return support::note("benchmarks are run by cargo bench");
    }
    let wanted: Vec<&String> = given.iter().filter(|given| !given.starts_with("--")).collect();
    let effort = Effort::chosen();
    let mut table = Table::default();
    for (name, bench) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            support::note(&format!("{name} ..."));
            bench(effort, &mut table);
        }
    }
    let text = table.markdown();
    println!("{text}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    std::fs::write(target.join("bench.md"), text).expect("the table in target/bench.md");
}

fn load(socket: &Path, models: &[&str], connections: usize, span: Duration, kept: bool) {
    let requests: Vec<_> =
        models.iter().map(|model| Payload::of(socket, model, 1).request(kept)).collect();
    let mut asked = 0_usize;
    let load = Load { socket, connections, request: &requests[0].bytes };
    let answers = load.rate(span, |bytes| {
        let request = &requests[asked % models.len()];
        let row = (asked / models.len()) as u64;
        bytes.copy_from_slice(&request.bytes);
        request.stamp(bytes, &mut std::iter::once(if kept { row % 256 } else { row }));
        asked += 1;
    });
    println!("{}", rate(answers));
}
