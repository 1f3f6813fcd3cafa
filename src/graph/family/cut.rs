//! Where to cut what several models have in common: nearly all its compute below, the fewest bytes across.
//!
//! Separate because it is the one place where compute is weighed against bytes.
//!
//! # Source
//! Ours: a minimum cut in which a value is either carried across, at the price of its bytes, or made again above,
//! at the price of its node; the second price rises until little enough is made again.

use super::dag::{Digests, Source, narrow};
use super::flow::{ENDLESS, Flow};
use super::hash::Digest;
use super::sketch::Sketch;
use super::tree::Holders;
use std::collections::{HashMap, HashSet};

/// Most of the shared compute that may be made again above the cut.
const AGAIN_MAX: f64 = 0.05;
/// The first price of an operation in bytes, and what it is multiplied by until little enough is made again.
const PRICE: (f64, f64) = (1e-3, 4.0);
/// Most prices tried.
const PRICES_MAX: usize = 14;
/// What each further tensor costs beside its bytes: a buffer, a copy, a name to look up.
const TENSOR_BYTES: u64 = 256;
/// Parts of a byte that are told apart.
const SCALE: f64 = 1024.0;

/// A model of a group, its inputs numbered.
#[derive(Debug)]
pub(super) struct Member<'s> {
    pub(super) sketch: &'s Sketch,
    pub(super) numbers: Vec<usize>,
    pub(super) anonymous: Digests,
    pub(super) digests: Digests,
}

/// What all members of a group say of a value that they share.
#[derive(Clone, Copy, Debug)]
struct Shared {
    /// Bytes of a row, where every member could be cut there.
    row_bytes: Option<u64>,
    /// Whether a member needs it above what is shared.
    is_needed: bool,
}

/// The common part of a group.
pub(super) struct Common<'m, 's> {
    members: Vec<&'m Member<'s>>,
    holders: &'m Holders,
    ids: &'m [usize],
    values: HashMap<Digest, Shared>,
    /// Values of a base further down that are not its outputs.
    hidden: &'m HashSet<Digest>,
}

impl<'m, 's> Common<'m, 's> {
    /// `ids` are the numbers of the members in `holders`.
    pub(super) fn new(
        members: Vec<&'m Member<'s>>,
        ids: &'m [usize],
        holders: &'m Holders,
        hidden: &'m HashSet<Digest>,
    ) -> Self {
        let mut common = Self { members, holders, ids, values: HashMap::new(), hidden };
        for member in common.members.clone() {
            common.gather(member);
        }
        common
    }

    fn has(&self, member: &Member<'_>, step: u32) -> bool {
        let counts = member.sketch.steps.get(step as usize);
        let digest = member.digests.steps.get(step as usize);
        counts.is_some_and(|cost| cost.counts && cost.is_function)
            && digest.is_some_and(|digest| self.holders.have(digest, self.ids))
    }

    /// Notes what a member says of the values that it shares.
    fn gather(&mut self, member: &Member<'_>) {
        let sketch = member.sketch;
        let has: Vec<bool> =
            (0..sketch.steps.len()).map(|step| self.has(member, narrow(step))).collect();
        let has = |step: u32| has.get(step as usize).copied().unwrap_or(false);
        let mut needed: HashSet<u32> = HashSet::new();
        for (at, (step, cost)) in sketch.dag.steps.iter().zip(&sketch.steps).enumerate() {
            if cost.counts && !has(narrow(at)) {
                needed.extend(step.inputs.iter().flatten());
            }
        }
        for (id, (source, value)) in sketch.dag.values.iter().zip(&sketch.values).enumerate() {
            let Source::Made(step, _) = *source else { continue };
            // An equal value further on is read by nobody.
            let is_first = sketch.dag.first.get(id) == Some(&narrow(id));
            let Some(digest) = member.digests.values.get(id).filter(|_| is_first && has(step))
            else {
                continue;
            };
            let row_bytes = value.row_bytes.filter(|_| !self.hidden.contains(digest));
            let is_needed = value.is_output || needed.contains(&narrow(id));
            let shared = Shared { row_bytes, is_needed: false };
            let shared = self.values.entry(*digest).or_insert(shared);
            shared.row_bytes = shared.row_bytes.and(row_bytes);
            shared.is_needed |= is_needed;
        }
    }

