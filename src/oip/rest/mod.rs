//! The protocol over HTTP: JSON bodies, with or without binary tensor data behind them.
//!
//! Separate from [`crate::oip::grpc`], with which it shares the checks and nothing else. Paths,
//! methods, headers and compression belong to the server; bodies here are already inflated.
//!
//! # Source
//! The Open Inference Protocol's REST text, and Triton's extensions: binary tensor data, system
//! shared memory, classification.

mod binary;
pub mod extensions;
mod json;
pub mod metadata;
mod request;
mod response;
mod values;

pub use binary::RawRequest;
pub use response::{Encoded, encode_infer};

use crate::error::InferError;
use crate::request::{InferRequest, Input, RequestedOutput};
use bytes::Bytes;

/// A decoded body of an inference request. Model and version, which the path names, are left empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// A request that is complete but for its model.
    Request(InferRequest<Input>, ReplyForm),
    /// One tensor, which only the model's metadata can name and shape.
    Raw(RawRequest),
}

/// Which outputs of an answer go as binary data; the others go as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyForm {
    /// The form of every output that is not an exception.
    binary: bool,
    /// The outputs that go in the other form; nearly always none.
    exceptions: Vec<String>,
}

impl ReplyForm {
    /// All outputs in one form.
    #[must_use]
    pub const fn all(binary: bool) -> Self {
        Self { binary, exceptions: Vec::new() }
    }

    /// The form for the named outputs, `own` telling what each says of itself.
    fn new(default: bool, outputs: &[RequestedOutput], own: &[Option<bool>]) -> Self {
        let binary = own.first().copied().flatten().unwrap_or(default);
        let form = |own: &Option<bool>| own.unwrap_or(default);
        let exceptions = outputs.iter().zip(own).filter(|(_, own)| form(own) != binary);
        Self { binary, exceptions: exceptions.map(|(output, _)| output.name.clone()).collect() }
    }

    /// Whether the output with this name goes as binary data.
    #[must_use]
    pub fn is_binary(&self, output: &str) -> bool {
        self.binary != self.exceptions.iter().any(|name| name == output)
    }
}

/// Decodes the body of an inference request.
///
/// `header_length` is the value of `Inference-Header-Content-Length`: where the JSON ends. Without
/// it the whole body is JSON; with 0 the whole body is one raw tensor.
///
/// # Errors
/// `BadRequest` for a body that is not such a request.
///
/// # Cost
/// One walk over the JSON. Binary data is not copied.
pub fn decode_infer(body: Bytes, header_length: Option<usize>) -> Result<Decoded, InferError> {
    decode_infer_within(body, header_length, json::DEPTH_MAX)
}

/// The same where the JSON may be nested `depth_max` deep, but never deeper than 100.
///
/// # Errors
/// As for [`decode_infer`].
pub fn decode_infer_within(
    body: Bytes,
    header_length: Option<usize>,
    depth_max: usize,
) -> Result<Decoded, InferError> {
    if header_length == Some(0) {
        return Ok(Decoded::Raw(RawRequest::new(body)));
    }
    let (json, tail) = binary::split(body, header_length)?;
    if json.is_empty() {
        return Err(InferError::bad_request(
            "the body is empty; expected the JSON of an inference request",
        ));
    }
    let announced = tail.announced();
    let decoded = match str::from_utf8(&json) {
        Ok(text) => request::read(text, tail, depth_max),
        Err(error) => Err(InferError::bad_request(format!(
            "the JSON of the request is not UTF-8 at byte {}{}",
            error.valid_up_to(),
            if announced {
                "; Inference-Header-Content-Length must be the length of the JSON alone"
            } else {
                "; if binary data follows the JSON, say where with Inference-Header-Content-Length"
            }
        ))),
    };
    decoded.map(|(request, form)| Decoded::Request(request, form))
}
