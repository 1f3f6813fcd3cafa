//! One node about to be judged: its inputs as values, its settings, its operator set.
//!
//! Separate because every rule asks the same few things of a node (which axis, which constant, who carries rows)
//! and must refuse in the same words.

use super::shapes::{Item, Symbol, Term};
use super::value::{Lay, Rows, Stop, Value, input_name, mixes, unknown};
use crate::graph::constant;
use crate::graph::proto::{AttributeProto, NodeProto};
use std::cell::Cell;
use std::collections::HashMap;

/// Settings that a function's caller gave it, by name.
pub(super) type Given<'a> = HashMap<&'a str, &'a AttributeProto>;

/// A node with what is known of its inputs.
pub(super) struct Call<'c, 'a> {
    pub(super) node: &'a NodeProto,
    pub(super) given: &'c Given<'a>,
    pub(super) inputs: Vec<Option<Value<'a>>>,
    /// Version of the default operator set.
    pub(super) opset: i64,
    pub(super) symbols: &'c Cell<Symbol>,
}

impl<'a> Call<'_, 'a> {
    /// A size of which nothing is known but that it is the same whatever the batch.
    pub(super) fn fresh(&self) -> Item {
        let symbol = self.symbols.get().saturating_add(1);
        self.symbols.set(symbol);
        // At the end of the numbers two sizes would share a symbol.
        if symbol == Symbol::MAX { Item::Free } else { Item::Term(Term::symbol(symbol)) }
    }

    /// The item as a size: unknown but free ones get a symbol of their own.
    pub(super) fn size(&self, item: &Item) -> Item {
        if *item == Item::Free { self.fresh() } else { item.clone() }
    }

    pub(super) fn attr(&self, name: &str) -> Option<&'a AttributeProto> {
        let attribute = self.node.attr(name)?;
        if attribute.ref_attr_name().is_empty() {
            return Some(attribute);
        }
        self.given.get(attribute.ref_attr_name()).copied()
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attr(name).map_or(default, AttributeProto::i)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attr(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a [u8]> {
        self.attr(name).map(AttributeProto::s)
    }

    pub(super) fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(Option::is_some)
    }

    pub(super) fn name(&self, index: usize) -> &str {
        input_name(self.node, index)
    }

    pub(super) fn value(&self, index: usize) -> Result<&Value<'a>, Stop> {
        match self.inputs.get(index) {
            Some(Some(value)) => Ok(value),
            _ => unknown(format!("it has no input {index}")),
        }
    }

    pub(super) fn dims(&self, index: usize) -> Result<&[Item], Stop> {
        match self.value(index)?.dims.as_deref() {
            Some(dims) => Ok(dims),
            None => unknown(format!("the number of axes of '{}' is not known", self.name(index))),
        }
    }

    /// Where the rows of an input lie; none if it is the same whatever the rows.
    pub(super) fn lay(&self, index: usize) -> Result<Option<&Lay>, Stop> {
        match &self.value(index)?.rows {
            Rows::Free => Ok(None),
            Rows::Batch(lay) => Ok(Some(lay)),
            Rows::Count => unknown(format!("'{}' depends on the number of rows", self.name(index))),
            Rows::Unknown(why) => unknown(why.as_ref()),
            Rows::Mixed(why) => mixes(why.as_ref()),
        }
    }

    /// Refuses if an input other than these carries rows or depends on their number.
    pub(super) fn only(&self, allowed: &[usize]) -> Result<(), Stop> {
        for (index, value) in self.inputs.iter().enumerate() {
            let free = value.as_ref().is_none_or(Value::is_free);
            if !free && !allowed.contains(&index) {
                return unknown(format!(
                    "its input '{}' is not the same for all rows",
                    self.name(index)
                ));
            }
        }
        Ok(())
    }

    /// The elements of a small whole-number input.
    pub(super) fn items(&self, index: usize) -> Result<&[Item], Stop> {
        match self.value(index)?.items.as_deref() {
            Some(items) => Ok(items),
            None => unknown(format!("the values of '{}' are not known", self.name(index))),
        }
    }

    /// The elements of a small whole-number input, all of them constant.
    pub(super) fn constants(&self, index: usize) -> Result<Vec<i64>, Stop> {
        let values: Option<Vec<i64>> = self.items(index)?.iter().map(Item::value).collect();
        match values {
            Some(values) => Ok(values),
            None => unknown(format!("the values of '{}' are not constant", self.name(index))),
        }
    }

    /// The elements of a small constant float input.
    pub(super) fn floats(&self, index: usize) -> Result<Vec<f64>, Stop> {
        match self.value(index)?.tensor.and_then(constant::floats) {
            Some(values) => Ok(values),
            None => unknown(format!("the values of '{}' are not constant", self.name(index))),
        }
    }

    /// Axes from an input, or from the setting of that name; none if both are absent.
    pub(super) fn axes(
        &self,
        name: &str,
        index: usize,
        rank: usize,
    ) -> Result<Option<Vec<usize>>, Stop> {
        let axes = match self.ints(name) {
            Some(axes) => axes.to_vec(),
            None if self.has(index) => self.constants(index)?,
            None => return Ok(None),
        };
        axes.into_iter().map(|axis| at(axis, rank)).collect::<Result<_, _>>().map(Some)
    }
}

/// An axis counted from the front.
pub(super) fn at(axis: i64, rank: usize) -> Result<usize, Stop> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let axis = if axis < 0 { axis.saturating_add(signed) } else { axis };
    match usize::try_from(axis) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => unknown(format!("axis {axis} of {rank} does not exist")),
    }
}
