//! Operators on images and signals `[rows, channels, space...]`: convolution, pooling, resizing.
//!
//! Separate because they share the layout and the arithmetic of windows.

use super::super::call::Call;
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Stop, Value, mixes, unknown};

/// The rows of the first input, which must lie on the first axis.
fn first_axis<'c>(call: &'c Call<'_, '_>) -> Result<Option<&'c Lay>, Stop> {
    match call.lay(0)? {
        Some(lay) if lay.axis != 0 => unknown(format!(
            "the batch axis of '{}' is {}, where it expects channels or space",
            call.name(0),
            lay.axis
        )),
        lay => Ok(lay),
    }
}

/// Conv and kin: rows of the data, the same weights for all.
pub(super) fn conv<'a>(call: &Call<'_, 'a>, weights: usize, adds: &[usize]) -> Made<'a> {
    call.only(&[&[0], adds].concat())?;
    let (lay, dims, kernel) = (first_axis(call)?, call.dims(0)?, call.dims(weights)?);
    let Some((outputs, window)) = kernel.split_first() else { return unknown("it has no weights") };
    let sizes = window.get(1..).unwrap_or_default();
    let mut out = vec![dims.first().cloned().unwrap_or(Item::Any), outputs.clone()];
    for (place, dim) in dims.iter().skip(2).enumerate() {
        out.push(windowed(call, dim, place, sizes.get(place)));
    }
    let value = Value::placed(lay.cloned(), out)?;
    for &index in adds.iter().filter(|&&index| call.has(index)) {
        if call.lay(index)? != lay {
            return unknown(format!(
                "what it adds, '{}', does not carry rows alike",
                call.name(index)
            ));
        }
    }
    Ok(vec![value])
}

/// ConvTranspose.
pub(super) fn conv_transpose<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let (lay, dims, kernel) = (first_axis(call)?, call.dims(0)?, call.dims(1)?);
    let channels =
        kernel.get(1).map_or(Item::Free, |m| m.times(&Item::constant(call.int("group", 1))));
    let mut out = vec![dims.first().cloned().unwrap_or(Item::Any), call.size(&channels)];
    out.extend(dims.iter().skip(2).map(|_| call.fresh()));
    Ok(vec![Value::placed(lay.cloned(), out)?])
}

/// Pooling by windows; the indices of MaxPool count through the whole batch.
pub(super) fn pool<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let (lay, dims) = (first_axis(call)?, call.dims(0)?);
    let mut out: Vec<Item> = dims.iter().take(2).cloned().collect();
    for (place, dim) in dims.iter().skip(2).enumerate() {
        out.push(windowed(call, dim, place, None));
    }
    let mut values = vec![Value::placed(lay.cloned(), out)?];
    if call.node.output.len() > 1 {
        values.push(Value::new(super::super::value::Rows::Unknown(
            "indices of MaxPool count through all rows".into(),
        )));
    }
    Ok(values)
}

/// Pooling over all of space.
pub(super) fn global_pool<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    if let Some(lay) = call.lay(0)?
        && lay.axis >= 2
    {
        return mixes(format!(
            "it pools over axis {} of '{}', the batch axis",
            lay.axis,
            call.name(0)
        ));
    }
    let out = dims.iter().enumerate();
    let out = out.map(|(axis, dim)| if axis < 2 { dim.clone() } else { Item::constant(1) });
    Ok(vec![Value::placed(call.lay(0)?.cloned(), out.collect())?])
}

