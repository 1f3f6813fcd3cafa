//! What a gRPC message costs is known before anything is built of it.

use graftd::codec::{ITEM_BYTES, MESSAGE_BYTES, parts_bytes};
use graftd::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graftd::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use prost::Message as _;

fn of(request: &ModelInferRequest) -> usize {
    parts_bytes(&request.encode_to_vec())
}

#[test]
fn every_part_that_takes_memory_is_counted() {
    let bare = of(&ModelInferRequest::default());
    let inputs = vec![InferInputTensor::default(); 1000];
    let outputs = vec![InferRequestedOutputTensor::default(); 1000];
    let many = of(&ModelInferRequest { inputs, outputs, ..Default::default() });
    assert_eq!(many - bare, 2000 * MESSAGE_BYTES);
    let bytes_contents = vec![bytes::Bytes::new(); 1000];
    let contents = Some(InferTensorContents { bytes_contents, ..Default::default() });
    let parameter = |n: u32| (n.to_string(), InferParameter::default());
    let parameters = (0..1000).map(parameter).collect();
    let inputs = vec![InferInputTensor { contents, parameters, ..Default::default() }];
    let deep = of(&ModelInferRequest { inputs, ..Default::default() });
    assert_eq!(deep - bare, MESSAGE_BYTES + 2001 * ITEM_BYTES);
}

#[test]
fn tensors_weigh_nothing_beside_their_content() {
    let fp32_contents = vec![0.0; 1 << 20];
    let contents = Some(InferTensorContents { fp32_contents, ..Default::default() });
    let inputs = vec![InferInputTensor { contents, ..Default::default() }];
    assert!(of(&ModelInferRequest { inputs, ..Default::default() }) < 1000);
}

#[test]
fn memory_is_as_counted() {
    // What the constants stand for, with a list's room to double.
    assert!(size_of::<InferInputTensor>() <= MESSAGE_BYTES);
    assert!(2 * size_of::<bytes::Bytes>() <= ITEM_BYTES);
}

#[test]
fn what_is_broken_ends_the_count() {
    for bytes in [&[0x2a, 5, 0][..], &[0x2a], &[0xff; 11], &[0x3d, 1]] {
        assert_eq!(parts_bytes(bytes), 0, "{bytes:?}");
    }
}
