//! What can be said of a version without running it: all that a load looks at before it starts a session.

use super::LoadConfig;
use super::own::Own;
use super::stable::stable;
use crate::graph::Model;
use crate::graph::rules::{BatchVerdict, batch_axes, deterministic};
use crate::model::TensorSpec;
use crate::model::padding::Padding;
use crate::model::scan::Found;
use crate::model::stash::Stash;
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
    padding(&own, &stashed.model).map_err(|why| format!("[[padding]]: {why}"))?;
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

fn padding(own: &Own, model: &Model) -> Result<(), String> {
    if own.setup.padding.is_empty() {
        return Ok(());
    }
    let axes = match batch_axes(model) {
        BatchVerdict::Independent { inputs, .. } | BatchVerdict::Undecided { inputs, .. } => inputs,
        BatchVerdict::Mixes { why } | BatchVerdict::None { why } => {
            return Err(format!("requests run as they come, not as rows ({why}); remove it"));
        }
    };
    let inputs = own.fitted.inputs.iter().zip(axes);
    let inputs: Vec<_> = inputs.map(|(face, axis)| TensorSpec::of(face, axis)).collect();
    let outputs = own.fitted.outputs.iter().map(|face| TensorSpec::of(face, None));
    Padding::new(&own.setup.padding, &inputs, &outputs.collect::<Vec<_>>()).map(drop)
}
