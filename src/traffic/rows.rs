//! Which row a request asks for: rows never seen before, or some much more often than others.

use super::Chance;
use rand_distr::{Distribution, StandardUniform, Zipf};

/// How often rows come again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// Every row is new.
    Unique,
    /// The k-th most wanted of so many rows comes as often as 1 / k^exponent says.
    Zipf {
        /// How many rows there are.
        keys: u64,
        /// How unequal they are; 0 is equal.
        exponent: f64,
        /// The share of requests for a row that comes once.
        once: f64,
    },
}

/// One row that everybody wants for some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flash {
    /// When it begins, in seconds from the start.
    pub from_s: f64,
    /// How many seconds it lasts.
    pub for_s: f64,
    /// The share of requests that ask for it meanwhile.
    pub share: f64,
}

/// The number of the row that everybody wants.
const WANTED: u64 = 0;
/// Rows that come once are numbered from here on.
const NEW: u64 = 1 << 40;

/// Rows to ask for, without end.
#[derive(Clone, Debug)]
pub struct Rows {
    zipf: Option<(Zipf<f64>, f64)>,
    flash: Option<Flash>,
    new: u64,
}

impl Rows {
    /// Rows of this popularity. With `new_from`, those that come once are others than those of another number.
    ///
    /// # Errors
    /// A sentence, when a figure makes no sense.
    pub fn new(
        popularity: Popularity,
        flash: Option<Flash>,
        new_from: u32,
    ) -> Result<Self, String> {
        let zipf = match popularity {
            Popularity::Unique => None,
            Popularity::Zipf { keys, exponent, once } => {
                if !(0.0..=1.0).contains(&once) {
                    return Err(format!(
                        "the share of rows that come once is {once}; expected 0 to 1"
                    ));
                }
                let zipf = Zipf::new(keys as f64, exponent);
                let zipf = zipf.map_err(|error| {
                    format!("{keys} rows with a Zipf exponent of {exponent}: {error}")
                })?;
                Some((zipf, once))
            }
        };
        Ok(Self { zipf, flash, new: NEW + (u64::from(new_from) << 32) })
    }

    /// The row that a request at a time asks for, the first of `count` one after the other.
    pub fn next(&mut self, at_s: f64, count: u32, chance: &mut Chance) -> u64 {
        let mut unit = || -> f64 { StandardUniform.sample(chance) };
        if let Some(flash) = self.flash
            && (flash.from_s..flash.from_s + flash.for_s).contains(&at_s)
            && unit() < flash.share
        {
            return WANTED;
        }
        match &self.zipf {
            Some((zipf, once)) if unit() >= *once => zipf.sample(chance) as u64,
            _ => {
                let new = self.new;
                self.new += u64::from(count);
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn drawn(popularity: Popularity, flash: Option<Flash>, count: usize) -> Vec<u64> {
        let mut rows = Rows::new(popularity, flash, 0).unwrap();
        let mut chance = Chance::new(3);
        (0..count).map(|at| rows.next(at as f64 / 1_000.0, 1, &mut chance)).collect()
    }

    #[test]
    fn unique_rows_never_come_again_and_differ_between_numbers() {
        let mut rows = drawn(Popularity::Unique, None, 10_000);
        let mut other = Rows::new(Popularity::Unique, None, 1).unwrap();
        rows.push(other.next(0.0, 3, &mut Chance::new(1)));
        rows.push(other.next(0.0, 1, &mut Chance::new(1)));
        assert_eq!(rows[10_001], rows[10_000] + 3);
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 10_002);
    }

    #[test]
    fn zipf_rows_come_as_often_as_their_rank_says() {
        let rows = drawn(Popularity::Zipf { keys: 100, exponent: 1.0, once: 0.1 }, None, 200_000);
        let mut counts = BTreeMap::<u64, usize>::new();
        rows.iter().for_each(|&row| *counts.entry(row).or_default() += 1);
        let once = rows.iter().filter(|&&row| row >= NEW).count();
        assert!(once.abs_diff(20_000) < 600, "{once}");
        // The harmonic number of 100 is 5.187.
        for rank in [1, 2, 10] {
            let expected = (180_000.0 / 5.187 / rank as f64) as usize;
            let found = counts[&rank];
            assert!(found.abs_diff(expected) < expected / 20, "rank {rank}: {found}, {expected}");
        }
    }

    #[test]
    fn a_flash_is_one_row_for_its_time() {
        let flash = Flash { from_s: 2.0, for_s: 3.0, share: 0.3 };
        let rows = drawn(Popularity::Unique, Some(flash), 10_000);
        let wanted: Vec<usize> = (0..rows.len()).filter(|&at| rows[at] == WANTED).collect();
        assert!(wanted.len().abs_diff(900) < 90, "{}", wanted.len());
        assert!(wanted[0] >= 2_000 && wanted[wanted.len() - 1] < 5_000);
    }

    #[test]
    fn figures_that_make_no_sense_are_said() {
        let zipf = |keys, exponent, once| {
            Rows::new(Popularity::Zipf { keys, exponent, once }, None, 0).map(|_| ())
        };
        assert!(zipf(0, 1.0, 0.0).unwrap_err().contains("0 rows"));
        assert!(zipf(10, -1.0, 0.0).unwrap_err().contains("exponent of -1"));
        assert!(zipf(10, 1.0, 1.5).unwrap_err().contains("0 to 1"));
    }
}
