//! Running a batch: what an engine is, and the lanes through which batches reach one.
//!
//! An engine computes. A lane is a warm session as the driver sees it: hand it a batch, and its outputs
//! come back through the sink. Lanes differ in where the engine lives (in a supervised worker process, on
//! a thread of the daemon, on the caller's own thread) and in nothing else.

pub mod cores;
pub mod device;
pub mod fake;
pub mod local;
pub mod onnx;
pub mod runtime;
pub mod worker;

use crate::id::{BatchId, SessionId};
use crate::rows::{Block, BlockTensor, Inputs, Storage};
use crate::tensor::DataType;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// One input tensor of a batch, borrowed from wherever it was gathered.
#[derive(Clone, Debug)]
pub struct InputView<'a> {
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis.
    pub shape: Vec<usize>,
    /// The elements in the wire layout.
    pub data: &'a [u8],
}

/// Where an engine puts its outputs.
pub trait OutputSink {
    /// Room for the next output, which the engine fills.
    ///
    /// # Errors
    /// When there is no room for so many bytes.
    fn place(
        &mut self,
        datatype: DataType,
        shape: &[usize],
        bytes: usize,
    ) -> Result<&mut [u8], EngineError>;
}

/// Something that computes a model's outputs from its inputs.
pub trait Engine: Send + Sync {
    /// Runs one batch on lane number `lane`; each lane runs one batch at a time.
    ///
    /// # Errors
    /// What the model or the runtime reports; the engine can be used again.
    fn run(
        &self,
        lane: usize,
        inputs: &[InputView<'_>],
        outputs: &mut dyn OutputSink,
    ) -> Result<(), EngineError>;

    /// Asks the run on a lane to end soon; without one, nothing happens.
    fn terminate(&self, lane: usize);
}

/// Why a batch has no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The model or the runtime refused the batch; a sentence for the client.
    #[error("{0}")]
    Model(Arc<str>),
    /// The batch or its outputs do not fit the space there is.
    #[error("a batch needs {needed} bytes of {what}, but there are {limit}; raise --batch-bytes")]
    TooLarge {
        /// Inputs or outputs.
        what: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        limit: usize,
    },
    /// Whoever runs the batch broke the protocol.
    #[error("the worker failed: {0}")]
    Protocol(String),
}

impl EngineError {
    /// An error of the model's.
    #[must_use]
    pub fn model(message: impl AsRef<str>) -> Self {
        Self::Model(Arc::from(message.as_ref()))
    }
}

/// The rows of a batch, as runs of neighbouring rows of requests.
#[derive(Clone, Debug, Default)]
pub struct BatchPlan {
    /// Inputs, first row, number of rows.
    pub runs: Vec<(Arc<Inputs>, usize, usize)>,
    /// The batch axis of every output; none where all rows share it.
    pub output_axes: Arc<[Option<usize>]>,
    /// The batch is one request as it came: its outputs are not cut into rows.
    pub whole: bool,
    /// How its outputs are to lie in memory.
    pub storage: Storage,
}

impl BatchPlan {
    /// The rows of the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.runs.iter().map(|&(_, _, count)| count).sum()
    }

    /// Adds a row, joined to the last run where it is its neighbour.
    pub fn push(&mut self, inputs: Arc<Inputs>, row: usize) {
        if let Some((last, first, count)) = self.runs.last_mut()
            && Arc::ptr_eq(last, &inputs)
            && *first + *count == row
        {
            *count += 1;
            return;
        }
        self.runs.push((inputs, row, 1));
    }

    /// The runs as [`Inputs::gather`] takes them.
    #[must_use]
    pub fn borrowed(&self) -> Vec<(&Inputs, usize, usize)> {
        self.runs.iter().map(|(inputs, first, count)| (inputs.as_ref(), *first, *count)).collect()
    }

    /// Makes a block of the outputs of this batch.
    ///
    /// # Errors
    /// When an output has not one row for each row of the batch.
    pub fn block(&self, outputs: Vec<(DataType, Vec<usize>, Bytes)>) -> Result<Block, EngineError> {
        let rows = if self.whole { 1 } else { self.rows() };
        if !self.whole && outputs.len() != self.output_axes.len() {
            let (found, expected) = (outputs.len(), self.output_axes.len());
            return Err(EngineError::Protocol(format!("{found} outputs instead of {expected}")));
        }
        let axes = self.output_axes.iter().copied().chain(std::iter::repeat(None));
        let tensors = outputs
            .into_iter()
            .zip(axes)
            .map(|((datatype, shape, data), axis)| {
                let tensor = BlockTensor::new(datatype, shape, axis, data, rows);
                let tensor = tensor.map(|tensor| tensor.stored(self.storage));
                tensor.map_err(|what| {
                    EngineError::model(format!("the model's output is no batch of rows: {what}"))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Block { tensors, rows })
    }
}

/// What came of a batch.
#[derive(Debug)]
pub struct Completion {
    /// The session that ran it.
    pub session: SessionId,
    /// The batch.
    pub batch: BatchId,
    /// Its outputs and how long the run took, or why there are none.
    pub result: Result<(Block, Duration), EngineError>,
}

/// Where completions go. Called on whatever thread learns of them.
pub trait CompletionSink: Send + Sync {
    /// A batch ended.
    fn complete(&self, completion: Completion);
}

/// What became of handing a batch to a lane.
#[derive(Debug)]
pub enum Begun {
    /// It runs; its completion comes through the sink.
    Started,
    /// It has already ended: there was no crossing to make.
    Finished(Completion),
}

/// A warm session as the driver sees it.
pub trait Lane: Send + Sync {
    /// Gathers a batch into the place where the engine reads it, and starts it.
    ///
    /// A lane takes two batches: one that runs and one ahead. A lane whose process is dead swallows the
    /// batch; its death is reported apart.
    fn begin(&self, batch: BatchId, plan: &Arc<BatchPlan>) -> Begun;

    /// Asks the running batch to end soon.
    fn terminate(&self, batch: BatchId);

    /// Ends the process that runs the batch, if it has one of its own.
    fn kill(&self);

    /// Whether its process has ended; said before the death is reported.
    fn is_dead(&self) -> bool {
        false
    }
}
