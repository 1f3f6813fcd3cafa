//! Requests and answers in the form that knows no transport.
//!
//! REST and gRPC decode into these and encode from these; nothing behind the codecs knows which it was.

use crate::tensor::{DataType, OutputTensor, Tensor};
use std::collections::BTreeMap;

/// A value of a `parameters` map.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number past the range of `i64`.
    Uint(u64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(String),
}

/// The `parameters` of a request or an answer, by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// One inference request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The model's name.
    pub model: String,
    /// The version asked for; none for the newest.
    pub version: Option<String>,
    /// The caller's own id, echoed in the answer; empty for none.
    pub id: String,
    /// Request parameters, without those that only concern the encoding of the answer.
    pub parameters: Parameters,
    /// The input tensors, in the caller's order.
    pub inputs: Vec<Tensor>,
    /// The outputs asked for; empty for all.
    pub outputs: Vec<String>,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    /// The model's name.
    pub model: String,
    /// The version that answered.
    pub version: String,
    /// The caller's id.
    pub id: String,
    /// What the answer says of itself, where the caller asked.
    pub parameters: Parameters,
    /// How the rows were answered, such as `hit=20 run=12`; for the `graftd-route` header.
    pub route: String,
    /// The output tensors, in the order asked for, or else the model's.
    pub outputs: Vec<OutputTensor>,
}

/// One input or output in a model's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMetadata {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis, -1 where it varies.
    pub shape: Vec<i64>,
}

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// The versions that can be addressed, oldest first.
    pub versions: Vec<String>,
    /// The kind of model file.
    pub platform: String,
    /// The inputs.
    pub inputs: Vec<TensorMetadata>,
    /// The outputs.
    pub outputs: Vec<TensorMetadata>,
    /// Facts found at load, such as how rows may be batched.
    pub properties: BTreeMap<String, String>,
}

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMetadata {
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// The protocol extensions that are really there.
    pub extensions: Vec<String>,
}
