//! Follows a graph node by node with symbols for tensors.
//!
//! Separate from the operators' rules because it knows the other half: names and scopes, branches, functions, order,
//! and how a doubt or a fault travels on to the outputs.
//!
//! # Invariants
//! Work is bounded: [`STEPS_MAX`] nodes in all, functions and branches no deeper than [`DEPTH_MAX`]. A tensor whose reason is
//! `Mixed` stays so through every operator but those that ask for its shape.

use super::NodeLabel;
use super::call::{Call, Given};
use super::fold::fold;
use super::ops;
use super::order::{captured, order};
use super::shapes::{Item, Symbol};
use super::value::{Place, Rows, Stop, Value};
use crate::graph::proto::{FunctionProto, GraphProto, NodeProto};
use crate::graph::read::{Model, domain};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// Most nodes looked at, functions and branches counted each time they are entered.
const STEPS_MAX: u64 = 1_000_000;
/// Most functions and branches inside each other; ONNX forbids recursion, a file may not.
const DEPTH_MAX: u32 = 24;

/// Operators of the default domain that draw random numbers: alike for no two runs, so for no two rows.
const RANDOM: [&str; 6] = [
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
];

/// The values of one graph's names; absent optional inputs of a function are `None`.
pub(super) struct Scope<'s, 'a> {
    values: HashMap<&'a str, Option<Value<'a>>>,
    outer: Option<&'s Self>,
}

impl<'a> Scope<'_, 'a> {
    /// What is known of a name, here or further out.
    pub(super) fn get(&self, name: &str) -> Option<&Option<Value<'a>>> {
        self.values.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }

    /// What is known of a tensor of this graph or further out.
    pub(super) fn value(&self, name: &str) -> Option<&Value<'a>> {
        self.get(name).and_then(Option::as_ref)
    }
}

/// What holds for all nodes of a graph or function.
#[derive(Clone, Default)]
struct Frame<'a> {
    opset: i64,
    given: Given<'a>,
    depth: u32,
}

/// One walk over a model.
pub(super) struct Walk<'a> {
    functions: HashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    symbols: Cell<Symbol>,
    steps: u64,
}

/// Follows the main graph with these values for its inputs.
pub(super) fn follow<'a>(
    model: &'a Model,
    inputs: impl FnOnce(&mut dyn FnMut() -> Item) -> Vec<(&'a str, Value<'a>)>,
) -> Scope<'a, 'a> {
    let functions = model.proto().functions.iter();
    let functions = functions.map(|f| ((domain(f.domain()), f.name(), f.overload()), f)).collect();
    let mut walk = Walk { functions, symbols: Cell::new(0), steps: 0 };
    let mut next = 0;
    let bound = inputs(&mut || {
        next += 1;
        Item::Term(super::shapes::Term::symbol(next))
    });
    walk.symbols.set(next);
    let opset = model.opsets().get("").copied().unwrap_or(0);
    let mut scope = Scope { values: HashMap::new(), outer: None };
    scope.values.extend(bound.into_iter().map(|(name, value)| (name, Some(value))));
    walk.graph(model.graph(), &mut scope, &Frame { opset, ..Frame::default() });
    scope
}

