//! Operators that pick, cut, join and pad: Gather, Slice, Split, Concat, Pad, scatter, one-hot.
//!
//! Separate because each may address single rows, and then a row's answer comes from another row.

use super::super::call::{Call, at};
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Place, Value, mixes, unknown};

/// Concat.
pub(super) fn concat<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let rank = call.dims(0)?.len();
    let axis = at(call.int("axis", 1), rank)?;
    let mut found: Option<(&Lay, usize)> = None;
    for index in 0..call.inputs.len() {
        if call.dims(index)?.len() != rank {
            return unknown("its inputs differ in their number of axes");
        }
        match (call.lay(index)?, found) {
            (Some(lay), None) => found = Some((lay, index)),
            (Some(lay), Some((first, _))) if *lay == *first => {}
            (Some(_), Some((_, first))) => {
                return unknown(format!(
                    "rows lie differently in '{}' and '{}'",
                    call.name(first),
                    call.name(index)
                ));
            }
            (None, _) => {}
        }
    }
    if let Some((lay, with)) = found {
        if lay.axis == axis {
            return unknown(format!(
                "it joins tensors along the batch axis of '{}'",
                call.name(with)
            ));
        }
        for index in 0..call.inputs.len() {
            if call.lay(index)?.is_none() {
                return unknown(format!(
                    "'{}' has rows of its own beside those of '{}'",
                    call.name(index),
                    call.name(with)
                ));
            }
        }
    }
    let mut out = call.dims(0)?.to_vec();
    let mut size = Item::constant(0);
    for index in 0..call.inputs.len() {
        size = size.plus(call.dims(index)?.get(axis).unwrap_or(&Item::Any));
    }
    if let Some(dim) = out.get_mut(axis) {
        *dim = call.size(&size);
    }
    Ok(vec![Value::placed(found.map(|(lay, _)| lay.clone()), out)?])
}

/// Split.
pub(super) fn split<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let axis = at(call.int("axis", 0), dims.len())?;
    let lay = call.lay(0)?;
    if let Some(lay) = lay
        && lay.axis == axis
    {
        let why = format!("it splits '{}' along the batch axis", call.name(0));
        return if lay.is_plain() { mixes(why) } else { unknown(why) };
    }
    let count = call.node.output.len();
    let lengths: Vec<Item> = match call.ints("split") {
        Some(lengths) => lengths.iter().map(|&length| Item::constant(length)).collect(),
        None if call.has(1) => call.items(1).map_or_else(|_| Vec::new(), <[Item]>::to_vec),
        None => match dims.get(axis).and_then(Item::value) {
            // The last part is shorter where the size does not divide.
            Some(size) if size % i64::try_from(count).unwrap_or(1).max(1) == 0 => {
                vec![Item::constant(size / i64::try_from(count).unwrap_or(1).max(1)); count]
            }
            _ => Vec::new(),
        },
    };
    let mut values = Vec::with_capacity(count);
    for index in 0..count {
        let mut out = dims.to_vec();
        if let Some(dim) = out.get_mut(axis) {
            *dim = lengths.get(index).map_or_else(|| call.fresh(), |length| call.size(length));
        }
        values.push(Value::placed(lay.cloned(), out)?);
    }
    Ok(values)
}

/// Exporters write "to the end" as some number past any axis: the largest of either width, or this.
const END: i64 = 1_000_000_000;

/// Slice.
pub(super) fn slice<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let bounds = if call.opset < 10 { Bounds::of_settings(call) } else { Bounds::of_inputs(call) };
    let Some(bounds) = bounds else { return unknown("the axes that it cuts are not constant") };
    call.only(&[0, 1, 2])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let mut out = dims.to_vec();
    for (place, &axis) in bounds.axes.iter().enumerate() {
        let axis = at(axis, dims.len())?;
        let (start, end) = (bounds.start(place), bounds.end(place));
        let step = bounds.steps.get(place).copied().unwrap_or(1);
        let Some(dim) = dims.get(axis) else { return unknown("it cuts no axis") };
        if !start.is_free() || (!end.is_free() && *dim != end) {
            return unknown("its bounds depend on the number of rows");
        }
        let to_end = end == *dim || end.value().is_some_and(|end| end >= END);
        let all = start.value() == Some(0) && to_end && step == 1;
        if lay.is_some_and(|lay| lay.axis == axis) && !all {
            let why = format!(
                "it takes {start}..{end} step {step} of '{}' along the batch axis",
                call.name(0)
            );
            let known = start.value().is_some() && end.value().is_some();
            return if known { mixes(why) } else { unknown(why) };
        }
        if !all && let Some(own) = out.get_mut(axis) {
            *own = cut(dim, &start, &end, step).map_or_else(|| call.fresh(), Item::constant);
        }
    }
    Ok(vec![Value::placed(lay.cloned(), out)?])
}

