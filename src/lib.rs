//! graftd: serves ONNX models from a directory and never does the same work twice.
//!
//! The modules stand in layer order: each may name only those above it.

pub mod time;

pub mod id;

pub mod tensor;

pub mod error;

pub mod request;

pub mod graph;
