//! Operators that only lay elements out anew: Reshape and its kin, Transpose, Expand, Tile, filled tensors.
//!
//! Separate because they are where batch axes move, fold into others and are lost, and each rule is a statement
//! about row-major order.

use super::super::call::{Call, at};
use super::super::shapes::{BATCH, Item, Term, show};
use super::super::value::{Lay, Made, Stop, Value, mixes, unknown};
use super::elementwise::wider;

/// Reshape, Flatten, Squeeze or Unsqueeze.
pub(in super::super) fn relabelled<'a>(call: &Call<'_, 'a>) -> Result<Value<'a>, Stop> {
    match call.node.op_type() {
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Squeeze" => squeeze(call),
        _ => unsqueeze(call),
    }
}

fn reshape<'a>(call: &Call<'_, 'a>) -> Result<Value<'a>, Stop> {
    call.only(&[0, 1])?;
    let dims = call.dims(0)?;
    let zero_is_zero = call.int("allowzero", 0) != 0;
    let mut target = Vec::new();
    for (axis, item) in call.items(1)?.iter().enumerate() {
        target.push(match item.value() {
            Some(-1) => None,
            Some(0) if !zero_is_zero => match dims.get(axis) {
                Some(dim) => Some(call.size(dim)),
                None => return unknown("its shape copies an axis that does not exist"),
            },
            _ => Some(call.size(item)),
        });
    }
    relay(call, target)
}

fn flatten<'a>(call: &Call<'_, 'a>) -> Result<Value<'a>, Stop> {
    let dims = call.dims(0)?;
    let axis = call.int("axis", 1);
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let axis = if axis == rank { dims.len() } else { at(axis, dims.len())? };
    let (before, after) = dims.split_at(axis);
    let product = |dims: &[Item]| {
        let product = dims.iter().fold(Item::constant(1), |product, dim| product.times(dim));
        call.size(&product)
    };
    relay(call, vec![Some(product(before)), Some(product(after))])
}

fn terms(dims: &[Item]) -> Option<Term> {
    Term::product(dims.iter().map(Item::term))
}

/// The first input in row-major order under a new shape; `None` stands for the one size to be inferred.
fn relay<'a>(call: &Call<'_, 'a>, target: Vec<Option<Item>>) -> Result<Value<'a>, Stop> {
    let source = call.dims(0)?;
    let lay = call.lay(0)?;
    let inferred = target.iter().filter(|dim| dim.is_none()).count();
    if inferred > 1 {
        return unknown("its shape leaves two sizes open");
    }
    if inferred == 1 && target.iter().flatten().any(|dim| *dim == Item::Any) {
        return unknown("a size in its shape is not known");
    }
    let rest = Term::product(target.iter().flatten().map(Item::term));
    if let (Some(lay), Some(rest)) = (lay, &rest) {
        cut(source, lay, rest, inferred == 1, &target)?;
    }
    let open = terms(source).zip(rest).and_then(|(total, rest)| total.over(&rest));
    let free = lay.is_none();
    let mut dims = Vec::with_capacity(target.len());
    for dim in target {
        dims.push(match (dim, &open) {
            (Some(dim), _) => dim,
            (None, Some(open)) => Item::Term(open.clone()),
            (None, None) if free => call.fresh(),
            (None, None) => Item::Any,
        });
    }
    let Some(lay) = lay else { return Ok(Value::free(dims)) };
    let lay = carried(source, lay, &dims)?;
    // A size that could not be inferred holds no rows once they were found on another axis.
    for dim in &mut dims {
        if *dim == Item::Any {
            *dim = call.fresh();
        }
    }
    Value::laid(lay, dims)
}

