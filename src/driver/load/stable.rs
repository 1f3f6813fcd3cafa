//! A copy of a version's files that is of one moment.

use crate::model::config::Setup;
use crate::model::fingerprint::Fingerprint;
use crate::model::scan::Found;
use crate::model::stash::{Stash, Stashed};
use std::sync::atomic::AtomicBool;

/// Copies of files that change meanwhile.
const COPIES: u32 = 3;

/// Copies what belongs to a version, and again if it changed meanwhile: half of the old and half of the new
/// may well be a model.
pub(super) fn stable(
    stash: &Stash,
    version: &Found,
    cancelled: &AtomicBool,
) -> Result<(Setup, Stashed), String> {
    let look = || Fingerprint::of(version).map_err(|error| format!("cannot be read: {error}"));
    let mut before = look()?;
    for _ in 0..COPIES {
        let copy = Setup::read(version)
            .and_then(|setup| Ok((setup, stash.copy(&version.file, cancelled)?)));
        let after = look()?;
        if before.still(&after) {
            return copy;
        }
        before = after;
    }
    Err("its files change while they are copied; load it when they are complete".into())
}
