//! Whether equal inputs give equal outputs, as far as the graph can tell.
//!
//! Separate because sharing, joining and keeping answers rest on this one verdict: a doubt is a no.
//!
//! # Invariants
//! Every node counts, also in branches, loop bodies and functions that may never run.

use super::{NodeLabel, Reason};
use crate::graph::constant;
use crate::graph::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::graph::read::{Model, domain};
use std::collections::{BTreeMap, BTreeSet};

/// Domains whose operators are functions of their inputs, but for [`RANDOM`].
const KNOWN_DOMAINS: [&str; 3] = ["", "ai.onnx.ml", "com.microsoft"];

/// Operators that draw random numbers, by domain; a seed is no promise, the stream runs on between runs.
const RANDOM: [(&str, &str); 12] = [
    ("", "RandomNormal"),
    ("", "RandomNormalLike"),
    ("", "RandomUniform"),
    ("", "RandomUniformLike"),
    ("", "Multinomial"),
    ("", "Bernoulli"),
    ("com.microsoft", "Sampling"),
    ("com.microsoft", "BiasDropout"),
    ("com.microsoft", "BitmaskDropout"),
    ("com.microsoft", "BitmaskBiasDropout"),
    ("com.microsoft", "PythonOp"),
    ("com.microsoft", "PythonOpGrad"),
];

/// Judges whether a model's outputs are a function of its inputs.
///
/// # Errors
/// The first node that may draw random numbers, keep state, or do what cannot be known.
pub fn deterministic(model: &Model) -> Result<(), Reason> {
    let proto = model.proto();
    let functions = proto
        .functions
        .iter()
        .map(|function| (domain(function.domain()), function.name()))
        .collect();
    let mut walk = Walk { functions, scopes: Vec::new(), opset: opset(model.opsets()) };
    walk.graph(model.graph())?;
    for function in &proto.functions {
        // A function sees none of its caller's names.
        walk.scopes.clear();
        let own = crate::graph::read::opsets(&function.opset_import).map_err(|error| {
            Reason::new(format!("function '{}' cannot be judged: {error}", function.name()))
        })?;
        walk.opset = opset(&own).or_else(|| opset(model.opsets()));
        walk.nodes(&function.node)?;
    }
    Ok(())
}

/// Whether an operator without a body is a function of its inputs; of Dropout only what never drops is.
pub(in crate::graph) fn is_function(domain: &str, op: &str) -> bool {
    KNOWN_DOMAINS.contains(&domain) && !RANDOM.contains(&(domain, op)) && op != "Dropout"
}

fn opset(opsets: &BTreeMap<String, i64>) -> Option<i64> {
    opsets.get("").copied()
}

struct Walk<'a> {
    functions: BTreeSet<(&'a str, &'a str)>,
    /// Boolean constants by name, one map a graph, innermost last: what `training_mode` may refer to.
    scopes: Vec<BTreeMap<&'a str, Option<bool>>>,
    opset: Option<i64>,
}