/// Refuses shapes that cut through rows whatever their number.
fn cut(
    source: &[Item],
    lay: &Lay,
    rest: &Term,
    inferred: bool,
    target: &[Option<Item>],
) -> Result<(), Stop> {
    let shape: Vec<Item> =
        target.iter().map(|dim| dim.clone().unwrap_or_else(|| Item::constant(-1))).collect();
    let Some(rest) = rest.value() else { return Ok(()) };
    if !inferred {
        return mixes(format!(
            "its shape {} is constant, so only one number of rows fits",
            show(&shape)
        ));
    }
    let others = source.iter().enumerate().filter(|(axis, _)| *axis != lay.axis);
    let row = Term::product(others.map(|(_, dim)| dim.term()))
        .and_then(|row| row.times(&lay.outer)?.times(&lay.inner))
        .and_then(|row| row.value());
    match row {
        Some(row) if rest > 0 && row % rest != 0 => {
            mixes(format!("its shape {} cuts through rows of {row} elements", show(&shape)))
        }
        _ => Ok(()),
    }
}

/// Where rows lie after a reshape: on the axis of the target that holds the batch size.
fn carried(source: &[Item], lay: &Lay, target: &[Item]) -> Result<Lay, Stop> {
    let lost = || format!("the rows of {} are not found in {}", show(source), show(target));
    let holds = |dim: &Item| dim.term().is_some_and(Term::has_batch);
    let Some(axis) = target.iter().position(holds) else { return unknown(lost()) };
    let find = || {
        let before = terms(source.get(..lay.axis)?)?.times(&lay.outer)?;
        let ahead = terms(target.get(..axis)?)?;
        let outer = before.over(&ahead)?;
        let size = target.get(axis)?.term()?;
        let inner = size.over(&Term::symbol(BATCH))?.over(&outer)?;
        Some(Lay { axis, outer, inner })
    };
    let same_place = axis == lay.axis && source.get(..=axis) == target.get(..=axis);
    match find() {
        Some(lay) => Ok(lay),
        None if same_place => Ok(lay.clone()),
        None => unknown(lost()),
    }
}

fn squeeze<'a>(call: &Call<'_, 'a>) -> Result<Value<'a>, Stop> {
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    let axes = match call.axes("axes", 1, dims.len())? {
        Some(axes) => axes,
        None if lay.is_none() && dims.iter().all(|dim| dim.value().is_some()) => (0..dims.len())
            .filter(|&axis| dims.get(axis).and_then(Item::value) == Some(1))
            .collect(),
        None => return unknown("it removes whatever axes have one element"),
    };
    if lay.is_some_and(|lay| axes.contains(&lay.axis)) {
        return mixes("it removes the batch axis, so only one row fits");
    }
    let kept = |axis: &usize| !axes.contains(axis);
    let out = dims.iter().enumerate().filter(|(axis, _)| kept(axis)).map(|(_, dim)| dim.clone());
    let lay = lay.map(|lay| lay.on((0..lay.axis).filter(kept).count()));
    Value::placed(lay, out.collect())
}

fn unsqueeze<'a>(call: &Call<'_, 'a>) -> Result<Value<'a>, Stop> {
    let dims = call.dims(0)?;
    let added = match call.ints("axes") {
        Some(axes) => axes.len(),
        None => call.items(1)?.len(),
    };
    let rank = dims.len() + added;
    let Some(axes) = call.axes("axes", 1, rank)? else { return unknown("it names no axes") };
    let mut own = dims.iter().enumerate();
    let mut out = Vec::with_capacity(rank);
    let mut lay = call.lay(0)?.cloned();
    let from = lay.as_ref().map(|lay| lay.axis);
    for axis in 0..rank {
        if axes.contains(&axis) {
            out.push(Item::constant(1));
        } else if let Some((source, dim)) = own.next() {
            if from == Some(source) {
                lay = lay.map(|lay| lay.on(axis));
            }
            out.push(dim.clone());
        }
    }
    if own.next().is_some() {
        return unknown("it adds an axis twice");
    }
    Value::placed(lay, out)
}

/// Transpose.
pub(super) fn transpose<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.dims(0)?;
    let perm = match call.ints("perm") {
        Some(perm) => {
            perm.iter().map(|&axis| at(axis, dims.len())).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..dims.len()).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..dims.len()) {
        return unknown("its permutation is none");
    }
    let out = perm.iter().filter_map(|&axis| dims.get(axis).cloned()).collect();
    let moved = |lay: &Lay| perm.iter().position(|&axis| axis == lay.axis).map(|to| lay.on(to));
    Ok(vec![Value::placed(call.lay(0)?.and_then(moved), out)?])
}

