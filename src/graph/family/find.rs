//! Finds families: groups of models with a common base, and where to cut it.
//!
//! Separate from the cut because it decides what is worth being a family at all.
//!
//! # Invariants
//! Models are compared by digests alone, first with inputs told by type, which finds candidates, then with inputs
//! numbered by use, which proves: a base is one function of the same inputs for all its members.

use super::cut::{Common, Member};
use super::dag::narrow;
use super::hash::Digest;
use super::inputs::Numbers;
use super::sketch::{Cost, Sketch};
use super::stage::{Stage, find};
use super::tree::{Group, Holders};
use std::collections::{HashMap, HashSet};

/// Least share of the compute of some member for which a base is split off.
const SHARE_MIN: f64 = 0.2;
/// Least share that an inner base must add, unless it lets fewer bytes across.
const GAIN_MIN: f64 = 0.05;
/// Deepest bases inside each other.
const DEPTH_MAX: usize = 16;

/// How much models must have in common for a base to be split off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// As much as pays: a fifth of the compute of some of them, in heavy operators.
    Much,
    /// Anything that is computed: somebody said that they share a base.
    Anything,
}

impl Worth {
    fn is_met(self, is_heavy: bool, share: f64) -> bool {
        match self {
            Self::Much => is_heavy && share >= SHARE_MIN,
            Self::Anything => share > 0.0,
        }
    }
}

/// Models with a common base.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The models, by their place in what was asked.
    pub members: Vec<usize>,
    /// For each member the names of its tensors at the cut, in one order for all.
    pub cut: Vec<Vec<String>>,
    /// For each member which of its inputs the base reads, in one order for all.
    pub inputs: Vec<Vec<usize>>,
    /// The digest of the base, as [`split`](super::split()) gives it to the leg that it writes.
    pub digest: [u8; 32],
    /// Whether the base is all there is of every member: equal models, whose heads only hand on.
    pub is_whole: bool,
    /// For each member the estimated share of its compute that lies in the base and in those below it.
    pub shares: Vec<f64>,
    /// Estimated bytes of a row across the cut.
    pub bytes_per_row: Option<u64>,
    /// Nodes of the base and of those below it that depend on an input.
    pub nodes: usize,
    /// Elements of the constants of the base and of those below it.
    pub parameters: u64,
    /// Families inside this one: some of the members have more in common.
    pub children: Vec<Self>,
}

/// Why some models that have something in common are no family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The models, by their place in what was asked.
    pub members: Vec<usize>,
    /// What stands in the way.
    pub why: String,
}

/// What was found among some models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Families that share no member.
    pub families: Vec<Family>,
    /// What was not taken for one, and why.
    pub notes: Vec<Note>,
}

/// Finds the families among some models, given by their sketches, where a base is worth that much.
///
/// # Cost
/// A few passes over the nodes of all models for each level of nesting; no weights are looked at.
#[must_use]
pub fn families(sketches: &[&Sketch], worth: Worth) -> Found {
    let none = HashMap::new();
    let anonymous: Vec<_> =
        sketches.iter().map(|sketch| sketch.dag.digests(&sketch.holes(), &none)).collect();
    let mut holders = Holders::default();
    for (at, (sketch, digests)) in sketches.iter().zip(&anonymous).enumerate() {
        holders.add(at, nodes(sketch, &digests.steps));
    }
    let mut found = Found::default();
    let totals: Vec<f64> = sketches.iter().map(|sketch| sketch.flops()).collect();
    for group in candidates(holders.forest(), &totals, worth, &mut found.notes) {
        let mut numbers = Numbers::default();
        let mut members = Vec::new();
        for (&id, digests) in group.iter().filter_map(|id| Some((id, anonymous.get(*id)?))) {
            let Some(&sketch) = sketches.get(id) else { continue };
            let own = numbers.of(sketch, digests);
            let digests = sketch.dag.digests(&Numbers::labels(sketch, &own), &none);
            let anonymous = sketch.dag.digests(&sketch.holes(), &none);
            members.push((id, Member { sketch, numbers: own, anonymous, digests }));
        }
        let (holders, notes) = (Holders::default(), Vec::new());
        let mut search = Search { members, worth, holders, notes };
        search.run(&mut found.families);
        found.notes.append(&mut search.notes);
    }
    found.families.sort_by(|a, b| a.members.cmp(&b.members));
    found
}

