//! A graph without what means nothing: numbers for names, functions opened, constants and nodes told apart.
//!
//! Separate because digests, cuts and writing all ask the same graph, and each would otherwise have to know how
//! exporters hide equal things: Identity, inference Dropout, Constant nodes, local functions, captured names.
//!
//! # Invariants
//! Every value comes after those it is made of. A body sees outer values only through its captures. What cannot be
//! told apart this way is an error, never a guess.

mod settings;

use self::settings::{Frame, constant_of, graphs, resolved, settings};
use super::schema::since;
use crate::graph::constant;
use crate::graph::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto,
};
use crate::graph::read::{Model, domain, opsets};
use crate::graph::rules::order::order;
use crate::graph::rules::{NodeLabel, Reason};
use std::borrow::Cow;
use std::collections::HashMap;

/// Most nodes, functions counted each time they are called.
const NODES_MAX: usize = 1_000_000;
/// Most functions and bodies inside each other.
const DEPTH_MAX: usize = 24;

/// The number of a value in its graph.
pub(super) type Id = usize;

/// A constant: one of the file, or what the settings of a Constant node amount to.
pub(super) type Tensor<'a> = Box<Cow<'a, TensorProto>>;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(super) enum Def<'a> {
    /// An input of the graph, by position.
    Input(usize),
    /// A value of the graph around a body, by its place among the captures.
    Outer(usize),
    /// The same whatever the inputs.
    Constant(Tensor<'a>),
    /// An output of a node.
    Made {
        /// The node.
        node: usize,
        /// Which output.
        output: usize,
    },
}

/// A node: an operator, what it reads, what it makes.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    /// The version of the operator's definition.
    pub(super) version: i64,
    /// Settings that hold no graph, sorted by name.
    pub(super) attributes: Vec<(&'a str, &'a AttributeProto)>,
    /// Bodies, sorted by the setting's name.
    pub(super) bodies: Vec<Body<'a>>,
    /// Without absent ones at the end.
    pub(super) inputs: Vec<Option<Id>>,
    /// The value of each output; none for one that is left out.
    pub(super) outputs: Vec<Option<Id>>,
}

/// A graph inside a node.
#[derive(Clone, Debug)]
pub(super) struct Body<'a> {
    pub(super) setting: &'a str,
    pub(super) graph: &'a GraphProto,
    pub(super) net: Net<'a>,
    /// What it reads of the graph around it.
    pub(super) captures: Vec<Id>,
}

/// A graph.
#[derive(Clone, Debug, Default)]
pub(super) struct Net<'a> {
    pub(super) inputs: usize,
    pub(super) values: Vec<Def<'a>>,
    /// The name that the main graph gives a value; empty for what a function made.
    pub(super) names: Vec<&'a str>,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) outputs: Vec<Id>,
}

impl<'a> Node<'a> {
    pub(super) fn domain(&self) -> &'a str {
        domain(self.proto.domain())
    }

    pub(super) fn op(&self) -> &'a str {
        self.proto.op_type()
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

impl<'a> Net<'a> {
    pub(super) fn constant(&self, id: Id) -> Option<&TensorProto> {
        match self.values.get(id)? {
            Def::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    fn push(&mut self, def: Def<'a>, name: &'a str) -> Id {
        self.values.push(def);
        self.names.push(name);
        self.values.len() - 1
    }
}

/// The main graph of a model.
///
/// # Errors
/// What in it cannot be told apart from something else for certain.
pub(super) fn net(model: &Model) -> Result<Net<'_>, Reason> {
    let functions = model.proto().functions.iter();
    let functions = functions.map(|f| ((domain(f.domain()), f.name(), f.overload()), f)).collect();
    let mut build = Build { functions, scopes: Vec::new(), nets: Vec::new(), nodes: 0 };
    let graph = model.graph();
    let frame = Frame { opsets: model.opsets().clone(), given: HashMap::new() };
    let names: Vec<&str> = model.inputs().iter().map(|port| port.name.as_str()).collect();
    let (net, _) = build.graph(graph, &names, &frame)?;
    Ok(net)
}

/// The names of a graph or function.
struct Scope<'a> {
    names: HashMap<&'a str, Option<Id>>,
    /// Whether it sees the names around it, of the graph around its own.
    is_body: bool,
    /// Which graph its values belong to.
    net: usize,
}

