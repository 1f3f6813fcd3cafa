//! What a model answers when ONNX Runtime runs it in this process, and how far an answer is from that.

use graftd::engine::local;
use graftd::engine::onnx::{OnnxEngine, Provider, SessionOptions};
use graftd::engine::{BatchPlan, EngineError};
use graftd::model::probe;
use graftd::request::InferResponse;
use graftd::rows::{Block, BlockTensor, Inputs};
use graftd::tensor::{DataType, OutputTensor};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// One model in this process.
pub(crate) struct Oracle(Mutex<OnnxEngine>);

impl Oracle {
    pub(crate) fn load(library: &Path, file: &Path) -> Self {
        let options = SessionOptions {
            provider: Provider::Cpu,
            fallback_cpu: false,
            threads: 1,
            lanes: 1,
            tuning: Default::default(),
        };
        let (engine, _) = OnnxEngine::load(library, file, &options).unwrap();
        Self(Mutex::new(engine))
    }

    /// The model's answer to a request, all rows together as they came.
    pub(crate) fn answer(&self, inputs: &Inputs) -> Result<Block, EngineError> {
        let runs = vec![(Arc::new(inputs.clone()), 0, inputs.rows)];
        let plan = BatchPlan { runs, whole: true, ..BatchPlan::default() };
        local::run(&*self.0.lock().unwrap(), 0, &plan).map(|(block, _)| block)
    }
}

/// Differences that are rounding however small the numbers are: the last bits of a sigmoid near 0, say.
const FLOOR: f64 = 1e-6;

/// How far an answer is from the expected one, relative to the largest number of each output; 0 where that
/// is no more than rounding, infinite where shapes, datatypes or values that cannot be near each other differ.
pub(crate) fn difference(expected: &Block, found: &InferResponse) -> f64 {
    if expected.tensors.len() != found.outputs.len() {
        return f64::INFINITY;
    }
    let pairs = expected.tensors.iter().zip(&found.outputs);
    pairs.map(|(expected, found)| apart(expected, super::sent(found))).fold(0.0, f64::max)
}

fn apart(expected: &BlockTensor, found: &OutputTensor) -> f64 {
    if expected.datatype != found.datatype {
        return f64::INFINITY;
    }
    let (datatype, shape) = (found.datatype, found.shape.0.clone());
    let found = BlockTensor::new(datatype, shape, None, found.contiguous(), 1).unwrap();
    let alone = |tensor: &BlockTensor| Block { tensors: vec![tensor.clone()], rows: 1 };
    let apart = probe::difference(&alone(expected), &alone(&found), &[]);
    if apart * largest(expected) <= FLOOR { 0.0 } else { apart }
}

fn largest(tensor: &BlockTensor) -> f64 {
    if tensor.datatype != DataType::Fp32 {
        return f64::INFINITY;
    }
    let values = tensor.data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes).abs());
    f64::from(values.filter(|value| value.is_finite()).fold(0.0, f32::max))
}

impl Oracle {
    /// Asserts that an answer is the expected one.
    pub(crate) fn check(&self, inputs: &Inputs, found: &InferResponse, tolerance: f64) -> f64 {
        let expected = self.answer(inputs).unwrap();
        let apart = difference(&expected, found);
        assert!(apart <= tolerance, "{}: {apart} from the expected answer", found.model);
        apart
    }
}
