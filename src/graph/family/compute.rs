//! What a node costs and how large a row of a value is, estimated from shapes and weights.
//!
//! Separate because these are estimates: they choose where to cut, and what they choose is measured before it is
//! used, so a wrong one costs time and never an answer.

use super::content::{bits, count};
use super::net::{Def, Id, Net, Node};
use super::schema::{Typed, typed};
use crate::graph::constant::elem;
use crate::graph::proto::TensorProto;
use crate::graph::read::{Model, datatype};
use crate::graph::rules::Tensors;

/// Taken for a number of positions that is not known.
const POSITIONS: f64 = 64.0;

/// The work of one row through one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// Floating-point operations, or what takes as long.
    pub(super) flops: f64,
    /// Whether it is of the kind that a base exists for: products, not bookkeeping.
    pub(super) is_heavy: bool,
}

/// A graph with all that is estimated of it.
pub(super) struct Estimates<'n, 'a> {
    net: &'n Net<'a>,
    sizes: Vec<Option<Vec<f64>>>,
    types: Vec<Option<i32>>,
}

#[expect(clippy::cast_precision_loss, reason = "estimates")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn elements(tensor: &TensorProto) -> f64 {
    count(tensor).map_or(0.0, float)
}

impl<'n, 'a> Estimates<'n, 'a> {
    pub(super) fn new(model: &Model, net: &'n Net<'a>, tensors: &Tensors<'_>) -> Self {
        let mut all = Self { net, sizes: Vec::new(), types: Vec::new() };
        for (def, name) in net.values.iter().zip(&net.names) {
            let known = if name.is_empty() { None } else { tensors.sizes(name) };
            let size = |&dim: &i64| float(u64::try_from(dim).unwrap_or(0));
            let sizes = match def {
                Def::Constant(tensor) => Some(tensor.dims.iter().map(size).collect()),
                Def::Made { node, .. } => known.or_else(|| all.guess(*node)),
                Def::Input(_) | Def::Outer(_) => known,
            };
            all.sizes.push(sizes);
        }
        for def in &net.values {
            let own = match def {
                Def::Input(index) => {
                    let port = model.inputs().get(*index);
                    let of = |port: &crate::graph::Port| {
                        (1..17).find(|&number| datatype(number) == Some(port.datatype))
                    };
                    port.and_then(of)
                }
                Def::Outer(_) => None,
                Def::Constant(tensor) => Some(tensor.data_type()),
                Def::Made { node, output } => all.made_type(*node, *output),
            };
            all.types.push(own);
        }
        all
    }

    /// Where the graph does not tell, a node makes as much as it reads; a product as much as its weights say.
    fn guess(&self, node: usize) -> Option<Vec<f64>> {
        let node = self.net.nodes.get(node)?;
        let of = |index: usize| self.sizes.get(node.inputs.get(index).copied().flatten()?)?.clone();
        let mut sizes = of(0)?;
        if matches!(node.op(), "MatMul" | "Gemm")
            && let (Some(own), Some([_, columns])) = (sizes.last_mut(), of(1).as_deref())
        {
            *own = *columns;
        }
        Some(sizes)
    }

    fn made_type(&self, node: usize, output: usize) -> Option<i32> {
        let node = self.net.nodes.get(node)?;
        let like = |index: usize| {
            let id = node.inputs.get(index).copied().flatten()?;
            self.types.get(id).copied().flatten()
        };
        let setting = |name: &str| node.attribute(name).map(|value| value.i());
        match (node.domain(), node.op()) {
            ("", "Cast") => i32::try_from(setting("to")?).ok(),
            ("", "ConstantOfShape") => match node.attribute("value") {
                Some(value) => value.t.as_deref().map(TensorProto::data_type),
                None => Some(elem::FLOAT),
            },
            ("", "QuantizeLinear") => match setting("output_dtype") {
                Some(kind) if kind != 0 => i32::try_from(kind).ok(),
                _ if node.inputs.len() > 2 => like(2),
                _ => Some(elem::UINT8),
            },
            (domain, op) => match typed(domain, op, output) {
                Typed::Like(index) => like(index),
                Typed::Is(kind) => Some(kind),
                Typed::Open => None,
            },
        }
    }

    /// The element type of a value, where the graph tells.
    pub(super) fn elem_type(&self, id: Id) -> Option<i32> {
        self.types.get(id).copied().flatten()
    }

    /// Bytes of one row of a value whose type the protocol can carry.
    pub(super) fn row_bytes(&self, id: Id) -> Option<u64> {
        let kind = self.elem_type(id)?;
        // Texts vary; what a base makes of texts are no texts.
        let bits = bits(kind).filter(|_| datatype(kind).is_some())?;
        let bytes = self.count(id)? * float(bits) / 8.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Some(bytes.max(1.0) as u64)
    }

