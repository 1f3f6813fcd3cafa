//! Anything that a worker may leave in its slot, for any batch.
//!
//! Five bytes say what the daemon knows: the rows, whether they are whole, the number of outputs, their
//! axes, the length of the descriptor in units of 8. The descriptor follows, then the outputs' room.
#![no_main]

use graftd::engine::worker::reply;
use graftd::engine::{BatchPlan, EngineError};
use graftd::id::BatchId;
use graftd::oip::rest::{self, ReplyForm};
use graftd::request::{InferResponse, Output};
use graftd::rows::{Block, Inputs, RowValue, assemble};
use graftd_fuzz::{memory, promises};
use std::sync::Arc;

const BATCH: BatchId = BatchId(7);

fn check(block: Block, plan: &BatchPlan, room: usize) {
    let rows = if plan.whole { 1 } else { plan.rows() };
    assert_eq!(block.rows, rows);
    assert!(plan.whole || block.tensors.len() == plan.output_axes.len());
    let held: usize = block.tensors.iter().map(|tensor| tensor.data.len()).sum();
    assert!(held <= room, "{held} bytes from a room of {room}");
    for tensor in &block.tensors {
        promises::tensor(tensor.datatype, &tensor.shape, &tensor.data);
    }
    let block = Arc::new(block);
    let row = |index| RowValue { block: block.clone(), index };
    let straight: Vec<RowValue> = (0..rows).map(row).collect();
    let turned: Vec<RowValue> = (0..rows).rev().map(|index| row(index).detached()).collect();
    for (index, tensor) in block.tensors.iter().enumerate() {
        let whole = assemble("OUT", index, &straight).expect("rows of one block");
        promises::tensor(whole.datatype, &whole.shape.0, &whole.contiguous());
        assert_eq!(whole.contiguous(), tensor.data);
        let back = assemble("OUT", index, &turned).expect("rows of one shape");
        promises::tensor(back.datatype, &back.shape.0, &back.contiguous());
        for binary in [false, true] {
            let outputs = vec![Output::Sent(whole.clone()), Output::Sent(back.clone())];
            let response = InferResponse { outputs, ..InferResponse::default() };
            if let Err(error) = rest::encode_infer(&response, &ReplyForm::all(binary)) {
                assert!(!binary);
                promises::error(&error);
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[rows, whole, outputs, axes, units], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let Some((descriptor, room)) = rest.split_at_checked(usize::from(units) * 8) else { return };
    let axis = |index: u8| [None, Some(0), Some(1), Some(2)][usize::from(axes >> (2 * index)) % 4];
    let inputs = Arc::new(Inputs { tensors: Vec::new(), rows: 8 });
    let whole = whole & 1 == 1;
    let plan = BatchPlan {
        runs: vec![(inputs, 0, usize::from(rows % 8) + 1)],
        output_axes: (0..outputs % 5).map(|index| axis(index).filter(|_| !whole)).collect(),
        whole,
        ..BatchPlan::default()
    };
    let read = || reply::read(BATCH, &plan, descriptor, room);
    match memory::in_proportion(rest.len(), 64, read) {
        Ok((block, _)) => check(block, &plan, room.len()),
        // A worker's own words are made a sentence where a caller gets to see them.
        Err(EngineError::Model(text)) => assert!(text.len() <= 3 * descriptor.len() + 100),
        Err(error) => promises::sentence(&error.to_string()),
    }
});