impl<'a> Walk<'a> {
    fn graph(&mut self, graph: &'a GraphProto) -> Result<(), Reason> {
        let mut scope = BTreeMap::new();
        // A body's own inputs hide outer constants of the same name.
        scope.extend(graph.input.iter().map(|info| (info.name(), None)));
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), truth(tensor)));
        scope.extend(constants);
        self.scopes.push(scope);
        let verdict = self.nodes(&graph.node);
        self.scopes.pop();
        verdict
    }

    fn nodes(&mut self, nodes: &'a [NodeProto]) -> Result<(), Reason> {
        if self.scopes.is_empty() {
            self.scopes.push(BTreeMap::new());
        }
        for node in nodes {
            self.node(node)?;
            let is_constant = node.op_type() == "Constant" && domain(node.domain()).is_empty();
            let value = node.attr("value").and_then(|attribute| attribute.t.as_deref());
            if let Some(scope) = self.scopes.last_mut() {
                let value = value.filter(|_| is_constant).and_then(truth);
                scope.extend(node.output.iter().map(|name| (name.as_str(), value)));
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<(), Reason> {
        let key = (domain(node.domain()), node.op_type());
        let label = NodeLabel(node);
        if !self.functions.contains(&key) {
            if !KNOWN_DOMAINS.contains(&key.0) {
                return Err(Reason::new(format!(
                    "{label} is of unknown domain '{}', cannot know",
                    key.0
                )));
            }
            if RANDOM.contains(&key) {
                return Err(Reason::new(format!("{label} draws random numbers")));
            }
            if key == ("", "Dropout") {
                self.dropout(node).map_err(|why| Reason::new(format!("{label} {why}")))?;
            }
        }
        node.subgraphs().try_for_each(|graph| self.graph(graph))
    }

    /// Dropout drops only in training: an attribute before operator set 7, never in 7 to 11, an input since 12.
    fn dropout(&self, node: &NodeProto) -> Result<(), &'static str> {
        let opset = self.opset.ok_or("is of an operator set that is not imported")?;
        if opset < 7 {
            let is_test = node.attr("is_test").filter(|attr| attr.ref_attr_name().is_empty());
            return match is_test.map(AttributeProto::i) {
                Some(is_test) if is_test != 0 => Ok(()),
                _ => Err("drops values at random: is_test is not set"),
            };
        }
        let Some(mode) = node.input.get(2).filter(|name| opset >= 12 && !name.is_empty()) else {
            return Ok(());
        };
        let known = self.scopes.iter().rev().find_map(|scope| scope.get(mode.as_str()));
        match known {
            Some(Some(false)) => Ok(()),
            Some(Some(true)) => Err("drops values at random: training_mode is true"),
            _ => Err("may drop values at random: training_mode is not constant"),
        }
    }
}

fn truth(tensor: &TensorProto) -> Option<bool> {
    match constant::ints(tensor)?.as_slice() {
        [value] => Some(*value != 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::constant::elem;
    use crate::graph::testing::{Build, branch, function, graph, int, node, tensor};

    fn flag(name: &str, value: i32) -> TensorProto {
        TensorProto {
            name: Some(name.into()),
            data_type: Some(elem::BOOL),
            int32_data: vec![value],
            ..TensorProto::default()
        }
    }

    fn check(build: &Build, expected: Option<&str>) {
        let verdict = deterministic(&build.model());
        assert_eq!(verdict.err().map(|reason| reason.0).as_deref(), expected);
    }

    fn base(opset: i64) -> Build {
        Build::new(opset).input("x", "batch 4")
    }

    #[test]
    fn ordinary_operators_are_deterministic() {
        check(&base(17).node("Relu", "x", "y", &[]), None);
        check(&base(17).node("ai.onnx:Relu", "x", "y", &[]), None);
        check(&base(17).node("com.microsoft:BiasGelu", "x x", "y", &[]), None);
        check(&base(17).node("ai.onnx.ml:Scaler", "x", "y", &[]), None);
    }

    #[test]
    fn random_operators_are_not() {
        for (domain, op) in RANDOM {
            let verdict = deterministic(
                &base(17).node(&format!("{domain}:{op}"), "x", "y", &[int("seed", 1)]).model(),
            );
            assert!(verdict.is_err(), "{op}");
        }
        check(
            &base(17).node("Bernoulli", "x", "y", &[]),
            Some("Bernoulli 'n_y' draws random numbers"),
        );
    }

    #[test]
    fn hidden_random_operators_are_found() {
        let inner = node("RandomUniformLike", "x", "r", &[]);
        let sentence = Some("RandomUniformLike 'n_r' draws random numbers");
        let then = graph("then_branch", branch(vec![inner.clone()], &["r"]));
        check(&base(17).node("If", "x", "y", &[then]), sentence);
        let mut build = base(17).node("local:F", "x", "y", &[]);
        build.proto.functions.push(function("F", "x", "r", vec![inner]));
        check(&build, sentence);
    }

    #[test]
    fn unknown_domains_cannot_be_known() {
        check(
            &base(17).node("my.ops:Magic", "x", "y", &[]),
            Some("my.ops:Magic 'n_y' is of unknown domain 'my.ops', cannot know"),
        );
        let training = base(17).node("ai.onnx.preview.training:Adam", "x", "y", &[]);
        assert!(deterministic(&training.model()).is_err());
        let mut own = base(17).node("local:F", "x", "y", &[]);
        own.proto.functions.push(function("F", "x", "y", vec![node("Relu", "x", "y", &[])]));
        check(&own, None);
    }

    #[test]
    fn dropout_is_judged_by_its_operator_set() {
        let drop = |opset, inputs: &str, attrs: &[AttributeProto]| {
            base(opset).node("Dropout", inputs, "y", attrs)
        };
        let training = Some("Dropout 'n_y' drops values at random: training_mode is true");
        let open = Some("Dropout 'n_y' may drop values at random: training_mode is not constant");
        check(&drop(6, "x", &[]), Some("Dropout 'n_y' drops values at random: is_test is not set"));
        check(&drop(6, "x", &[int("is_test", 1)]), None);
        check(&drop(11, "x", &[]), None);
        check(&drop(17, "x", &[]), None);
        check(&drop(17, "x _ t", &[]).tensor(flag("t", 0)), None);
        check(&drop(17, "x _ t", &[]).tensor(flag("t", 1)), training);
        check(&drop(17, "x _ t", &[]).input_of("t", elem::BOOL, ""), open);
        check(&drop(17, "x _ t", &[]), open);
        let constant = base(17).node("Constant", "", "t", &[tensor("value", flag("", 0))]).node(
            "Dropout",
            "x _ t",
            "y",
            &[],
        );
        check(&constant, None);
        let inner = branch(vec![node("Dropout", "x _ t", "d", &[])], &["d"]);
        let outer =
            base(17).tensor(flag("t", 1)).node("If", "x", "y", &[graph("then_branch", inner)]);
        check(&outer, Some("Dropout 'n_d' drops values at random: training_mode is true"));
    }
}
