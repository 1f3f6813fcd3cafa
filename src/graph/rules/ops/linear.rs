//! Products: MatMul and its quantised and fused kin, Gemm, Einsum.
//!
//! Separate because in a product an axis is either kept or summed over, and the whole rule is to find on which side
//! the batch axis falls.

use super::super::call::Call;
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Stop, Value, mixes, unknown};
use super::elementwise::{Operand, lined_up, wider};

fn summed<T>(name: &str) -> Result<T, Stop> {
    mixes(format!("it sums over the batch axis of '{name}'"))
}

/// A matrix operand: its sizes and where its rows lie.
struct Matrix<'m> {
    name: &'m str,
    dims: Vec<Item>,
    lay: Option<Lay>,
}

impl<'m> Matrix<'m> {
    fn of(call: &'m Call<'_, '_>, index: usize, swap: bool) -> Result<Self, Stop> {
        let mut dims = call.dims(index)?.to_vec();
        let mut lay = call.lay(index)?.cloned();
        let rank = dims.len();
        if rank == 0 {
            return unknown(format!("'{}' has no axes", call.name(index)));
        }
        if swap && rank >= 2 {
            dims.swap(rank - 1, rank - 2);
            lay = lay.map(|lay| match rank - lay.axis {
                1 => lay.on(rank - 2),
                2 => lay.on(rank - 1),
                _ => lay,
            });
        }
        Ok(Self { name: call.name(index), dims, lay })
    }

    /// The axis of the rows counted from the end.
    fn rows_from_end(&self) -> Option<usize> {
        self.lay.as_ref().map(|lay| self.dims.len() - 1 - lay.axis)
    }
}

/// A product of the inputs at these places, all others being the same for every row.
pub(super) fn matmul<'a>(call: &Call<'_, 'a>, a: usize, b: usize, extra: &[usize]) -> Made<'a> {
    let allowed = [&[a, b], extra].concat();
    call.only(&allowed)?;
    let a = Matrix::of(call, a, call.int("transA", 0) != 0)?;
    let b = Matrix::of(call, b, call.int("transB", 0) != 0)?;
    let value = multiplied(call, &a, &b)?;
    let mut operands =
        vec![Operand { name: "the product", dims: dims_of(&value)?, lay: value.lay() }];
    for &index in extra.iter().filter(|&&index| call.has(index)) {
        operands.push(Operand {
            name: call.name(index),
            dims: call.dims(index)?,
            lay: call.lay(index)?,
        });
    }
    Ok(vec![if operands.len() == 1 { value } else { lined_up(call, &operands)? }])
}

fn dims_of<'v>(value: &'v Value<'_>) -> Result<&'v [Item], Stop> {
    match value.dims.as_deref() {
        Some(dims) => Ok(dims),
        None => unknown("the shape of the product is not known"),
    }
}

fn multiplied<'a>(call: &Call<'_, 'a>, a: &Matrix<'_>, b: &Matrix<'_>) -> Result<Value<'a>, Stop> {
    let (vector_a, vector_b) = (a.dims.len() == 1, b.dims.len() == 1);
    if a.rows_from_end() == Some(0) {
        return summed(a.name);
    }
    if b.rows_from_end() == Some(if vector_b { 0 } else { 1 }) {
        return summed(b.name);
    }
    // Vectors become matrices of one row or one column, and lose that axis again at the end.
    let a_stack = a.dims.get(..a.dims.len().saturating_sub(2)).unwrap_or_default();
    let b_stack = b.dims.get(..b.dims.len().saturating_sub(2)).unwrap_or_default();
    let stack = a_stack.len().max(b_stack.len());
    let in_a_stack = |lay: &&Lay| lay.axis < a_stack.len();
    let in_b_stack = |lay: &&Lay| lay.axis < b_stack.len();
    let a_rows = a.lay.as_ref().filter(|lay| !in_a_stack(lay));
    let b_columns = b.lay.as_ref().filter(|lay| !in_b_stack(lay));
    if (a_rows.is_some() && b.lay.is_some()) || (b_columns.is_some() && a.lay.is_some()) {
        return mixes(format!("every row of '{}' meets every row of '{}'", a.name, b.name));
    }
    let stacked = lined_up(
        call,
        &[
            Operand { name: a.name, dims: a_stack, lay: a.lay.as_ref().filter(in_a_stack) },
            Operand { name: b.name, dims: b_stack, lay: b.lay.as_ref().filter(in_b_stack) },
        ],
    )?;
    let mut dims = dims_of(&stacked)?.to_vec();
    let mut lay = stacked.lay().cloned();
    if !vector_a {
        lay = a_rows.map(|rows| rows.on(stack)).or(lay);
        dims.push(a.dims.get(a.dims.len() - 2).cloned().unwrap_or(Item::Any));
    }
    if !vector_b {
        lay = b_columns.map(|columns| columns.on(dims.len())).or(lay);
        dims.push(b.dims.last().cloned().unwrap_or(Item::Any));
    }
    Value::placed(lay, dims)
}

