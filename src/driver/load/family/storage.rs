//! How base outputs lie in memory: as they are, or rounded where every model that stands on the base wants that.
//!
//! Rounded outputs are rounded for whoever takes them, from the store or fresh from a run, so that no answer depends on
//! which way it came. Rows of one base are keyed apart by how they are stored: an exact one is never a rounded one.

use super::proof::{Rounding, prove};
use super::{BaseDigest, Loader, Material, State};
use crate::digest::StageDigest;
use crate::model::ModelSpec;
use crate::model::way::Way;
use crate::rows::Storage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tells the keys of rounded rows from those of exact ones.
const ROUNDED: &str = "graftd 2026-11 base outputs rounded to FP16";

/// What keys of a base's rows are made of.
pub(super) fn key(base: BaseDigest, storage: Storage) -> StageDigest {
    StageDigest(match storage {
        Storage::Exact => base,
        Storage::Half => blake3::derive_key(ROUNDED, &base),
    })
}

impl Loader {
    /// How a model's user wants the outputs of its bases to be stored.
    pub(super) fn wished(&self, spec: &ModelSpec) -> Storage {
        spec.settings.base_storage.unwrap_or(self.config.base_storage)
    }

    /// Tries a way, first with exact base outputs and then as they are to be stored: the largest difference of each.
    ///
    /// # Errors
    /// A sentence, when base and head are not the whole. A rounding that moves answers too far is no error: then
    /// outputs are stored as they are.
    pub(super) async fn proved(
        &self,
        state: &mut State,
        bases: &[BaseDigest],
        spec: &Arc<ModelSpec>,
        way: &mut Way,
        material: &Material,
    ) -> Result<(f64, Option<f64>), String> {
        for base in &way.bases {
            self.driver.set_storage(base.stage, Storage::Exact);
        }
        let exact = prove(&self.driver, spec, way, material, Rounding::None).await;
        if exact.is_ok() && self.wished(spec) == Storage::Exact {
            self.store_exactly(state, bases, way);
        }
        let rounds = bases.iter().any(|base| state.storage(base) == Storage::Half);
        for (use_, base) in way.bases.iter().zip(bases) {
            self.driver.set_storage(use_.stage, state.storage(base));
        }
        let exact = exact?;
        if !rounds {
            return Ok((exact, None));
        }
        match prove(&self.driver, spec, way, material, Rounding::Half).await {
            Ok(rounded) => {
                tracing::info!(
                    "model {}:{}: its base outputs are stored as float16, which moves answers by up to {rounded:.1e} of \
                     their size",
                    spec.name,
                    spec.version
                );
                Ok((exact, Some(rounded)))
            }
            Err(why) => {
                tracing::warn!(
                    "model {}:{}: its base outputs are stored as they are, not as float16: {why}",
                    spec.name,
                    spec.version
                );
                self.store_exactly(state, bases, way);
                Ok((exact, None))
            }
        }
    }

    /// Has the outputs of these bases stored as they are from now on, for everybody: on `way` and on the ways of those
    /// who stand on them already.
    fn store_exactly(&self, state: &mut State, bases: &[BaseDigest], way: &mut Way) {
        let mut keys = BTreeMap::new();
        for digest in bases {
            let Some(base) = state.bases.get_mut(digest) else { continue };
            if base.storage == Storage::Half {
                base.storage = Storage::Exact;
                self.driver.set_storage(base.stage, Storage::Exact);
                keys.insert(base.stage, key(*digest, Storage::Exact));
            }
        }
        let rekey = |way: &mut Way| {
            for base in &mut way.bases {
                base.keyed_by = keys.get(&base.stage).copied().unwrap_or(base.keyed_by);
            }
        };
        rekey(way);
        for member in state.members.values_mut() {
            if let Some(open) = member.spec.way.get().filter(|_| !keys.is_empty()) {
                let mut open = Way::clone(&open);
                rekey(&mut open);
                member.spec.way.set(Some(open));
            }
        }
        let rounds = |member: &super::Member| {
            member
                .bases
                .iter()
                .any(|base| state.bases.get(base).is_some_and(|base| base.storage == Storage::Half))
        };
        state
            .members
            .values_mut()
            .filter(|member| !rounds(member))
            .for_each(|member| member.rounded = None);
    }
}

impl State {
    fn storage(&self, base: &BaseDigest) -> Storage {
        self.bases.get(base).map_or(Storage::Exact, |base| base.storage)
    }
}
