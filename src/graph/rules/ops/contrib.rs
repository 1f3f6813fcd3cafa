//! Operators of `com.microsoft` and `ai.onnx.ml`: which inputs carry rows, and where the outputs have them.
//!
//! Separate because these are too many and too special to follow by shape: a table says of each what its
//! documentation promises, and an operator that is not in it is unknown.
//!
//! # Source
//! ONNX Runtime's ContribOperators.md and the ai.onnx.ml operator documents.

use super::super::call::Call;
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Value, unknown};
use super::{axes, conv, elementwise, linear};

/// An operator that keeps rows: `(input, axis)` of those that may carry them, and for each output its batch axis
/// and number of axes (none: that of the first input).
struct RowOp {
    domain: &'static str,
    name: &'static str,
    inputs: &'static [(usize, usize)],
    outputs: &'static [(usize, Option<usize>)],
}

const fn row_op(
    domain: &'static str,
    name: &'static str,
    inputs: &'static [(usize, usize)],
    outputs: &'static [(usize, Option<usize>)],
) -> RowOp {
    RowOp { domain, name, inputs, outputs }
}

const MS: &str = "com.microsoft";
const ML: &str = "ai.onnx.ml";
/// One output of the first input's rank with rows first.
const SAME: &[(usize, Option<usize>)] = &[(0, None)];

const ROW_OPS: [RowOp; 25] = [
    row_op(
        MS,
        "EmbedLayerNormalization",
        &[(0, 0), (1, 0), (7, 0), (8, 0)],
        &[(0, Some(3)), (0, Some(1)), (0, Some(3))],
    ),
    row_op(
        MS,
        "QEmbedLayerNormalization",
        &[(0, 0), (1, 0), (7, 0)],
        &[(0, Some(3)), (0, Some(1))],
    ),
    row_op(MS, "Attention", &[(0, 0), (3, 0), (4, 1), (5, 0)], &[(0, None), (1, Some(5))]),
    row_op(MS, "QAttention", &[(0, 0), (5, 0), (8, 1)], &[(0, None), (1, Some(5))]),
    row_op(
        MS,
        "MultiHeadAttention",
        &[(0, 0), (1, 0), (2, 0), (4, 0), (5, 0), (6, 0), (7, 0)],
        &[(0, Some(3)), (0, Some(4)), (0, Some(4))],
    ),
    row_op(MS, "RotaryEmbedding", &[(0, 0), (1, 0)], SAME),
    row_op(MS, "NhwcConv", &[(0, 0)], SAME),
    row_op(MS, "NhwcMaxPool", &[(0, 0)], SAME),
    row_op(MS, "QLinearConv", &[(0, 0)], SAME),
    row_op(MS, "QLinearGlobalAveragePool", &[(0, 0)], SAME),
    row_op(MS, "QLinearAveragePool", &[(0, 0)], SAME),
    row_op(MS, "GroupNorm", &[(0, 0)], SAME),
    row_op(MS, "GridSample", &[(0, 0), (1, 0)], SAME),
    row_op(ML, "LinearClassifier", &[(0, 0)], &[(0, Some(1)), (0, Some(2))]),
    row_op(ML, "LinearRegressor", &[(0, 0)], &[(0, Some(2))]),
    row_op(ML, "SVMClassifier", &[(0, 0)], &[(0, Some(1)), (0, Some(2))]),
    row_op(ML, "SVMRegressor", &[(0, 0)], &[(0, Some(2))]),
    row_op(ML, "TreeEnsembleClassifier", &[(0, 0)], &[(0, Some(1)), (0, Some(2))]),
    row_op(ML, "TreeEnsembleRegressor", &[(0, 0)], &[(0, Some(2))]),
    row_op(ML, "TreeEnsemble", &[(0, 0)], &[(0, Some(2))]),
    row_op(ML, "Normalizer", &[(0, 0)], SAME),
    row_op("", "TfIdfVectorizer", &[(0, 0)], &[(0, Some(2))]),
    row_op("", "STFT", &[(0, 0)], &[(0, Some(4))]),
    row_op(
        "",
        "Attention",
        &[(0, 0), (1, 0), (2, 0), (4, 0), (5, 0)],
        &[(0, None), (0, Some(4)), (0, Some(4)), (0, Some(4))],
    ),
    row_op("", "RotaryEmbedding", &[(0, 0), (3, 0)], SAME),
];

/// Operators of `ai.onnx.ml` that work element by element.
const ML_UNARY: [&str; 5] = ["Scaler", "Imputer", "Binarizer", "LabelEncoder", "CategoryMapper"];

/// Operators of `com.microsoft` with one data input, element by element.
const MS_UNARY: [&str; 6] = [
    "Gelu",
    "QuickGelu",
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
];

