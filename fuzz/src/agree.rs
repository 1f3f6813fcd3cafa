//! One meaning in every encoding: what was decoded is written by our own writers and read again.

use crate::promises;
use bytes::Bytes;
use graftd::error::InferError;
use graftd::oip::grpc;
use graftd::oip::rest::{self, Decoded, ReplyForm};
use graftd::proto::ModelInferRequest;
use graftd::proto::model_infer_request::InferInputTensor;
use graftd::request::{InferRequest, InferResponse, Output};
use graftd::tensor::{DataType, OutputTensor};
use prost::Message;

/// Sends the tensors of a request through every encoding and expects them back.
///
/// # Panics
/// When one comes back changed, or is refused for another reason than that JSON has no form for it.
pub fn everywhere(request: &InferRequest) {
    let expected = InferRequest {
        id: request.id.clone(),
        inputs: request.inputs.clone(),
        ..InferRequest::default()
    };
    assert_same(&over_grpc(&expected), &expected);
    assert_same(&over_rest(&expected, true).expect("anything goes as bytes"), &expected);
    match over_rest(&expected, false) {
        Ok(found) => assert_same(&without_nan_payload(found), &without_nan_payload(expected)),
        Err(error) => {
            promises::error(&error);
            assert!(!fits_json(&expected), "{error:?}");
        }
    }
}

fn assert_same(found: &InferRequest, expected: &InferRequest) {
    assert_eq!(found, expected);
}

/// JSON says `NaN` and not which one.
fn without_nan_payload(mut request: InferRequest) -> InferRequest {
    for input in &mut request.inputs {
        let mut data = input.data.to_vec();
        match input.datatype {
            DataType::Fp32 => data.as_chunks_mut::<4>().0.iter_mut().for_each(|bytes| {
                if f32::from_le_bytes(*bytes).is_nan() {
                    *bytes = f32::NAN.to_le_bytes();
                }
            }),
            DataType::Fp64 => data.as_chunks_mut::<8>().0.iter_mut().for_each(|bytes| {
                if f64::from_le_bytes(*bytes).is_nan() {
                    *bytes = f64::NAN.to_le_bytes();
                }
            }),
            _ => continue,
        }
        input.data = Bytes::from(data);
    }
    request
}

fn fits_json(request: &InferRequest) -> bool {
    request.inputs.iter().all(|input| match input.datatype {
        DataType::Fp16 | DataType::Bf16 => false,
        // Length prefixes below 128 are text themselves, so the elements must be looked at one by one.
        DataType::Bytes => {
            let mut rest = &input.data[..];
            while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
                let (element, after) = tail.split_at(u32::from_le_bytes(*prefix) as usize);
                if std::str::from_utf8(element).is_err() {
                    return false;
                }
                rest = after;
            }
            true
        }
        _ => true,
    })
}

fn over_grpc(request: &InferRequest) -> InferRequest {
    let inputs = request.inputs.iter().map(|input| InferInputTensor {
        name: input.name.clone(),
        datatype: input.datatype.name().to_owned(),
        shape: input.shape.to_wire(),
        ..InferInputTensor::default()
    });
    let message = ModelInferRequest {
        id: request.id.clone(),
        inputs: inputs.collect(),
        raw_input_contents: request.inputs.iter().map(|input| input.data.clone()).collect(),
        ..ModelInferRequest::default()
    };
    let message = ModelInferRequest::decode(Bytes::from(message.encode_to_vec()));
    let request = grpc::decode_infer(message.expect("our own message"));
    promises::request(request.expect("what was decoded before"))
}

/// Answers with the tensors and reads the answer as if it were a request.
fn over_rest(request: &InferRequest, binary: bool) -> Result<InferRequest, InferError> {
    let outputs = request.inputs.iter().map(|input| {
        // In two pieces, as rows come.
        let half = input.data.len() / 2;
        let pieces = vec![input.data.slice(..half), input.data.slice(half..)];
        let (name, datatype, shape) = (input.name.clone(), input.datatype, input.shape.clone());
        Output::Sent(OutputTensor { name, datatype, shape, pieces })
    });
    let response = InferResponse {
        id: request.id.clone(),
        outputs: outputs.collect(),
        ..InferResponse::default()
    };
    let answer = rest::encode_infer(&response, &ReplyForm::all(binary))?;
    assert_eq!(answer.header_length.is_some(), binary && !response.outputs.is_empty());
    let whole = answer.chunks.concat();
    let (json, tail) = whole.split_at(answer.header_length.unwrap_or(whole.len()));
    let json = std::str::from_utf8(json).expect("JSON is UTF-8");
    let json = json.replacen("\"outputs\"", "\"inputs\"", 1);
    let header_length = answer.header_length.map(|_| json.len());
    let body = Bytes::from([json.as_bytes(), tail].concat());
    match rest::decode_infer(body, header_length).expect("an answer reads back") {
        Decoded::Request(request, _) => Ok(promises::request(request)),
        Decoded::Raw(_) => panic!("an answer is never raw"),
    }
}
