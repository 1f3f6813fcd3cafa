//! What a model answers when ONNX Runtime runs it in this process, and how far an answer is from that.

use graftd::engine::local;
use graftd::engine::onnx::{OnnxEngine, Provider, SessionOptions};
use graftd::engine::{BatchPlan, EngineError};
use graftd::model::probe;
use graftd::request::InferResponse;
use graftd::rows::{Block, BlockTensor, Inputs};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// One model in this process.
pub struct Oracle(Mutex<OnnxEngine>);

impl Oracle {
    pub fn load(library: &Path, file: &Path) -> Self {
        let options =
            SessionOptions { provider: Provider::Cpu, fallback_cpu: false, threads: 1, lanes: 1 };
        let (engine, _) = OnnxEngine::load(library, file, &options).unwrap();
        Self(Mutex::new(engine))
    }

    /// The model's answer to a request, all rows together as they came.
    pub fn answer(&self, inputs: &Inputs) -> Result<Block, EngineError> {
        let runs = vec![(Arc::new(inputs.clone()), 0, inputs.rows)];
        let plan = BatchPlan { runs, whole: true, ..BatchPlan::default() };
        local::run(&*self.0.lock().unwrap(), 0, &plan).map(|(block, _)| block)
    }
}

/// How far an answer is from the expected one, relative to the size of the numbers; infinite where shapes,
/// datatypes or values that cannot be near each other differ.
pub fn difference(expected: &Block, found: &InferResponse) -> f64 {
    let tensor = |output: &graftd::tensor::OutputTensor| {
        let (datatype, shape) = (output.datatype, output.shape.0.clone());
        BlockTensor::new(datatype, shape, None, output.contiguous(), 1).unwrap()
    };
    let found = Block { tensors: found.outputs.iter().map(tensor).collect(), rows: 1 };
    probe::difference(expected, &found, &[])
}

impl Oracle {
    /// Asserts that an answer is the expected one.
    pub fn check(&self, inputs: &Inputs, found: &InferResponse, tolerance: f64) -> f64 {
        let expected = self.answer(inputs).unwrap();
        let apart = difference(&expected, found);
        assert!(apart <= tolerance, "{}: {apart} from the expected answer", found.model);
        apart
    }
}
