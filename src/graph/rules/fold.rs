//! Follows small whole-number tensors element by element: shapes, axes, the sums that make them.
//!
//! Separate from the operators' row rules because it asks another question (what are the numbers?) and answers
//! only where it is certain; an operator that it does not follow falls back to those rules.

use super::call::Call;
use super::shapes::Item;
use super::value::Value;
use crate::graph::constant::{ELEMENTS_MAX, elem};
use std::cmp::Ordering;

/// The outputs of a node whose inputs are small whole-number tensors, or of one that asks for a shape.
pub(super) fn fold<'a>(call: &Call<'_, 'a>) -> Option<Vec<Value<'a>>> {
    let one = |value: Option<Value<'a>>| value.map(|value| vec![value]);
    let op = call.node.op_type();
    match op {
        "Shape" => one(shape(call)),
        "Size" => one(size(call)),
        "Split" => split(call),
        "Identity" | "Cast" => one(cast(call)),
        "Neg" => one(each(call, |item| Item::constant(0).minus(item))),
        "Not" => one(each(call, |item| item.compare(&Item::constant(0), Ordering::is_eq))),
        "Abs" => one(each(call, |item| item.numbers(item, |v, _| v.checked_abs()))),
        "Gather" => one(gather(call)),
        "Slice" => one(slice(call)),
        "Concat" => one(concat(call)),
        "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => one(relabel(call)),
        "Transpose" => one(transpose(call)),
        "Where" => one(choose(call)),
        "ReduceProd" => one(product(call)),
        "ConstantOfShape" => one(filled(call)),
        "Range" => one(range(call)),
        "Expand" => one(expand(call)),
        _ => one(pairs(call, op)),
    }
}

/// The elements and constant sizes of an input.
fn known<'c>(call: &'c Call<'_, '_>, index: usize) -> Option<(&'c [Item], Vec<usize>)> {
    let value = call.inputs.get(index)?.as_ref()?;
    let items = value.items.as_deref()?;
    let dims = sizes(value.dims.as_deref()?)?;
    // An axis of none beside one of many would pass by the count alone.
    let small = dims.iter().all(|&dim| dim <= ELEMENTS_MAX);
    (small && count(&dims)? == items.len()).then_some((items, dims))
}

fn count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))
}

fn sizes(dims: &[Item]) -> Option<Vec<usize>> {
    dims.iter().map(|dim| dim.value().and_then(|dim| usize::try_from(dim).ok())).collect()
}

fn constants(call: &Call<'_, '_>, index: usize) -> Option<Vec<i64>> {
    known(call, index)?.0.iter().map(Item::value).collect()
}

fn made<'a>(dims: &[usize], items: Vec<Item>) -> Option<Value<'a>> {
    if items.len() > ELEMENTS_MAX {
        return None;
    }
    let dims = dims.iter().map(|&dim| i64::try_from(dim).ok().map(Item::constant));
    Some(Value::numbers(dims.collect::<Option<_>>()?, items))
}

fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    super::call::at(axis, rank).ok()
}

fn shape<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let dims = call.inputs.first()?.as_ref()?.dims.as_deref()?;
    let rank = i64::try_from(dims.len()).ok()?;
    let clamp = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        usize::try_from(at.clamp(0, rank)).unwrap_or(0)
    };
    let (start, end) = (clamp(call.int("start", 0)), clamp(call.int("end", rank)));
    Some(Value::list(dims.get(start..end).unwrap_or_default().to_vec()))
}

fn size<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let dims = call.inputs.first()?.as_ref()?.dims.as_deref()?;
    let count = dims.iter().fold(Item::constant(1), |product, dim| product.times(dim));
    made(&[], vec![count])
}

fn cast<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let target = i32::try_from(call.int("to", i64::from(elem::INT64))).ok()?;
    if call.node.op_type() == "Identity" || matches!(target, elem::INT64 | elem::INT32) {
        // A size past 32 bits is no size that ONNX Runtime can allocate.
        return each(call, Item::clone);
    }
    (target == elem::BOOL)
        .then(|| each(call, |item| item.compare(&Item::constant(0), Ordering::is_ne)))?
}

fn each<'a>(call: &Call<'_, 'a>, with: impl Fn(&Item) -> Item) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    made(&dims, items.iter().map(with).collect())
}

/// Two operands element by element, one of them perhaps a single number.
fn paired<'a>(
    (a, a_dims): (&[Item], &[usize]),
    (b, b_dims): (&[Item], &[usize]),
    with: impl Fn(&Item, &Item) -> Item,
) -> Option<Value<'a>> {
    let dims = if b.len() == 1 && a_dims.len() >= b_dims.len() {
        a_dims
    } else if (a.len() == 1 && b_dims.len() >= a_dims.len()) || a_dims == b_dims {
        b_dims
    } else {
        return None;
    };
    let count = a.len().max(b.len());
    let pick = |items: &'_ [Item], at: usize| {
        items.get(if items.len() == 1 { 0 } else { at }).cloned().unwrap_or(Item::Any)
    };
    if a.is_empty() || b.is_empty() {
        return None;
    }
    made(dims, (0..count).map(|at| with(&pick(a, at), &pick(b, at))).collect())
}

