//! All benchmarks: ratios of two things measured alternately in one run, as one Markdown table.
//!
//! `cargo bench --locked` runs all, `cargo bench --locked -- hits latency` those; GRAFTD_BENCH_LONG=1 takes
//! more time. The daemon, the echo that it is held against and the load are processes of their own: the
//! daemon and the echo are spawned, and this process is the client of both.
//!
//! For profiling a server of one's own, and for others than this one, there is `graftd bench`.

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
use support::Effort;
use support::table::Table;

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
