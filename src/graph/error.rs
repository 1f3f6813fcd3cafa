//! Why a model file is refused.
//!
//! Separate because it is the one table of what an operator may read when a file is no good: each sentence names
//! the part at fault.

use super::external::ExternalError;

/// Why a file is not a model that can be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The file is larger than a protobuf can be.
    #[error("the model file has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes of the file.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The bytes are not the protobuf of an ONNX model.
    #[error("not an ONNX model: {0}")]
    Malformed(String),
    /// There is more of something than any model needs.
    #[error("the model has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// Most allowed.
        limit: u64,
    },
    /// Subgraphs or types lie too deep inside each other.
    #[error("the model is nested more than {limit} deep")]
    TooDeep {
        /// Deepest allowed.
        limit: u32,
    },
    /// The file holds no graph.
    #[error("the file holds no graph")]
    NoGraph,
    /// An operator set is imported in two versions.
    #[error("operator set '{domain}' is imported in two versions")]
    OpsetTwice {
        /// The set's domain.
        domain: String,
    },
    /// Two inputs, or two outputs, have one name.
    #[error("{side} '{port}' appears twice")]
    PortTwice {
        /// Input or output.
        side: &'static str,
        /// The name.
        port: String,
    },
    /// An input or output is not a tensor.
    #[error("{side} '{port}' is not a tensor but {what}")]
    NotTensor {
        /// Input or output.
        side: &'static str,
        /// Its name.
        port: String,
        /// What it is.
        what: &'static str,
    },
    /// An input or output has an element type that the protocol cannot carry.
    #[error("{side} '{port}' has element type {elem_type}, which the protocol cannot carry")]
    Datatype {
        /// Input or output.
        side: &'static str,
        /// Its name.
        port: String,
        /// The schema's name or number of the type.
        elem_type: String,
    },
    /// A tensor refers to a file that it may not name.
    #[error("tensor '{tensor}' refers to '{location}', which {why}")]
    External {
        /// The tensor's name.
        tensor: String,
        /// The location, shortened.
        location: String,
        /// The rule that it breaks.
        why: ExternalError,
    },
    /// A tensor's external data has an offset, length or kind that means nothing.
    #[error("tensor '{tensor}' has external data with a bad {what}")]
    ExternalField {
        /// The tensor's name.
        tensor: String,
        /// The field.
        what: &'static str,
    },
}