impl<'a> Walk<'a> {
    fn graph(&mut self, graph: &'a GraphProto, scope: &mut Scope<'_, 'a>, frame: &Frame<'a>) {
        for tensor in &graph.initializer {
            scope.values.insert(tensor.name(), Some(Value::constant(tensor)));
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| values.name());
            let dims = sparse.dims.iter().map(|&dim| Item::constant(dim)).collect();
            scope.values.insert(name, Some(Value::free(dims)));
        }
        self.nodes(&graph.node, scope, frame);
    }

    fn nodes(&mut self, nodes: &'a [NodeProto], scope: &mut Scope<'_, 'a>, frame: &Frame<'a>) {
        for node in order(nodes) {
            self.steps += 1;
            let values = if self.steps > STEPS_MAX {
                all(node, &Rows::Unknown("the graph is too large to follow".into()))
            } else {
                self.node(node, scope, frame)
            };
            let named = node.output.iter().zip(values).filter(|(name, _)| !name.is_empty());
            scope.values.extend(named.map(|(name, value)| (name.as_str(), Some(value))));
        }
    }

    fn node(
        &mut self,
        node: &'a NodeProto,
        scope: &Scope<'_, 'a>,
        frame: &Frame<'a>,
    ) -> Vec<Value<'a>> {
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(match scope.get(name) {
                _ if name.is_empty() => None,
                Some(value) => value.clone(),
                None => Some(Value::new(Rows::Unknown(
                    format!("{} reads '{name}', which nothing makes", NodeLabel(node)).into(),
                ))),
            });
        }
        let key = (domain(node.domain()), node.op_type(), node.overload());
        if let Some(&function) = self.functions.get(&key) {
            return self.function(node, function, &inputs, frame);
        }
        if key.0.is_empty() && node.op_type() == "If" {
            return self.branch(node, &inputs, scope, frame);
        }
        let call =
            Call { node, given: &frame.given, inputs, opset: frame.opset, symbols: &self.symbols };
        if node.subgraphs().next().is_some() {
            return opaque(&call, scope);
        }
        operator(&call, key.0)
    }

    /// A call of one of the model's own functions.
    fn function(
        &mut self,
        node: &'a NodeProto,
        function: &'a FunctionProto,
        inputs: &[Option<Value<'a>>],
        frame: &Frame<'a>,
    ) -> Vec<Value<'a>> {
        if frame.depth >= DEPTH_MAX {
            return all(node, &Rows::Unknown("functions call each other too deep".into()));
        }
        let opset = function.opset_import.iter().find(|set| domain(set.domain()).is_empty());
        let mut given: Given<'a> =
            function.attribute_proto.iter().map(|attr| (attr.name(), attr)).collect();
        for attribute in &node.attribute {
            let own = if attribute.ref_attr_name().is_empty() {
                Some(attribute)
            } else {
                frame.given.get(attribute.ref_attr_name()).copied()
            };
            given.extend(own.map(|own| (attribute.name(), own)));
        }
        let inner = Frame {
            opset: opset.map_or(frame.opset, |set| set.version()),
            given,
            depth: frame.depth + 1,
        };
        let mut scope = Scope { values: HashMap::new(), outer: None };
        for (index, name) in function.input.iter().enumerate() {
            scope.values.insert(name, inputs.get(index).cloned().flatten());
        }
        self.nodes(&function.node, &mut scope, &inner);
        let missing = || Value::new(Rows::Unknown("a function does not make its output".into()));
        let outputs = function.output.iter();
        let mut values: Vec<Value<'a>> =
            outputs.map(|name| scope.value(name).cloned().unwrap_or_else(missing)).collect();
        values.resize_with(node.output.len(), missing);
        values
    }

    /// If: the branch that a constant condition takes, or both where it is the same for all rows.
    fn branch(
        &mut self,
        node: &'a NodeProto,
        inputs: &[Option<Value<'a>>],
        scope: &Scope<'_, 'a>,
        frame: &Frame<'a>,
    ) -> Vec<Value<'a>> {
        let condition = inputs.first().and_then(Option::as_ref);
        let label = NodeLabel(node);
        let known = condition.and_then(Value::item).and_then(Item::value);
        let refusal = match condition.map(|value| &value.rows) {
            _ if known.is_some() => None,
            Some(Rows::Free) => None,
            Some(Rows::Count) => Some(format!("{label}: its branch depends on the number of rows")),
            Some(Rows::Batch(_)) => Some(format!("{label}: its branch depends on the data")),
            Some(stopped) => return all(node, stopped),
            None => Some(format!("{label}: it has no condition")),
        };
        if let Some(why) = refusal {
            return all(node, &Rows::Unknown(why.into()));
        }
        if frame.depth >= DEPTH_MAX {
            return all(node, &Rows::Unknown(format!("{label}: it lies too deep").into()));
        }
        let deeper = Frame { depth: frame.depth + 1, ..frame.clone() };
        let mut made: Option<Vec<Value<'a>>> = None;
        for (name, taken) in [("then_branch", 1), ("else_branch", 0)] {
            if known.is_some_and(|known| i64::from(known != 0) != taken) {
                continue;
            }
            let graph = node.attr(name).and_then(|attr| attr.g.as_deref());
            let Some(graph) = graph else {
                return all(node, &Rows::Unknown(format!("{label}: it has no {name}").into()));
            };
            let mut inner = Scope { values: HashMap::new(), outer: Some(scope) };
            self.graph(graph, &mut inner, &deeper);
            let missing = || Value::new(Rows::Unknown("a branch does not make its output".into()));
            let outputs = graph.output.iter();
            let values: Vec<Value<'a>> = outputs
                .map(|info| inner.value(info.name()).cloned().unwrap_or_else(missing))
                .collect();
            made = Some(match made {
                None => values,
                Some(before) => {
                    before.iter().zip(&values).map(|(a, b)| self.join(a, b, &label)).collect()
                }
            });
        }
        made.unwrap_or_default()
    }

    /// What holds of a tensor that is one of two.
    fn join(&self, a: &Value<'a>, b: &Value<'a>, label: &NodeLabel<'_>) -> Value<'a> {
        for value in [a, b] {
            if matches!(value.rows, Rows::Mixed(_)) {
                return Value::new(value.rows.clone());
            }
        }
        for value in [a, b] {
            if matches!(value.rows, Rows::Unknown(_)) {
                return Value::new(value.rows.clone());
            }
        }
        let why = || format!("{label}: its branches carry rows differently, or differ in axes");
        let unlike = || Value::new(Rows::Unknown(why().into()));
        let place = if a.place == b.place { a.place } else { Place::Told };
        let dims = match (&a.dims, &b.dims) {
            (Some(a), Some(b)) if a.len() == b.len() => {
                let size = |a: &Item, b: &Item| match a == b {
                    true => a.clone(),
                    false if a.is_free() && b.is_free() => self.fresh(),
                    false => Item::Any,
                };
                Some(a.iter().zip(b.iter()).map(|(a, b)| size(a, b)).collect::<Vec<_>>())
            }
            _ => None,
        };
        match (&a.rows, &b.rows, dims) {
            (Rows::Free, Rows::Free, Some(dims)) => Value::free(dims),
            (Rows::Free, Rows::Free, None) => Value::new(Rows::Free),
            (Rows::Free | Rows::Count, Rows::Free | Rows::Count, _) => Value::new(Rows::Count),
            (Rows::Batch(one), Rows::Batch(other), Some(dims)) if one == other => {
                Value::laid(one.clone(), dims)
                    .map_or_else(|_| unlike(), |value| Value { place, ..value })
            }
            _ => unlike(),
        }
    }

    fn fresh(&self) -> Item {
        let symbol = self.symbols.get().saturating_add(1);
        self.symbols.set(symbol);
        if symbol == Symbol::MAX {
            Item::Free
        } else {
            Item::Term(super::shapes::Term::symbol(symbol))
        }
    }
}

