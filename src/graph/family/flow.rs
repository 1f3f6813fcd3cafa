//! The cheapest way to cut a graph in two.
//!
//! Separate because it is textbook and knows nothing of models.
//!
//! # Source
//! Dinic 1970: blocking flows along shortest paths. Of the minimum cuts the one nearest the sink is given, which
//! is unique whatever the order of nodes and edges.

use std::collections::VecDeque;

/// A capacity that no minimum cut contains.
pub(super) const ENDLESS: u64 = u64::MAX / 8;

/// Most looks at an edge before the search is given up.
const STEPS_MAX: u64 = 200_000_000;

/// A flow network; node 0 is the source, node 1 the sink.
#[derive(Debug)]
pub(super) struct Flow {
    edges: Vec<(usize, u64)>,
    from: Vec<Vec<usize>>,
    steps: u64,
}

impl Flow {
    pub(super) const SOURCE: usize = 0;
    pub(super) const SINK: usize = 1;

    pub(super) fn new() -> Self {
        Self { edges: Vec::new(), from: vec![Vec::new(); 2], steps: 0 }
    }

    pub(super) fn node(&mut self) -> usize {
        self.from.push(Vec::new());
        self.from.len() - 1
    }

    pub(super) fn edge(&mut self, from: usize, to: usize, capacity: u64) {
        for (at, to, capacity) in [(from, to, capacity), (to, from, 0)] {
            if let Some(edges) = self.from.get_mut(at) {
                edges.push(self.edges.len());
            }
            self.edges.push((to, capacity));
        }
    }

    fn residual(&self, edge: usize) -> (usize, u64) {
        self.edges.get(edge).copied().unwrap_or((Self::SOURCE, 0))
    }

    /// For each node whether it lies on the sink's side; none if the search takes too long.
    pub(super) fn cut(mut self) -> Option<Vec<bool>> {
        while let Some(levels) = self.levels() {
            let mut next = vec![0_usize; self.from.len()];
            while self.augment(&levels, &mut next) {
                if self.steps > STEPS_MAX {
                    return None;
                }
            }
        }
        let mut side = vec![false; self.from.len()];
        let mut queue = vec![Self::SINK];
        while let Some(at) = queue.pop() {
            match side.get_mut(at) {
                Some(side) if !*side => *side = true,
                _ => continue,
            }
            // Backwards: who can still reach this node.
            for &edge in self.from.get(at).map_or(&[][..], Vec::as_slice) {
                let (other, _) = self.residual(edge);
                if self.residual(edge ^ 1).1 > 0 {
                    queue.push(other);
                }
            }
        }
        Some(side)
    }

    /// The distance of every node from the source; none if the sink is out of reach.
    fn levels(&mut self) -> Option<Vec<u32>> {
        let mut levels = vec![u32::MAX; self.from.len()];
        let mut queue = VecDeque::from([Self::SOURCE]);
        *levels.get_mut(Self::SOURCE)? = 0;
        while let Some(at) = queue.pop_front() {
            let level = levels.get(at).copied()?;
            for &edge in self.from.get(at)? {
                self.steps += 1;
                let (to, capacity) = self.residual(edge);
                match levels.get_mut(to) {
                    Some(own) if *own == u32::MAX && capacity > 0 => {
                        *own = level + 1;
                        queue.push_back(to);
                    }
                    _ => {}
                }
            }
        }
        (levels.get(Self::SINK).copied()? != u32::MAX).then_some(levels)
    }

    /// Sends flow along one shortest path; false if there is none left.
    fn augment(&mut self, levels: &[u32], next: &mut [usize]) -> bool {
        let mut path: Vec<usize> = Vec::new();
        let mut at = Self::SOURCE;
        while at != Self::SINK {
            self.steps += 1;
            let index = next.get(at).copied().unwrap_or(usize::MAX);
            let Some(&edge) = self.from.get(at).and_then(|edges| edges.get(index)) else {
                // A dead end: back, and past the edge that led here.
                let Some(edge) = path.pop() else { return false };
                at = self.residual(edge ^ 1).0;
                if let Some(next) = next.get_mut(at) {
                    *next += 1;
                }
                continue;
            };
            let (to, capacity) = self.residual(edge);
            let (own, other) = (levels.get(at), levels.get(to));
            if capacity > 0 && own.zip(other).is_some_and(|(own, other)| own + 1 == *other) {
                path.push(edge);
                at = to;
            } else if let Some(next) = next.get_mut(at) {
                *next += 1;
            }
        }
        let amount = path.iter().map(|&edge| self.residual(edge).1).min().unwrap_or(0);
        for &edge in &path {
            if let Some(edge) = self.edges.get_mut(edge) {
                edge.1 -= amount;
            }
            if let Some(back) = self.edges.get_mut(edge ^ 1) {
                back.1 = back.1.saturating_add(amount);
            }
        }
        amount > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_cut_nearest_the_sink() {
        let mut flow = Flow::new();
        let nodes: Vec<usize> = (0..4).map(|_| flow.node()).collect();
        flow.edge(Flow::SOURCE, nodes[0], ENDLESS);
        flow.edge(nodes[0], nodes[1], 3);
        flow.edge(nodes[1], nodes[2], 5);
        flow.edge(nodes[0], nodes[3], 4);
        flow.edge(nodes[3], nodes[2], 4);
        flow.edge(nodes[2], Flow::SINK, 7);
        let side = flow.cut().unwrap();
        assert!(side[Flow::SINK]);
        assert!(nodes.iter().all(|&node| !side[node]), "7 + 0 ties with 3 + 4: the later one");
    }

    #[test]
    fn no_way_is_no_cut() {
        let mut flow = Flow::new();
        let node = flow.node();
        flow.edge(Flow::SOURCE, node, 5);
        assert_eq!(flow.cut(), Some(vec![false, true, false]));
    }
}
