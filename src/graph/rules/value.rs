//! What is known of a tensor while the graph is followed: where its rows lie, its shape, its small whole numbers.
//!
//! Separate because every operator's rule speaks these words and nothing else.
//!
//! # Invariants
//! `Batch` means: slice `i` along the batch axis depends on row `i` of the inputs alone, and the other axes do not
//! depend on the number of rows. `Free` means: the same whatever the rows and their number. Only
//! [`Value::laid`] and [`Value::free`] make such values, and they check the shape.

use super::shapes::{Item, Term, show};
use crate::graph::constant;
use crate::graph::proto::{NodeProto, TensorProto};
use std::rc::Rc;

/// Most axes of a tensor that is followed; ONNX Runtime's own limits are lower, a file's are not.
const RANK_MAX: usize = 64;

/// Where rows lie along an axis of size `outer x batch x inner`; a plain batch axis has ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lay {
    pub(super) axis: usize,
    pub(super) outer: Term,
    pub(super) inner: Term,
}

impl Lay {
    pub(super) const fn plain(axis: usize) -> Self {
        Self { axis, outer: Term::ONE, inner: Term::ONE }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.outer.is_one() && self.inner.is_one()
    }

    /// The same layout on another axis.
    pub(super) fn on(&self, axis: usize) -> Self {
        Self { axis, ..self.clone() }
    }

    fn size(&self) -> Option<Term> {
        self.outer.times(&self.inner)?.times(&Term::symbol(super::shapes::BATCH))
    }
}

/// How a tensor depends on the rows of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// Not at all.
    Free,
    /// On their number alone; what is known of it is in the items.
    Count,
    /// Row by row.
    Batch(Lay),
    /// Cannot tell, for this reason.
    Unknown(Rc<str>),
    /// Rows influence each other, for this reason.
    Mixed(Rc<str>),
}

/// What a row's elements say of its place in the batch.
///
/// Exporters index a batch by a range over its rows; that is harmless where each row picks itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing.
    #[default]
    Untold,
    /// Every element is the number of its row.
    Number,
    /// Along the last axis, the first element is the number of its row.
    FirstColumn,
    /// Something: the same row elsewhere in a batch would differ.
    Told,
}

/// What is known of one tensor.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    pub(super) rows: Rows,
    /// For a tensor of rows, what they say of their place.
    pub(super) place: Place,
    /// The size along each axis; none where not even their number is known.
    pub(super) dims: Option<Rc<[Item]>>,
    /// The elements of a small whole-number tensor.
    pub(super) items: Option<Rc<[Item]>>,
    /// The constant that it is.
    pub(super) tensor: Option<&'a TensorProto>,
}

/// Why an operator's rule stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It cannot tell.
    Unknown(String),
    /// Rows influence each other here.
    Mixes(String),
}

pub(super) fn unknown<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Unknown(why.into()))
}

pub(super) fn mixes<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Mixes(why.into()))
}

/// What a rule makes of a node: a value for each output.
pub(super) type Made<'a> = Result<Vec<Value<'a>>, Stop>;

impl<'a> Value<'a> {
    pub(super) const fn new(rows: Rows) -> Self {
        Self { rows, place: Place::Untold, dims: None, items: None, tensor: None }
    }

    /// A tensor that is the same whatever the rows.
    pub(super) fn free(dims: Vec<Item>) -> Self {
        if dims.len() > RANK_MAX {
            Self::new(Rows::Free)
        } else if dims.iter().all(Item::is_free) {
            Self { dims: Some(dims.into()), ..Self::new(Rows::Free) }
        } else {
            Self::new(Rows::Unknown("a shape depends on the number of rows".into()))
        }
    }

    /// A tensor of rows.
    pub(super) fn laid(lay: Lay, mut dims: Vec<Item>) -> Result<Self, Stop> {
        if dims.len() > RANK_MAX {
            return unknown("it has too many axes");
        }
        let size = lay.size().map_or(Item::Any, Item::Term);
        let Some(own) = dims.get_mut(lay.axis) else {
            return unknown("the batch axis is lost");
        };
        *own = size;
        let others = dims.iter().enumerate().filter(|(axis, _)| *axis != lay.axis);
        if others.clone().any(|(_, dim)| !dim.is_free()) {
            return unknown(format!(
                "the shape of a row depends on the number of rows: {}",
                show(&dims)
            ));
        }
        Ok(Self { dims: Some(dims.into()), ..Self::new(Rows::Batch(lay)) })
    }

    /// A tensor of rows, or a free one, with these sizes.
    pub(super) fn placed(lay: Option<Lay>, dims: Vec<Item>) -> Result<Self, Stop> {
        match lay {
            Some(lay) => Self::laid(lay, dims),
            None => Ok(Self::free(dims)),
        }
    }

    /// A small whole-number tensor.
    pub(super) fn numbers(dims: Vec<Item>, items: Vec<Item>) -> Self {
        let rows = if items.iter().all(Item::is_free) { Rows::Free } else { Rows::Count };
        Self { dims: Some(dims.into()), items: Some(items.into()), ..Self::new(rows) }
    }

    /// A list of whole numbers.
    pub(super) fn list(items: Vec<Item>) -> Self {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if items.len() > constant::ELEMENTS_MAX {
            return Self::new(if items.iter().all(Item::is_free) {
                Rows::Free
            } else {
                Rows::Count
            });
        }
        Self::numbers(vec![Item::constant(count)], items)
    }

    /// A constant of the file.
    pub(super) fn constant(tensor: &'a TensorProto) -> Self {
        let items = constant::ints(tensor);
        let own = Self { tensor: Some(tensor), ..Self::new(Rows::Free) };
        if tensor.dims.iter().any(|&dim| dim < 0) {
            return own;
        }
        let dims = tensor.dims.iter().map(|&dim| Item::constant(dim)).collect();
        Self {
            items: items.map(|items| items.into_iter().map(Item::constant).collect()),
            tensor: Some(tensor),
            ..Self::free(dims)
        }
    }

    pub(super) fn lay(&self) -> Option<&Lay> {
        match &self.rows {
            Rows::Batch(lay) => Some(lay),
            _ => None,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.rows == Rows::Free
    }

    /// The one element of a whole-number tensor of one element.
    pub(super) fn item(&self) -> Option<&Item> {
        match self.items.as_deref() {
            Some([item]) => Some(item),
            _ => None,
        }
    }
}

/// The name of an input as sentences show it.
pub(super) fn input_name(node: &NodeProto, index: usize) -> &str {
    node.input.get(index).map_or("", String::as_str)
}
