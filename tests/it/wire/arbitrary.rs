//! Any bytes at all: decoding ends in a value that keeps its promises, or in an error.

use super::agree::tensors;
use super::decode;
use bytes::Bytes;
use graftd::oip::{grpc, rest};
use graftd::proto;
use graftd::request::InferRequest;
use graftd::tensor::{DataType, bytes_element_ends};
use proptest::prelude::*;
use prost::Message;

/// Holds every tensor against the promise of the codecs: exactly the bytes of its shape and
/// datatype.
fn keeps_its_promises(request: &InferRequest) -> Result<(), TestCaseError> {
    for tensor in &request.inputs {
        let elements = tensor.shape.elements().expect("a countable shape");
        let count = match tensor.datatype.element_bytes() {
            Some(bytes) => tensor.data.len() / bytes,
            None => bytes_element_ends(&tensor.data).expect("whole elements").len(),
        };
        prop_assert_eq!(count, elements);
        if tensor.datatype == DataType::Bool {
            prop_assert!(tensor.data.iter().all(|&byte| byte < 2));
        }
    }
    Ok(())
}

fn rest_ends_well(body: Bytes, header_length: Option<usize>) -> Result<(), TestCaseError> {
    if let Ok((request, form)) = decode(body, header_length) {
        keeps_its_promises(&request)?;
        let _ = rest::encode_infer(&super::echo(&request), &form);
    }
    Ok(())
}

/// Pieces of requests, so that chance gets past the first brace.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"inputs\":[",
        "\"outputs\":[",
        "\"parameters\":{",
        "\"name\":",
        "\"shape\":",
        "\"datatype\":",
        "\"data\":",
        "\"id\":",
        "\"IN\"",
        "\"FP32\"",
        "\"BYTES\"",
        "\"BOOL\"",
        "\"UINT64\"",
        "[1]",
        "[2,2]",
        "[0]",
        "[[1,2],[3,4]]",
        "[true]",
        "[\"a\"]",
        "1",
        "-1",
        "1e400",
        "null",
        "\"binary_data_size\":",
        "\"shared_memory_region\":\"r\"",
        "\"shared_memory_byte_size\":4",
        "\"classification\":",
        "\"binary_data_output\":true",
        "{\"inputs\":[{\"name\":\"IN\",\"shape\":",
        "\\",
        "\"",
        "\u{0}",
        "é",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

/// A good request with some bytes changed, cut or repeated.
fn damaged() -> impl Strategy<Value = (Vec<u8>, Option<usize>)> {
    let tensor = prop::sample::select(DataType::ALL.to_vec()).prop_flat_map(tensors);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let good = (tensor, any::<bool>()).prop_map(|(tensor, binary)| {
        let binary = binary || matches!(tensor.datatype, DataType::Fp16 | DataType::Bf16);
        let request = InferRequest { inputs: vec![tensor], ..InferRequest::default() };
        let form = rest::ReplyForm::all(binary);
        let answer = rest::encode_infer(&super::echo(&request), &form).expect("an answer");
        let mut body = answer.chunks.concat();
        let at = body.windows(9).position(|bytes| bytes == b"\"outputs\"").expect("outputs");
        body.splice(at..at + 9, *b" \"inputs\"");
        (body, answer.header_length)
    });
    (good, damage, any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |((mut body, header_length), damage, cut, how)| {
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            match how % 8 {
                0 => body.truncate(cut.index(body.len() + 1)),
                1 => body.extend_from_within(cut.index(body.len())..),
                _ => {}
            }
            let header_length = match how / 8 {
                0 => None,
                1 => Some(cut.index(body.len() + 2)),
                _ => header_length,
            };
            (body, header_length)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn rest_takes_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header_length in prop::option::of(0..300_usize),
    ) {
        rest_ends_well(Bytes::from(bytes), header_length)?;
    }

    #[test]
    fn rest_takes_any_pieces(text in pieces(), header_length in prop::option::of(0..300_usize)) {
        rest_ends_well(Bytes::from(text), header_length)?;
    }

    #[test]
    fn rest_takes_damaged_requests((body, header_length) in damaged()) {
        rest_ends_well(Bytes::from(body), header_length)?;
    }

    #[test]
    fn grpc_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = proto::ModelInferRequest::decode(Bytes::from(bytes))
            && let Ok(request) = grpc::decode_infer(message)
        {
            keeps_its_promises(&super::sent(request))?;
        }
    }

    #[test]
    fn grpc_takes_any_tensor(
        datatype in prop::sample::select(DataType::ALL.to_vec()),
        shape in prop::collection::vec(prop_oneof![-1..4_i64, any::<i64>()], 0..4),
        raw in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ints in prop::collection::vec(any::<i32>(), 0..5),
        uints in prop::collection::vec(any::<u32>(), 0..2),
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..2),
    ) {
        let contents = proto::InferTensorContents {
            int_contents: ints,
            uint_contents: uints,
            bytes_contents: texts.into_iter().map(Bytes::from).collect(),
            ..proto::InferTensorContents::default()
        };
        let input = proto::model_infer_request::InferInputTensor {
            datatype: datatype.name().to_owned(),
            shape,
            contents: raw.is_none().then_some(contents),
            ..proto::model_infer_request::InferInputTensor::default()
        };
        let message = proto::ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: raw.map(Bytes::from).into_iter().collect(),
            ..proto::ModelInferRequest::default()
        };
        if let Ok(request) = grpc::decode_infer(message) {
            keeps_its_promises(&super::sent(request))?;
        }
    }
}
