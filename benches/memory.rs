//! Memory of one worker with one session and with four, on the largest published model.

use crate::support::client::Load;
use crate::support::payload::Payload;
use crate::support::server::{Server, pss_bytes};
use crate::support::table::{Table, Target, alternate};
use crate::support::{Effort, real_models};
use std::path::Path;

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let what = "memory (PSS) of a worker, 4 sessions against 1";
    let Some(model) = real_models().and_then(|place| largest(&place)) else {
        return table.skip(what, "no published models (`make models`)");
    };
    let rounds = effort.rounds.div_ceil(2);
    let side = |sessions: &str| used(&model, sessions, effort);
    let results = alternate(rounds, &mut [&mut || side("4"), &mut || side("1")]);
    let shown = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    let (four, one) = (&results[0], &results[1]);
    let what = format!("{what}, `{model}` under load");
    table.add(
        &what,
        &shown(four.median()),
        &shown(one.median()),
        &four.over(one),
        Target::AtMost(1.3),
    );
}

fn largest(place: &Path) -> Option<String> {
    let models = std::fs::read_dir(place).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let bytes = std::fs::metadata(path.join("1/model.onnx")).ok()?.len();
        Some((bytes, path.file_name()?.to_str()?.to_owned()))
    });
    models.max().map(|(_, name)| name)
}

/// Bytes of a daemon's workers after all their sessions have run at once.
fn used(model: &str, sessions: &str, effort: Effort) -> f64 {
    let daemon = Server::daemon(&[model], &["--sessions", sessions]);
    let socket = daemon.socket();
    let request = Payload::of(&socket, model, 1).request(false);
    let mut numbers = 0..;
    let load = Load { socket: &socket, connections: 32, request: &request.bytes };
    load.rate(effort.span(500), |bytes| request.stamp(bytes, &mut numbers));
    daemon.workers().into_iter().filter_map(pss_bytes).map(|bytes| bytes as f64).sum()
}
