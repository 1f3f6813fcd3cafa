//! The one integration test binary: one link step for every test that uses the library from outside.

mod crash;
mod daemon;
mod real;
mod storm;
mod wire;
