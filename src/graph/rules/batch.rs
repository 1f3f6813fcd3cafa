//! Which axis of each input and output is the batch axis, and whether rows stay apart along it.
//!
//! Separate because it is the one place that turns what was learned of tensors into what the daemon may do; a
//! dynamic first axis is not a batch axis until the graph says so.
//!
//! # Invariants
//! `Independent` is said only where every node between input and output was understood; `Mixes` only where a
//! node mixes rows whichever axis is taken for the batch; everything else is `Undecided`.

use super::interpret::{Scope, follow};
use super::shapes::Item;
use super::value::{Lay, Place, Rows, Value};
use crate::graph::read::{Dim, Model, Port};
use crate::text;

/// What the graph says of running several rows at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchVerdict {
    /// Rows stay apart: a row's outputs depend on that row alone, where all inputs with a batch axis bring the same
    /// number of rows.
    Independent {
        /// The batch axis of each input; none where all rows of a run must have it equal.
        inputs: Vec<Option<usize>>,
        /// The batch axis of each output; none where it is the same whatever the rows.
        outputs: Vec<Option<usize>>,
    },
    /// The graph does not tell; a probe at load must.
    Undecided {
        /// The axes to try.
        inputs: Vec<Option<usize>>,
        /// What was not understood.
        why: String,
    },
    /// Rows influence each other: each request is run as it came.
    Mixes {
        /// Where they meet.
        why: String,
    },
    /// The model takes no batches.
    None {
        /// What is missing.
        why: String,
    },
}

/// Finds the batch axes of a model and follows them through the graph.
///
/// # Cost
/// A walk over all nodes for each way of reading the inputs' shapes, three at most.
///
/// # Source
/// Ours: an abstract interpretation in which a tensor's rows lie along one axis, and shapes are products of the
/// open batch size and other sizes.
#[must_use]
pub fn batch_axes(model: &Model) -> BatchVerdict {
    let mut verdict = likeliest(model);
    if let BatchVerdict::Undecided { why, .. }
    | BatchVerdict::Mixes { why }
    | BatchVerdict::None { why } = &mut verdict
    {
        // It may quote any name of the file.
        *why = text::plain(std::mem::take(why));
    }
    verdict
}

/// The verdict on the likeliest reading of the inputs' shapes, or on the first that keeps rows apart.
fn likeliest(model: &Model) -> BatchVerdict {
    let guesses = match guesses(model.inputs()) {
        Ok(guesses) => guesses,
        Err(why) => return BatchVerdict::None { why },
    };
    let mut best: Option<BatchVerdict> = None;
    for axes in guesses {
        let verdict = judge(model, &axes);
        if matches!(verdict, BatchVerdict::Independent { .. }) {
            return verdict;
        }
        let better = matches!(
            (&best, &verdict),
            (None, _) | (Some(BatchVerdict::Mixes { .. }), BatchVerdict::Undecided { .. })
        );
        if better {
            best = Some(verdict);
        }
    }
    best.unwrap_or_else(|| BatchVerdict::None { why: "no axis can be the batch axis".into() })
}

/// Follows the graph with these batch axes of the inputs.
pub(super) fn interpreted<'a>(model: &'a Model, axes: &[Option<usize>]) -> Scope<'a, 'a> {
    follow(model, |fresh| {
        let ports = model.inputs().iter().zip(axes);
        ports.map(|(port, axis)| (port.name.as_str(), input(port, *axis, fresh))).collect()
    })
}

fn input<'a>(port: &Port, axis: Option<usize>, fresh: &mut dyn FnMut() -> Item) -> Value<'a> {
    let Some(dims) = &port.dims else { return Value::new(Rows::Free) };
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).map_or(Item::Free, Item::constant),
        Dim::Named(_) | Dim::Unknown => fresh(),
    };
    let dims = dims.iter().map(size).collect();
    let lost = |_| Value::new(Rows::Unknown("an input has no such axis".into()));
    Value::placed(axis.map(Lay::plain), dims).unwrap_or_else(lost)
}

