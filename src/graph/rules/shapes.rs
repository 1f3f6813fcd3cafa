//! Sizes as symbols: `batch x 12 x length` rather than numbers.
//!
//! Separate because exporters compute shapes inside the graph, and whether a Reshape keeps rows whole can only be
//! told by following those sums with the batch size left open.
//!
//! # Invariants
//! A [`Term`] is a product of a whole number and sizes; a size is never negative. What is not such a product is
//! [`Item::Free`] while it cannot depend on the batch size and [`Item::Any`] otherwise: never a guess.

use std::fmt;

/// A size that is open: [`BATCH`], or one of the sizes that do not depend on it.
pub(super) type Symbol = u32;

/// The number of rows.
pub(super) const BATCH: Symbol = 0;

/// A whole number times open sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    factor: i64,
    /// Sorted; a square has its symbol twice.
    symbols: Vec<Symbol>,
}

impl Term {
    pub(super) const ONE: Self = Self { factor: 1, symbols: Vec::new() };

    pub(super) const fn constant(factor: i64) -> Self {
        Self { factor, symbols: Vec::new() }
    }

    pub(super) fn symbol(symbol: Symbol) -> Self {
        Self { factor: 1, symbols: vec![symbol] }
    }

    pub(super) fn value(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.factor)
    }

    pub(super) fn is_one(&self) -> bool {
        *self == Self::ONE
    }

    pub(super) fn has_batch(&self) -> bool {
        // Sorted, and BATCH is the smallest.
        self.symbols.first() == Some(&BATCH)
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let factor = self.factor.checked_mul(other.factor)?;
        if factor == 0 {
            return Some(Self::constant(0));
        }
        // A product of more sizes than any tensor has axes comes from a hostile graph.
        if self.symbols.len() + other.symbols.len() > 32 {
            return None;
        }
        let mut symbols = [self.symbols.as_slice(), &other.symbols].concat();
        symbols.sort_unstable();
        Some(Self { factor, symbols })
    }

    /// The quotient where it is again such a product, whatever the sizes are.
    pub(super) fn over(&self, other: &Self) -> Option<Self> {
        if other.factor == 0 || self.factor.checked_rem(other.factor)? != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let at = symbols.iter().position(|own| own == symbol)?;
            symbols.remove(at);
        }
        Some(Self { factor: self.factor.checked_div(other.factor)?, symbols })
    }

    fn plus(&self, other: &Self, sign: i64) -> Option<Self> {
        let addend = other.factor.checked_mul(sign)?;
        if other.factor == 0 {
            return Some(self.clone());
        }
        if self.factor == 0 {
            return Some(Self { factor: addend, symbols: other.symbols.clone() });
        }
        if self.symbols != other.symbols {
            return None;
        }
        match self.factor.checked_add(addend)? {
            0 => Some(Self::constant(0)),
            factor => Some(Self { factor, symbols: self.symbols.clone() }),
        }
    }

    /// The product with one row and every other open size taken as this number.
    pub(super) fn estimate(&self, open: f64) -> f64 {
        let open_sizes = self.symbols.iter().filter(|&&symbol| symbol != BATCH);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let factor = self.factor.max(0) as f64;
        open_sizes.fold(factor, |product, _| product * open)
    }

    /// The product of several.
    pub(super) fn product<'a>(terms: impl IntoIterator<Item = Option<&'a Self>>) -> Option<Self> {
        terms.into_iter().try_fold(Self::ONE, |product, term| product.times(term?))
    }
}

/// What is known of one size or one element of a small whole-number tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// This product.
    Term(Term),
    /// Unknown, but the same whatever the batch.
    Free,
    /// Unknown, and may depend on the batch size.
    Any,
}

impl Item {
    pub(super) const fn constant(value: i64) -> Self {
        Self::Term(Term::constant(value))
    }

    pub(super) const fn term(&self) -> Option<&Term> {
        match self {
            Self::Term(term) => Some(term),
            Self::Free | Self::Any => None,
        }
    }

    pub(super) fn value(&self) -> Option<i64> {
        self.term().and_then(Term::value)
    }

    /// Whether it is the same whatever the batch.
    pub(super) fn is_free(&self) -> bool {
        match self {
            Self::Term(term) => !term.has_batch(),
            Self::Free => true,
            Self::Any => false,
        }
    }

    fn vague(&self, other: &Self) -> Self {
        if self.is_free() && other.is_free() { Self::Free } else { Self::Any }
    }

    fn exact(&self, other: &Self, with: impl Fn(&Term, &Term) -> Option<Term>) -> Self {
        match (self, other) {
            (Self::Term(a), Self::Term(b)) => with(a, b).map(Self::Term),
            _ => None,
        }
        .unwrap_or_else(|| self.vague(other))
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        self.exact(other, |a, b| a.plus(b, 1))
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        self.exact(other, |a, b| a.plus(b, -1))
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        self.exact(other, Term::times)
    }

