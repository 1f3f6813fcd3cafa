//! Which models are to have a way through which bases: as content says, or as their settings do.

use super::{BaseDigest, Loader, Material};
use crate::driver::load::background::background;
use crate::graph::family::{self, Family, Sketch, Worth};
use crate::id::StageId;
use crate::model::ModelSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a model has no way, where there is nothing else to say.
const ALONE: &str = "it has nothing large enough in common with another";

/// A member's cuts, lowest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    pub digests: Vec<BaseDigest>,
    pub tensors: Vec<Vec<String>>,
    pub levels: Vec<Level>,
}

/// What was found of one base on a member's way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub bytes_per_row: Option<u64>,
    pub nodes: usize,
    pub parameters: u64,
    pub share: f64,
}

/// What came of a search.
#[derive(Debug, Default)]
pub(super) struct Searched {
    /// The members that are to have a way, with their cuts.
    pub wanted: BTreeMap<StageId, (Arc<Material>, Cuts)>,
    /// Why others are to have none.
    pub left: BTreeMap<StageId, String>,
}

/// A model that could be in a family.
struct Candidate {
    spec: Arc<ModelSpec>,
    material: Arc<Material>,
}

impl Loader {
    /// Looks for families among what is served.
    ///
    /// # Errors
    /// A sentence, when the daemon ends meanwhile.
    pub(super) async fn search(
        &self,
        live: &BTreeMap<StageId, &Arc<ModelSpec>>,
    ) -> Result<Searched, String> {
        let materials = self.materials.lock().clone();
        let candidates: Vec<Candidate> = materials
            .into_iter()
            .filter_map(|(stage, material)| {
                Some(Candidate { spec: Arc::clone(live.get(&stage)?), material })
            })
            .collect();
        background(move |_| Ok(search(candidates))).await
    }
}

fn search(candidates: Vec<Candidate>) -> Searched {
    let mut searched = Searched::default();
    // Of several versions the newest says.
    let mut newest: Vec<&ModelSpec> = candidates.iter().map(|one| &*one.spec).collect();
    newest.sort_by_key(|spec| spec.version);
    let named: BTreeMap<String, Option<String>> =
        newest.iter().map(|spec| (spec.name.clone(), spec.settings.base.clone())).collect();
    let used: BTreeSet<String> = named.values().flatten().cloned().collect();
    let mut groups: BTreeMap<Option<String>, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let spec = &candidate.spec;
        match &spec.settings.base {
            Some(base) if !named.contains_key(base) => {
                let why = format!(
                    "its setting says base = '{base}', which is not served or can share nothing; name a model that \
                     can, or leave the setting out"
                );
                searched.left.insert(spec.stage, why);
            }
            None if !used.contains(&spec.name) => groups.entry(None).or_default().push(candidate),
            _ => groups.entry(Some(root(&spec.name, &named))).or_default().push(candidate),
        }
    }
    for (said, group) in groups {
        families(said.as_deref(), &group, &mut searched);
    }
    searched
}

/// The model at the end of a chain of those that name each other; the first by name where they go round.
fn root(name: &str, named: &BTreeMap<String, Option<String>>) -> String {
    let mut chain = vec![name];
    while let Some(Some(next)) = chain.last().and_then(|last| named.get(*last)) {
        if let Some(at) = chain.iter().position(|seen| seen == next) {
            return chain[at..].iter().min().copied().unwrap_or(name).to_owned();
        }
        if !named.contains_key(next) {
            break;
        }
        chain.push(next);
    }
    chain.last().copied().unwrap_or(name).to_owned()
}

/// Looks for families in a group, whose members were said to share what this model has.
fn families(said: Option<&str>, group: &[Candidate], searched: &mut Searched) {
    let sketches: Vec<&Sketch> = group.iter().map(|one| &one.material.sketch).collect();
    let worth = if said.is_some() { Worth::Anything } else { Worth::Much };
    let found = family::families(&sketches, worth);
    let mut cuts = BTreeMap::new();
    found.families.iter().for_each(|family| collect(family, &mut cuts));
    for (at, Candidate { spec, material }) in group.iter().enumerate() {
        if let Some(cuts) = cuts.remove(&at) {
            searched.wanted.insert(spec.stage, (material.clone(), cuts));
            continue;
        }
        let noted = found.notes.iter().find(|note| note.members.contains(&at));
        let why = match (noted, said) {
            (Some(note), _) => note.why.clone(),
            (None, None) => ALONE.to_owned(),
            (None, Some(base)) if base == spec.name => {
                "those whose settings name it as their base have nothing in common with it"
                    .to_owned()
            }
            (None, Some(base)) => format!(
                "its setting says base = '{base}', and they have nothing in common that could be cut off; leave the \
                 setting out"
            ),
        };
        searched.left.insert(spec.stage, why);
    }
}

/// Adds the cuts of every member of a family, and then of those inside it.
fn collect(family: &Family, all: &mut BTreeMap<usize, Cuts>) {
    let members = family.members.iter().zip(&family.cut).zip(&family.shares);
    for ((&member, cut), &share) in members {
        let cuts = all.entry(member).or_default();
        cuts.digests.push(family.digest);
        cuts.tensors.push(cut.clone());
        let Family { bytes_per_row, nodes, parameters, .. } = *family;
        cuts.levels.push(Level { bytes_per_row, nodes, parameters, share });
    }
    family.children.iter().for_each(|child| collect(child, all));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_name_each_other_are_one_group() {
        let named = |pairs: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
            pairs.iter().map(|&(name, base)| (name.to_owned(), base.map(str::to_owned))).collect()
        };
        let chain = named(&[("a", Some("b")), ("b", Some("c")), ("c", None), ("d", Some("gone"))]);
        assert_eq!(["a", "b", "c", "d"].map(|name| root(name, &chain)), ["c", "c", "c", "d"]);
        let round =
            named(&[("a", Some("b")), ("b", Some("a")), ("c", Some("b")), ("e", Some("e"))]);
        assert_eq!(["a", "b", "c", "e"].map(|name| root(name, &round)), ["a", "a", "a", "e"]);
    }
}