fn pairs<'a>(call: &Call<'_, 'a>, op: &str) -> Option<Value<'a>> {
    let truth = |value: bool| Item::constant(i64::from(value));
    let both = |a: &Item, b: &Item, with: fn(bool, bool) -> bool| {
        a.numbers(b, |a, b| Some(i64::from(with(a != 0, b != 0))))
    };
    if call.inputs.len() != 2 {
        return None;
    }
    let (a, a_dims) = known(call, 0)?;
    let (b, b_dims) = known(call, 1)?;
    let with = |a: &Item, b: &Item| {
        Some(match op {
            "Add" => a.plus(b),
            "Sub" => a.minus(b),
            "Mul" => a.times(b),
            "Div" => a.over(b),
            "Mod" if a == b => Item::constant(0),
            "Mod" => a.numbers(b, |a, b| if b == 0 { None } else { a.checked_rem_euclid(b) }),
            "Max" => a.numbers(b, |a, b| Some(a.max(b))),
            "Min" => a.numbers(b, |a, b| Some(a.min(b))),
            "Equal" => a.compare(b, Ordering::is_eq),
            "Less" => a.compare(b, Ordering::is_lt),
            "LessOrEqual" => a.compare(b, Ordering::is_le),
            "Greater" => a.compare(b, Ordering::is_gt),
            "GreaterOrEqual" => a.compare(b, Ordering::is_ge),
            "And" if a.value() == Some(0) || b.value() == Some(0) => truth(false),
            "And" => both(a, b, |a, b| a && b),
            "Or" => both(a, b, |a, b| a || b),
            _ => return None,
        })
    };
    // The operator must be known before elements are: an empty operand would hide that it is not.
    with(&Item::Any, &Item::Any)?;
    paired((a, &a_dims), (b, &b_dims), |a, b| with(a, b).unwrap_or(Item::Any))
}

fn choose<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let ((condition, c_dims), (yes, y_dims), (no, n_dims)) =
        (known(call, 0)?, known(call, 1)?, known(call, 2)?);
    let one = |items: &[Item]| items.len() == 1;
    let dims = [&c_dims, &y_dims, &n_dims].into_iter().max_by_key(|dims| dims.len())?.clone();
    let count = condition.len().max(yes.len()).max(no.len());
    let fits = |items: &[Item], own: &[usize]| one(items) || own == dims;
    if self::count(&dims) != Some(count)
        || !(fits(condition, &c_dims) && fits(yes, &y_dims) && fits(no, &n_dims))
    {
        return None;
    }
    let pick = |items: &[Item], at: usize| {
        items.get(if one(items) { 0 } else { at }).cloned().unwrap_or(Item::Any)
    };
    let items =
        (0..count).map(|at| Item::choose(&pick(condition, at), &pick(yes, at), &pick(no, at)));
    made(&dims, items.collect())
}

/// The elements at every combination of the indices given for each axis.
fn pick(items: &[Item], dims: &[usize], indices: &[Vec<usize>]) -> Option<Vec<Item>> {
    let mut offsets = vec![0_usize];
    for (dim, indices) in dims.iter().zip(indices) {
        if offsets.len().checked_mul(indices.len())? > ELEMENTS_MAX {
            return None;
        }
        let next = offsets.iter().flat_map(|offset| {
            indices.iter().map(move |&index| {
                (index < *dim).then(|| offset.checked_mul(*dim)?.checked_add(index)).flatten()
            })
        });
        offsets = next.collect::<Option<_>>()?;
    }
    offsets.into_iter().map(|offset| items.get(offset).cloned()).collect()
}

fn every(dims: &[usize]) -> Vec<Vec<usize>> {
    dims.iter().map(|&dim| (0..dim).collect()).collect()
}

fn gather<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let (_, index_dims) = known(call, 1)?;
    let chosen = constants(call, 1)?;
    let size = *dims.get(axis)?;
    let chosen: Option<Vec<usize>> = chosen.iter().map(|&index| axis_of(index, size)).collect();
    let mut indices = every(&dims);
    *indices.get_mut(axis)? = chosen?;
    let out = [dims.get(..axis)?, &index_dims, dims.get(axis + 1..)?].concat();
    made(&out, pick(items, &dims, &indices)?)
}

fn slice<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    let (starts, ends) = match (call.ints("starts"), call.ints("ends")) {
        (Some(starts), Some(ends)) => (starts.to_vec(), ends.to_vec()),
        _ => (constants(call, 1)?, constants(call, 2)?),
    };
    let axes = match call.ints("axes") {
        Some(axes) => axes.to_vec(),
        None if call.has(3) => constants(call, 3)?,
        None => (0..i64::try_from(starts.len()).ok()?).collect(),
    };
    let steps = if call.has(4) { constants(call, 4)? } else { vec![1; starts.len()] };
    let mut indices = every(&dims);
    for (((axis, start), end), step) in axes.iter().zip(&starts).zip(&ends).zip(&steps) {
        let axis = axis_of(*axis, dims.len())?;
        *indices.get_mut(axis)? = stepped(*dims.get(axis)?, *start, *end, *step)?;
    }
    let out: Vec<usize> = indices.iter().map(Vec::len).collect();
    made(&out, pick(items, &dims, &indices)?)
}

