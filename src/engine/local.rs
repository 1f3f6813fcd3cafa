//! Lanes inside the daemon: on threads of their own, or on the caller's.
//!
//! For stages whose every operator is known to be safe, and for tests and benchmarks. What runs here can
//! end the daemon, so nothing else may.

use super::{
    BatchPlan, Begun, Completion, CompletionSink, Engine, EngineError, InputView, Lane, OutputSink,
};
use crate::clock::Clock;
use crate::id::{BatchId, SessionId};
use crate::rows::{Block, Inputs};
use crate::tensor::DataType;
use crate::time::MonoTime;
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Outputs in memory of their own.
#[derive(Debug, Default)]
struct HeapOutputs(Vec<(DataType, Vec<usize>, Vec<u8>)>);

impl OutputSink for HeapOutputs {
    fn place(
        &mut self,
        datatype: DataType,
        shape: &[usize],
        bytes: usize,
    ) -> Result<&mut [u8], EngineError> {
        self.0.push((datatype, shape.to_vec(), vec![0; bytes]));
        let (_, _, room) =
            self.0.last_mut().ok_or_else(|| EngineError::Protocol("no output".into()))?;
        Ok(room)
    }
}

/// Gathers a batch, runs it, and makes a block of its outputs.
///
/// # Errors
/// What the engine reports.
pub fn run(
    engine: &dyn Engine,
    lane: usize,
    plan: &BatchPlan,
) -> Result<(Block, Duration), EngineError> {
    let runs = plan.borrowed();
    let Some((first, ..)) = runs.first() else {
        return Err(EngineError::Protocol("an empty batch".into()));
    };
    let buffers: Vec<Bytes> =
        (0..first.tensors.len()).map(|index| gathered(index, &runs)).collect();
    let views: Vec<InputView<'_>> = first
        .tensors
        .iter()
        .zip(&buffers)
        .map(|(tensor, data)| InputView {
            datatype: tensor.datatype,
            shape: tensor.batch_shape(plan.rows()),
            data,
        })
        .collect();
    let mut outputs = HeapOutputs::default();
    let clock = Clock::start();
    engine.run(lane, &views, &mut outputs)?;
    let service = clock.now().since(MonoTime::ZERO);
    let outputs =
        outputs.0.into_iter().map(|(datatype, shape, data)| (datatype, shape, data.into()));
    Ok((plan.block(outputs.collect())?, service))
}

/// One batch tensor; a request that is a batch by itself is not copied.
fn gathered(index: usize, runs: &[(&Inputs, usize, usize)]) -> Bytes {
    if let [(inputs, 0, count)] = runs
        && *count == inputs.rows
    {
        return inputs.tensors[index].data.clone();
    }
    let mut buffer = vec![0; Inputs::batch_bytes(index, runs)];
    Inputs::gather(index, runs, &mut buffer);
    buffer.into()
}

/// A lane that runs every batch at once, on whichever thread brings it.
pub struct InlineLane {
    /// The session it stands for.
    pub session: SessionId,
    /// Which of the engine's lanes it is.
    pub number: usize,
    /// What computes.
    pub engine: Arc<dyn Engine>,
}

impl std::fmt::Debug for InlineLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineLane").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Lane for InlineLane {
    fn begin(&self, batch: BatchId, plan: &Arc<BatchPlan>) -> Begun {
        let result = run(self.engine.as_ref(), self.number, plan);
        Begun::Finished(Completion { session: self.session, batch, result })
    }

    fn terminate(&self, _batch: BatchId) {
        self.engine.terminate(self.number);
    }

    fn kill(&self) {}
}

/// A lane with a thread of its own.
pub struct ThreadLane {
    number: usize,
    engine: Arc<dyn Engine>,
    batches: Sender<(BatchId, Arc<BatchPlan>)>,
}

impl std::fmt::Debug for ThreadLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadLane").field("number", &self.number).finish_non_exhaustive()
    }
}

impl ThreadLane {
    /// Starts the thread; it ends when the lane is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        session: SessionId,
        number: usize,
        engine: Arc<dyn Engine>,
        sink: Arc<dyn CompletionSink>,
    ) -> io::Result<Self> {
        // One batch runs and one waits; the first may not have been taken out yet.
        let (batches, queue) = bounded(2);
        let theirs = engine.clone();
        std::thread::Builder::new()
            .name(format!("session-{session}"))
            .spawn(move || serve(session, number, theirs.as_ref(), &queue, sink.as_ref()))?;
        Ok(Self { number, engine, batches })
    }
}

fn serve(
    session: SessionId,
    number: usize,
    engine: &dyn Engine,
    queue: &Receiver<(BatchId, Arc<BatchPlan>)>,
    sink: &dyn CompletionSink,
) {
    for (batch, plan) in queue {
        let result = run(engine, number, &plan);
        sink.complete(Completion { session, batch, result });
    }
}

impl Lane for ThreadLane {
    fn begin(&self, batch: BatchId, plan: &Arc<BatchPlan>) -> Begun {
        // The thread only ends with the lane, so the channel is open.
        let _ = self.batches.send((batch, plan.clone()));
        Begun::Started
    }

    fn terminate(&self, _batch: BatchId) {
        self.engine.terminate(self.number);
    }

    fn kill(&self) {}
}