    /// The outputs of all members, where every output of each is shared and can be cut.
    pub(super) fn whole(&self) -> Option<Vec<Digest>> {
        let mut all = Vec::new();
        for member in &self.members {
            for &output in &member.sketch.dag.outputs {
                let digest = member.digests.values.get(output as usize)?;
                self.values.get(digest)?.row_bytes?;
                if !all.contains(digest) {
                    all.push(*digest);
                }
            }
        }
        Some(all)
    }

    /// Bytes of a row across these values.
    pub(super) fn bytes(&self, cut: &[Digest]) -> Option<u64> {
        let mut bytes = cut.iter().map(|digest| self.values.get(digest)?.row_bytes);
        bytes.try_fold(0_u64, |sum, bytes| Some(sum.saturating_add(bytes?)))
    }

    /// The values to cut at; none if every way to carry them is barred.
    pub(super) fn cut(&self) -> Option<Vec<Digest>> {
        let reference = self.members.first()?;
        let steps = reference.sketch.steps.iter().enumerate();
        let shared: Vec<u32> =
            steps.map(|(at, _)| narrow(at)).filter(|&at| self.has(reference, at)).collect();
        let flops = |at: u32| reference.sketch.steps.get(at as usize).map_or(0.0, |s| s.flops);
        let total: f64 = shared.iter().map(|&at| flops(at)).sum();
        let mut price = PRICE.0;
        let mut best: Option<(f64, Vec<Digest>)> = None;
        for _ in 0..PRICES_MAX {
            let (cut, again) = self.cut_at(reference, &shared, price)?;
            let again: f64 = again.iter().map(|&at| flops(at)).sum();
            if best.as_ref().is_none_or(|(least, _)| again < *least) {
                best = Some((again, cut));
            }
            if again <= total * AGAIN_MAX {
                break;
            }
            price *= PRICE.1;
        }
        best.map(|(_, cut)| cut).filter(|cut| !cut.is_empty())
    }

    /// The cheapest cut at a price of an operation in bytes, and the nodes that are made again above it.
    fn cut_at(
        &self,
        reference: &Member<'_>,
        shared: &[u32],
        price: f64,
    ) -> Option<(Vec<Digest>, Vec<u32>)> {
        let sketch = reference.sketch;
        let mut flow = Flow::new();
        let mut nodes: HashMap<u32, usize> = HashMap::new();
        for &at in shared {
            let node = flow.node();
            nodes.insert(at, node);
            let flops = sketch.steps.get(at as usize).map_or(0.0, |step| step.flops);
            flow.edge(Flow::SOURCE, node, scaled(flops * price));
        }
        let mut sides: Vec<(u32, usize, usize)> = Vec::new();
        let mut above: HashMap<u32, usize> = HashMap::new();
        for (id, source) in sketch.dag.values.iter().enumerate() {
            let Source::Made(at, _) = *source else { continue };
            let digest = reference.digests.values.get(id)?;
            let (Some(&node), Some(value)) = (nodes.get(&at), self.values.get(digest)) else {
                continue;
            };
            let (below, over) = (flow.node(), flow.node());
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let bytes = value
                .row_bytes
                .map_or(ENDLESS, |bytes| scaled(bytes.saturating_add(TENSOR_BYTES) as f64));
            flow.edge(node, below, ENDLESS);
            flow.edge(below, over, bytes);
            if value.is_needed {
                flow.edge(over, Flow::SINK, ENDLESS);
            }
            sides.push((narrow(id), below, over));
            above.insert(narrow(id), over);
        }
        for &at in shared {
            let (Some(step), Some(&node)) = (sketch.dag.steps.get(at as usize), nodes.get(&at))
            else {
                continue;
            };
            for over in step.inputs.iter().flatten().filter_map(|id| above.get(id)) {
                flow.edge(*over, node, ENDLESS);
            }
        }
        let side = flow.cut()?;
        let is_above = |node: usize| side.get(node).copied().unwrap_or(false);
        let crossing = sides.iter().filter(|(_, below, over)| is_above(*over) && !is_above(*below));
        let digest = |id: u32| reference.digests.values.get(id as usize).copied();
        let cut = crossing.filter_map(|(id, ..)| digest(*id)).collect();
        let again = shared.iter().copied();
        let again = again.filter(|at| nodes.get(at).is_some_and(|&node| is_above(node)));
        Some((cut, again.collect()))
    }
}

fn scaled(amount: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let scaled = (amount * SCALE) as u64;
    scaled.min(ENDLESS / 1024)
}