/// The nodes of a model that may be part of a base.
fn nodes<'s>(sketch: &'s Sketch, steps: &'s [Digest]) -> impl Iterator<Item = (Digest, Cost)> + 's {
    let pairs = steps.iter().copied().zip(sketch.steps.iter().copied());
    pairs.filter(|(_, cost)| cost.counts && cost.is_function)
}

/// The outermost groups that share enough, as sets of models.
fn candidates(
    forest: Vec<Group>,
    totals: &[f64],
    worth: Worth,
    notes: &mut Vec<Note>,
) -> Vec<Vec<usize>> {
    let mut queue: Vec<(Group, f64, bool)> = forest.into_iter().map(|g| (g, 0.0, false)).collect();
    let mut taken = Vec::new();
    while let Some((group, around, heavy)) = queue.pop() {
        let shared = group.own + around;
        let heavy = heavy || group.is_heavy;
        let share = largest_share(&group.members, shared, totals);
        if worth.is_met(heavy, share) {
            taken.push(group.members);
            continue;
        }
        if group.children.is_empty() && heavy {
            let why = too_little(share);
            notes.push(Note { members: group.members, why });
        }
        queue.extend(group.children.into_iter().map(|child| (child, shared, heavy)));
    }
    taken.sort();
    taken
}

fn largest_share(members: &[usize], shared: f64, totals: &[f64]) -> f64 {
    let totals = members.iter().filter_map(|&member| totals.get(member));
    totals.map(|total| shared / total.max(1.0)).fold(0.0, f64::max)
}

fn too_little(share: f64) -> String {
    format!(
        "they share {:.1} % of the compute of the smallest of them, less than {:.0} %",
        share * 100.0,
        SHARE_MIN * 100.0
    )
}

/// The base below, for those inside.
struct Below {
    cut: Vec<Digest>,
    /// Everything it is made of but its outputs.
    hidden: HashSet<Digest>,
    flops: f64,
    bytes: Option<u64>,
}

/// One candidate group, its inputs numbered.
struct Search<'s> {
    /// With their places in what was asked; ascending.
    members: Vec<(usize, Member<'s>)>,
    worth: Worth,
    holders: Holders,
    notes: Vec<Note>,
}