/// The same for every output.
fn all<'a>(node: &NodeProto, rows: &Rows) -> Vec<Value<'a>> {
    vec![Value::new(rows.clone()); node.output.len()]
}

/// A doubt or a fault among some values, the fault first.
fn stopped<'v, 'a: 'v>(values: impl Iterator<Item = &'v Value<'a>> + Clone) -> Option<Rows> {
    let mixed = values.clone().find(|value| matches!(value.rows, Rows::Mixed(_)));
    let found = mixed.or_else(|| values.clone().find(|v| matches!(v.rows, Rows::Unknown(_))));
    found.map(|value| value.rows.clone())
}

/// An ordinary operator.
fn operator<'a>(call: &Call<'_, 'a>, domain: &str) -> Vec<Value<'a>> {
    let node = call.node;
    let label = NodeLabel(node);
    let op = node.op_type();
    let unknown = |why: &str| all(node, &Rows::Unknown(format!("{label}: {why}").into()));
    let inputs = call.inputs.iter().flatten();
    match stopped(inputs.clone()) {
        // The shape of what mixes rows may well be that of one that does not.
        Some(Rows::Mixed(why)) if domain.is_empty() && matches!(op, "Shape" | "Size") => {
            return unknown(&format!("it asks for the shape of what mixes rows: {why}"));
        }
        Some(rows) => return all(node, &rows),
        None => {}
    }
    if domain.is_empty() {
        if RANDOM.contains(&op) {
            return unknown("it draws random numbers");
        }
        if op == "Constant" {
            return vec![constant(call)];
        }
        if let Some(values) = fold(call) {
            return values;
        }
    }
    match ops::apply(call, domain) {
        Ok(mut values) => {
            let fill = || Value::new(Rows::Unknown(format!("{label}: an extra output").into()));
            values.resize_with(node.output.len(), fill);
            // A rule that makes numbers of rows says so itself.
            let place = ops::place(call);
            for value in values.iter_mut().filter(|value| value.lay().is_some()) {
                value.place = if op == "Range" { value.place } else { place };
            }
            values
        }
        Err(Stop::Mixes(why)) => all(node, &Rows::Mixed(format!("{label}: {why}").into())),
        Err(Stop::Unknown(why)) => {
            let mut rows = inputs.map(|value| &value.rows);
            match rows.clone().all(|rows| *rows == Rows::Free) {
                true if ops_known(domain) => all(node, &Rows::Free),
                _ if ops_known(domain) && rows.all(|r| matches!(r, Rows::Free | Rows::Count)) => {
                    all(node, &Rows::Count)
                }
                _ => unknown(&why),
            }
        }
    }
}