/// The rule for an operator outside the default domain.
pub(super) fn contrib<'a>(call: &Call<'_, 'a>, domain: &str, op: &str) -> Made<'a> {
    if let Some(rule) = ROW_OPS.iter().find(|rule| rule.domain == domain && rule.name == op) {
        return by_table(call, rule);
    }
    match (domain, op) {
        (ML, _) if ML_UNARY.contains(&op) => elementwise::unary(call),
        (MS, _) if MS_UNARY.contains(&op) => elementwise::unary(call),
        (ML, "ArrayFeatureExtractor") => features(call),
        (MS, "BiasGelu" | "FastGelu" | "BiasSoftplus") => elementwise::broadcast(call),
        (MS, "QLinearAdd" | "QLinearMul") => {
            call.only(&[0, 3])?;
            Ok(vec![elementwise::broadcast_of(call, &[0, 3])?])
        }
        (MS, "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization") => skip_norm(call),
        (MS, "SimplifiedLayerNormalization" | "LayerNormalization") => axes::from_axis(call, -1),
        (MS, "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM") => {
            axes::whole(call, "it takes one scale")
        }
        (MS, "FusedMatMul" | "TransposeMatMul") => {
            if call.int("transBatchA", 0) != 0 || call.int("transBatchB", 0) != 0 {
                return unknown("it moves stacked axes");
            }
            linear::matmul(call, 0, 1, &[])
        }
        (MS, "FusedGemm") => linear::matmul(call, 0, 1, &[2]),
        (MS, "MatMulIntegerToFloat") => linear::matmul(call, 0, 1, &[6]),
        (MS, "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4") => by_bits(call),
        (MS, "FusedConv") => conv::conv(call, 1, &[3]),
        _ => unknown("what it does to rows is not known"),
    }
}

/// What the table says: rows in, rows out; sizes inside a row stay open.
fn by_table<'a>(call: &Call<'_, 'a>, rule: &RowOp) -> Made<'a> {
    let allowed: Vec<usize> = rule.inputs.iter().map(|&(index, _)| index).collect();
    call.only(&allowed)?;
    let mut carries = false;
    for &(index, axis) in rule.inputs.iter().filter(|(index, _)| call.has(*index)) {
        match call.lay(index)? {
            Some(lay) if *lay == Lay::plain(axis) => carries = true,
            Some(lay) => {
                return unknown(format!(
                    "the batch axis of '{}' is {}, where it expects {axis}",
                    call.name(index),
                    lay.axis
                ));
            }
            // An optional input of one row may be shared by all; a first input may not.
            None if index > 0 && call.dims(index)?.get(axis).and_then(Item::value) == Some(1) => {}
            None => return unknown(format!("'{}' does not carry rows", call.name(index))),
        }
    }
    let rank = call.dims(0)?.len();
    if !carries || (rule.domain == ML && rank < 2) || (rule.name == "TfIdfVectorizer" && rank != 2)
    {
        return unknown("its data is one row, not a batch of them");
    }
    let mut values = Vec::new();
    for place in 0..call.node.output.len() {
        let Some(&(axis, own)) = rule.outputs.get(place) else {
            return unknown(format!("its output {place} is not known"));
        };
        let dims = (0..own.unwrap_or(rank)).map(|_| call.fresh()).collect();
        values.push(Value::laid(Lay::plain(axis), dims)?);
    }
    Ok(values)
}

pub(super) fn default_table<'a>(call: &Call<'_, 'a>, op: &str) -> Option<Made<'a>> {
    let rule = ROW_OPS.iter().find(|rule| rule.domain.is_empty() && rule.name == op)?;
    Some(by_table(call, rule))
}

/// The sum of input, skip and bias, normalised along the last axis.
fn skip_norm<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let all: Vec<usize> = (0..call.inputs.len()).collect();
    let value = elementwise::broadcast_of(call, &all)?;
    let rank = value.dims.as_deref().map_or(0, <[Item]>::len);
    if value.lay().is_some_and(|lay| lay.axis + 1 == rank) {
        return super::super::value::mixes("it normalises along the batch axis");
    }
    // Mean and deviation, the second and third output, are never made in inference.
    Ok((0..call.node.output.len()).map(|_| value.clone()).collect())
}

/// A product with packed weights: the last axis is summed over and made anew.
fn by_bits<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let mut dims = call.dims(0)?.to_vec();
    let lay = call.lay(0)?;
    if lay.is_some_and(|lay| lay.axis + 1 == dims.len()) {
        return super::super::value::mixes(format!(
            "it sums over the batch axis of '{}'",
            call.name(0)
        ));
    }
    if let Some(last) = dims.last_mut() {
        *last = Item::constant(call.int("N", 0));
    }
    Ok(vec![Value::placed(lay.cloned(), dims)?])
}

/// Columns by index.
fn features<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let mut dims = call.dims(0)?.to_vec();
    let lay = call.lay(0)?;
    if lay.is_some_and(|lay| lay.axis + 1 == dims.len()) {
        return unknown(format!("it picks rows of '{}'", call.name(0)));
    }
    if let Some(last) = dims.last_mut() {
        *last = call.fresh();
    }
    Ok(vec![Value::placed(lay.cloned(), dims)?])
}
