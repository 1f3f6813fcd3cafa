//! The daemon as its callers see it: the real binary, real models, every transport.

mod ask;
mod catalog;
mod daemon;
mod datatypes;
mod life;
mod refusals;
mod samples;
mod settings;
mod sharing;
mod verb;
