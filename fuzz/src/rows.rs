//! What becomes of a decoded request on its way to the scheduler: it is cut into rows, and these are keyed.

use graftd::digest::StageDigest;
use graftd::id::{StageId, Tenant};
use graftd::model::config::Queue;
use graftd::model::settings::Settings;
use graftd::model::stage::StageName;
use graftd::model::way::WayCell;
use graftd::model::{ModelSpec, Rows, TensorSpec, check};
use graftd::request::InferRequest;
use graftd::rows::Inputs;
use graftd::tensor::DataType;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// More rows than a fuzzed request has bytes.
const ROWS_MAX: usize = 1 << 20;

/// Cuts a request for a model that takes whatever it brings, its rows along this axis where there is one.
///
/// # Panics
/// When rows are lost, or rows that differ have one key.
pub fn cut(request: &InferRequest, axis: usize) {
    let spec = model(request, axis);
    let checked = match check::check(request, &spec, Tenant(0), ROWS_MAX) {
        Ok(checked) => checked,
        Err(error) => return super::promises::error(&error),
    };
    let inputs = &*checked.inputs;
    assert_eq!(checked.keys.len(), inputs.rows);
    let weight: usize = request.inputs.iter().map(|input| input.data.len()).sum();
    assert!(inputs.rows <= weight.max(1), "{} rows of {weight} bytes", inputs.rows);
    let mut by_key = HashMap::new();
    for (row, key) in checked.keys.iter().enumerate() {
        let content: Vec<Vec<u8>> = gathered(inputs, &[(inputs, row, 1)]);
        let before = by_key.entry(*key).or_insert_with(|| content.clone());
        assert_eq!(*before, content, "two rows with one key");
    }
    let whole = gathered(inputs, &[(inputs, 0, inputs.rows)]);
    for (input, found) in request.inputs.iter().zip(&whole) {
        assert_eq!(input.data, *found, "rows were lost or moved");
    }
}

fn gathered(inputs: &Inputs, runs: &[(&Inputs, usize, usize)]) -> Vec<Vec<u8>> {
    let tensor = |index| {
        let mut dest = vec![0; Inputs::batch_bytes(index, runs)];
        Inputs::gather(index, runs, &mut dest);
        dest
    };
    (0..inputs.tensors.len()).map(tensor).collect()
}

fn model(request: &InferRequest, axis: usize) -> ModelSpec {
    let inputs = request.inputs.iter().map(|input| {
        // As probing has it: strings have their rows on the first axis or none.
        let own = Some(axis)
            .filter(|&axis| axis < input.shape.0.len())
            .filter(|&axis| axis == 0 || input.datatype != DataType::Bytes);
        tensor(&input.name, input.datatype, own)
    });
    let inputs: Vec<TensorSpec> = inputs.collect();
    let names: BTreeSet<&str> = request.outputs.iter().map(|output| output.name.as_str()).collect();
    let outputs = names.into_iter().map(|name| tensor(name, DataType::Fp32, Some(0)));
    let digest = StageDigest([0; 32]);
    ModelSpec {
        padding: None,
        name: "m".to_owned(),
        version: 1,
        versions: vec![1],
        stage: StageId(0),
        digest,
        called: StageName::whole("m", 1, digest),
        inputs,
        outputs: outputs.collect(),
        rows: Rows::Independent { how: "it is said here".to_owned() },
        settings: Settings::default(),
        queue: Queue::default(),
        request_rows_max: None,
        setup: [0; 32],
        unshared: None,
        output_axes: [].into(),
        whole_axes: [].into(),
        config: Arc::default(),
        counts: Arc::default(),
        findings: BTreeMap::new(),
        way: WayCell::default(),
        runs: Default::default(),
    }
}

fn tensor(name: &str, datatype: DataType, axis: Option<usize>) -> TensorSpec {
    let name = name.to_owned();
    TensorSpec { name, datatype, dims: None, axis, labels: None, wire: None, hidden: false }
}
