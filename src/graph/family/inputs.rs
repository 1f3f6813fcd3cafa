//! Which input of one model is which of another, told by use.
//!
//! Separate because exporters rename and reorder inputs: a name is only asked where use leaves a choice.
//!
//! # Source
//! Ours: what reads a single input votes, by its cost, for the input that the same node reads elsewhere.

use super::dag::{Digests, Source, narrow};
use super::hash::{Digest, Fields};
use super::sketch::Sketch;
use std::collections::{BTreeMap, HashMap};

/// Most inputs that one use may stand for before it tells nothing.
const ALIKE_MAX: usize = 8;

/// Numbers for the inputs of several models: equal number, same input.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// How many there are.
    count: usize,
    /// The numbers that inputs of this name and type have had.
    names: HashMap<(String, Digest), Vec<usize>>,
    /// Which numbers a use stands for.
    uses: HashMap<Digest, Vec<usize>>,
}

/// On how many inputs a value depends.
#[derive(Clone, Copy, PartialEq)]
enum Support {
    None,
    One(u32),
    Many,
}

impl Numbers {
    /// A number for each input of a model. `anonymous` are its digests with inputs told by type alone.
    pub(super) fn of(&mut self, sketch: &Sketch, anonymous: &Digests) -> Vec<usize> {
        let uses = uses(sketch, anonymous);
        let mut votes: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for (input, hole) in sketch.inputs.iter().enumerate() {
            let named = self.names.get(&(hole.name.clone(), hole.digest));
            for &number in named.map_or(&[][..], Vec::as_slice) {
                // An equal name is a vote too, weaker than any use.
                *votes.entry((input, number)).or_default() += 1e-9;
            }
        }
        for (digest, (inputs, weight)) in &uses {
            for &input in inputs {
                for &number in self.uses.get(digest).map_or(&[][..], Vec::as_slice) {
                    *votes.entry((input as usize, number)).or_default() += weight;
                }
            }
        }
        let mut order: Vec<((usize, usize), f64)> = votes.into_iter().collect();
        order.sort_by(|(a, a_votes), (b, b_votes)| b_votes.total_cmp(a_votes).then(a.cmp(b)));
        let mut numbers: Vec<Option<usize>> = vec![None; sketch.inputs.len()];
        let mut free = vec![true; self.count];
        for ((input, number), _) in order {
            let (Some(own), Some(free)) = (numbers.get_mut(input), free.get_mut(number)) else {
                continue;
            };
            if own.is_none() && *free {
                (*own, *free) = (Some(number), false);
            }
        }
        let mut settled = Vec::with_capacity(numbers.len());
        for (number, hole) in numbers.into_iter().zip(&sketch.inputs) {
            let number = number.unwrap_or(self.count);
            self.count = self.count.max(number + 1);
            let named = self.names.entry((hole.name.clone(), hole.digest)).or_default();
            if !named.contains(&number) && named.len() < ALIKE_MAX {
                named.push(number);
            }
            settled.push(number);
        }
        let numbers = settled;
        for (digest, (inputs, _)) in uses {
            let stands_for = self.uses.entry(digest).or_default();
            for number in inputs.iter().filter_map(|&input| numbers.get(input as usize)) {
                if !stands_for.contains(number) && stands_for.len() < ALIKE_MAX {
                    stands_for.push(*number);
                }
            }
        }
        numbers
    }

    /// The digests of a model's inputs under their numbers.
    pub(super) fn labels(sketch: &Sketch, numbers: &[usize]) -> Vec<Digest> {
        let labels = sketch.inputs.iter().zip(numbers);
        labels.map(|(hole, &number)| label(&hole.digest, number)).collect()
    }
}

/// The digest of an input under a number.
pub(super) fn label(hole: &Digest, number: usize) -> Digest {
    Fields::new(b"numbered").digest(hole).count(number).finish()
}

/// What each use of a single input is, which inputs it may stand for, and what it weighs.
fn uses(sketch: &Sketch, anonymous: &Digests) -> BTreeMap<Digest, (Vec<u32>, f64)> {
    let mut support: Vec<Support> = Vec::with_capacity(sketch.dag.values.len());
    let mut uses: BTreeMap<Digest, (Vec<u32>, f64)> = BTreeMap::new();
    let mut add = |digest: Digest, input: u32, weight: f64| {
        let (inputs, votes) = uses.entry(digest).or_insert_with(|| (Vec::new(), weight));
        *votes = votes.max(weight);
        if !inputs.contains(&input) && inputs.len() < ALIKE_MAX {
            inputs.push(input);
        }
    };
    for (id, source) in sketch.dag.values.iter().enumerate() {
        let step = sketch.dag.maker(narrow(id));
        let below = step.map_or(&[][..], |step| &step.inputs);
        let one = |a: Support, b: Support| match (a, b) {
            (Support::None, other) | (other, Support::None) => other,
            (a, b) if a == b => a,
            _ => Support::Many,
        };
        let of = |id: &u32| support.get(*id as usize).copied().unwrap_or(Support::None);
        let each: Vec<Support> =
            below.iter().map(|id| id.as_ref().map_or(Support::None, of)).collect();
        let own = match *source {
            Source::Leaf(leaf) => Support::One(leaf),
            _ => each.iter().copied().fold(Support::None, one),
        };
        support.push(own);
        let Source::Made(at, _) = *source else { continue };
        let at = at as usize;
        let cost = sketch.steps.get(at).copied().unwrap_or_default();
        let Some(digest) = anonymous.steps.get(at).filter(|_| cost.counts) else { continue };
        if let Support::One(input) = own {
            add(*digest, input, cost.flops + 1.0);
            continue;
        }
        let commutes = step.is_some_and(|step| step.commutes);
        for (position, support) in each.into_iter().enumerate() {
            if let Support::One(input) = support {
                let position = if commutes { 0 } else { position };
                let mut fields = Fields::new(b"operand");
                add(fields.digest(digest).count(position).finish(), input, 1.0);
            }
        }
    }
    uses
}
