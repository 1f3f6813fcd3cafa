//! The load generator: sends [`crate::traffic`] to any server of the protocol and measures what comes back.
//!
//! It knows nothing of graftd but what the protocol says, so that other servers are measured by the same hand. Times
//! count from when a request was to be sent, not from when the client got to it: what waits in the client because
//! the server is slow has waited.

pub mod door;
pub mod form;
pub mod run;

mod grpc;
mod rest;
