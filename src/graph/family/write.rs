//! Writes a part of a graph as a model: the same bytes for the same function.
//!
//! Separate because what ONNX Runtime makes of a file must be the same whichever model it was cut from: names, order
//! of nodes and constants, versions of operator sets, all follow from the part alone.
//!
//! # Invariants
//! Nodes are written depth first from the outputs. Operands whose order means nothing stand deepest first and
//! constants last, as most exporters write them and the runtime's own rewriting expects them.

use super::content::{Weights, written};
use super::dag::{Dag, kind, narrow};
use super::hash::{Digest, Fields};
use super::net::{Body, Def, Id, Net};
use super::schema::since;
use crate::graph::proto::*;
use crate::graph::rules::{NodeLabel, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The format's own version: the oldest that every operator set written here is allowed in.
const IR_VERSION: i64 = 10;
/// Oldest version of the default operator set that ONNX Runtime promises to run.
const OPSET_MIN: i64 = 7;
/// Written where no operator of the default set says more.
const OPSET_USUAL: i64 = 13;

/// An operator in use, and the version of its definition.
pub(super) type Operators = BTreeMap<String, BTreeSet<(String, i64)>>;

/// Gives names that nothing else has.
#[derive(Debug)]
pub(super) struct Names {
    taken: HashSet<String>,
    count: usize,
}

impl Names {
    pub(super) fn new(taken: &[&str]) -> Self {
        Self { taken: taken.iter().map(|&name| name.to_owned()).collect(), count: 0 }
    }

    /// A name of this kind and number, made longer while it is taken.
    pub(super) fn numbered(&mut self, kind: &str, number: usize) -> String {
        let mut name = format!("{kind}{number}");
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.count += 1;
        self.numbered(kind, self.count - 1)
    }
}

/// One file being written.
pub(super) struct Writer<'w> {
    names: Names,
    weights: &'w Weights<'w>,
    pub(super) operators: Operators,
}

/// A graph to write from, and the digests of its values under the inputs of what is written.
#[derive(Clone, Copy)]
pub(super) struct Part<'g, 'a> {
    pub(super) net: &'g Net<'a>,
    pub(super) dag: &'g Dag,
    pub(super) values: &'g [Digest],
}

/// One graph being written: the names of the values that are there.
struct Page<'g, 'a> {
    net: &'g Net<'a>,
    dag: &'g Dag,
    values: &'g [Digest],
    depths: Vec<u32>,
    known: HashMap<Digest, String>,
    wanted: HashMap<Digest, String>,
}

impl Page<'_, '_> {
    fn digest(&self, id: u32) -> Digest {
        self.values.get(id as usize).copied().unwrap_or_default()
    }

    fn name(&self, id: Option<u32>) -> String {
        let name = id.and_then(|id| self.known.get(&self.digest(id)));
        name.cloned().unwrap_or_default()
    }

    /// What a node reads, in the order in which it is written.
    fn operands(&self, step: u32) -> Vec<Option<u32>> {
        let Some(step) = self.dag.steps.get(step as usize) else { return Vec::new() };
        let mut operands = step.inputs.clone();
        if step.commutes {
            let depth = |id: u32| self.depths.get(id as usize).copied().unwrap_or(0);
            operands.sort_by_cached_key(|id| id.map(|id| (u32::MAX - depth(id), self.digest(id))));
        }
        operands
    }
}

impl<'w> Writer<'w> {
    pub(super) fn new(names: Names, weights: &'w Weights<'w>) -> Self {
        Self { names, weights, operators: Operators::new() }
    }

    /// Fills a graph with what makes `wanted`, values with the names that they must have, of what is `known`.
    pub(super) fn graph(
        &mut self,
        part: Part<'_, '_>,
        known: HashMap<Digest, String>,
        wanted: &[(u32, String)],
        graph: &mut GraphProto,
    ) -> Result<(), Reason> {
        let Part { net, dag, values } = part;
        let mut page =
            Page { net, dag, values, depths: dag.depths(), known, wanted: HashMap::new() };
        for (id, name) in wanted {
            let is_made = matches!(net.values.get(*id as usize), Some(Def::Made { .. }));
            let digest = page.digest(*id);
            if is_made && !page.known.contains_key(&digest) {
                page.wanted.entry(digest).or_insert_with(|| name.clone());
            }
        }
        for (id, name) in wanted {
            self.value(*id, &mut page, graph)?;
            let made = page.name(Some(*id));
            if made != *name {
                // Every operator set has it, so it asks for none.
                graph.node.push(NodeProto {
                    input: vec![made],
                    output: vec![name.clone()],
                    op_type: Some("Identity".to_owned()),
                    ..NodeProto::default()
                });
            }
        }
        Ok(())
    }

