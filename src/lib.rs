//! graftd: serves ONNX models from a directory and never does the same work twice.
//!
//! The modules stand in layer order: each may name only those above it.

// Words: plain data.
pub mod clock;
pub mod codec;
pub mod courtesy;
pub mod digest;
pub mod error;
pub mod id;
pub mod logging;
pub mod progress;
#[rustfmt::skip]
pub mod proto;
pub mod reactor;
pub mod reflect;
pub mod request;
pub mod rows;
pub mod tensor;
pub mod text;
pub mod time;

// Requests as data: made up, recorded, measured.
pub mod traffic;

// Decisions.
pub mod sched;

// Models and engines.
pub mod engine;
pub mod graph;
pub mod metrics;
pub mod model;

// Where decisions meet the world.
pub mod driver;
pub mod repository;

// The front door.
pub mod oip;
pub mod server;

// Measuring from outside, and in virtual time.
pub mod loadgen;
pub mod simulate;

// Composition.
pub mod cli;
pub mod daemon;
