//! Operators that look along axes: reductions, softmax, normalisations, running sums, the largest of many.
//!
//! Separate because all ask one question (is the batch axis among those looked along?) and a yes is the clearest
//! sign that rows influence each other.

use super::super::call::{Call, at};
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Stop, Value, mixes, unknown};
use super::elementwise::broadcast_of;

/// Refuses if any of these axes is where the rows lie.
fn spare(call: &Call<'_, '_>, lay: Option<&Lay>, axes: &[usize]) -> Result<(), Stop> {
    match lay {
        Some(lay) if axes.contains(&lay.axis) => {
            mixes(format!("it works along axis {} of '{}', the batch axis", lay.axis, call.name(0)))
        }
        _ => Ok(()),
    }
}

/// ReduceSum, ReduceMean and their kin.
pub(super) fn reduce<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axes = match call.axes("axes", 1, dims.len())? {
        Some(axes) if !axes.is_empty() => axes,
        _ if call.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        _ => (0..dims.len()).collect(),
    };
    spare(call, lay, &axes)?;
    without(dims, lay, &axes, call.int("keepdims", 1) != 0).map(|value| vec![value])
}

/// ArgMax and ArgMin.
pub(super) fn arg<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axes = [at(call.int("axis", 0), dims.len())?];
    spare(call, lay, &axes)?;
    without(dims, lay, &axes, call.int("keepdims", 1) != 0).map(|value| vec![value])
}

fn without<'a>(
    dims: &[Item],
    lay: Option<&Lay>,
    axes: &[usize],
    keep: bool,
) -> Result<Value<'a>, Stop> {
    let reduced = |axis: &usize| axes.contains(axis);
    if keep {
        let out = dims.iter().enumerate();
        let out =
            out.map(|(axis, dim)| if reduced(&axis) { Item::constant(1) } else { dim.clone() });
        return Value::placed(lay.cloned(), out.collect());
    }
    let out = dims.iter().enumerate().filter(|(axis, _)| !reduced(axis));
    let out = out.map(|(_, dim)| dim.clone()).collect();
    let lay = lay.map(|lay| lay.on((0..lay.axis).filter(|axis| !reduced(axis)).count()));
    Value::placed(lay, out)
}

/// Softmax and kin: along one axis, before operator set 13 along all from one on.
pub(super) fn softmax<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    if call.opset >= 13 { along(call, -1) } else { from_axis(call, 1) }
}

/// An operator along the one axis that `axis` names; all outputs keep the shape.
pub(super) fn along<'a>(call: &Call<'_, 'a>, default: i64) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    spare(call, lay, &[at(call.int("axis", default), dims.len())?])?;
    Ok(vec![Value::placed(lay.cloned(), dims.to_vec())?])
}

/// An operator along all axes from `axis` on; a second and third output hold one number for each place before.
pub(super) fn from_axis<'a>(call: &Call<'_, 'a>, default: i64) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axes: Vec<usize> = (at(call.int("axis", default), dims.len())?..dims.len()).collect();
    spare(call, lay, &axes)?;
    // Scale and bias line up from the last axis; one as large as the batch would belong to places, not rows.
    let all: Vec<usize> = (0..call.inputs.len()).collect();
    let mut values = vec![broadcast_of(call, &all)?];
    for _ in 1..call.node.output.len() {
        values.push(without(dims, lay, &axes, true)?);
    }
    Ok(values)
}

/// CumSum: the axis is an input.
pub(super) fn running<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let Some(&axis) = call.constants(1)?.first() else { return unknown("it names no axis") };
    spare(call, lay, &[at(axis, dims.len())?])?;
    Ok(vec![Value::placed(lay.cloned(), dims.to_vec())?])
}

/// TopK: values and indices of the largest along an axis.
pub(super) fn top<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axis = at(call.int("axis", -1), dims.len())?;
    spare(call, lay, &[axis])?;
    let count = match call.value(1)?.item() {
        Some(count) => call.size(count),
        None => call.fresh(),
    };
    let mut out = dims.to_vec();
    if let Some(dim) = out.get_mut(axis) {
        *dim = count;
    }
    Ok(vec![Value::placed(lay.cloned(), out)?; 2])
}

/// BatchNormalization: by channel in inference; over the batch in training.
pub(super) fn batch_norm<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let lay = call.lay(0)?;
    let used = call.node.output.iter().filter(|name| !name.is_empty()).count();
    let training = call.int("training_mode", 0) != 0 || (call.opset < 14 && used > 1);
    match lay {
        Some(_) if training => mixes("it normalises over the batch: it is in training mode"),
        Some(lay) if lay.axis == 1 => unknown("the batch axis is where it expects channels"),
        _ => Ok(vec![Value::placed(lay.cloned(), call.dims(0)?.to_vec())?]),
    }
}

/// Normalisations that work inside each row of `[rows, channels, ...]`.
pub(super) fn by_row<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let lay = call.lay(0)?;
    if let Some(lay) = lay
        && lay.axis != 0
    {
        if lay.axis == 1 {
            return unknown("the batch axis is where it expects channels");
        }
        spare(call, Some(lay), &[lay.axis])?;
    }
    Ok(vec![Value::placed(lay.cloned(), call.dims(0)?.to_vec())?])
}

/// LRN: across channels.
pub(super) fn local<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let lay = call.lay(0)?;
    spare(call, lay, &[1])?;
    Ok(vec![Value::placed(lay.cloned(), call.dims(0)?.to_vec())?])
}

/// MeanVarianceNormalization: over the axes that it names, by default rows and space.
pub(super) fn mean_variance<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes.iter().map(|&axis| at(axis, dims.len())).collect::<Result<Vec<_>, _>>()?;
    spare(call, lay, &axes)?;
    Ok(vec![Value::placed(lay.cloned(), dims.to_vec())?])
}

/// Operators whose scale or scan runs over all elements of a tensor.
pub(super) fn whole<'a>(call: &Call<'_, 'a>, what: &str) -> Made<'a> {
    let carried = (0..call.inputs.len()).filter(|&index| call.has(index));
    for index in carried {
        if let Some(lay) = call.lay(index)? {
            return mixes(format!(
                "{what} over all rows of '{}' (axis {} is the batch)",
                call.name(index),
                lay.axis
            ));
        }
    }
    unknown("its shapes are not followed")
}
