//! Models that share a base against the same models served each as a whole: throughput, memory, and what it costs
//! where there is nothing to share.

use crate::support::Effort;
use crate::support::client::{Client, Load};
use crate::support::direct::Direct;
use crate::support::payload::{Payload, Request};
use crate::support::server::{Server, pss_bytes};
use crate::support::table::{Rounds, Table, Target, alternate, rate};
use bytes::Bytes;
use graftd::engine::BatchPlan;
use graftd::graph::{self, family};
use graftd::rows::Inputs;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The member that all others are made from: a sentence encoder with a classifier on it.
const ORIGIN: &str = "minilm_topic";
/// Callers a head, so that the base has as many rows in flight however many heads ask for each.
const CALLERS: usize = 16;
/// Rows of the batch by which the base's share is measured.
const BATCH: usize = 8;
/// Rows that requests repeat, and how often: the n-th most popular one n times less than the first.
const POPULAR: usize = 2048;
/// How long a daemon may take to find a family, and then to settle how it serves it.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let Some(origin) = super::support::model_file(ORIGIN) else {
        return table.skip("K heads on one base", "no published models (`make models`)");
    };
    let origin = Bytes::from(std::fs::read(origin).expect("a model file"));
    let share = share(&origin);
    for heads in [2, 4, 8] {
        let pair = Pair::start(&origin, heads, &[]);
        throughput(&pair, share, effort, table);
        if heads == 8 {
            memory(&pair, table);
        }
    }
    let uncached = Pair::start(&origin, 4, &["--cache-bytes", "0"]);
    zipf(&uncached, effort, table);
    alone(&Pair::start(&origin, 4, &[]), effort, table);
}

/// The same models twice: as a family, and each as a whole.
struct Pair {
    family: Server,
    wholes: Server,
    heads: usize,
    _models: TempDir,
}

impl Pair {
    fn start(origin: &Bytes, heads: usize, flags: &[&str]) -> Self {
        let models = tempfile::tempdir().expect("a temporary folder");
        for number in 0..heads {
            let place = models.path().join(name(number));
            std::fs::create_dir_all(&place).expect("a folder for a model");
            std::fs::write(place.join("model.onnx"), variant(origin, number)).expect("a model");
        }
        let files: Vec<(String, PathBuf)> = (0..heads)
            .map(|number| (name(number), models.path().join(name(number)).join("model.onnx")))
            .collect();
        let family = Server::of(&files, flags);
        let wholes = Server::of(&files, &[flags, &["--sharing", "never"]].concat());
        settled(&family.socket(), heads);
        Self { family, wholes, heads, _models: models }
    }

    /// Answers a second of family and wholes, in turns.
    fn rates(
        &self,
        effort: Effort,
        span: Duration,
        mut next: impl FnMut(&Request, &mut [u8]),
    ) -> Vec<Rounds> {
        let request = Payload::of(&self.family.socket(), &name(0), 1).request(true);
        let (family, wholes) = (self.family.socket(), self.wholes.socket());
        let next = std::cell::RefCell::new(&mut next);
        let side = |socket: &Path| {
            let connections = CALLERS * self.heads;
            let load = Load { socket, connections, request: &request.bytes };
            load.rate(span, |bytes| (next.borrow_mut())(&request, bytes))
        };
        let rounds = effort.rounds;
        alternate(rounds, &mut [&mut || side(&family), &mut || side(&wholes)])
    }
}

fn name(number: usize) -> String {
    format!("member{number}")
}

/// A copy of a model whose last weights differ in their lowest bits.
fn variant(origin: &Bytes, number: usize) -> Vec<u8> {
    let model = graph::read(origin.clone()).expect("a model");
    let nodes = &model.graph().node;
    let last = nodes.iter().rev().find(|node| node.op_type.as_deref() == Some("MatMul"));
    let weights = &last.expect("a classifier").input[1];
    let constant = nodes.iter().find(|node| node.output.first() == Some(weights));
    let tensor = constant.and_then(|node| node.attribute.iter().find_map(|it| it.t.as_deref()));
    let initializer =
        || model.graph().initializer.iter().find(|it| it.name.as_ref() == Some(weights));
    let tensor = tensor.or_else(initializer).expect("its weights");
    let raw = tensor.raw_data.as_ref().expect("weights in the file");
    // What was read is a part of the file, not a copy.
    let at = raw.as_ptr() as usize - origin.as_ptr() as usize;
    let mut bytes = origin.to_vec();
    bytes[at] ^= u8::try_from(number).expect("a few");
    bytes
}

