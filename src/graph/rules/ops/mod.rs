//! What each operator does to rows: one rule for each, by name.
//!
//! Separate from the walk because rules know nothing of graphs: values in, values out, or the reason why not.
//!
//! # Invariants
//! A rule that does not understand its node says so; it never guesses that rows stay apart, nor that they mix.
//!
//! # Source
//! The ONNX operator documents, operator sets 7 to 23; ours in what is made of them.

mod axes;
mod contrib;
mod conv;
mod elementwise;
pub(super) mod layout;
mod linear;
mod recurrent;
mod select;

use super::call::Call;
use super::shapes::{BATCH, Term};
use super::value::{Lay, Made, Place, Value, unknown};

/// Oldest default operator set whose rules are followed: before it, broadcasting was a setting.
pub(super) const OPSET_MIN: i64 = 7;

/// The outputs of a node, as far as its operator's rule can tell.
pub(super) fn apply<'a>(call: &Call<'_, 'a>, domain: &str) -> Made<'a> {
    if call.opset < OPSET_MIN {
        return unknown(format!("operator set {} is older than {OPSET_MIN}", call.opset));
    }
    let op = call.node.op_type();
    if !domain.is_empty() {
        return contrib::contrib(call, domain, op);
    }
    if elementwise::UNARY.contains(&op) {
        return elementwise::unary(call);
    }
    if elementwise::BROADCAST.contains(&op) {
        return elementwise::broadcast(call);
    }
    contrib::default_table(call, op)
        .or_else(|| shaping(call, op))
        .or_else(|| looking(call, op))
        .or_else(|| product(call, op))
        .unwrap_or_else(|| refused(op))
}

/// Operators that lay out, pick and join.
fn shaping<'a>(call: &Call<'_, 'a>, op: &str) -> Option<Made<'a>> {
    Some(match op {
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            layout::relabelled(call).map(|value| vec![value])
        }
        "Transpose" => layout::transpose(call),
        "Expand" => layout::expand(call),
        "ConstantOfShape" => layout::filled(call),
        "Tile" => layout::tile(call),
        "DepthToSpace" | "SpaceToDepth" => layout::blocks(call),
        "Concat" => select::concat(call),
        "Split" => select::split(call),
        "Slice" => select::slice(call),
        "Gather" => select::gather(call),
        "GatherElements" | "ScatterElements" => select::elements(call),
        "GatherND" => select::gather_nd(call),
        "Pad" => select::pad(call),
        "OneHot" => select::one_hot(call),
        "Trilu" => select::matrices(call),
        "Range" => range(call),
        _ => return None,
    })
}

/// Operators that look along axes.
fn looking<'a>(call: &Call<'_, 'a>, op: &str) -> Option<Made<'a>> {
    Some(match op {
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
        | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => {
            axes::reduce(call)
        }
        "ArgMax" | "ArgMin" => axes::arg(call),
        "Softmax" | "LogSoftmax" | "Hardmax" => axes::softmax(call),
        "LpNormalization" => axes::along(call, -1),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
            axes::from_axis(call, -1)
        }
        "CumSum" | "CumProd" => axes::running(call),
        "TopK" => axes::top(call),
        "BatchNormalization" => axes::batch_norm(call),
        "InstanceNormalization" | "GroupNormalization" => axes::by_row(call),
        "LRN" => axes::local(call),
        "MeanVarianceNormalization" => axes::mean_variance(call),
        "DynamicQuantizeLinear" => axes::whole(call, "it takes one scale"),
        "NonMaxSuppression" => axes::whole(call, "it makes one list"),
        _ => return None,
    })
}

/// Products, windows and recurrence.
fn product<'a>(call: &Call<'_, 'a>, op: &str) -> Option<Made<'a>> {
    Some(match op {
        "MatMul" | "MatMulInteger" => linear::matmul(call, 0, 1, &[]),
        "QLinearMatMul" => linear::matmul(call, 0, 3, &[]),
        "Gemm" => linear::matmul(call, 0, 1, &[2]),
        "Einsum" => linear::einsum(call),
        "Conv" | "ConvInteger" => conv::conv(call, 1, &[]),
        "QLinearConv" => conv::conv(call, 3, &[]),
        "ConvTranspose" => conv::conv_transpose(call),
        "AveragePool" | "MaxPool" | "LpPool" => conv::pool(call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => conv::global_pool(call),
        "Resize" | "Upsample" => conv::resize(call),
        "GridSample" => conv::sampled(call, &[0, 1], 0),
        "DeformConv" => conv::sampled(call, &[0, 2, 4], 1),
        "LSTM" | "GRU" | "RNN" => recurrent::recurrent(call),
        _ => return None,
    })
}

/// A range of numbers; one over the rows gives each its own number.
fn range<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let numbers = [0, 1, 2].map(|index| call.value(index).ok().and_then(Value::item));
    if let [Some(start), Some(limit), Some(step)] = numbers
        && start.value() == Some(0)
        && limit.term() == Some(&Term::symbol(BATCH))
        && step.value() == Some(1)
    {
        let value = Value::laid(Lay::plain(0), vec![limit.clone()])?;
        return Ok(vec![Value { place: Place::Number, ..value }]);
    }
    call.only(&[])?;
    Ok(vec![Value::free(vec![call.fresh()])])
}

/// What the outputs say of their rows' places, the inputs being what they are.
pub(super) fn place(call: &Call<'_, '_>) -> Place {
    let places = |from: usize| call.inputs.iter().skip(from).flatten().map(|value| value.place);
    if places(0).all(|place| place == Place::Untold) {
        return Place::Untold;
    }
    let first = call.inputs.first().and_then(Option::as_ref);
    let rest_untold = places(1).all(|place| place == Place::Untold);
    let second = call.inputs.get(1).and_then(Option::as_ref).map(|value| value.place);
    let picks_itself = first.is_some_and(|value| value.place == Place::Untold && !value.is_free());
    match (call.node.op_type(), first.map_or(Place::Told, |value| value.place)) {
        (
            "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Expand",
            own,
        ) if own == Place::Number && rest_untold => own,
        ("Concat", Place::Number) if rest_untold && joins_last(call) => Place::FirstColumn,
        ("Gather", _) if picks_itself && second == Some(Place::Number) => Place::Untold,
        ("GatherND", _) if picks_itself && second == Some(Place::FirstColumn) => Place::Untold,
        _ => Place::Told,
    }
}

/// Whether a Concat joins a first single column with others.
fn joins_last(call: &Call<'_, '_>) -> bool {
    let Ok(dims) = call.dims(0) else { return false };
    let axis = super::call::at(call.int("axis", 1), dims.len());
    axis.is_ok_and(|axis| axis + 1 == dims.len())
        && dims.last().and_then(super::shapes::Item::value) == Some(1)
}

fn refused<'a>(op: &str) -> Made<'a> {
    match op {
        "NonZero" | "Compress" | "Unique" => {
            unknown("how many elements it makes depends on all rows")
        }
        // What it feeds may pass over the padding.
        "StringSplit" => unknown("it pads every row to the longest of all"),
        _ => unknown("what it does to rows is not known"),
    }
}