/// How many elements a slice takes, where all is constant.
fn cut(dim: &Item, start: &Item, end: &Item, step: i64) -> Option<i64> {
    let (dim, start, end) = (dim.value()?, start.value()?, end.value()?);
    if dim < 0 {
        return None;
    }
    let wrap = |at: i64| if at < 0 { at.saturating_add(dim) } else { at };
    let count = if step > 0 {
        let (start, end) = (wrap(start).clamp(0, dim), wrap(end).clamp(0, dim));
        end.checked_sub(start)?.checked_add(step.checked_sub(1)?)?.checked_div(step)?
    } else {
        let (start, end) = (wrap(start).clamp(-1, dim - 1), wrap(end).clamp(-1, dim - 1));
        let back = step.checked_neg()?;
        start.checked_sub(end)?.checked_add(back.checked_sub(1)?)?.checked_div(back)?
    };
    Some(count.max(0))
}

/// The bounds of a slice; starts and ends may be unknown, axes and steps not.
struct Bounds {
    starts: Vec<Item>,
    ends: Vec<Item>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

impl Bounds {
    fn of_settings(call: &Call<'_, '_>) -> Option<Self> {
        let constant = |items: &[i64]| items.iter().map(|&item| Item::constant(item)).collect();
        let starts: Vec<Item> = constant(call.ints("starts")?);
        let axes = match call.ints("axes") {
            Some(axes) => axes.to_vec(),
            None => (0..i64::try_from(starts.len()).ok()?).collect(),
        };
        Some(Self { ends: constant(call.ints("ends")?), axes, steps: Vec::new(), starts })
    }

    fn of_inputs(call: &Call<'_, '_>) -> Option<Self> {
        // The number of bounds is the shape of `starts` even where their values are open.
        let open = |index: usize| -> Option<Vec<Item>> {
            let value = call.value(index).ok()?;
            if let Some(items) = &value.items {
                return Some(items.to_vec());
            }
            let count = usize::try_from(value.dims.as_deref()?.first()?.value()?).ok()?;
            let item = if value.is_free() { Item::Free } else { Item::Any };
            (count <= 16).then(|| vec![item; count])
        };
        let starts = open(1)?;
        let axes = match call.has(3) {
            true => call.constants(3).ok()?,
            false => (0..i64::try_from(starts.len()).ok()?).collect(),
        };
        let steps = if call.has(4) { call.constants(4).ok()? } else { Vec::new() };
        Some(Self { starts, ends: open(2)?, axes, steps })
    }

    fn start(&self, place: usize) -> Item {
        self.starts.get(place).cloned().unwrap_or(Item::Any)
    }

    fn end(&self, place: usize) -> Item {
        self.ends.get(place).cloned().unwrap_or(Item::Any)
    }
}

/// Gather: whole slices by index.
pub(super) fn gather<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let (dims, index_dims) = (call.dims(0)?, call.dims(1)?);
    let axis = at(call.int("axis", 0), dims.len())?;
    let lay = match (call.lay(0)?, call.lay(1)?) {
        (None, None) => None,
        (None, Some(lay)) => Some(lay.on(axis + lay.axis)),
        (Some(lay), None) if lay.axis == axis => {
            let why = format!("it picks rows of '{}' by '{}'", call.name(0), call.name(1));
            return if call.constants(1).is_ok() { mixes(why) } else { unknown(why) };
        }
        (Some(lay), None) if lay.axis < axis => Some(lay.clone()),
        (Some(lay), None) => Some(lay.on(lay.axis + index_dims.len() - 1)),
        // Every row picks itself.
        (Some(data), Some(lay)) if data.axis == axis && data.is_plain() && numbered(call) => {
            Some(lay.on(axis + lay.axis))
        }
        (Some(lay), Some(_)) if lay.axis == axis => {
            return unknown(format!("it picks rows of '{}' by data", call.name(0)));
        }
        (Some(_), Some(_)) => {
            return mixes(format!(
                "every row of '{}' is picked from by every row of '{}'",
                call.name(0),
                call.name(1)
            ));
        }
    };
    let (before, after) = dims.split_at(axis);
    let after = after.get(1..).unwrap_or_default();
    Ok(vec![Value::placed(lay, [before, index_dims, after].concat())?])
}