/// Waits until all members have their way through the base.
#[expect(clippy::disallowed_methods, reason = "nobody is told when a family is settled")]
fn settled(socket: &Path, heads: usize) {
    let clock = graftd::clock::Clock::start();
    let request = b"GET /v2/graftd/status HTTP/1.1\r\nhost: bench\r\n\r\n";
    let resting = || {
        let status: Value =
            serde_json::from_slice(&Client::connect(socket).call(request)).expect("a status");
        status["resting"].as_array().map_or(0, Vec::len)
    };
    while resting() < heads {
        assert!(clock.now().since(graftd::time::MonoTime::ZERO) < PATIENCE, "no family was found");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The base's share of the time of a row, base and head each run by themselves.
fn share(origin: &Bytes) -> f64 {
    let models = [variant(origin, 0), variant(origin, 1)]
        .map(|bytes| graph::read(bytes.into()).expect("a model"));
    let none = |_: &graph::ExternalData| Err("no external data".to_owned());
    let sketches = models.each_ref().map(|model| family::sketch(model, &none).expect("a sketch"));
    let found = family::families(&sketches.each_ref(), family::Worth::Much);
    let cut = &found.families.first().expect("a family").cut[0];
    let legs = family::split(&models[0], &none, &[cut]).expect("base and head");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |number: usize| {
        let file = folder.path().join(number.to_string());
        std::fs::write(&file, &legs[number].bytes).expect("a model");
        Direct::load(&file, 1, 1)
    };
    let served = Server::of(&[(name(0), super::support::model_file(ORIGIN).expect("it"))], &[]);
    let inputs = Payload::of(&served.socket(), &name(0), BATCH).inputs();
    drop(served);
    let (base, head) = (file(0), file(1));
    let given: Vec<_> = legs[0]
        .inputs
        .iter()
        .map(|source| match *source {
            family::Source::Request(number) => inputs.tensors[number].clone(),
            family::Source::Below(_) => panic!("a base takes requests alone"),
        })
        .collect();
    let given = plan(Arc::new(Inputs { tensors: given, rows: BATCH }));
    let made = graftd::engine::local::run(base.engine.as_ref(), 0, &given).expect("a run").0;
    let tensors = legs[1].inputs.iter().map(|source| match *source {
        family::Source::Request(number) => inputs.tensors[number].clone(),
        family::Source::Below(number) => {
            let tensor = made.tensors[number].clone();
            graftd::rows::InputTensor {
                datatype: tensor.datatype,
                shape: tensor.shape,
                axis: tensor.axis,
                data: tensor.data,
                row_ends: tensor.row_ends,
                storage: tensor.storage,
            }
        }
    });
    let above = plan(Arc::new(Inputs { tensors: tensors.collect(), rows: BATCH }));
    let (base, head) = (base.p50(&given, 15), head.p50(&above, 15));
    base / (base + head)
}

fn plan(inputs: Arc<Inputs>) -> BatchPlan {
    let mut plan = BatchPlan { whole: true, ..BatchPlan::default() };
    (0..BATCH).for_each(|row| plan.push(inputs.clone(), row));
    plan
}

/// Every row is asked of every head.
fn throughput(pair: &Pair, share: f64, effort: Effort, table: &mut Table) {
    let heads = pair.heads;
    let mut asked = 0_usize;
    let results = pair.rates(effort, effort.span(3_000), |request, bytes| {
        address(bytes, asked % heads);
        request.stamp(bytes, &mut std::iter::once((asked / heads) as u64));
        asked += 1;
    });
    let ceiling = 1.0 / ((1.0 - share) + share / heads as f64);
    let ratio = results[0].over(&results[1]);
    let of_ceiling = Rounds(ratio.0.iter().map(|ratio| ratio / ceiling).collect());
    let what = format!(
        "{heads} heads on one input stream against {heads} wholes ({:.2}x), over the ceiling {ceiling:.2}x (f = {share:.4})",
        ratio.median()
    );
    let [family, wholes] = [0, 1].map(|side| rate(results[side].median()));
    table.add(&what, &family, &wholes, &of_ceiling, Target::AtLeast(0.9));
}

/// Rows that come again, each time to any of the heads; answers are not kept, base outputs are.
fn zipf(pair: &Pair, effort: Effort, table: &mut Table) {
    let weights: Vec<f64> = (1..=POPULAR).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = weights.iter().sum();
    let mut state = 1_u64;
    let mut random = move || {
        // xorshift64*: the benchmark wants the same rows in every run.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    let results = pair.rates(effort, effort.span(3_000), |request, bytes| {
        let mut left = random() as f64 / u64::MAX as f64 * total;
        let at = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        address(bytes, random() as usize % pair.heads);
        request.stamp(bytes, &mut std::iter::once(at.unwrap_or(0) as u64));
    });
    let what = format!("{} heads, Zipf rows (s = 1, {POPULAR}), base outputs kept", pair.heads);
    let [family, wholes] = [0, 1].map(|side| rate(results[side].median()));
    table.add(&what, &family, &wholes, &results[0].over(&results[1]), Target::None);
}

/// No row comes twice, so that there is nothing to share.
fn alone(pair: &Pair, effort: Effort, table: &mut Table) {
    let mut asked = 0_u64;
    let mut next = |request: &Request, bytes: &mut [u8]| {
        address(bytes, asked as usize % pair.heads);
        request.stamp(bytes, &mut std::iter::once(asked));
        asked += 1;
    };
    // What it learns of this traffic is part of what is measured, but not of every round.
    let warm = Effort { rounds: 2, ..effort };
    pair.rates(warm, effort.span(3_000), &mut next);
    let results = pair.rates(effort, effort.span(2_000), next);
    let what = format!("{} heads, every row to one of them, against wholes", pair.heads);
    let [family, wholes] = [0, 1].map(|side| rate(results[side].median()));
    table.add(&what, &family, &wholes, &results[0].over(&results[1]), Target::AtLeast(0.97));
}

/// What the workers hold after the load.
fn memory(pair: &Pair, table: &mut Table) {
    let held =
        |server: &Server| server.workers().into_iter().filter_map(pss_bytes).sum::<u64>() as f64;
    let (family, wholes) = (held(&pair.family), held(&pair.wholes));
    let shown = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    let what = format!("memory (PSS) of {} heads after load, against the wholes", pair.heads);
    // One model's share of the wholes, and a fifth.
    let aim = Target::AtMost(1.2 / pair.heads as f64);
    table.add(&what, &shown(family), &shown(wholes), &Rounds(vec![family / wholes]), aim);
}

/// Has a request ask another member: all names are equally long.
fn address(bytes: &mut [u8], member: usize) {
    let path = b"/v2/models/member";
    let at = bytes.windows(path.len()).position(|window| window == path).expect("its path");
    bytes[at + path.len()] = b'0' + u8::try_from(member).expect("a few");
}
