//! The daemon as its callers see it: the real binary, real models, every transport.

pub(crate) mod ask;
mod catalog;
mod classes;
pub(crate) mod daemon;
mod datatypes;
mod life;
pub(crate) mod refusals;
mod regions;
mod samples;
mod settings;
mod sharing;
mod verb;
