//! Which models have which nodes in common: sets of models inside larger sets.
//!
//! Separate because it knows nothing of graphs: digests and costs in, a forest of sets out.
//!
//! # Source
//! Ours: nodes are gathered by the set of models that have them; sets are taken in the order of what sharing them
//! saves, each only if it lies inside, around or beside all sets taken before.

use super::hash::Digest;
use super::sketch::Cost;
use std::collections::{BTreeMap, HashMap};

/// A set of models and how much only they share.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Ascending.
    pub(super) members: Vec<usize>,
    /// Estimated operations of what all of them share and no larger set does.
    pub(super) own: f64,
    /// Whether products are among it, rather than bookkeeping alone.
    pub(super) is_heavy: bool,
    /// Sets inside this one.
    pub(super) children: Vec<Self>,
}

/// Who has which node.
#[derive(Debug, Default)]
pub(super) struct Holders(HashMap<Digest, (Vec<usize>, Cost)>);

impl Holders {
    /// Adds a model's nodes; models come in ascending order.
    pub(super) fn add(&mut self, member: usize, nodes: impl Iterator<Item = (Digest, Cost)>) {
        for (digest, cost) in nodes {
            let (members, _) = self.0.entry(digest).or_insert_with(|| (Vec::new(), cost));
            if members.last() != Some(&member) {
                members.push(member);
            }
        }
    }

    /// Whether all of these have the node.
    pub(super) fn have(&self, digest: &Digest, members: &[usize]) -> bool {
        let holders = self.0.get(digest).map_or(&[][..], |(holders, _)| holders);
        holders.len() >= members.len()
            && members.iter().all(|member| holders.binary_search(member).is_ok())
    }

    /// The sets of models worth looking at, outermost first, in an order that hashing plays no part in.
    pub(super) fn forest(&self) -> Vec<Group> {
        let mut sets: BTreeMap<&[usize], (f64, bool)> = BTreeMap::new();
        // Sums of fractions depend on their order, so whole numbers are summed.
        let mut sums: BTreeMap<&[usize], u128> = BTreeMap::new();
        for (members, cost) in self.0.values().filter(|(members, _)| members.len() > 1) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            let flops = cost.flops as u128;
            let sum = sums.entry(members).or_default();
            *sum = sum.saturating_add(flops);
            let (own, is_heavy) = sets.entry(members).or_default();
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let total = *sum as f64;
            (*own, *is_heavy) = (total, *is_heavy || cost.is_heavy);
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let saved = |members: &[usize], own: f64| own * (members.len() - 1) as f64;
        let mut order: Vec<(&[usize], (f64, bool))> = sets.into_iter().collect();
        order.sort_by(|(a, (a_own, _)), (b, (b_own, _))| {
            let by_gain = saved(b, *b_own).total_cmp(&saved(a, *a_own));
            by_gain.then(b.len().cmp(&a.len())).then(a.cmp(b))
        });
        nested(laminar(order))
    }
}

/// Takes each set that crosses none taken before.
fn laminar(order: Vec<(&[usize], (f64, bool))>) -> Vec<Group> {
    let mut taken: Vec<Group> = Vec::new();
    let mut around: HashMap<usize, Vec<usize>> = HashMap::new();
    for (members, (own, is_heavy)) in order {
        let mut common: BTreeMap<usize, usize> = BTreeMap::new();
        for member in members {
            for &set in around.get(member).map_or(&[][..], Vec::as_slice) {
                *common.entry(set).or_default() += 1;
            }
        }
        let crosses = common.iter().any(|(&set, &count)| {
            let size = taken.get(set).map_or(0, |group| group.members.len());
            count != size.min(members.len())
        });
        if crosses {
            continue;
        }
        for &member in members {
            around.entry(member).or_default().push(taken.len());
        }
        taken.push(Group { members: members.to_vec(), own, is_heavy, children: Vec::new() });
    }
    taken
}

/// Puts each set into the smallest that holds it.
fn nested(mut sets: Vec<Group>) -> Vec<Group> {
    // Smallest last, so that what is popped has all its children.
    sets.sort_by(|a, b| b.members.len().cmp(&a.members.len()).then(a.members.cmp(&b.members)));
    let mut done: Vec<Group> = Vec::new();
    while let Some(mut group) = sets.pop() {
        group.children.sort_by(|a, b| a.members.cmp(&b.members));
        let first = group.members.first().copied();
        let around = sets
            .iter_mut()
            .rev()
            .find(|set| first.is_some_and(|first| set.members.binary_search(&first).is_ok()));
        match around {
            Some(around) => around.children.push(group),
            None => done.push(group),
        }
    }
    done.sort_by(|a, b| a.members.cmp(&b.members));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forest(nodes: &[(u8, &[usize], f64)]) -> String {
        fn show(group: &Group) -> String {
            let inner: Vec<String> = group.children.iter().map(show).collect();
            format!("{:?}={}{}", group.members, group.own, inner.concat())
        }
        let mut holders = Holders::default();
        for member in 0..8 {
            let own = nodes.iter().filter(|(_, members, _)| members.contains(&member));
            let cost = |flops| Cost { flops, is_heavy: true, counts: true, is_function: true };
            holders.add(member, own.map(|&(digest, _, flops)| ([digest; 32], cost(flops))));
        }
        holders.forest().iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn sets_nest_or_stand_apart() {
        let found = forest(&[(1, &[0, 1, 2], 9.0), (2, &[0, 1, 2], 1.0), (3, &[0, 1], 5.0)]);
        assert_eq!(found, "[0, 1, 2]=10[0, 1]=5");
        let found = forest(&[(1, &[0, 1], 9.0), (2, &[2, 3], 1.0), (3, &[4], 5.0)]);
        assert_eq!(found, "[0, 1]=9 [2, 3]=1");
    }

    #[test]
    fn of_two_that_cross_the_one_that_saves_more_is_taken() {
        assert_eq!(forest(&[(1, &[0, 1], 9.0), (2, &[1, 2], 10.0)]), "[1, 2]=10");
    }
}