/// The indices that a slice takes of an axis.
fn stepped(size: usize, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let size = i64::try_from(size).ok()?;
    let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let mut at = wrap(start).clamp(if step > 0 { 0 } else { low }, high);
    let end = wrap(end).clamp(low, high);
    let mut indices = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        indices.push(usize::try_from(at).ok()?);
        at = at.checked_add(step)?;
        if indices.len() > ELEMENTS_MAX {
            return None;
        }
    }
    (step != 0).then_some(indices)
}

fn split<'a>(call: &Call<'_, 'a>) -> Option<Vec<Value<'a>>> {
    let (items, dims) = known(call, 0)?;
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let (size, count) = (*dims.get(axis)?, call.node.output.len());
    let lengths: Vec<usize> = match call.ints("split").map(<[i64]>::to_vec) {
        Some(lengths) => lengths.iter().map(|&l| usize::try_from(l).ok()).collect::<Option<_>>()?,
        None if call.has(1) => {
            constants(call, 1)?.iter().map(|&l| usize::try_from(l).ok()).collect::<Option<_>>()?
        }
        None if count > 0 && size.is_multiple_of(count) => vec![size / count; count],
        None => return None,
    };
    let mut start = 0_usize;
    let mut values = Vec::new();
    for length in lengths {
        let mut indices = every(&dims);
        let end = start.checked_add(length)?;
        *indices.get_mut(axis)? = (start..end.min(size)).collect();
        let out: Vec<usize> = indices.iter().map(Vec::len).collect();
        values.push(made(&out, pick(items, &dims, &indices)?)?);
        start = end;
    }
    (values.len() == count).then_some(values)
}

fn concat<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let mut all = Vec::new();
    for index in 0..call.inputs.len() {
        let (items, dims) = known(call, index)?;
        if dims.len() != 1 {
            return None;
        }
        all.extend_from_slice(items);
    }
    made(&[all.len()], all)
}

/// The same elements under another shape; the shape itself must be constant.
fn relabel<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    // Only where the elements go is asked here, not on what they depend.
    let mut inputs = call.inputs.clone();
    *inputs.first_mut()? = Some(Value::free(call.dims(0).ok()?.to_vec()));
    let Call { node, given, opset, symbols, .. } = *call;
    let value = super::ops::layout::relabelled(&Call { node, given, inputs, opset, symbols });
    let value = value.ok()?;
    let out = sizes(value.dims.as_deref()?)?;
    (count(&out)? == count(&dims)?).then(|| made(&out, items.to_vec()))?
}

fn transpose<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    match (dims.as_slice(), call.ints("perm")) {
        ([rows, columns], None | Some([1, 0])) => {
            let order = (0..*columns).flat_map(|c| (0..*rows).map(move |r| r * columns + c));
            let items: Option<Vec<Item>> = order.map(|at| items.get(at).cloned()).collect();
            made(&[*columns, *rows], items?)
        }
        ([_], _) => made(&dims, items.to_vec()),
        _ => None,
    }
}

fn product<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    if dims.len() != 1 || call.int("noop_with_empty_axes", 0) != 0 {
        return None;
    }
    let product = items.iter().fold(Item::constant(1), |product, item| product.times(item));
    let keep = call.int("keepdims", 1) != 0;
    made(if keep { &[1] } else { &[] }, vec![product])
}

fn filled<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let dims: Option<Vec<usize>> =
        constants(call, 0)?.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let dims = dims?;
    let value = call.attr("value")?.t.as_deref().and_then(crate::graph::constant::ints)?;
    repeated(&dims, &Item::constant(*value.first()?))
}

fn repeated<'a>(dims: &[usize], item: &Item) -> Option<Value<'a>> {
    let count = count(dims)?;
    (count <= ELEMENTS_MAX).then(|| made(dims, vec![item.clone(); count]))?
}

fn range<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let [start, limit, delta] =
        [0, 1, 2].map(|index| constants(call, index).and_then(|v| v.first().copied()));
    let (start, limit, delta) = (start?, limit?, delta?);
    let mut items = Vec::new();
    let mut at = start;
    while (delta > 0 && at < limit) || (delta < 0 && at > limit) {
        items.push(Item::constant(at));
        at = at.checked_add(delta)?;
        if items.len() > ELEMENTS_MAX {
            return None;
        }
    }
    (delta != 0).then(|| made(&[items.len()], items))?
}

fn expand<'a>(call: &Call<'_, 'a>) -> Option<Value<'a>> {
    let (items, dims) = known(call, 0)?;
    let [item] = items else { return None };
    let target = constants(call, 1)?;
    let target: Option<Vec<usize>> = target.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let target = target?;
    (target.len() >= dims.len()).then(|| repeated(&target, item))?
}
