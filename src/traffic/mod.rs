//! Traffic as data: who asks for which row of which model, and when; and what became of it, as figures to read.
//!
//! Nothing here sends or serves. The same traffic is sent to servers by the load generator, so that figures of different
//! servers come by the same hand. All chance follows from a seed: equal workloads are equal to the nanosecond.

pub mod arrivals;
pub mod measured;
pub mod page;
pub mod plot;
pub mod report;
pub mod rows;
pub mod scenario;
pub mod search;
pub mod study;
pub mod trace;
pub mod workload;

/// The generator of all chance: small, quick, and the same on every machine.
pub type Chance = rand_pcg::Pcg64Mcg;
