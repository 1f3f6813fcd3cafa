//! The JSON of an inference answer, and the binary data behind it.
//!
//! Separate from the request, with which it shares only the form of the values.
//!
//! # Invariants
//! - JSON first, then the binary outputs in the order of the outputs, as the pieces that they came
//!   in.
//! - `header_length` is there exactly when an output is binary, even one without elements. What went
//!   to shared memory is neither binary nor JSON.
//! - An answer is whole or an error; half a document is never handed out.

use super::ReplyForm;
use super::values;
use crate::error::{ErrorKind, InferError};
use crate::oip::placement;
use crate::request::{InferResponse, Output, Parameter, Parameters, SharedTensor};
use crate::tensor::{DataType, OutputTensor, Shape};
use bytes::Bytes;

/// A body in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The pieces of the body, none of them empty.
    pub chunks: Vec<Bytes>,
    /// The length of the JSON, for the header `Inference-Header-Content-Length`; none where the
    /// whole body is JSON. With it the content type is `application/octet-stream`, without it
    /// `application/json`.
    pub header_length: Option<usize>,
}

impl Encoded {
    /// Bytes of the whole body.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// Encodes an answer in the form that its request asked for.
///
/// # Errors
/// `BadRequest` for an output that JSON cannot hold (half floats, `BYTES` that are not UTF-8) and
/// that was not asked for as binary data; `Internal` for an output whose bytes are not what its
/// shape says.
///
/// # Cost
/// One allocation for the JSON and one for the list of pieces; binary outputs are not copied.
pub fn encode_infer(response: &InferResponse, form: &ReplyForm) -> Result<Encoded, InferError> {
    let mut json = Vec::with_capacity(128 + 96 * response.outputs.len());
    json.push(b'{');
    if !response.id.is_empty() {
        json.extend_from_slice(b"\"id\":");
        values::string(&mut json, &response.id);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    values::string(&mut json, &response.model);
    json.extend_from_slice(b",\"model_version\":");
    values::string(&mut json, &response.version);
    if !response.parameters.is_empty() {
        json.extend_from_slice(b",\"parameters\":");
        parameters(&mut json, &response.parameters);
    }
    json.extend_from_slice(b",\"outputs\":[");
    let mut pieces = 0;
    let mut any_binary = false;
    for (at, output) in response.outputs.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        match output {
            Output::Sent(output) => {
                let binary = form.is_binary(&output.name);
                any_binary |= binary;
                pieces += if binary { output.pieces.len() } else { 0 };
                write_output(&mut json, output, binary)?;
            }
            Output::Shared(output) => write_shared(&mut json, output),
        }
    }
    json.extend_from_slice(b"]}");
    let header_length = any_binary.then_some(json.len());
    let mut chunks = Vec::with_capacity(1 + pieces);
    chunks.push(Bytes::from(json));
    for output in &response.outputs {
        if let Output::Sent(output) = output
            && form.is_binary(&output.name)
        {
            chunks.extend(output.pieces.iter().filter(|piece| !piece.is_empty()).cloned());
        }
    }
    Ok(Encoded { chunks, header_length })
}

fn write_output(json: &mut Vec<u8>, output: &OutputTensor, binary: bool) -> Result<(), InferError> {
    let bytes = output.byte_len();
    let expected = output.datatype.element_bytes().map_or(Some(bytes), |element_bytes| {
        output.shape.elements().and_then(|elements| elements.checked_mul(element_bytes))
    });
    if expected != Some(bytes) {
        return Err(InferError::new(
            ErrorKind::Internal,
            format!(
                "output '{}' came out as {bytes} bytes, which is not its shape {} of {}",
                output.name, output.shape, output.datatype
            ),
        ));
    }
    open_output(json, &output.name, output.datatype, &output.shape);
    if binary {
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        values::integer(json, bytes);
        json.extend_from_slice(b"}}");
    } else {
        json.extend_from_slice(b",\"data\":");
        values::write(json, output)?;
        json.push(b'}');
    }
    Ok(())
}

/// Writes an output whose bytes are in shared memory already.
fn write_shared(json: &mut Vec<u8>, output: &SharedTensor) {
    open_output(json, &output.name, output.datatype, &output.shape);
    json.extend_from_slice(b",\"parameters\":");
    parameters(json, &placement::parameters(output.slice.clone()));
    json.push(b'}');
}

/// Writes what every output starts with, up to the end of its shape.
fn open_output(json: &mut Vec<u8>, name: &str, datatype: DataType, shape: &Shape) {
    json.extend_from_slice(b"{\"name\":");
    values::string(json, name);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(datatype.name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    for (axis, &dim) in shape.0.iter().enumerate() {
        if axis > 0 {
            json.push(b',');
        }
        values::integer(json, dim);
    }
    json.push(b']');
}

fn parameters(json: &mut Vec<u8>, parameters: &Parameters) {
    json.push(b'{');
    for (at, (key, value)) in parameters.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        values::string(json, key);
        json.push(b':');
        match value {
            Parameter::Bool(true) => json.extend_from_slice(b"true"),
            Parameter::Bool(false) => json.extend_from_slice(b"false"),
            Parameter::Int(value) => values::integer(json, *value),
            Parameter::Uint(value) => values::integer(json, *value),
            Parameter::Double(value) => values::double(json, *value),
            Parameter::Text(value) => values::string(json, value),
        }
    }
    json.push(b'}');
}