/// Expand: the first input broadcast to a computed shape.
pub(super) fn expand<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0, 1])?;
    let (dims, target) = (call.dims(0)?, call.items(1)?);
    let rank = dims.len().max(target.len());
    let from_end = |items: &[Item], axis: usize| {
        (axis + items.len()).checked_sub(rank).and_then(|axis| items.get(axis).cloned())
    };
    let lay = call.lay(0)?;
    let lay = lay.map(|lay| lay.on(lay.axis + (rank - dims.len())));
    let mut out = Vec::with_capacity(rank);
    for axis in 0..rank {
        let own = from_end(dims, axis).unwrap_or(Item::constant(1));
        let wanted = from_end(target, axis).unwrap_or(Item::constant(1));
        if lay.as_ref().is_some_and(|lay| lay.axis == axis) {
            if wanted.value() != Some(1) && wanted != own {
                return unknown(format!("it expands the batch axis to {wanted}"));
            }
            out.push(own);
        } else {
            out.push(wider(call, &own, &wanted));
        }
    }
    if lay.is_some() {
        return Ok(vec![Value::placed(lay, out)?]);
    }
    spread(out).map(|value| vec![value])
}

/// A tensor whose every row is the same, with these sizes.
fn spread<'a>(dims: Vec<Item>) -> Result<Value<'a>, Stop> {
    let holds = |dim: &Item| dim.term().is_some_and(Term::has_batch);
    let Some(axis) = dims.iter().position(holds) else {
        return match dims.iter().find(|dim| !dim.is_free()) {
            Some(_) => unknown(format!("its shape {} depends on the number of rows", show(&dims))),
            None => Ok(Value::free(dims)),
        };
    };
    let size = dims.get(axis).and_then(Item::term);
    match size.and_then(|size| size.over(&Term::symbol(BATCH))) {
        Some(inner) if !inner.has_batch() => {
            Value::laid(Lay { axis, outer: Term::ONE, inner }, dims)
        }
        _ => unknown(format!("its shape {} is not one of rows", show(&dims))),
    }
}

/// ConstantOfShape.
pub(super) fn filled<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.items(0)?.iter().map(|item| call.size(item)).collect();
    Ok(vec![spread(dims)?])
}

/// Tile.
pub(super) fn tile<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    call.only(&[0, 1])?;
    let (dims, repeats) = (call.dims(0)?, call.items(1)?);
    let lay = call.lay(0)?;
    let mut out = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        let Some(repeat) = repeats.get(axis) else { return unknown("it repeats too few axes") };
        if lay.is_some_and(|lay| lay.axis == axis) && repeat.value() != Some(1) {
            return unknown(format!("it repeats the batch axis {repeat} times"));
        }
        // Repeated rows would be rows again only if there was one.
        if repeat.term().is_some_and(Term::has_batch) && dim.value() != Some(1) {
            return unknown(format!("it repeats axis {axis} by the number of rows"));
        }
        out.push(call.size(&dim.times(repeat)));
    }
    match lay {
        Some(lay) => Ok(vec![Value::laid(lay.clone(), out)?]),
        None => Ok(vec![spread(out)?]),
    }
}

/// DepthToSpace and SpaceToDepth: blocks move between channels and space of `[rows, channels, height, width]`.
pub(super) fn blocks<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let dims = call.dims(0)?;
    let lay = call.lay(0)?;
    if lay.is_some_and(|lay| lay.axis != 0) {
        return unknown("the batch axis is not the first");
    }
    let side = Item::constant(call.int("blocksize", 1));
    let area = side.times(&side);
    let to_space = call.node.op_type() == "DepthToSpace";
    let scaled = |axis: usize, dim: &Item| {
        let by = if axis == 1 { &area } else { &side };
        call.size(&if to_space == (axis == 1) { dim.over(by) } else { dim.times(by) })
    };
    let out = dims.iter().enumerate();
    let out = out.map(|(axis, dim)| if axis == 0 { dim.clone() } else { scaled(axis, dim) });
    Ok(vec![Value::placed(lay.cloned(), out.collect())?])
}
