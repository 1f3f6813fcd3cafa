//! A batch through a worker process against the same batch through a thread of this process.

use crate::support::direct::Direct;
use crate::support::payload::Payload;
use crate::support::server::Server;
use crate::support::table::{Rounds, Table, Target, alternate, time};
use crate::support::{Effort, library, model_file};
use graftd::clock::Clock;
use graftd::engine::local::ThreadLane;
use graftd::engine::onnx::{Provider, SessionOptions};
use graftd::engine::worker::{Geometry, LoadOrder, Worker, WorkerConfig, WorkerEvents};
use graftd::engine::{BatchPlan, Begun, Completion, CompletionSink, Lane};
use graftd::id::{BatchId, SessionId};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const MODEL: &str = "iris";
const BATCHES: usize = 4_000;
const SESSION: SessionId = SessionId(0);

/// Wakes whoever waits for the batch, as the driver does.
struct Sink {
    clock: Clock,
    waiting: Mutex<Option<oneshot::Sender<()>>>,
    /// When the last completion came.
    came_ns: AtomicU64,
}

impl CompletionSink for Sink {
    fn complete(&self, completion: Completion) {
        self.came_ns.store(self.clock.now().as_nanos(), Ordering::Release);
        completion.result.expect("the batch runs");
        if let Some(waiting) = self.waiting.lock().take() {
            // The receiver waits until it is told.
            let _ = waiting.send(());
        }
    }
}

impl WorkerEvents for Sink {
    fn worker_died(&self, _sessions: &[SessionId], how: &str) {
        panic!("the worker died: {how}");
    }
}

/// A lane with whatever keeps it alive.
struct Side {
    lane: Arc<dyn Lane>,
    sink: Arc<Sink>,
    _worker: Option<Worker>,
}

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let payload = {
        let daemon = Server::daemon(&[MODEL], &["--isolation", "none"]);
        Payload::of(&daemon.socket(), MODEL, 1)
    };
    let plan = payload.plan(1);
    let file = model_file(MODEL).expect("a sample model");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads");
    let (process, thread) = (process(&runtime, file.clone()), thread(&file));
    let batches = BATCHES * effort.factor as usize;
    let mut done: [Vec<f64>; 2] = Default::default();
    let [process_done, thread_done] = &mut done;
    let results = alternate(
        effort.rounds + 2,
        &mut [&mut || round(&runtime, &process, &plan, batches, process_done), &mut || {
            round(&runtime, &thread, &plan, batches, thread_done)
        }],
    );
    let (process, thread) = (&results[0], &results[1]);
    let limit = Rounds(thread.0.iter().map(|took| took + 1.5e-6).collect());
    let what =
        format!("batch of one row through a worker process, `{MODEL}`, until its task runs on");
    let against = format!("thread lane {} + 1.5 µs", time(thread.median()));
    table.add(&what, &time(process.median()), &against, &process.over(&limit), Target::AtMost(1.0));
    let [process_done, thread_done] = done.map(Rounds);
    let limit = Rounds(thread_done.0.iter().map(|took| took + 1.5e-6).collect());
    let what = format!("the same, `{MODEL}`, until its completion is told");
    let against = format!("thread lane {} + 1.5 µs", time(thread_done.median()));
    let ratio = process_done.over(&limit);
    table.add(&what, &time(process_done.median()), &against, &ratio, Target::None);
}

fn sink() -> Arc<Sink> {
    let (clock, waiting) = (Clock::start(), Mutex::new(None));
    Arc::new(Sink { clock, waiting, came_ns: AtomicU64::new(0) })
}

fn thread(file: &std::path::Path) -> Side {
    let sink = sink();
    let engine = Direct::load(file, 1, 1).engine;
    let lane = ThreadLane::start(SESSION, 0, engine, sink.clone()).expect("a thread");
    Side { lane: Arc::new(lane), sink, _worker: None }
}

fn process(runtime: &Runtime, model: PathBuf) -> Side {
    let session = SessionOptions {
        provider: Provider::Cpu,
        fallback_cpu: false,
        threads: 1,
        lanes: 1,
        tuning: Default::default(),
    };
    let geometry = Geometry { lanes: 1, area_bytes: 1 << 20 };
    let config = WorkerConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_graftd")),
        order: LoadOrder {
            library: library(),
            model,
            session,
            geometry,
            gives_way: false,
            trial: false,
        },
        load_timeout: Duration::from_secs(60),
        label: MODEL.to_owned(),
    };
    let sink = sink();
    // From this thread, which outlives the worker: a worker ends with the thread that started it.
    let worker = runtime.block_on(Worker::start(&config, &[SESSION], sink.clone()));
    let (worker, mut housed) = worker.unwrap_or_else(|why| panic!("{why}"));
    let lane = housed.lanes.remove(0);
    Side { lane, sink, _worker: Some(worker) }
}

/// The median round trip; the median until the completion is told goes into `told`.
fn round(
    runtime: &Runtime,
    side: &Side,
    plan: &Arc<BatchPlan>,
    batches: usize,
    told: &mut Vec<f64>,
) -> f64 {
    let (lane, sink, plan) = (side.lane.clone(), side.sink.clone(), plan.clone());
    let task = runtime.spawn(async move {
        let (mut whole, mut until_told) = (Vec::new(), Vec::new());
        for number in 0..batches {
            let (sender, receiver) = oneshot::channel();
            *sink.waiting.lock() = Some(sender);
            let start = sink.clock.now().as_nanos();
            if let Begun::Finished(completion) = lane.begin(BatchId(number as u64), &plan) {
                sink.complete(completion);
            }
            receiver.await.expect("a completion");
            whole.push(sink.clock.now().as_nanos() - start);
            until_told.push(sink.came_ns.load(Ordering::Acquire) - start);
        }
        [whole, until_told].map(|mut took| {
            took.sort_unstable();
            took[batches / 2] as f64 / 1e9
        })
    });
    let [whole, until_told] = runtime.block_on(task).expect("the task ends");
    told.push(until_told);
    whole
}
