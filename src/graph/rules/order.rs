//! Which node comes before which.
//!
//! Separate from the walk because files need not list their nodes in order, and a node also reads what its branches
//! and bodies read.

use crate::graph::proto::{GraphProto, NodeProto};
use crate::graph::read::initialiser_names;
use std::collections::{HashMap, HashSet};

/// The names that a graph's nodes read, its own among them.
pub(super) fn captured<'a>(graph: &'a GraphProto, names: &mut HashSet<&'a str>) {
    names.extend(graph.output.iter().map(|info| info.name()));
    for node in &graph.node {
        names.extend(node.input.iter().map(String::as_str));
        node.subgraphs().for_each(|graph| captured(graph, names));
    }
    // Its own names hide outer ones.
    for name in graph.input.iter().map(|info| info.name()).chain(initialiser_names(graph)) {
        names.remove(name);
    }
    for name in graph.node.iter().flat_map(|node| &node.output) {
        names.remove(name.as_str());
    }
}

/// The nodes, each after those whose outputs it reads; nodes of a cycle are left out.
pub(in crate::graph) fn order(nodes: &[NodeProto]) -> Vec<&NodeProto> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let named = node.output.iter().filter(|name| !name.is_empty());
        makers.extend(named.map(|name| (name.as_str(), index)));
    }
    let needs = |node| -> Vec<usize> {
        let mut names = HashSet::new();
        let node: &NodeProto = node;
        names.extend(node.input.iter().map(String::as_str));
        node.subgraphs().for_each(|graph| captured(graph, &mut names));
        names.iter().filter_map(|name| makers.get(name).copied()).collect()
    };
    let needs: Vec<Vec<usize>> = nodes.iter().map(needs).collect();
    if needs.iter().enumerate().all(|(index, needs)| needs.iter().all(|&need| need < index)) {
        return nodes.iter().collect();
    }
    let mut waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, needs) in needs.iter().enumerate() {
        for &need in needs {
            if let Some(readers) = readers.get_mut(need) {
                readers.push(index);
            }
        }
    }
    let mut ready: Vec<usize> =
        (0..nodes.len()).filter(|&at| waiting.get(at) == Some(&0)).collect();
    let mut next = 0;
    while let Some(&at) = ready.get(next) {
        next += 1;
        for &reader in readers.get(at).map_or(&[][..], Vec::as_slice) {
            if let Some(count) = waiting.get_mut(reader) {
                *count -= 1;
                if *count == 0 {
                    ready.push(reader);
                }
            }
        }
    }
    ready.into_iter().filter_map(|at| nodes.get(at)).collect()
}
