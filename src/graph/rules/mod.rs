//! What a graph alone says about how its model may be served.
//!
//! Separate from reading because these are judgements: each can be wrong in one direction only, the safe one, and
//! each carries its reason as a sentence for the operator.

pub mod batch;
mod call;
pub mod determinism;
mod fold;
mod interpret;
mod ops;
pub(super) mod order;
mod rows;
pub mod safe;
mod shapes;
mod value;

pub use batch::{BatchVerdict, batch_axes};
pub use determinism::deterministic;
pub(super) use rows::{Tensors, tensors};
pub use safe::safe_in_process;

use crate::text;
use std::fmt;

/// Why a graph is refused something: a sentence that names operator, node and tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub String);

impl Reason {
    /// A reason whose sentence may quote any name of the file.
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(text::plain(sentence))
    }
}

/// A node as sentences name it.
pub(crate) struct NodeLabel<'a>(pub(crate) &'a super::proto::NodeProto);

impl fmt::Display for NodeLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0;
        let domain = super::read::domain(node.domain());
        if domain.is_empty() {
            write!(f, "{}", node.op_type())?;
        } else {
            write!(f, "{domain}:{}", node.op_type())?;
        }
        if node.name().is_empty() {
            let output = node.output.iter().find(|name| !name.is_empty());
            write!(f, " (makes '{}')", output.map_or("", String::as_str))
        } else {
            write!(f, " '{}'", node.name())
        }
    }
}

/// Runs every rule; for tests that only ask that none panics.
#[cfg(test)]
pub(crate) fn judge_all(model: &super::Model) {
    let _ = (deterministic(model), batch_axes(model), safe_in_process(model));
    let none = |_: &super::ExternalData| Err("no files here".to_owned());
    let _ = super::family::split(model, &none, &[]);
    if let Ok(sketch) = super::family::sketch(model, &none) {
        let found = super::family::families(&[&sketch, &sketch], super::family::Worth::Much);
        for family in &found.families {
            let _ = super::family::split(model, &none, &[&family.cut[0]]);
        }
    }
}