/// Einsum over named axes.
pub(super) fn einsum<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let equation: Vec<u8> =
        call.text("equation").unwrap_or_default().iter().copied().filter(|&b| b != b' ').collect();
    if equation.contains(&b'.') {
        return unknown("its equation has an ellipsis");
    }
    let text = String::from_utf8_lossy(&equation).into_owned();
    let Some((left, right)) = text.split_once("->") else {
        return unknown("its equation names no output");
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.inputs.len() {
        return unknown("its equation does not fit its inputs");
    }
    let mut sizes: Vec<(char, Item)> = Vec::new();
    let mut found: Option<(char, Lay, usize)> = None;
    for (index, term) in terms.iter().enumerate() {
        let dims = call.dims(index)?;
        if term.chars().count() != dims.len() {
            return unknown("its equation does not fit its inputs");
        }
        for (letter, dim) in term.chars().zip(dims) {
            match sizes.iter_mut().find(|(known, _)| *known == letter) {
                Some((_, size)) => *size = wider(call, size, dim),
                None => sizes.push((letter, dim.clone())),
            }
        }
        let Some(lay) = call.lay(index)? else { continue };
        let Some(letter) = term.chars().nth(lay.axis) else { return unknown("an axis is lost") };
        match &found {
            None => found = Some((letter, lay.clone(), index)),
            Some((first, with, _)) if *first == letter && with.is_plain() && lay.is_plain() => {}
            Some((first, _, with)) if *first != letter => {
                return mixes(format!(
                    "every row of '{}' meets every row of '{}'",
                    call.name(*with),
                    call.name(index)
                ));
            }
            Some(_) => return unknown("rows lie differently in its inputs"),
        }
    }
    let lay = match &found {
        Some((letter, lay, index)) => Some(kept(call, &terms, right, *letter, lay, *index)?),
        None => None,
    };
    let size = |letter| sizes.iter().find(|(known, _)| *known == letter).map(|(_, s)| s.clone());
    let dims: Option<Vec<Item>> = right.chars().map(size).collect();
    match dims {
        Some(dims) => Ok(vec![Value::placed(lay, dims)?]),
        None => unknown("its output has an axis that no input has"),
    }
}

/// Where the rows of an Einsum lie in its output.
fn kept(
    call: &Call<'_, '_>,
    terms: &[&str],
    right: &str,
    letter: char,
    lay: &Lay,
    index: usize,
) -> Result<Lay, Stop> {
    for (other, term) in terms.iter().enumerate() {
        let free = call.lay(other)?.is_none();
        let twice = term.chars().filter(|&own| own == letter).count() > 1;
        if twice || (free && term.contains(letter)) {
            return unknown(format!("'{}' has an axis of the size of the batch", call.name(other)));
        }
    }
    match right.chars().position(|own| own == letter) {
        Some(axis) => Ok(lay.on(axis)),
        None => summed(call.name(index)),
    }
}
