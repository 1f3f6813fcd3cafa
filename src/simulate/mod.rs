//! The simulator: the daemon's own scheduler on imagined machines, in virtual time.
//!
//! Devices have so many runs side by side, runs take what a cost curve says and some noise; everything else is what
//! the daemon does. Nothing here reads a clock: equal plans and seeds give equal figures on any machine.

pub mod fleet;
pub mod machine;
pub mod plan;
