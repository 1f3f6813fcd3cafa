//! The daemon as its callers see it: the real binary, real models, every transport.

pub(crate) mod ask;
mod catalog;
mod classes;
mod costs;
mod counts;
pub(crate) mod daemon;
mod datatypes;
mod environment;
mod explain;
mod families;
mod life;
mod log;
mod padding;
pub(crate) mod refusals;
mod regions;
pub(crate) mod samples;
mod settings;
mod sharing;
mod tune;
mod verb;
