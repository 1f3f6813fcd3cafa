//! The worker's side: load one model, then run batches until the daemon is gone.
//!
//! Nothing here waits for the daemon in a way that could outlive it: its end closes the control socket,
//! and then the process leaves at once, without the runtime's own teardown.

use super::arena::{self, Arena};
use super::control::{LoadOrder, LoadReply, Order};
use super::ring::{self, Answer, Area, TensorPlace};
use crate::clock::Clock;
use crate::engine::courtesy;
use crate::engine::onnx::OnnxEngine;
use crate::engine::{Engine, EngineError, InputView, OutputSink};
use crate::tensor::DataType;
use crate::time::nanos;
use parking_lot::Mutex;
use rustix::thread::futex;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Descriptors that the daemon passes: control socket, shared memory, doorbell.
pub(super) const INHERITED: [i32; 3] = [3, 4, 5];

/// What every thread of the worker sees.
struct Shared {
    arena: Arena,
    order: LoadOrder,
    engine: OnnxEngine,
    doorbell: OwnedFd,
    /// The batch that each lane runs now; held while a terminate is passed on, so that it cannot hit the
    /// next batch.
    running: Vec<Mutex<Option<u64>>>,
}

/// Runs a worker; returns only when it cannot start.
///
/// # Errors
/// Why it cannot start.
pub fn main() -> Result<(), String> {
    let [control, memory, doorbell] = arena::inherited(INHERITED)?;
    // A worker whose daemon is killed must not live on, even if it is stopped in a run.
    let death = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(death).map_err(|e| e.to_string())?;
    let control = UnixStream::from(control);
    let mut lines = BufReader::new(control.try_clone().map_err(|e| e.to_string())?);
    let order: LoadOrder = read_line(&mut lines)?.ok_or("the daemon said nothing")?;
    let arena = Arena::open(&memory, order.geometry.total_bytes()).map_err(|e| e.to_string())?;
    let reply = match load(&order) {
        Ok((engine, warnings)) => start_lanes(Shared {
            running: (0..order.geometry.lanes).map(|_| Mutex::new(None)).collect(),
            arena,
            order,
            engine,
            doorbell,
        })
        .map(|shared| (Some(shared), LoadReply::Ready { warnings }))?,
        Err(reason) => (None, LoadReply::Refused { reason }),
    };
    let (shared, reply) = reply;
    write_line(&control, &reply)?;
    while let Some(Order::Terminate { lane, batch }) = read_line(&mut lines)? {
        if let Some(shared) = &shared {
            shared.terminate(lane, batch);
        }
    }
    leave()
}

/// Loads the model, giving way to whoever serves meanwhile if the order says so.
fn load(order: &LoadOrder) -> Result<(OnnxEngine, Vec<String>), String> {
    let LoadOrder { library, model, session, gives_way, .. } = order.clone();
    // The runtime starts the threads of its own here, and those have to run as urgently as anybody's later.
    if !gives_way || session.starts_threads() {
        return OnnxEngine::load(&library, &model, &session);
    }
    let loading =
        courtesy::background("load", move || OnnxEngine::load(&library, &model, &session));
    let loading = loading.map_err(|error| format!("no thread to load on: {error}"))?;
    loading.join().unwrap_or_else(|_| Err("loading it broke off".into()))
}

/// Ends the process without the runtime's teardown, which is known to hang or crash.
fn leave() -> Result<(), String> {
    let us = rustix::process::getpid();
    rustix::process::kill_process(us, rustix::process::Signal::KILL).map_err(|e| e.to_string())
}

fn read_line<T: serde::de::DeserializeOwned>(
    lines: &mut impl BufRead,
) -> Result<Option<T>, String> {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) => serde_json::from_str(&line).map(Some).map_err(|error| error.to_string()),
    }
}

fn write_line<T: serde::Serialize>(mut control: &UnixStream, what: &T) -> Result<(), String> {
    let mut line = serde_json::to_vec(what).map_err(|error| error.to_string())?;
    line.push(b'\n');
    control.write_all(&line).map_err(|error| error.to_string())
}

fn start_lanes(shared: Shared) -> Result<Arc<Shared>, String> {
    let shared = Arc::new(shared);
    for lane in 0..shared.order.geometry.lanes {
        let shared = shared.clone();
        std::thread::Builder::new()
            .name(format!("session-{lane}"))
            .spawn(move || shared.serve(lane))
            .map_err(|error| error.to_string())?;
    }
    Ok(shared)
}

impl Shared {
    fn serve(&self, lane: usize) {
        let geometry = self.order.geometry;
        let submitted = self.arena.word(geometry.submitted(lane));
        let completed = self.arena.word(geometry.completed(lane));
        let mut taken = 0_u32;
        loop {
            while submitted.load(Ordering::Acquire) == taken {
                // Returns when woken, when the count has moved, or for no reason: the loop looks again.
                let _ = futex::wait(submitted, futex::Flags::empty(), taken, None);
            }
            self.run(lane, taken);
            taken = taken.wrapping_add(1);
            completed.store(taken, Ordering::Release);
            // An eventfd write cannot fail short of 2^64 unread completions.
            let _ = rustix::io::write(&self.doorbell, &1_u64.to_ne_bytes());
        }
    }

    fn run(&self, lane: usize, count: u32) {
        let place = self.order.geometry.slot(lane, count);
        let Some((batch, tensors)) = ring::read_request(&self.arena, place.request) else { return };
        *self.running[lane].lock() = Some(batch);
        let mut outputs = SlotOutputs {
            arena: &self.arena,
            base: place.outputs,
            area: Area::new(self.order.geometry.area_bytes, "outputs"),
            tensors: Vec::new(),
        };
        let clock = Clock::start();
        let result = self
            .views(place.inputs, &tensors)
            .and_then(|views| self.engine.run(lane, &views, &mut outputs));
        let service_ns = nanos(clock.now().since(crate::time::MonoTime::ZERO));
        *self.running[lane].lock() = None;
        let answer = match result {
            Ok(()) => Answer::Outputs { service_ns, tensors: outputs.tensors },
            Err(error) => Answer::Failed { error },
        };
        ring::write_answer(&self.arena, place.answer, batch, &answer);
    }

    fn views(
        &self,
        base: usize,
        tensors: &[TensorPlace],
    ) -> Result<Vec<InputView<'_>>, EngineError> {
        let view = |tensor: &TensorPlace| {
            let data = self.arena.part(base + tensor.offset, tensor.bytes);
            let data =
                data.ok_or_else(|| EngineError::Protocol("a tensor outside the slot".into()))?;
            Ok(InputView { datatype: tensor.datatype, shape: tensor.shape.clone(), data })
        };
        tensors.iter().map(view).collect()
    }

    fn terminate(&self, lane: usize, batch: u64) {
        let Some(running) = self.running.get(lane) else { return };
        let running = running.lock();
        if *running == Some(batch) {
            self.engine.terminate(lane);
        }
    }
}

/// Puts outputs into a slot's area.
struct SlotOutputs<'a> {
    arena: &'a Arena,
    base: usize,
    area: Area,
    tensors: Vec<TensorPlace>,
}

impl OutputSink for SlotOutputs<'_> {
    fn place(
        &mut self,
        datatype: DataType,
        shape: &[usize],
        bytes: usize,
    ) -> Result<&mut [u8], EngineError> {
        let offset = self.area.take(bytes)?;
        self.tensors.push(TensorPlace { datatype, shape: shape.to_vec(), offset, bytes });
        self.arena
            .part_mut(self.base + offset, bytes)
            .ok_or_else(|| EngineError::Protocol("an output outside the slot".into()))
    }
}