fn judge(model: &Model, axes: &[Option<usize>]) -> BatchVerdict {
    let scope = interpreted(model, axes);
    let mut outputs = Vec::new();
    let mut doubt: Option<String> = None;
    for port in model.outputs() {
        let found = scope.value(&port.name);
        match found.map(|value| &value.rows) {
            Some(Rows::Mixed(why)) => {
                return BatchVerdict::Mixes {
                    why: format!("{why} (reaches output '{}')", port.name),
                };
            }
            Some(Rows::Free) => outputs.push(None),
            Some(Rows::Batch(_)) if found.is_some_and(|value| value.place != Place::Untold) => {
                let why = format!("output '{}' may tell a row's place in the batch", port.name);
                doubt = doubt.or(Some(why));
            }
            Some(Rows::Batch(lay)) if lay.is_plain() => outputs.push(Some(lay.axis)),
            Some(rows) => doubt = doubt.or_else(|| Some(doubted(&port.name, rows))),
            None => doubt = doubt.or_else(|| Some(format!("nothing makes output '{}'", port.name))),
        }
    }
    if outputs.iter().all(Option::is_none) && doubt.is_none() {
        doubt = Some("no output depends on the rows of any input".to_owned());
    }
    match doubt {
        None => BatchVerdict::Independent { inputs: axes.to_vec(), outputs },
        Some(why) => BatchVerdict::Undecided { inputs: axes.to_vec(), why },
    }
}

fn doubted(output: &str, rows: &Rows) -> String {
    match rows {
        Rows::Unknown(why) | Rows::Mixed(why) => format!("{why} (reaches output '{output}')"),
        Rows::Count => format!("output '{output}' depends on the number of rows"),
        Rows::Batch(lay) => {
            format!("output '{output}' holds rows folded into axis {} with others", lay.axis)
        }
        Rows::Free => format!("output '{output}' depends on no row"),
    }
}

/// The ways to read the inputs' shapes, the likeliest first.
fn guesses(inputs: &[Port]) -> Result<Vec<Vec<Option<usize>>>, String> {
    let first_dynamic = |port: &Port| dims(port).iter().position(is_dynamic);
    if inputs.iter().all(|port| first_dynamic(port).is_none()) {
        return Err(match inputs.iter().find(|port| port.dims.is_none()) {
            Some(port) => format!("the number of axes of input '{}' is not declared", port.name),
            None => "every axis of every input has a fixed size".to_owned(),
        });
    }
    let name = batch_name(inputs);
    let axis_first = |port: &Port| dims(port).first().is_some_and(is_dynamic).then_some(0);
    let named = |port: &Port| name.and_then(|n| dims(port).iter().position(|dim| is_named(dim, n)));
    let nameless = |port: &Port| !dims(port).iter().any(|dim| matches!(dim, Dim::Named(_)));
    let unnamed = |port: &Port| first_dynamic(port).filter(|_| nameless(port));
    // By the batch's name; where an input lacks it, by a first axis that varies.
    let wide = |port: &Port| named(port).or_else(|| axis_first(port)).or_else(|| unnamed(port));
    // An input whose axes all have other names may be a table that all rows share.
    let narrow = |port: &Port| named(port).or_else(|| unnamed(port));
    let any_first = inputs.iter().any(|port| axis_first(port).is_some());
    let mut guesses: Vec<Vec<Option<usize>>> = Vec::new();
    let mut add = |axes: Vec<Option<usize>>| {
        if axes.iter().any(Option::is_some) && !guesses.contains(&axes) {
            guesses.push(axes);
        }
    };
    add(inputs.iter().map(wide).collect());
    if name.is_some() {
        add(inputs.iter().map(narrow).collect());
    }
    if any_first || name.is_some() {
        return Ok(guesses);
    }
    // A first axis of fixed size is not a batch axis; what varies behind it is time or space.
    let Some(port) = inputs.iter().find(|port| first_dynamic(port).is_some()) else {
        return Ok(guesses);
    };
    Err(format!("no input has a first axis that varies; '{}' varies only further in", port.name))
}

fn dims(port: &Port) -> &[Dim] {
    port.dims.as_deref().unwrap_or_default()
}

const fn is_dynamic(dim: &Dim) -> bool {
    matches!(dim, Dim::Named(_) | Dim::Unknown)
}

fn is_named(dim: &Dim, name: &str) -> bool {
    matches!(dim, Dim::Named(own) if own == name)
}

/// The name that the model gives the batch size: one that says so, else that of the first named first axis.
fn batch_name(inputs: &[Port]) -> Option<&str> {
    fn named(dim: &Dim) -> Option<&str> {
        match dim {
            Dim::Named(name) => Some(name),
            Dim::Fixed(_) | Dim::Unknown => None,
        }
    }
    let word = |name: &&str| name.to_ascii_lowercase().contains("batch");
    let letter = |name: &&str| matches!(name.to_ascii_lowercase().as_str(), "n" | "b" | "bs");
    let all = inputs.iter().flat_map(dims).filter_map(named);
    let firsts = inputs.iter().filter_map(|port| dims(port).first()).filter_map(named);
    let said = all.clone().find(word).or_else(|| firsts.clone().find(letter));
    said.or_else(|| firsts.clone().next())
}

#[cfg(test)]
mod tests;
