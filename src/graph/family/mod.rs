//! Families: models that share their lower layers, where to cut them, and the models that come of the cut.
//!
//! Separate from the rules because a verdict is about one model and a family about several; from the catalogue
//! because it is pure: models and bytes in, models and bytes out.
//!
//! # Invariants
//! Equal digests are equal functions of the same inputs. A base is made of operators that are functions of their
//! inputs; its outputs are rows along the first axis. What is not certain is left whole, with the reason.

mod compute;
mod content;
mod cut;
mod dag;
mod find;
mod flow;
mod hash;
mod inputs;
mod net;
mod schema;
mod sketch;
mod split;
mod stage;
mod tree;
mod write;

#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;

pub use content::Weights;
pub use find::{Family, Found, Note, Worth, families};
pub use sketch::{Sketch, sketch};
pub use split::{Leg, Source, split};

/// The digest of a base upon another: of everything from the inputs to its output.
#[must_use]
pub fn upon(below: &[u8; 32], own: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"graftd base on base 1\0").update(below).update(own);
    *hasher.finalize().as_bytes()
}