fn numbered(call: &Call<'_, '_>) -> bool {
    call.value(1).is_ok_and(|value| value.place == Place::Number)
}

/// GatherElements and ScatterElements: all tensors address their own row.
pub(super) fn elements<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.dims(0)?;
    let axis = at(call.int("axis", 0), dims.len())?;
    let shaped_by = usize::from(call.node.op_type() == "GatherElements");
    let lay = call.lay(0)?;
    for index in 1..call.inputs.len() {
        if call.lay(index)? != lay {
            return unknown("its index and its data do not carry rows alike");
        }
    }
    if lay.is_some_and(|lay| lay.axis == axis) {
        return unknown(format!("it picks rows of '{}' by data", call.name(0)));
    }
    Ok(vec![Value::placed(lay.cloned(), call.dims(shaped_by)?.to_vec())?])
}

/// GatherND.
pub(super) fn gather_nd<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let (dims, index_dims) = (call.dims(0)?, call.dims(1)?);
    let shared = usize::try_from(call.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let Some((depth, places)) = index_dims.split_last() else { return unknown("it has no index") };
    let depth = depth.value().and_then(|depth| usize::try_from(depth).ok());
    let Some(rest) = depth.and_then(|depth| dims.get(shared.checked_add(depth)?..)) else {
        return unknown("the depth of its index is not known");
    };
    let lay = match (call.lay(0)?, call.lay(1)?) {
        (None, None) => None,
        (None, Some(lay)) if shared == 0 && lay.axis < places.len() => Some(lay.clone()),
        (Some(data), Some(index)) if data == index && data.axis < shared => Some(data.clone()),
        // The first of the axes that it addresses is the batch axis, and every row addresses itself.
        (Some(data), Some(index))
            if shared == 0
                && *data == Lay::plain(0)
                && index.axis < places.len()
                && call.value(1)?.place == Place::FirstColumn =>
        {
            Some(index.clone())
        }
        _ => return unknown("its index and its data do not carry rows alike"),
    };
    Ok(vec![Value::placed(lay, [places, rest].concat())?])
}

/// Pad.
pub(super) fn pad<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let pads: Vec<Item> = match call.ints("pads") {
        Some(pads) => pads.iter().map(|&pad| Item::constant(pad)).collect(),
        None => call.items(1)?.to_vec(),
    };
    let axes = match call.has(3) {
        true => call.constants(3)?,
        false => (0..i64::try_from(dims.len()).unwrap_or(0)).collect(),
    };
    let mut out = dims.to_vec();
    for (place, axis) in axes.iter().enumerate() {
        let axis = at(*axis, dims.len())?;
        let (Some(before), Some(after)) = (pads.get(place), pads.get(place + axes.len())) else {
            return unknown("it pads too few axes");
        };
        let none = before.value() == Some(0) && after.value() == Some(0);
        if lay.is_some_and(|lay| lay.axis == axis) && !none {
            let why = format!("it pads '{}' along the batch axis", call.name(0));
            let known = before.value().is_some() && after.value().is_some();
            return if known { mixes(why) } else { unknown(why) };
        }
        if !none && let Some(own) = out.get_mut(axis) {
            *own = call.size(&own.plus(before).plus(after));
        }
    }
    Ok(vec![Value::placed(lay.cloned(), out)?])
}

/// OneHot: one axis more.
pub(super) fn one_hot<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let mut out = call.dims(0)?.to_vec();
    let axis = at(call.int("axis", -1), out.len() + 1)?;
    let depth = call.value(1)?.item().map_or_else(|| call.fresh(), |depth| call.size(depth));
    let lay = call.lay(0)?;
    out.insert(axis, depth);
    let lay = lay.map(|lay| lay.on(lay.axis + usize::from(lay.axis >= axis)));
    Ok(vec![Value::placed(lay, out)?])
}

/// Operators on the matrices of the last two axes: the shape stays.
pub(super) fn matrices<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0])?;
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    if lay.is_some_and(|lay| lay.axis + 2 >= dims.len()) {
        return mixes(format!("the batch axis of '{}' is an axis of its matrices", call.name(0)));
    }
    Ok(vec![Value::placed(lay.cloned(), dims.to_vec())?])
}