    /// Division as ONNX does it on whole numbers; exact quotients only.
    pub(super) fn over(&self, other: &Self) -> Self {
        self.exact(other, |a, b| match (a.value(), b.value()) {
            (Some(a), Some(b)) => a.checked_div(b).map(Term::constant),
            _ => a.over(b),
        })
    }

    pub(super) fn numbers(&self, other: &Self, with: impl Fn(i64, i64) -> Option<i64>) -> Self {
        self.exact(other, |a, b| with(a.value()?, b.value()?).map(Term::constant))
    }

    /// Compares, knowing that open sizes are not negative: one or zero, or unknown.
    pub(super) fn compare(&self, other: &Self, holds: impl Fn(std::cmp::Ordering) -> bool) -> Self {
        let order = match (self, other) {
            (Self::Term(a), Self::Term(b)) if a == b => Some(std::cmp::Ordering::Equal),
            (Self::Term(a), Self::Term(b)) => match (a.value(), b.value()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                (None, Some(b)) if a.factor > 0 && b < 0 => Some(std::cmp::Ordering::Greater),
                (Some(a), None) if b.factor > 0 && a < 0 => Some(std::cmp::Ordering::Less),
                _ => None,
            },
            _ => None,
        };
        order.map_or_else(|| self.vague(other), |order| Self::constant(i64::from(holds(order))))
    }

    /// One of two, chosen by a condition.
    pub(super) fn choose(condition: &Self, yes: &Self, no: &Self) -> Self {
        match condition.value() {
            Some(0) => no.clone(),
            Some(_) => yes.clone(),
            None if yes == no => yes.clone(),
            None if condition.is_free() => yes.vague(no),
            None => Self::Any,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Term(term) = self else { return f.write_str("?") };
        if term.symbols.is_empty() {
            return write!(f, "{}", term.factor);
        }
        let mut lead = "";
        if term.factor != 1 {
            write!(f, "{}", term.factor)?;
            lead = "*";
        }
        for symbol in &term.symbols {
            match *symbol {
                BATCH => write!(f, "{lead}batch")?,
                other => write!(f, "{lead}d{other}")?,
            }
            lead = "*";
        }
        Ok(())
    }
}

/// A shape as sentences show it.
pub(super) fn show(items: &[Item]) -> String {
    let parts: Vec<String> = items.iter().map(Item::to_string).collect();
    format!("[{}]", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(symbol: Symbol) -> Item {
        Item::Term(Term::symbol(symbol))
    }

    #[test]
    fn arithmetic_keeps_products_and_gives_up_on_sums() {
        let check = |found: Item, expected: &str| assert_eq!(found.to_string(), expected);
        let (batch, length) = (size(BATCH), size(3));
        let rows = batch.times(&length).times(&Item::constant(12));
        check(rows.clone(), "12*batch*d3");
        check(rows.over(&length), "12*batch");
        check(rows.over(&Item::constant(4)), "3*batch*d3");
        check(rows.plus(&rows), "24*batch*d3");
        check(rows.minus(&rows), "0");
        check(Item::constant(-7).over(&Item::constant(2)), "-3");
        assert_eq!(rows.over(&Item::constant(5)), Item::Any);
        assert_eq!(length.plus(&Item::constant(1)), Item::Free);
        assert_eq!(batch.plus(&Item::constant(1)), Item::Any);
        assert_eq!(Item::constant(1).over(&Item::constant(0)), Item::Free);
        assert_eq!(
            Item::constant(i64::MIN).over(&Item::constant(-1)),
            Item::Free,
            "overflow is unknown, not a panic"
        );
        assert_eq!(batch.times(&Item::Free), Item::Any);
        check(batch.times(&Item::constant(0)), "0");
    }

    #[test]
    fn comparisons_know_that_sizes_are_not_negative() {
        let equal = |a: &Item, b: &Item| a.compare(b, std::cmp::Ordering::is_eq);
        assert_eq!(equal(&size(BATCH), &Item::constant(-1)), Item::constant(0));
        assert_eq!(equal(&size(BATCH), &size(BATCH)), Item::constant(1));
        assert_eq!(equal(&size(BATCH), &Item::constant(1)), Item::Any);
        assert_eq!(equal(&size(2), &Item::constant(1)), Item::Free);
        let chosen = Item::choose(&Item::Free, &Item::constant(1), &Item::constant(2));
        assert_eq!(chosen, Item::Free);
        let chosen = Item::choose(&Item::Any, &Item::constant(1), &Item::constant(2));
        assert_eq!(chosen, Item::Any);
    }
}
