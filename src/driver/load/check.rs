//! What can be said of a version without running it: all that a load looks at before it starts a session.

use super::LoadConfig;
use super::describe::spec;
use super::own::Own;
use super::stable::stable;
use super::trial::{Probed, strings_behind, unprobed};
use super::warm::checked;
use crate::graph::Model;
use crate::graph::rules::{BatchVerdict, batch_axes, deterministic};
use crate::model::padding::Padding;
use crate::model::scan::Found;
use crate::model::stash::Stash;
use crate::model::{Face, ModelSpec, Rows, TensorSpec};
use std::sync::atomic::AtomicBool;

/// A version whose files and settings are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the graph tells of its rows.
    pub rows: &'static str,
    /// Equal rows in flight run once: they are to, and no operator draws random numbers.
    pub dedupe: bool,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Judges one version's files and settings as a load does, by a copy of them in `stash`.
///
/// # Errors
/// A sentence that says why it would not be served.
pub fn check(config: &LoadConfig, stash: &Stash, found: &Found) -> Result<Checked, String> {
    let (setup, stashed) = stable(stash, found, &AtomicBool::new(false))?;
    let own = Own::new(config, found, setup, &stashed)?;
    let probed = judged(&own, &stashed.model);
    let padding = padding(&own, &probed);
    let padding = padding.map_err(|why| format!("[[padding]] in the model's settings: {why}"))?;
    let spec = ModelSpec { padding, ..spec(found, &own, &stashed.model, &probed, &[], "") };
    own.setup.warmup.iter().try_for_each(|warmup| checked(warmup, &spec).map(drop))?;
    let rows = match batch_axes(&stashed.model) {
        BatchVerdict::Independent { .. } => "independent",
        BatchVerdict::Undecided { .. } => "to be tried",
        BatchVerdict::Mixes { .. } | BatchVerdict::None { .. } => "as sent",
    };
    let dedupe =
        own.settings.dedupe.unwrap_or(config.join) && deterministic(&stashed.model).is_ok();
    let notes = stashed.warnings.iter().cloned().chain(own.notes()).collect();
    Ok(Checked { rows, dedupe, notes })
}

/// What the graph alone tells of the rows; those that must be tried are taken for none.
fn judged(own: &Own, model: &Model) -> Probed {
    let whole = |why: String| Probed { rows: Rows::Whole { why }, ..unprobed(&own.fitted) };
    let (inputs, outputs, rows) = match batch_axes(model) {
        BatchVerdict::Independent { inputs, outputs } => {
            (inputs, outputs, Rows::Independent { how: String::new() })
        }
        BatchVerdict::Undecided { inputs, why } => {
            (inputs, vec![None; own.fitted.outputs.len()], Rows::Whole { why })
        }
        BatchVerdict::Mixes { why } | BatchVerdict::None { why } => return whole(why),
    };
    if let Some(why) = strings_behind(model, &inputs) {
        return whole(why);
    }
    let specs = |faces: &[Face], axes: &[Option<usize>]| {
        faces.iter().zip(axes).map(|(face, &axis)| TensorSpec::of(face, axis)).collect()
    };
    let inputs = specs(&own.fitted.inputs, &inputs);
    let outputs = specs(&own.fitted.outputs, &outputs);
    Probed { inputs, outputs, rows, ..unprobed(&own.fitted) }
}

fn padding(own: &Own, probed: &Probed) -> Result<Option<Padding>, String> {
    if own.setup.padding.is_empty() {
        return Ok(None);
    }
    // Rows with an axis may be found independent by a trial; without any they cannot.
    match &probed.rows {
        Rows::Whole { why } if probed.inputs.iter().all(|input| input.axis.is_none()) => {
            Err(format!("requests run as they come, not as rows ({why}); remove it"))
        }
        _ => Padding::new(&own.setup.padding, &probed.inputs, &probed.outputs).map(Some),
    }
}