/// Whether a domain's operators are known to be functions of their inputs.
fn ops_known(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx.ml" | "com.microsoft")
}

fn constant<'a>(call: &Call<'_, 'a>) -> Value<'a> {
    let attribute = |name| call.attr(name);
    if let Some(tensor) = attribute("value").and_then(|attr| attr.t.as_deref()) {
        return Value::constant(tensor);
    }
    if let Some(value) = attribute("value_int") {
        return Value::numbers(Vec::new(), vec![Item::constant(value.i())]);
    }
    if let Some(values) = attribute("value_ints") {
        return Value::list(values.ints.iter().map(|&value| Item::constant(value)).collect());
    }
    if attribute("value_float").is_some() || attribute("value_string").is_some() {
        return Value::free(Vec::new());
    }
    Value::new(Rows::Free)
}

/// A node with a body that is not followed: a loop, or an operator of another's.
fn opaque<'a>(call: &Call<'_, 'a>, scope: &Scope<'_, 'a>) -> Vec<Value<'a>> {
    let mut names = HashSet::new();
    call.node.subgraphs().for_each(|graph| captured(graph, &mut names));
    let outside = names.iter().filter_map(|name| scope.value(name)).collect::<Vec<_>>();
    let values = call.inputs.iter().flatten().chain(outside);
    if let Some(rows) = stopped(values.clone()) {
        return all(call.node, &rows);
    }
    if values.clone().all(Value::is_free) && ops_known(domain(call.node.domain())) {
        return all(call.node, &Rows::Free);
    }
    let why = format!("{}: its body is not followed", NodeLabel(call.node));
    all(call.node, &Rows::Unknown(why.into()))
}
