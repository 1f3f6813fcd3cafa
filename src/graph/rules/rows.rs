//! What the walk over a graph found of each of its tensors, for those who cut the graph.
//!
//! Separate from the verdict because a cut asks of tensors inside the graph what the verdict asks of outputs: do its
//! rows lie along the first axis, and how large is one?

use super::batch::{BatchVerdict, batch_axes, interpreted};
use super::interpret::Scope;
use super::shapes::Item;
use super::value::{Lay, Place, Value};
use crate::graph::read::Model;

/// Taken for a size that the graph leaves open.
const OPEN: f64 = 64.0;

/// The tensors of a model's main graph.
pub(in crate::graph) struct Tensors<'a> {
    scope: Scope<'a, 'a>,
    /// The batch axis of each input.
    pub(in crate::graph) axes: Vec<Option<usize>>,
}

/// Follows a model's rows through its graph.
///
/// # Errors
/// Why no row of it can be told from another.
pub(in crate::graph) fn tensors(model: &Model) -> Result<Tensors<'_>, String> {
    let axes = match batch_axes(model) {
        BatchVerdict::Independent { inputs, .. } | BatchVerdict::Undecided { inputs, .. } => inputs,
        BatchVerdict::Mixes { why } => return Err(format!("its rows influence each other: {why}")),
        BatchVerdict::None { why } => return Err(format!("it takes no batches: {why}")),
    };
    Ok(Tensors { scope: interpreted(model, &axes), axes })
}

impl Tensors<'_> {
    /// Whether the rows of a tensor lie along its first axis, and each is the same wherever in a batch it stands.
    pub(in crate::graph) fn is_rows(&self, name: &str) -> bool {
        let found = self.scope.value(name);
        let first = |value: &Value<'_>| value.lay().is_some_and(|lay| *lay == Lay::plain(0));
        found.is_some_and(|value| first(value) && value.place == Place::Untold)
    }

    /// The size along each axis, where it is one number whatever the request.
    pub(in crate::graph) fn fixed(&self, name: &str) -> Option<Vec<Option<i64>>> {
        let dims = self.scope.value(name)?.dims.as_deref()?;
        Some(dims.iter().map(Item::value).collect())
    }

    /// The size along each axis for one row, an estimate where the graph leaves it open.
    pub(in crate::graph) fn sizes(&self, name: &str) -> Option<Vec<f64>> {
        let dims = self.scope.value(name)?.dims.as_deref()?;
        let size = |item: &Item| item.term().map_or(OPEN, |term| term.estimate(OPEN));
        Some(dims.iter().map(size).collect())
    }
}
