//! Many requests at a time, each with the answer that it must get.

use crate::daemon::{Daemon, sent};
use graftd::error::{ErrorKind, InferError};
use graftd::model::ModelSpec;
use graftd::request::InferResponse;
use graftd::rows::{InputTensor, Inputs};
use graftd::tensor::DataType;
use std::sync::Arc;

/// Requests that come at a time.
const AT_A_TIME: usize = 64;

pub(super) fn int64(shape: &[usize], axis: Option<usize>, values: &[i64]) -> InputTensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = shape.to_vec();
    InputTensor {
        datatype: DataType::Int64,
        shape,
        axis,
        data: data.into(),
        row_ends: Vec::new(),
        storage: graftd::rows::Storage::Exact,
    }
}

/// One request of a crowd, and what must come of it.
pub(super) struct Ask {
    pub inputs: Inputs,
    pub expected: Result<Vec<u8>, ErrorKind>,
}

/// Asks everything, many at a time, and checks every answer.
pub(super) async fn all(daemon: &Arc<Daemon>, spec: &Arc<ModelSpec>, crowd: Vec<Ask>) {
    let mut crowd = crowd.into_iter();
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < AT_A_TIME
            && let Some(ask) = crowd.next()
        {
            let (daemon, spec) = (daemon.clone(), spec.clone());
            running.spawn(async move { check(daemon.infer(&spec, &ask.inputs).await, &ask) });
        }
        match running.join_next().await {
            Some(done) => done.unwrap(),
            None => return,
        }
    }
}

fn check(answer: Result<InferResponse, InferError>, ask: &Ask) {
    match (answer, &ask.expected) {
        (Ok(answer), Ok(expected)) => {
            assert_eq!(sent(&answer.outputs[0]).contiguous(), *expected, "{:?}", ask.inputs);
        }
        (Err(error), Err(kind)) => assert_eq!(error.kind, *kind, "{error}"),
        (answer, expected) => {
            panic!("{answer:?} instead of {expected:?} for {:?}", ask.inputs)
        }
    }
}
