//! Any bytes as a model file, and every judgement on it.
#![no_main]

use bytes::Bytes;
use graftd::graph::rules::{BatchVerdict, batch_axes, deterministic, safe_in_process};
use graftd::graph::{Dim, Model, Port, check_location, read};
use graftd_fuzz::{memory, promises};
use std::collections::BTreeSet;

/// A node of some twenty bytes may make a list of a thousand numbers, which rules keep.
const FACTOR: usize = 8192;

fn facts(model: &Model) {
    for ports in [model.inputs(), model.outputs()] {
        let names: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names.len(), ports.len(), "two ports with one name");
        let sizes = ports.iter().filter_map(|port| port.dims.as_ref()).flatten();
        sizes.for_each(|dim| assert_ne!(*dim, Dim::Fixed(0)));
    }
    for location in model.external_files() {
        assert_eq!(check_location(location), Ok(()), "{location:?}");
        // By another rule than the one under test: a plain relative path, all of whose parts are names.
        let path = std::path::Path::new(location);
        let plain =
            |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
        assert!(path.components().all(plain) && path.file_name().is_some(), "{location:?}");
    }
    assert!(model.operators().iter().all(|operator| operator.domain != "ai.onnx"));
}

/// A batch axis is one of the axes declared, and of no fixed size.
fn is_open(port: &Port, axis: usize) -> bool {
    let dims = port.dims.as_ref().and_then(|dims| dims.get(axis));
    matches!(dims, Some(Dim::Named(_) | Dim::Unknown))
}

fn axes(model: &Model, verdict: &BatchVerdict) {
    match verdict {
        BatchVerdict::Independent { inputs, .. } | BatchVerdict::Undecided { inputs, .. } => {
            assert_eq!(inputs.len(), model.inputs().len());
            assert!(inputs.iter().any(Option::is_some), "a batch without a batch axis");
            let mut placed = model.inputs().iter().zip(inputs);
            assert!(placed.all(|(port, axis)| axis.is_none_or(|axis| is_open(port, axis))));
        }
        BatchVerdict::Mixes { .. } | BatchVerdict::None { .. } => {}
    }
    match verdict {
        BatchVerdict::Independent { outputs, .. } => {
            assert_eq!(outputs.len(), model.outputs().len());
            assert!(outputs.iter().any(Option::is_some), "rows that nothing depends on");
        }
        BatchVerdict::Undecided { why, .. }
        | BatchVerdict::Mixes { why }
        | BatchVerdict::None { why } => promises::sentence(why),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let model = match memory::in_proportion(data.len(), 1024, || read(bytes)) {
        Ok(model) => model,
        Err(error) => return promises::sentence(&error.to_string()),
    };
    facts(&model);
    let judged = || (deterministic(&model), batch_axes(&model), safe_in_process(&model));
    let verdicts = memory::in_proportion(data.len(), FACTOR, judged);
    let (deterministic, batch, safe) = &verdicts;
    axes(&model, batch);
    for reason in [deterministic, safe].into_iter().filter_map(|verdict| verdict.as_ref().err()) {
        promises::sentence(&reason.0);
    }
    if safe.is_ok() {
        assert!(model.operators().iter().all(|operator| operator.domain.is_empty()));
        assert!(!matches!(batch, BatchVerdict::Undecided { .. } | BatchVerdict::Mixes { .. }));
    }
    assert_eq!(judged(), verdicts, "a judgement that changes");
});
