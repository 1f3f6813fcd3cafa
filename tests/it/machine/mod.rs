//! A small machine on a clock of its own, to hold the scheduler's decisions against fixed ones.
//!
//! The same scheduler as the daemon's, driven by an open-loop trace on two imagined cores. Tests and benchmarks
//! share it: nothing here reads a clock, so every figure is the same on any machine.

pub(crate) mod device;
pub(crate) mod goodput;
pub(crate) mod grid;
pub(crate) mod kept;
pub(crate) mod trace;
