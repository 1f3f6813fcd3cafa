//! Builds small models for the tests of this module.
//!
//! Separate because every table of rules starts from a graph of a few nodes, and one line a node keeps those
//! tables readable.

use super::constant::elem;
use super::proto::*;
use super::read::{Model, read};
use prost::Message as _;

/// A model under construction.
#[derive(Clone, Default)]
pub(super) struct Build {
    pub(super) proto: ModelProto,
}

/// A node: operator, inputs and outputs separated by spaces (`_` for an absent input), attributes.
pub(super) fn node(op: &str, inputs: &str, outputs: &str, attrs: &[AttributeProto]) -> NodeProto {
    let names = |list: &str| {
        list.split_whitespace().map(|name| if name == "_" { "" } else { name }.to_owned()).collect()
    };
    let (domain, op) = op.rsplit_once(':').unwrap_or(("", op));
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: Some(op.to_owned()),
        domain: Some(domain.to_owned()),
        name: Some(format!("n_{}", outputs.split_whitespace().next().unwrap_or("none"))),
        attribute: attrs.to_vec(),
        ..NodeProto::default()
    }
}

fn attr(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind), ..AttributeProto::default() }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attr(name, 2) }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attr(name, 7) }
}

pub(super) fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Some(s.to_owned().into()), ..attr(name, 3) }
}

pub(super) fn tensor(name: &str, t: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(t)), ..attr(name, 4) }
}

pub(super) fn graph(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(g)), ..attr(name, 5) }
}

/// An int64 tensor; one element without dims is a scalar.
pub(super) fn int64s(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(elem::INT64),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A float tensor of zeros, kept short: only small ones carry data.
pub(super) fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let count = usize::try_from(dims.iter().product::<i64>()).expect("small");
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(elem::FLOAT),
        raw_data: Some(vec![0; count * 4].into()),
        ..TensorProto::default()
    }
}

/// A port; each dim is a number, a name, or `?`; the whole is `-` for an unknown rank, empty for a scalar.
pub(super) fn port(name: &str, elem_type: i32, dims: &str) -> ValueInfoProto {
    let dim = |text: &str| DimensionProto {
        value: match text.parse() {
            Ok(size) => Some(DimensionValue::Value(size)),
            Err(_) if text == "?" => None,
            Err(_) => Some(DimensionValue::Param(text.to_owned())),
        },
        denotation: None,
    };
    let shape = TensorShapeProto { dim: dims.split_whitespace().map(dim).collect() };
    let shape = (dims != "-").then_some(shape);
    let tensor = TensorTypeProto { elem_type: Some(elem_type), shape };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

impl Build {
    pub(super) fn new(opset: i64) -> Self {
        let mut build = Self::default();
        build.proto.ir_version = Some(8);
        build.proto.graph = Some(Box::default());
        build.opset("", opset).opset("com.microsoft", 1).opset("ai.onnx.ml", 3)
    }

    pub(super) fn opset(mut self, domain: &str, version: i64) -> Self {
        self.proto
            .opset_import
            .push(OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) });
        self
    }

    pub(super) fn graph(&mut self) -> &mut GraphProto {
        self.proto.graph.get_or_insert_default()
    }

    pub(super) fn input(mut self, name: &str, dims: &str) -> Self {
        self.graph().input.push(port(name, elem::FLOAT, dims));
        self
    }

    pub(super) fn input_of(mut self, name: &str, elem_type: i32, dims: &str) -> Self {
        self.graph().input.push(port(name, elem_type, dims));
        self
    }

    pub(super) fn output(mut self, name: &str) -> Self {
        self.graph().output.push(port(name, elem::FLOAT, "-"));
        self
    }

    pub(super) fn weight(mut self, name: &str, dims: &[i64]) -> Self {
        self.graph().initializer.push(floats(name, dims));
        self
    }

    pub(super) fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let count = i64::try_from(values.len()).expect("small");
        self.graph().initializer.push(int64s(name, &[count], values));
        self
    }

    pub(super) fn scalar(mut self, name: &str, value: i64) -> Self {
        self.graph().initializer.push(int64s(name, &[], &[value]));
        self
    }

    pub(super) fn tensor(mut self, tensor: TensorProto) -> Self {
        self.graph().initializer.push(tensor);
        self
    }

    pub(super) fn node(
        mut self,
        op: &str,
        inputs: &str,
        outputs: &str,
        attrs: &[AttributeProto],
    ) -> Self {
        self.graph().node.push(node(op, inputs, outputs, attrs));
        self
    }

    pub(super) fn bytes(&self) -> bytes::Bytes {
        self.proto.encode_to_vec().into()
    }

    pub(super) fn model(&self) -> Model {
        read(self.bytes()).expect("the built model is well formed")
    }
}

/// A branch without inputs.
pub(super) fn branch(nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        node: nodes,
        output: outputs.iter().map(|name| port(name, elem::FLOAT, "-")).collect(),
        ..GraphProto::default()
    }
}

/// A function of domain `local`.
pub(super) fn function(
    name: &str,
    inputs: &str,
    outputs: &str,
    nodes: Vec<NodeProto>,
) -> FunctionProto {
    let names = |list: &str| list.split_whitespace().map(str::to_owned).collect();
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("local".to_owned()),
        input: names(inputs),
        output: names(outputs),
        node: nodes,
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        ..FunctionProto::default()
    }
}
