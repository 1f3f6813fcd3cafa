//! The daemon as its callers see it: the real binary, real models, every transport.

mod ask;
mod daemon;
mod samples;
mod verb;