impl Search<'_> {
    fn run(&mut self, families: &mut Vec<Family>) {
        let mut holders = Holders::default();
        for (id, member) in &self.members {
            holders.add(*id, nodes(member.sketch, &member.digests.steps));
        }
        self.holders = holders;
        let nothing = Below { cut: Vec::new(), hidden: HashSet::new(), flops: 0.0, bytes: None };
        for group in self.holders.forest() {
            families.extend(self.family(&group, &nothing, 0));
        }
    }

    fn member(&self, id: usize) -> Option<&Member<'_>> {
        let at = self.members.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.members.get(at).map(|(_, member)| member)
    }

    /// The family of a group, or those of the groups inside it where it is none itself.
    fn family(&mut self, group: &Group, below: &Below, depth: usize) -> Vec<Family> {
        if depth > DEPTH_MAX {
            return Vec::new();
        }
        match self.own(group, below) {
            Ok((mut family, inner)) => {
                for child in &group.children {
                    family.children.extend(self.family(child, &inner, depth + 1));
                }
                vec![family]
            }
            Err(why) => {
                if let Some(why) = why {
                    self.notes.push(Note { members: group.members.clone(), why });
                }
                let children = group.children.iter();
                children.flat_map(|child| self.family(child, below, depth + 1)).collect()
            }
        }
    }

    /// The family of exactly this group; an error without words where it merely adds nothing.
    fn own(&self, group: &Group, below: &Below) -> Result<(Family, Below), Option<String>> {
        let ids = &group.members;
        let members: Vec<&Member<'_>> = ids.iter().filter_map(|&id| self.member(id)).collect();
        let reference = *members.first().ok_or(None)?;
        let common = Common::new(members.clone(), ids, &self.holders, &below.hidden);
        let whole = common.whole();
        let is_whole = whole.is_some();
        let Some(mut cut) = whole.or_else(|| common.cut()) else {
            let why = "no tensor that they share could be carried across: rows do not lie first";
            return Err(group.is_heavy.then(|| why.to_owned()));
        };
        let sketch = reference.sketch;
        let locate = |member: &Member<'_>, wanted: &[Digest]| {
            find(&member.sketch.dag, &member.digests.values, wanted).ok_or(None)
        };
        let anonymous: HashMap<Digest, Digest> = reference
            .digests
            .values
            .iter()
            .copied()
            .zip(reference.anonymous.values.iter().copied())
            .collect();
        cut.sort_by_key(|digest| (anonymous.get(digest).copied(), *digest));
        let targets = locate(reference, &cut)?;
        let base = Base::new(sketch, &targets);
        let bytes = common.bytes(&cut);
        let shares: Vec<f64> =
            members.iter().map(|member| base.flops / member.sketch.flops().max(1.0)).collect();
        let gain = |flops: f64| {
            members.iter().map(|m| flops / m.sketch.flops().max(1.0)).fold(0.0, f64::max)
        };
        if below.cut.is_empty() {
            if !self.worth.is_met(base.is_heavy, gain(base.flops)) {
                return Err(Some(too_little(gain(base.flops))));
            }
        } else {
            let fewer =
                matches!((bytes, below.bytes), (Some(own), Some(before)) if own <= before / 2);
            if cut == below.cut || (!fewer && gain(base.flops - below.flops) < GAIN_MIN) {
                return Err(None);
            }
        }
        let stage = Stage::new(sketch, &locate(reference, &below.cut)?, &targets, &[]);
        let mut names = Vec::new();
        let mut inputs = Vec::new();
        for member in &members {
            let found = locate(member, &cut)?;
            let name = |id: u32| member.sketch.values.get(id as usize).map(|v| v.name.clone());
            names.push(found.into_iter().filter_map(name).collect());
            let own = |leaf: &u32| {
                let number = reference.numbers.get(*leaf as usize)?;
                member.numbers.iter().position(|own| own == number)
            };
            inputs.push(stage.inputs.iter().filter_map(own).collect());
        }
        let inside = base.cone.iter().enumerate().filter(|(_, inside)| **inside);
        let inside = inside.filter_map(|(id, _)| reference.digests.values.get(id).copied());
        let hidden = inside.filter(|digest| !cut.contains(digest)).collect();
        let family = Family {
            members: ids.clone(),
            cut: names,
            inputs,
            digest: stage.digest,
            is_whole,
            shares,
            bytes_per_row: bytes,
            nodes: base.nodes,
            parameters: base.parameters,
            children: Vec::new(),
        };
        Ok((family, Below { cut, hidden, flops: base.flops, bytes }))
    }
}

/// What a base is made of, counted.
struct Base {
    cone: Vec<bool>,
    flops: f64,
    is_heavy: bool,
    nodes: usize,
    parameters: u64,
}

impl Base {
    fn new(sketch: &Sketch, targets: &[u32]) -> Self {
        let cone = sketch.dag.cone(targets, &HashMap::new());
        let mut base = Self { cone, flops: 0.0, is_heavy: false, nodes: 0, parameters: 0 };
        let mut steps = HashSet::new();
        for (id, value) in sketch.values.iter().enumerate() {
            if !base.cone.get(id).copied().unwrap_or(false) {
                continue;
            }
            base.parameters = base.parameters.saturating_add(value.elements);
            let Some(super::dag::Source::Made(at, _)) = sketch.dag.values.get(id) else { continue };
            let cost = sketch.steps.get(*at as usize).filter(|cost| cost.counts);
            if let Some(cost) = cost.filter(|_| steps.insert(narrow(*at as usize))) {
                base.flops += cost.flops;
                base.is_heavy |= cost.is_heavy;
                base.nodes += 1;
            }
        }
        base
    }
}
