//! The codecs against bytes: golden pairs, agreement between the encodings, and arbitrary input.

pub(crate) mod agree;
mod arbitrary;
mod codec;
mod generated;
mod golden;
mod places;
mod refusals;

use bytes::Bytes;
use graftd::error::InferError;
use graftd::oip::rest::{self, Decoded, ReplyForm};
use graftd::request::{
    InferRequest, InferResponse, Input, Output, RequestedOutput, TensorMetadata,
};
use graftd::tensor::{DataType, OutputTensor, Tensor};

/// The model of these tests: it answers each input as an output of the same name.
fn echo(request: &InferRequest) -> InferResponse {
    let output =
        |output: &RequestedOutput| request.inputs.iter().find(|input| input.name == output.name);
    let inputs: Vec<_> = if request.outputs.is_empty() {
        request.inputs.iter().collect()
    } else {
        request.outputs.iter().filter_map(output).collect()
    };
    let output = |input: &Tensor| {
        Output::Sent(OutputTensor {
            name: input.name.clone(),
            datatype: input.datatype,
            shape: input.shape.clone(),
            pieces: vec![input.data.clone()],
        })
    };
    let outputs = inputs.into_iter().map(output);
    InferResponse {
        model: "echo".to_owned(),
        version: "1".to_owned(),
        id: request.id.clone(),
        parameters: request.parameters.clone(),
        route: String::new(),
        outputs: outputs.collect(),
    }
}

/// A request with those of its inputs whose bytes came with it.
fn sent(request: InferRequest<Input>) -> InferRequest {
    let tensor = |input| match input {
        Input::Sent(tensor) => Some(tensor),
        Input::Shared(_) => None,
    };
    let (mut request, inputs) = request.with_inputs(Vec::new());
    request.inputs = inputs.into_iter().filter_map(tensor).collect();
    request
}

/// Decodes a REST body; a raw one as the tensor of a model with one open axis of `FP32`.
fn decode(
    body: Bytes,
    header_length: Option<usize>,
) -> Result<(InferRequest, ReplyForm), InferError> {
    match rest::decode_infer(body, header_length)? {
        Decoded::Request(request, form) => Ok((sent(request), form)),
        Decoded::Raw(raw) => {
            let datatype = DataType::Fp32;
            let input = TensorMetadata { name: "IN".to_owned(), datatype, shape: vec![-1] };
            raw.complete(&[input], false).map(|(request, form)| (sent(request), form))
        }
    }
}

/// A body of JSON and binary data, and the length of its JSON.
fn body(json: &str, tail: &[u8]) -> (Bytes, Option<usize>) {
    let whole = [json.as_bytes(), tail].concat();
    (Bytes::from(whole), Some(json.len()))
}