struct Build<'a> {
    functions: HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    scopes: Vec<Scope<'a>>,
    /// The graphs under construction, each inside the one before, with their captures.
    nets: Vec<(Net<'a>, Vec<Id>)>,
    nodes: usize,
}

impl<'a> Build<'a> {
    fn graph(
        &mut self,
        graph: &'a GraphProto,
        inputs: &[&'a str],
        frame: &Frame<'a>,
    ) -> Result<(Net<'a>, Vec<Id>), Reason> {
        if self.scopes.len() >= DEPTH_MAX {
            return Err(Reason::new("functions and bodies lie too deep inside each other"));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(Reason::new("it has sparse tensors, whose bases are not looked for"));
        }
        let mut net = Net { inputs: inputs.len(), ..Net::default() };
        let mut names = HashMap::new();
        for (index, &name) in inputs.iter().enumerate() {
            names.insert(name, Some(net.push(Def::Input(index), name)));
        }
        for tensor in &graph.initializer {
            let id = net.push(Def::Constant(Box::new(Cow::Borrowed(tensor))), tensor.name());
            if names.insert(tensor.name(), Some(id)).is_some() {
                return Err(Reason::new(format!("tensor '{}' is made twice", tensor.name())));
            }
        }
        let is_body = !self.nets.is_empty();
        self.nets.push((net, Vec::new()));
        self.scopes.push(Scope { names, is_body, net: self.nets.len() - 1 });
        self.nodes(&graph.node, frame)?;
        for info in &graph.output {
            let Some(id) = self.lookup(info.name())?.flatten() else {
                return Err(Reason::new(format!("nothing makes output '{}'", info.name())));
            };
            self.top().outputs.push(id);
        }
        self.scopes.pop();
        Ok(self.nets.pop().unwrap_or_default())
    }

    fn top(&mut self) -> &mut Net<'a> {
        if self.nets.is_empty() {
            self.nets.push(Default::default());
        }
        let last = self.nets.len() - 1;
        &mut self.nets[last].0
    }

    /// The value of a name in the innermost scope; outer none for a name that nothing makes, inner none for an
    /// optional input that a function's caller left out.
    #[expect(clippy::option_option, reason = "the two absences differ")]
    fn lookup(&mut self, name: &'a str) -> Result<Option<Option<Id>>, Reason> {
        let mut at = self.scopes.len();
        // Out to the scope that knows the name, then back in, captured by each body on the way.
        let found = loop {
            let Some(scope) = at.checked_sub(1).and_then(|at| self.scopes.get(at)) else {
                return Ok(None);
            };
            if let Some(found) = scope.names.get(name) {
                break *found;
            }
            if !scope.is_body {
                return Ok(None);
            }
            at -= 1;
        };
        let mut found = found;
        for scope in self.scopes.iter_mut().skip(at) {
            if let (Some(id), Some((net, captures))) = (found, self.nets.get_mut(scope.net)) {
                let slot = captures.iter().position(|&outer| outer == id);
                let slot = slot.unwrap_or_else(|| {
                    captures.push(id);
                    captures.len() - 1
                });
                found = Some(net.push(Def::Outer(slot), name));
            }
            scope.names.insert(name, found);
        }
        Ok(Some(found))
    }

