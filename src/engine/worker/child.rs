//! The worker's side: load models, then run batches until the daemon is gone.
//!
//! Nothing here waits for the daemon in a way that could outlive it: its end closes the control socket,
//! and then the process leaves at once, without the runtime's own teardown.

use super::arena::{self, Arena};
use super::control::{LoadOrder, LoadReply, Mailbox, ModelNumber, Order, Word, line};
use super::ring::{self, Answer, Area, TensorPlace};
use crate::clock::Clock;
use crate::courtesy;
use crate::engine::onnx::OnnxEngine;
use crate::engine::{Engine, EngineError, InputView, OutputSink};
use crate::tensor::DataType;
use crate::time::nanos;
use parking_lot::Mutex;
use rustix::thread::futex;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Descriptors that the daemon passes: control socket, doorbell.
pub(super) const INHERITED: [i32; 2] = [3, 4];

/// What every thread of the worker sees.
struct Shared {
    control: Mutex<UnixStream>,
    doorbell: OwnedFd,
    models: Mutex<BTreeMap<ModelNumber, Arc<Model>>>,
}

/// One loaded model and the memory that its batches cross in.
struct Model {
    arena: Arena,
    order: LoadOrder,
    engine: OnnxEngine,
    /// The batch that each lane runs now; held while a terminate is passed on, so that it cannot hit the
    /// next batch.
    running: Vec<Mutex<Option<u64>>>,
    /// It was let go: its lanes end.
    over: AtomicBool,
    /// What was tried on it is over: lanes that give way end.
    serves: AtomicBool,
    /// Lanes that give way; each ends with the number of batches it has run.
    polite: Mutex<Vec<JoinHandle<u32>>>,
}

/// Runs a worker; returns only when it cannot start.
///
/// # Errors
/// Why it cannot start.
pub fn main() -> Result<(), String> {
    let [control, doorbell] = arena::inherited(INHERITED)?;
    // A worker whose daemon is killed must not live on, even if it is stopped in a run.
    let death = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(death).map_err(|e| e.to_string())?;
    let control = UnixStream::from(control);
    let words = control.try_clone().map_err(|error| error.to_string())?;
    let shared =
        Arc::new(Shared { control: Mutex::new(words), doorbell, models: Mutex::default() });
    let mut mailbox = Mailbox::new(control.into());
    while let Some(letter) = mailbox.next()? {
        match letter.order {
            Order::Load { model, order } => {
                let memory = letter.memory.ok_or("no memory came with an order to load")?;
                shared.clone().start_loading(model, order, memory)?;
            }
            Order::Serve { model } => shared.relieve(model)?,
            Order::Unload { model } => shared.unload(model),
            Order::Terminate { model, lane, batch } => {
                if let Some(model) = shared.models.lock().get(&model) {
                    model.terminate(lane, batch);
                }
            }
        }
    }
    leave()
}

/// Ends the process without the runtime's teardown, which is known to hang or crash.
fn leave() -> Result<(), String> {
    let us = rustix::process::getpid();
    rustix::process::kill_process(us, rustix::process::Signal::KILL).map_err(|e| e.to_string())
}

impl Shared {
    /// Loads a model on a thread of its own: orders that concern others are obeyed meanwhile.
    fn start_loading(
        self: Arc<Self>,
        number: ModelNumber,
        order: LoadOrder,
        memory: OwnedFd,
    ) -> Result<(), String> {
        let work = move || self.load(number, order, &memory);
        let thread = Builder::new().name("load".into()).spawn(work);
        thread.map(drop).map_err(|error| format!("no thread to load on: {error}"))
    }

    fn load(self: &Arc<Self>, number: ModelNumber, order: LoadOrder, memory: &OwnedFd) {
        if order.trial {
            courtesy::give_way();
        }
        let reply = match self.loaded(number, order, memory) {
            Ok(warnings) => LoadReply::Ready { warnings },
            Err(reason) => LoadReply::Refused { reason },
        };
        // A daemon that is gone needs no word.
        if let Ok(line) = line(&Word { model: number, reply }) {
            let _ = self.control.lock().write_all(&line);
        }
    }

