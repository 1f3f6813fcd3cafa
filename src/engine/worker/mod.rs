//! Models in supervised worker processes: our own binary, sharing a sealed piece of memory with the daemon.
//!
//! A request's values can end the process that runs them, so loading, probing and running happen here.
//! Batches cross as descriptors in a ring; their tensors are gathered once, where the worker reads them,
//! and outputs are read where the worker wrote them.

mod arena;
mod chatter;
pub mod child;
mod control;
mod lane;
mod process;
pub mod reply;
mod ring;

pub use control::{LoadOrder, LoadReply};
pub use process::{Housed, StartError, Worker, WorkerConfig, WorkerEvents};
pub use ring::Geometry;