    fn count(&self, id: Id) -> Option<f64> {
        self.sizes.get(id)?.as_ref().map(|sizes| sizes.iter().product())
    }

    fn last(&self, id: Id) -> Option<f64> {
        self.sizes.get(id)?.as_ref()?.last().copied()
    }

    /// The work of one row through a node.
    pub(super) fn work(&self, node: &Node<'_>) -> Work {
        let inputs = || node.inputs.iter().flatten().copied();
        let weights: f64 = inputs().filter_map(|id| self.net.constant(id)).map(elements).sum();
        let made = node.outputs.iter().flatten().filter_map(|&id| self.count(id));
        let made = made.fold(0.0, f64::max);
        let read = inputs().filter(|&id| self.net.constant(id).is_none());
        let read = read.filter_map(|id| self.count(id)).fold(0.0, f64::max);
        let moved = if made > 0.0 { made } else { read };
        if !node.bodies.is_empty() {
            let inside: f64 = node.bodies.iter().map(|body| weights_of(&body.net)).sum();
            return Work { flops: 2.0 * inside * POSITIONS + moved, is_heavy: inside > 0.0 };
        }
        let first = node.inputs.first().copied().flatten();
        let light = |flops: f64| Work { flops, is_heavy: false };
        let heavy = |flops: f64| Work { flops, is_heavy: true };
        let depth = first.and_then(|id| self.last(id));
        match node.op() {
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Shape" | "Size" => light(0.0),
            "Transpose" | "Slice" | "Concat" | "Gather" | "Split" | "Expand" | "Cast" | "Pad"
            | "Tile" | "GatherElements" | "GatherND" => light(moved),
            "Gemm"
            | "MatMul"
            | "MatMulInteger"
            | "QLinearMatMul"
            | "FusedMatMul"
            | "FusedGemm"
            | "Einsum"
            | "QGemm"
            | "MatMulIntegerToFloat"
            | "DynamicQuantizeMatMul"
            | "MatMulNBits" => heavy(match (made > 0.0, self.inner(node, depth)) {
                (true, Some(inner)) => 2.0 * made * inner,
                _ => 2.0 * weights * POSITIONS,
            }),
            "Conv" | "ConvInteger" | "QLinearConv" | "FusedConv" | "NhwcConv" => {
                let filter = if node.op() == "QLinearConv" { 3 } else { 1 };
                heavy(self.kernel(node, filter, 0, made))
            }
            "ConvTranspose" => heavy(self.kernel(node, 1, 0, read)),
            "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM" => {
                let steps = first.and_then(|id| self.sizes.get(id)?.as_ref()?.first().copied());
                heavy(2.0 * weights * steps.unwrap_or(POSITIONS))
            }
            op if op.contains("Attention") => {
                let rows = first.and_then(|id| Some(self.count(id)? / self.last(id)?.max(1.0)));
                let rows = rows.unwrap_or(POSITIONS);
                heavy(2.0 * weights * rows + 4.0 * rows * rows * depth.unwrap_or(POSITIONS))
            }
            op if op.contains("Pool") || op.contains("Normalization") || op.contains("Reduce") => {
                light(4.0 * read.max(made))
            }
            "Softmax" | "LogSoftmax" | "Erf" | "Exp" | "Log" | "Tanh" | "Sigmoid" | "Gelu"
            | "FastGelu" | "BiasGelu" | "Pow" | "Sin" | "Cos" => light(8.0 * moved),
            _ => light(read.max(made)),
        }
    }

    /// How many products make one element of a matrix product.
    fn inner(&self, node: &Node<'_>, depth: Option<f64>) -> Option<f64> {
        let transposed = node.attribute("transA").is_some_and(|value| value.i() != 0);
        if !transposed {
            return depth;
        }
        let sizes = self.sizes.get(node.inputs.first().copied().flatten()?)?.as_ref()?;
        sizes.iter().rev().nth(1).copied()
    }

    /// A convolution: every position costs what the filter holds for one channel.
    fn kernel(&self, node: &Node<'_>, filter: usize, axis: usize, positions: f64) -> f64 {
        let sizes = node.inputs.get(filter).copied().flatten();
        let sizes = sizes.and_then(|id| self.sizes.get(id)?.as_ref());
        let each = sizes.map_or(POSITIONS, |sizes| {
            sizes.iter().product::<f64>() / sizes.get(axis).copied().unwrap_or(1.0).max(1.0)
        });
        2.0 * each * if positions > 0.0 { positions } else { POSITIONS }
    }
}

/// Elements of all constants of a graph and of those inside it.
fn weights_of(net: &Net<'_>) -> f64 {
    let own: f64 = (0..net.values.len()).filter_map(|id| net.constant(id)).map(elements).sum();
    let bodies = net.nodes.iter().flat_map(|node| &node.bodies);
    own + bodies.map(|body| weights_of(&body.net)).sum::<f64>()
}
