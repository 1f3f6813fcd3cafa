//! Stand-ins until the rules are here.
use super::Reason;
use crate::graph::{Dim, Model};
/// Verdict.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "interim")]
pub enum BatchVerdict {
    Independent { inputs: Vec<Option<usize>>, outputs: Vec<Option<usize>> },
    Undecided { inputs: Vec<Option<usize>>, why: String },
    Mixes { why: String },
    None { why: String },
}
/// First dynamic axis.
#[must_use]
pub fn batch_axes(model: &Model) -> BatchVerdict {
    let axis = |dims: &Option<Vec<Dim>>| {
        dims.as_ref().and_then(|d| d.iter().position(|d| !matches!(d, Dim::Fixed(_))))
    };
    let inputs: Vec<_> = model.inputs().iter().map(|p| axis(&p.dims)).collect();
    if inputs.iter().all(Option::is_none) {
        return BatchVerdict::None { why: "no axis varies".into() };
    }
    BatchVerdict::Undecided { inputs, why: "its operators were not looked at".into() }
}
/// Never.
///
/// # Errors
/// Always.
pub fn safe_in_process(_: &Model) -> Result<(), Reason> {
    Err(Reason("not looked at".into()))
}