/// The size that windows leave of one axis of space.
fn windowed(call: &Call<'_, '_>, dim: &Item, place: usize, kernel: Option<&Item>) -> Item {
    let setting = |name: &str, at: usize| call.ints(name).and_then(|v| v.get(at).copied());
    let axes = call.dims(0).map_or(0, |dims| dims.len().saturating_sub(2));
    let constant = || -> Option<i64> {
        let kernel = match setting("kernel_shape", place) {
            Some(kernel) => kernel,
            None => kernel?.value()?,
        };
        let stride = setting("strides", place).unwrap_or(1);
        let dilation = setting("dilations", place).unwrap_or(1);
        let reach = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
        let padding = match call.text("auto_pad").unwrap_or(b"NOTSET") {
            b"SAME_UPPER" | b"SAME_LOWER" => {
                return ceil_div(dim.value()?, stride).filter(|_| call.int("ceil_mode", 0) == 0);
            }
            b"VALID" => 0,
            _ => {
                let before = setting("pads", place).unwrap_or(0);
                before.checked_add(setting("pads", place + axes).unwrap_or(0))?
            }
        };
        let room = dim.value()?.checked_add(padding)?.checked_sub(reach)?;
        // Rounding up leaves out a last window that starts in the padding: too fine a rule to need.
        if call.int("ceil_mode", 0) != 0 && room.checked_rem(stride)? != 0 {
            return None;
        }
        room.checked_div(stride)?.checked_add(1)
    };
    constant().map_or_else(|| call.fresh(), Item::constant)
}

fn ceil_div(size: i64, stride: i64) -> Option<i64> {
    if stride <= 0 { None } else { size.checked_add(stride - 1)?.checked_div(stride) }
}

/// Resize and Upsample: the batch axis must keep its size.
pub(super) fn resize<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0, 3])?;
    let (lay, dims) = (call.lay(0)?, call.dims(0)?);
    if call.text("coordinate_transformation_mode") == Some(b"tf_crop_and_resize")
        || call.text("keep_aspect_ratio_policy").is_some_and(|policy| policy != b"stretch")
    {
        return unknown("it crops or keeps proportions");
    }
    let axes = match call.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| super::super::call::at(axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let by_scale = if call.opset < 11 { 1 } else { 2 };
    let sizes = call.has(3).then(|| call.items(3)).transpose()?;
    let empty =
        |index: usize| call.dims(index).is_ok_and(|d| d.first().and_then(Item::value) == Some(0));
    let scales = match sizes {
        None if call.has(by_scale) && !empty(by_scale) => Some(scales(call, by_scale)?),
        _ => None,
    };
    let mut out = dims.to_vec();
    for (place, &axis) in axes.iter().enumerate() {
        let scale = scales.as_ref().and_then(|scales| scales.get(place).copied());
        let size = sizes.and_then(|sizes| sizes.get(place));
        let same = scale == Some(1.0) || (size.is_some() && size == dims.get(axis));
        if lay.is_some_and(|lay| lay.axis == axis) && !same {
            return unknown("it may resize the batch axis");
        }
        if !same && let Some(own) = out.get_mut(axis) {
            *own = size.map_or_else(|| call.fresh(), |size| call.size(size));
        }
    }
    Ok(vec![Value::placed(lay.cloned(), out)?])
}

fn scales(call: &Call<'_, '_>, index: usize) -> Result<Vec<f64>, Stop> {
    match call.attr("scales") {
        Some(scales) => Ok(scales.floats.iter().map(|&scale| f64::from(scale)).collect()),
        None => call.floats(index),
    }
}

/// GridSample and DeformConv: every data input carries the same rows on its first axis.
pub(super) fn sampled<'a>(call: &Call<'_, 'a>, carried: &[usize], channels: usize) -> Made<'a> {
    call.only(carried)?;
    let lay = first_axis(call)?;
    for &index in carried.iter().filter(|&&index| call.has(index)) {
        if call.lay(index)? != lay {
            return unknown("its inputs do not carry rows alike");
        }
    }
    let dims = call.dims(0)?;
    let first = if channels == 0 { dims.get(1) } else { call.dims(channels)?.first() };
    let mut out: Vec<Item> = dims.first().into_iter().chain(first).cloned().collect();
    out.extend(dims.iter().skip(2).map(|_| call.fresh()));
    Ok(vec![Value::placed(lay.cloned(), out)?])
}
