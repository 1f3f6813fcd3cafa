//! The one integration test binary: one link step for every test that uses the library from outside.

mod crash;
mod daemon;
mod real;
mod serve;
mod sim;
mod storm;
mod tidy;
mod wire;
