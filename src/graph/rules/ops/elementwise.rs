//! Operators that work element by element, on one tensor or on several that are broadcast.
//!
//! Separate because they are most of the operators and keep rows in one way: the axes of all operands are lined up
//! from the last, and rows must meet rows of the same number.

use super::super::call::{Call, at};
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Stop, Value, mixes, unknown};

/// Operators of the default domain with one data input, the rest being settings that must not vary by row.
pub(super) const UNARY: [&str; 53] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "QuantizeLinear",
    "DequantizeLinear",
    "RegexFullMatch",
    "Affine",
    "ParametricSoftplus",
    "ScaledTanh",
];

/// Operators of the default domain whose operands are broadcast to one shape.
pub(super) const BROADCAST: [&str; 25] = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Pow",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "LessOrEqual",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Max",
    "Min",
    "Mean",
    "Sum",
    "PRelu",
    "Where",
    "StringConcat",
];

/// One tensor, element by element; every output has its shape.
pub(super) fn unary<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    // Of its second input CastLike reads the type alone.
    call.only(if call.node.op_type() == "CastLike" { &[0, 1] } else { &[0] })?;
    let lay = call.lay(0)?;
    if let Some(lay) = lay {
        per_axis_scale(call, lay)?;
    }
    let value = Value::placed(lay.cloned(), call.dims(0)?.to_vec())?;
    Ok(vec![value; call.node.output.len()])
}

/// A scale for each slice along the batch axis would belong to places in the batch, not to rows.
fn per_axis_scale(call: &Call<'_, '_>, lay: &Lay) -> Result<(), Stop> {
    if !matches!(call.node.op_type(), "QuantizeLinear" | "DequantizeLinear") {
        return Ok(());
    }
    let single = call.dims(1)?.iter().all(|dim| dim.value() == Some(1));
    if single || at(call.int("axis", 1), call.dims(0)?.len())? != lay.axis {
        return Ok(());
    }
    unknown("it scales along the batch axis")
}

/// All inputs, broadcast.
pub(super) fn broadcast<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let all: Vec<usize> = (0..call.inputs.len()).collect();
    Ok(vec![broadcast_of(call, &all)?; call.node.output.len()])
}

/// Some inputs, broadcast; absent ones are passed over.
pub(super) fn broadcast_of<'a>(call: &Call<'_, 'a>, indices: &[usize]) -> Result<Value<'a>, Stop> {
    let mut operands = Vec::new();
    for &index in indices.iter().filter(|&&index| call.has(index)) {
        operands.push(Operand {
            name: call.name(index),
            dims: call.dims(index)?,
            lay: call.lay(index)?,
        });
    }
    lined_up(call, &operands)
}

/// An operand of a broadcast.
pub(super) struct Operand<'o> {
    pub(super) name: &'o str,
    pub(super) dims: &'o [Item],
    pub(super) lay: Option<&'o Lay>,
}

/// The value that a broadcast of these operands gives.
pub(super) fn lined_up<'a>(
    call: &Call<'_, 'a>,
    operands: &[Operand<'_>],
) -> Result<Value<'a>, Stop> {
    let Some(rank) = operands.iter().map(|operand| operand.dims.len()).max() else {
        return unknown("it has no inputs");
    };
    let lay = common_lay(operands, rank)?;
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        let own = operands.iter().filter_map(|operand| {
            let skipped = rank - operand.dims.len();
            axis.checked_sub(skipped).and_then(|axis| operand.dims.get(axis))
        });
        dims.push(own.fold(Item::constant(1), |a, b| wider(call, &a, b)));
    }
    Value::placed(lay, dims)
}

/// The size that two sizes broadcast to.
pub(super) fn wider(call: &Call<'_, '_>, a: &Item, b: &Item) -> Item {
    match (a.value(), b.value()) {
        (Some(1), _) => call.size(b),
        (_, Some(1)) => call.size(a),
        _ if a == b => call.size(a),
        (Some(_), None) if b.is_free() => a.clone(),
        (None, Some(_)) if a.is_free() => b.clone(),
        _ if a.is_free() && b.is_free() => call.fresh(),
        _ => Item::Any,
    }
}

/// Where the rows of a broadcast lie.
fn common_lay(operands: &[Operand<'_>], rank: usize) -> Result<Option<Lay>, Stop> {
    let mut found: Option<(Lay, &str)> = None;
    for operand in operands {
        let Some(lay) = operand.lay else { continue };
        let own = lay.on(lay.axis + (rank - operand.dims.len()));
        match &found {
            None => found = Some((own, operand.name)),
            Some((first, name)) if first.axis != own.axis => {
                return mixes(format!(
                    "every row of '{name}' (axis {}) meets every row of '{}' (axis {})",
                    first.axis, operand.name, own.axis
                ));
            }
            // Equal sizes and rows outermost on both: the same rows meet.
            Some((first, _)) if first.outer.is_one() && own.outer.is_one() => {}
            Some((first, _)) if *first == own => {}
            Some((_, name)) => {
                return unknown(format!("rows lie differently in '{name}' and '{}'", operand.name));
            }
        }
    }
    let Some((lay, name)) = found else { return Ok(None) };
    for operand in operands.iter().filter(|operand| operand.lay.is_none()) {
        let skipped = rank - operand.dims.len();
        let dim = lay.axis.checked_sub(skipped).and_then(|axis| operand.dims.get(axis));
        if dim.is_some_and(|dim| dim.value() != Some(1)) {
            return unknown(format!(
                "'{}' has size {} where '{name}' has its rows",
                operand.name,
                dim.map(Item::to_string).unwrap_or_default()
            ));
        }
    }
    Ok(Some(lay))
}