    fn use_operator(&mut self, domain: &str, op: &str, version: i64) {
        self.operators.entry(domain.to_owned()).or_default().insert((op.to_owned(), version));
    }

    /// Writes a value and all it is made of that is not there yet.
    fn value(
        &mut self,
        id: u32,
        page: &mut Page<'_, '_>,
        graph: &mut GraphProto,
    ) -> Result<(), Reason> {
        let mut stack: Vec<(u32, Vec<Option<u32>>)> = Vec::new();
        let mut next = Some(id);
        loop {
            if let Some(id) = next.take()
                && !page.known.contains_key(&page.digest(id))
            {
                match page.net.values.get(id as usize) {
                    Some(Def::Made { node, .. }) => {
                        let mut operands = page.operands(narrow(*node));
                        operands.reverse();
                        stack.push((id, operands));
                    }
                    Some(Def::Constant(tensor)) => {
                        let name = self.names.fresh("w");
                        graph.initializer.push(written(tensor, name.clone(), self.weights)?);
                        page.known.insert(page.digest(id), name);
                    }
                    _ => return Err(Reason::new("a part of it reads what is not there")),
                }
            }
            let Some((id, operands)) = stack.last_mut() else { return Ok(()) };
            match operands.pop() {
                Some(operand) => next = operand,
                None => {
                    let id = *id;
                    stack.pop();
                    // A sibling output may have brought the node.
                    if !page.known.contains_key(&page.digest(id)) {
                        self.node(id, page, graph)?;
                    }
                }
            }
        }
    }

    fn node(
        &mut self,
        id: u32,
        page: &mut Page<'_, '_>,
        graph: &mut GraphProto,
    ) -> Result<(), Reason> {
        let Some(Def::Made { node: at, .. }) = page.net.values.get(id as usize) else {
            return Ok(());
        };
        let Some(node) = page.net.nodes.get(*at) else { return Ok(()) };
        self.use_operator(node.domain(), node.op(), node.version);
        let mut made = NodeProto {
            op_type: Some(node.op().to_owned()),
            domain: Some(node.domain().to_owned()),
            ..NodeProto::default()
        };
        let operands = page.operands(narrow(*at));
        made.input = operands.into_iter().take(node.inputs.len()).map(|id| page.name(id)).collect();
        for (name, value) in &node.attributes {
            made.attribute.push(
                self.setting(name, value)
                    .map_err(|why| Reason::new(format!("{}: {}", NodeLabel(node.proto), why.0)))?,
            );
        }
        for body in &node.bodies {
            let captured: Vec<(Digest, String)> =
                body.captures.iter().map(|&id| outer(page, id)).collect();
            let inner = self.body(body, &captured)?;
            made.attribute.push(AttributeProto {
                name: Some(body.setting.to_owned()),
                g: Some(Box::new(inner)),
                r#type: Some(5),
                ..AttributeProto::default()
            });
        }
        for output in &node.outputs {
            let Some(output) = output else {
                made.output.push(String::new());
                continue;
            };
            let digest = page.digest(narrow(*output));
            if page.known.contains_key(&digest) {
                // An input of this graph stands for it; the node is here for its other outputs.
                made.output.push(self.names.fresh("v"));
                continue;
            }
            let name = page.wanted.get(&digest).cloned();
            let name = name.unwrap_or_else(|| self.names.fresh("v"));
            page.known.insert(digest, name.clone());
            made.output.push(name);
        }
        graph.node.push(made);
        Ok(())
    }

