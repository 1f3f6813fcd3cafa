//! The one integration test binary: one link step for every test that uses the library from outside.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on panics, and says why it was skipped"
)]

mod crash;
mod daemon;
mod front;
mod lineage;
mod machine;
mod real;
mod reload;
mod serve;
mod sim;
mod storm;
mod tidy;
mod verbs;
mod wire;