    fn bind(&mut self, name: &'a str, id: Option<Id>) -> Result<(), Reason> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        match scope.names.insert(name, id) {
            None => Ok(()),
            Some(_) => Err(Reason::new(format!("tensor '{name}' is made twice"))),
        }
    }

    fn nodes(&mut self, nodes: &'a [NodeProto], frame: &Frame<'a>) -> Result<(), Reason> {
        for node in order(nodes) {
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(Reason::new(format!("it has more than {NODES_MAX} nodes")));
            }
            self.node(node, frame)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, frame: &Frame<'a>) -> Result<(), Reason> {
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match self.lookup(name)? {
                _ if name.is_empty() => None,
                Some(value) => value,
                None => {
                    let label = NodeLabel(node);
                    return Err(Reason::new(format!(
                        "{label} reads '{name}', which nothing makes"
                    )));
                }
            });
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let key = (domain(node.domain()), node.op_type(), node.overload());
        if let Some(&function) = self.functions.get(&key) {
            return self.function(node, function, &inputs, frame);
        }
        let attributes = settings(node, frame);
        let version = frame.opsets.get(key.0).copied().unwrap_or(1);
        if let Some(tensor) = constant_of(key.0, node, &attributes)? {
            let name = node.output.first().map_or("", String::as_str);
            let id = self.make(Def::Constant(tensor), name);
            return self.bind(name, Some(id));
        }
        if self.vanishes(node, version, &attributes, &inputs) {
            let name = node.output.first().map_or("", String::as_str);
            return self.bind(name, inputs.first().copied().flatten());
        }
        let mut bodies = Vec::new();
        for (setting, graph) in graphs(node)? {
            let ports: Vec<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
            let (net, captures) = self.graph(graph, &ports, frame)?;
            bodies.push(Body { setting, graph, net, captures });
        }
        let version = since(key.0, node.op_type(), version);
        let made = Node { proto: node, version, attributes, bodies, inputs, outputs: Vec::new() };
        self.outputs(node, made)
    }

    fn make(&mut self, def: Def<'a>, name: &'a str) -> Id {
        // What a function makes has no name in the graph that calls it.
        let inside = self.scopes.last().is_some_and(|scope| !scope.is_body && scope.net > 0);
        let function = self.scopes.len() > self.nets.len();
        self.top().push(def, if inside || function { "" } else { name })
    }

    fn outputs(&mut self, node: &'a NodeProto, mut made: Node<'a>) -> Result<(), Reason> {
        let index = self.top().nodes.len();
        let present = node.output.iter().rposition(|name| !name.is_empty());
        for (output, name) in node.output.iter().take(present.map_or(0, |at| at + 1)).enumerate() {
            if name.is_empty() {
                made.outputs.push(None);
                continue;
            }
            let id = self.make(Def::Made { node: index, output }, name);
            made.outputs.push(Some(id));
            self.bind(name, Some(id))?;
        }
        self.top().nodes.push(made);
        Ok(())
    }

    /// Opens a call of one of the model's own functions: its nodes become those of the graph that calls it.
    fn function(
        &mut self,
        node: &'a NodeProto,
        function: &'a FunctionProto,
        inputs: &[Option<Id>],
        frame: &Frame<'a>,
    ) -> Result<(), Reason> {
        if self.scopes.len() >= DEPTH_MAX {
            return Err(Reason::new("functions call each other too deep"));
        }
        let mut given: HashMap<_, _> = function
            .attribute_proto
            .iter()
            .map(|attribute| (attribute.name(), attribute))
            .collect();
        given.extend(resolved(node, frame));
        let own = opsets(&function.opset_import)
            .map_err(|error| Reason::new(format!("function '{}': {error}", function.name())))?;
        let mut inner = frame.opsets.clone();
        inner.extend(own);
        let names = function.input.iter().enumerate();
        let names = names.map(|(at, name)| (name.as_str(), inputs.get(at).copied().flatten()));
        let net = self.nets.len().saturating_sub(1);
        self.scopes.push(Scope { names: names.collect(), is_body: false, net });
        self.nodes(&function.node, &Frame { opsets: inner, given })?;
        let mut results = Vec::new();
        for name in &function.output {
            results.push(self.lookup(name)?.flatten());
        }
        self.scopes.pop();
        for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(Some(id)) = results.get(index) else {
                let label = NodeLabel(node);
                return Err(Reason::new(format!("{label} does not make its output '{name}'")));
            };
            self.name(*id, name);
            self.bind(name, Some(*id))?;
        }
        Ok(())
    }

    /// Gives a value that a function made the name it has in the main graph.
    fn name(&mut self, id: Id, name: &'a str) {
        let is_main = self.scopes.len() == 1;
        if let Some(own) = self.top().names.get_mut(id).filter(|own| is_main && own.is_empty()) {
            *own = name;
        }
    }

    /// Whether a node only hands its input on.
    fn vanishes(
        &mut self,
        node: &NodeProto,
        opset: i64,
        attributes: &[(&str, &AttributeProto)],
        inputs: &[Option<Id>],
    ) -> bool {
        let one = node.output.iter().skip(1).all(String::is_empty);
        if !domain(node.domain()).is_empty() || !one || !matches!(inputs.first(), Some(Some(_))) {
            return false;
        }
        if node.op_type() == "Identity" {
            return true;
        }
        let training = inputs.get(2).copied().flatten();
        let off = |id| self.top().constant(id).and_then(constant::ints) == Some(vec![0]);
        node.op_type() == "Dropout"
            && match opset {
                ..7 => attributes.iter().any(|(name, value)| *name == "is_test" && value.i() != 0),
                7..12 => true,
                _ => training.is_none_or(off),
            }
    }
}