    fn loaded(
        self: &Arc<Self>,
        number: ModelNumber,
        order: LoadOrder,
        memory: &OwnedFd,
    ) -> Result<Vec<String>, String> {
        let arena = Arena::open(memory, order.geometry.total_bytes()).map_err(|e| e.to_string())?;
        let (engine, warnings) = open(&order)?;
        let running = (0..order.geometry.lanes).map(|_| Mutex::new(None)).collect();
        let model = Arc::new(Model {
            running,
            arena,
            order,
            engine,
            over: AtomicBool::new(false),
            serves: AtomicBool::new(false),
            polite: Mutex::default(),
        });
        self.models.lock().insert(number, model.clone());
        for lane in 0..model.order.geometry.lanes {
            let (shared, served) = (self.clone(), model.clone());
            let thread = if model.order.gives_way {
                let serve = move || served.serve(lane, 0, &shared.doorbell, true);
                courtesy::background(&session(lane), serve)
            } else {
                let serve = move || served.serve(lane, 0, &shared.doorbell, false);
                Builder::new().name(session(lane)).spawn(serve)
            };
            let thread = thread.map_err(|error| error.to_string())?;
            if model.order.gives_way {
                model.polite.lock().push(thread);
            }
        }
        Ok(warnings)
    }

    /// Puts urgent lanes into the place of those that give way: a thread's priority cannot be raised again.
    ///
    /// To be called on a thread that does not give way, as others have its priority from it.
    fn relieve(self: &Arc<Self>, number: ModelNumber) -> Result<(), String> {
        let Some(model) = self.models.lock().get(&number).cloned() else { return Ok(()) };
        let polite = std::mem::take(&mut *model.polite.lock());
        model.serves.store(true, Ordering::Release);
        for (lane, thread) in polite.into_iter().enumerate() {
            model.wake(lane);
            let (shared, model) = (self.clone(), model.clone());
            let serve = move || match thread.join() {
                Ok(taken) => model.serve(lane, taken, &shared.doorbell, false),
                Err(_) => 0,
            };
            let thread = Builder::new().name(session(lane)).spawn(serve);
            thread.map_err(|error| format!("no thread for a session: {error}"))?;
        }
        Ok(())
    }

    fn unload(&self, number: ModelNumber) {
        if let Some(model) = self.models.lock().remove(&number) {
            model.end();
        }
    }
}

/// Opens a model's sessions, giving way to whoever serves meanwhile if the order says so.
fn open(order: &LoadOrder) -> Result<(OnnxEngine, Vec<String>), String> {
    let LoadOrder { library, model, session, gives_way, .. } = order.clone();
    // The runtime starts the threads of its own here, and those have to run as urgently as anybody's later.
    if !gives_way || session.starts_threads() {
        return OnnxEngine::load(&library, &model, &session);
    }
    let loading =
        courtesy::background("open", move || OnnxEngine::load(&library, &model, &session));
    let loading = loading.map_err(|error| format!("no thread to load on: {error}"))?;
    loading.join().unwrap_or_else(|_| Err("loading it broke off".into()))
}

/// What the thread of a lane is called.
fn session(lane: usize) -> String {
    format!("session-{lane}")
}

impl Model {
    /// Runs a lane's batches from number `taken` on, until the model goes or, if it is `polite`, serves; how many it
    /// has run then.
    fn serve(&self, lane: usize, mut taken: u32, doorbell: &OwnedFd, polite: bool) -> u32 {
        let geometry = self.order.geometry;
        let submitted = self.arena.word(geometry.submitted(lane));
        let completed = self.arena.word(geometry.completed(lane));
        let is_over =
            || self.over.load(Ordering::Acquire) || (polite && self.serves.load(Ordering::Acquire));
        loop {
            while submitted.load(Ordering::Acquire) == taken && !is_over() {
                // Returns when woken, when the count has moved, or for no reason: the loop looks again. Who is to end
                // and misses that he was woken does so when the next batch comes, without running it.
                let _ = futex::wait(submitted, futex::Flags::empty(), taken, None);
            }
            if is_over() {
                return taken;
            }
            self.run(lane, taken);
            taken = taken.wrapping_add(1);
            completed.store(taken, Ordering::Release);
            // An eventfd write cannot fail short of 2^64 unread completions.
            let _ = rustix::io::write(doorbell, &1_u64.to_ne_bytes());
        }
    }

    /// Has the lanes end; what the model holds goes with the last of them.
    fn end(&self) {
        self.over.store(true, Ordering::Release);
        for lane in 0..self.order.geometry.lanes {
            // The daemon uses this memory no more; a count that moved keeps a lane from going to sleep.
            let submitted = self.arena.word(self.order.geometry.submitted(lane));
            submitted.fetch_add(1, Ordering::Release);
            self.wake(lane);
        }
    }

    fn wake(&self, lane: usize) {
        let submitted = self.arena.word(self.order.geometry.submitted(lane));
        let _ = futex::wake(submitted, futex::Flags::empty(), 1);
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
