//! Requests and answers in the form that knows no transport.
//!
//! REST and gRPC decode into these and encode from these; nothing behind the codecs knows which it was.

use crate::tensor::{DataType, OutputTensor, Shape, Tensor};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

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

/// A part of a region of shared memory that the caller registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSlice {
    /// The region's name.
    pub region: String,
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes of the part.
    pub byte_size: u64,
}

/// A tensor whose elements lie in shared memory, in the wire layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedTensor {
    /// The name of the model's input or output.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The size along each axis.
    pub shape: Shape,
    /// Where the elements are.
    pub slice: RegionSlice,
}

/// An input as the caller gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Its bytes came with the request.
    Sent(Tensor),
    /// Its bytes are still in the caller's hands, who may change them at any time.
    Shared(SharedTensor),
}

/// An output as the caller gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Its bytes go with the answer.
    Sent(OutputTensor),
    /// Its bytes were written to shared memory.
    Shared(SharedTensor),
}

/// An output that a caller asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// So many of the highest elements, as text, instead of the tensor.
    pub classes: Option<NonZeroU32>,
    /// Where its bytes go; with the answer where there is none.
    pub region: Option<RegionSlice>,
}

/// One inference request; its inputs are tensors, or what a codec made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest<I = Tensor> {
    /// The model's name.
    pub model: String,
    /// The version asked for; none for the newest.
    pub version: Option<String>,
    /// The caller's own id, echoed in the answer; empty for none.
    pub id: String,
    /// Request parameters, without those that only concern the encoding of the answer.
    pub parameters: Parameters,
    /// The inputs, in the caller's order.
    pub inputs: Vec<I>,
    /// The outputs asked for; empty for all.
    pub outputs: Vec<RequestedOutput>,
}

impl<I> Default for InferRequest<I> {
    fn default() -> Self {
        Self {
            model: String::new(),
            version: None,
            id: String::new(),
            parameters: Parameters::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

impl<I> InferRequest<I> {
    /// The same request with other inputs, and those that it had.
    #[must_use]
    pub fn with_inputs<J>(self, inputs: Vec<J>) -> (InferRequest<J>, Vec<I>) {
        let Self { model, version, id, parameters, inputs: had, outputs } = self;
        (InferRequest { model, version, id, parameters, inputs, outputs }, had)
    }
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
    pub outputs: Vec<Output>,
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
