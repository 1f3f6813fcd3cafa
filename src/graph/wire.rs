//! A walk over the raw protobuf that counts before anything is built.
//!
//! Separate from the decoder because two bytes of file can become hundreds of bytes of memory: an empty node or
//! tensor costs that. Counting first, in constant memory, bounds what the decoder may allocate.
//!
//! # Invariants
//! Whatever the decoder would build of nodes, messages and strings has been counted here; depth is bounded,
//! so that the decoder's recursion is too.

use super::error::GraphError;

/// What the limits are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Nodes in the graph, its subgraphs and functions.
    pub(super) nodes: u64,
    /// Messages and strings of every kind.
    pub(super) items: u64,
}

/// Limits on a model file's structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most nodes, over the graph, subgraphs and functions.
    pub(super) nodes_max: u64,
    /// Most messages and strings: each takes memory whatever its size in the file.
    pub(super) items_max: u64,
    /// Most subgraphs inside each other.
    pub(super) graph_depth_max: u32,
    /// Most messages inside each other.
    pub(super) message_depth_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    Element,
    Map,
    TensorType,
    Shape,
    Function,
    Leaf,
}

/// What a length-delimited field of a message holds; none for bytes and numbers, which cost what they weigh.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) | (Kind::Attribute, 6 | 11) => Kind::Graph,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Graph, 11..=13) | (Kind::Function, 12) => Kind::ValueInfo,
        (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
        (Kind::Attribute, 14 | 15) | (Kind::ValueInfo, 2) | (Kind::Element, 1) | (Kind::Map, 2) => {
            Kind::Type
        }
        (Kind::Type, 1 | 8) => Kind::TensorType,
        (Kind::Type, 4 | 9) => Kind::Element,
        (Kind::Type, 5) => Kind::Map,
        (Kind::TensorType, 2) => Kind::Shape,
        (Kind::Model, 8 | 14)
        | (Kind::Graph, 14 | 16)
        | (Kind::Node, 1 | 2 | 9)
        | (Kind::Attribute, 9)
        | (Kind::Tensor, 6 | 13 | 16)
        | (Kind::ValueInfo, 4)
        | (Kind::Shape, 1)
        | (Kind::Function, 4..=6 | 9 | 14) => Kind::Leaf,
        _ => return None,
    })
}

/// Counts what a model file holds and stops at the first limit it passes.
pub(super) fn scan(bytes: &[u8], limits: Limits) -> Result<Counts, GraphError> {
    let mut scan = Scan { limits, counts: Counts::default() };
    scan.message(bytes, Kind::Model, 0, 0)?;
    Ok(scan.counts)
}

struct Scan {
    limits: Limits,
    counts: Counts,
}

impl Scan {
    fn message(
        &mut self,
        mut rest: &[u8],
        kind: Kind,
        depth: u32,
        graphs: u32,
    ) -> Result<(), GraphError> {
        if depth > self.limits.message_depth_max {
            return Err(GraphError::TooDeep { limit: self.limits.message_depth_max });
        }
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let payload = match key & 7 {
                0 => varint(&mut rest).map(|_| None)?,
                1 => take(&mut rest, 8).map(|_| None)?,
                2 => {
                    let length = varint(&mut rest)?;
                    let length = usize::try_from(length).map_err(|_| truncated())?;
                    Some(take(&mut rest, length)?)
                }
                5 => take(&mut rest, 4).map(|_| None)?,
                // Groups: no ONNX writer makes them, and skipping them needs recursion.
                _ => return Err(GraphError::Malformed("a field of a kind ONNX never uses".into())),
            };
            if let (Some(payload), Some(inner)) = (payload, child(kind, key >> 3)) {
                self.enter(payload, inner, depth, graphs)?;
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        payload: &[u8],
        kind: Kind,
        depth: u32,
        graphs: u32,
    ) -> Result<(), GraphError> {
        self.counts.items += 1;
        if self.counts.items > self.limits.items_max {
            return Err(GraphError::TooMany { what: "parts", limit: self.limits.items_max });
        }
        if kind == Kind::Leaf {
            return Ok(());
        }
        if kind == Kind::Node {
            self.counts.nodes += 1;
            if self.counts.nodes > self.limits.nodes_max {
                return Err(GraphError::TooMany { what: "nodes", limit: self.limits.nodes_max });
            }
        }
        // The main graph is depth 0 of subgraphs.
        let graphs = graphs + u32::from(kind == Kind::Graph && depth > 0);
        if graphs > self.limits.graph_depth_max {
            return Err(GraphError::TooDeep { limit: self.limits.graph_depth_max });
        }
        self.message(payload, kind, depth + 1, graphs)
    }
}

fn truncated() -> GraphError {
    GraphError::Malformed("the file ends inside a field".into())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], GraphError> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(truncated)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, GraphError> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (&byte, tail) = rest.split_first().ok_or_else(truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(GraphError::Malformed("a number longer than 64 bits".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { nodes_max: 3, items_max: 20, graph_depth_max: 2, message_depth_max: 60 };

    fn field(number: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(u64::from(number) << 3 | 2, &mut out);
        prost::encoding::encode_varint(payload.len() as u64, &mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn counts_nodes_and_parts() {
        let graph = field(7, &[field(1, &field(1, b"x")), field(1, b"")].concat());
        let counts = scan(&graph, LIMITS).expect("well formed");
        assert_eq!(counts, Counts { nodes: 2, items: 4 });
    }

    #[test]
    fn refuses_too_many_nodes_before_building_them() {
        let graph = field(7, &field(1, b"").repeat(4));
        let error = scan(&graph, LIMITS).expect_err("four nodes");
        assert!(matches!(error, GraphError::TooMany { what: "nodes", limit: 3 }));
        let graph = field(7, &field(5, b"").repeat(20));
        let error = scan(&graph, LIMITS).expect_err("21 parts");
        assert!(matches!(error, GraphError::TooMany { what: "parts", limit: 20 }));
    }

    #[test]
    fn refuses_deep_subgraphs() {
        let mut body = Vec::new();
        for _ in 0..3 {
            body = field(1, &field(5, &field(6, &body)));
        }
        let error = scan(&field(7, &body), LIMITS).expect_err("three subgraphs deep");
        assert!(matches!(error, GraphError::TooDeep { limit: 2 }));
    }

    #[test]
    fn refuses_cut_and_odd_files() {
        for bytes in [&[0x3a, 5, 0][..], &[0x3a], &[0xff; 11], &[0x3b], &[0x3d, 1]] {
            assert!(matches!(scan(bytes, LIMITS), Err(GraphError::Malformed(_))), "{bytes:?}");
        }
    }
}
