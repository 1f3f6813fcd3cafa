//! The daemon as its callers see it: the real binary, real models, every transport.

mod ask;
mod catalog;
mod classes;
mod daemon;
mod datatypes;
mod life;
mod padding;
mod refusals;
mod regions;
mod samples;
mod settings;
mod sharing;
mod verb;