    fn setting(&self, name: &str, value: &AttributeProto) -> Result<AttributeProto, Reason> {
        let mut made = AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(kind(value)),
            ..AttributeProto::default()
        };
        match kind(value) {
            1 => made.f = Some(value.f()),
            2 => made.i = Some(value.i()),
            3 => made.s = Some(value.s.clone().unwrap_or_default()),
            4 => {
                if let Some(tensor) = &value.t {
                    made.t = Some(Box::new(written(tensor, String::new(), self.weights)?));
                }
            }
            6 => made.floats.clone_from(&value.floats),
            7 => made.ints.clone_from(&value.ints),
            8 => made.strings.clone_from(&value.strings),
            _ => return Err(Reason::new(format!("setting '{name}' cannot be written"))),
        }
        Ok(made)
    }

    /// A graph inside a node, which reads these values of the graph around it.
    fn body(
        &mut self,
        body: &Body<'_>,
        captured: &[(Digest, String)],
    ) -> Result<GraphProto, Reason> {
        let dag = Dag::new(&body.net, self.weights)?;
        let mut graph = GraphProto { name: Some("body".to_owned()), ..GraphProto::default() };
        let mut known: HashMap<Digest, String> = HashMap::new();
        let mut leaves = Vec::new();
        for (at, info) in body.graph.input.iter().enumerate() {
            let label = Fields::new(b"body input").count(at).finish();
            let name = self.names.fresh("v");
            graph.input.push(inner_port(name.clone(), info));
            known.insert(label, name);
            leaves.push(label);
        }
        leaves.extend(captured.iter().map(|(digest, _)| *digest));
        known.extend(captured.iter().cloned());
        let values = dag.digests(&leaves, &HashMap::new()).values;
        let mut wanted = Vec::new();
        for (info, &id) in body.graph.output.iter().zip(&dag.outputs) {
            let name = self.names.fresh("v");
            graph.output.push(inner_port(name.clone(), info));
            wanted.push((id, name));
        }
        let part = Part { net: &body.net, dag: &dag, values: &values };
        self.graph(part, known, &wanted, &mut graph)?;
        Ok(graph)
    }
}

/// A captured value as the graph around knows it.
fn outer(page: &Page<'_, '_>, id: Id) -> (Digest, String) {
    let id = page.dag.first.get(id).copied().unwrap_or_else(|| narrow(id));
    (page.digest(id), page.name(Some(id)))
}

/// A port of a body: the type of a tensor alone, for shapes are inferred.
fn inner_port(name: String, info: &ValueInfoProto) -> ValueInfoProto {
    match super::dag::tensor_type(info) {
        0 => {
            let r#type = info.r#type.clone();
            ValueInfoProto { name: Some(name), r#type, ..ValueInfoProto::default() }
        }
        elem_type => port(name, elem_type, None),
    }
}

/// An input or output of a written graph.
pub(super) fn port(
    name: String,
    elem_type: i32,
    shape: Option<TensorShapeProto>,
) -> ValueInfoProto {
    let tensor = TensorTypeProto { elem_type: Some(elem_type), shape };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// A shape: fixed sizes, one axis that is the batch, the rest open.
pub(super) fn shape(
    dims: impl Iterator<Item = Option<i64>>,
    batch: Option<usize>,
) -> TensorShapeProto {
    let dim = |(axis, size): (usize, Option<i64>)| {
        let value = match size {
            _ if batch == Some(axis) => Some(DimensionValue::Param("batch".to_owned())),
            Some(size) => Some(DimensionValue::Value(size)),
            None => None,
        };
        DimensionProto { value, denotation: None }
    };
    TensorShapeProto { dim: dims.enumerate().map(dim).collect() }
}

/// The model around a graph of these operators.
pub(super) fn model_of(graph: GraphProto, operators: &Operators) -> Result<ModelProto, Reason> {
    let mut sets = operators.clone();
    sets.entry(String::new()).or_default();
    let mut opset_import = Vec::new();
    for (domain, operators) in &sets {
        let newest = operators.iter().map(|(_, version)| *version).max();
        let newest = newest.unwrap_or(OPSET_USUAL);
        let fits =
            |version: &i64| operators.iter().all(|(op, own)| since(domain, op, *version) == *own);
        let lowest = if domain.is_empty() { newest.max(OPSET_MIN) } else { newest };
        let Some(version) = [lowest, newest].into_iter().find(fits) else {
            return Err(Reason::new(format!(
                "no one version of operator set '{domain}' has all its operators as they are used"
            )));
        };
        opset_import
            .push(OperatorSetIdProto { domain: Some(domain.clone()), version: Some(version) });
    }
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("graftd".to_owned()),
        graph: Some(Box::new(graph)),
        opset_import,
        ..ModelProto::default()
    })
}
