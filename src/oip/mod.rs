//! The Open Inference Protocol v2 as codecs: bytes to meaning and back, and nothing else.
//!
//! No socket, no task, no clock and no model is known here, so that every byte that a peer can send
//! can be tried in a plain test. REST and gRPC differ only in this module: both decode into
//! [`crate::request`] and encode from it.
//!
//! # Invariants
//! - Decoding is a pure function that ends in a value or an error, never in a panic, and holds
//!   memory in proportion to the bytes that came, not to the sizes that they claim.
//! - A decoded tensor holds exactly as many bytes as its shape and datatype say; a `BOOL` byte is 0
//!   or 1; `BYTES` elements fill their tensor exactly. Whether a model wants such a tensor is not
//!   known here. Bytes in shared memory are named and not read; whoever copies them makes the same
//!   check of the copy, with [`tensor`].
//! - One meaning has one decoded form, however it travelled, so that equal requests can be found
//!   equal.
//! - Half floats (`FP16`, `BF16`) travel as bytes only: JSON and typed gRPC contents have no form
//!   for them that other servers would take.
//!
//! # Source
//! The Open Inference Protocol and Triton's binary tensor data extension.

mod check;
pub mod grpc;
mod placement;
pub mod rest;
pub mod status;

pub use check::tensor;
