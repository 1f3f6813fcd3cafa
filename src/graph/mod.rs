//! Reading ONNX models and judging them: bytes in, facts out.
//!
//! Separate because it must be pure: a model file comes from anywhere, so it is parsed here under limits,
//! without I/O or clock, before ONNX Runtime ever sees it, and everything said of it can be tested from bytes.
//!
//! # Invariants
//! No input makes this module panic; a fault in a file is a [`GraphError`], a doubt about a graph a verdict.

pub mod constant;
mod error;
pub mod external;
pub mod family;
pub mod proto;
pub mod read;
pub mod rules;
mod survey;
mod wire;

#[cfg(test)]
mod real_models;
#[cfg(test)]
mod testing;

pub use error::GraphError;
pub use external::{ExternalData, ExternalError, check_location, external_data};
pub use read::{Dim, Model, Operator, Port, read};
