//! The highest rate at which a target holds, found by trying.

/// A search between a rate that holds and one that does not, each a step apart from the next try by halves.
#[derive(Clone, Debug)]
pub struct Search {
    holds: f64,
    fails: Option<f64>,
    next: f64,
    precision: f64,
}

impl Search {
    /// A search from a first guess, until it is known to a share of the rate.
    #[must_use]
    pub const fn from(guess: f64, precision: f64) -> Self {
        Self { holds: 0.0, fails: None, next: guess, precision }
    }

    /// The rate to try next; none once it is found.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let open = self.fails.is_none_or(|fails| fails - self.holds > self.precision * fails);
        // What fails at any rate is not tried for ever.
        (open && self.next > 1e-3).then_some(self.next)
    }

    /// Whether the target held at the rate that was to be tried.
    pub fn learn(&mut self, held: bool) {
        if held {
            self.holds = self.next;
        } else {
            self.fails = Some(self.next);
        }
        self.next = match self.fails {
            None => self.holds * 1.5,
            Some(fails) if self.holds == 0.0 => fails / 2.0,
            Some(fails) => f64::midpoint(self.holds, fails),
        };
    }

    /// The highest rate at which the target held; 0 where it never did.
    #[must_use]
    pub const fn found(&self) -> f64 {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(guess: f64, limit: f64) -> (f64, usize) {
        let (mut search, mut tries) = (Search::from(guess, 0.02), 0);
        while let Some(rate) = search.next() {
            search.learn(rate <= limit);
            tries += 1;
        }
        (search.found(), tries)
    }

    #[test]
    fn any_limit_is_found_from_any_guess_in_few_tries() {
        for guess in [1.0, 100.0, 10_000.0] {
            for limit in [3.0, 140.0, 9_000.0, 123_456.0] {
                let (found, tries) = search(guess, limit);
                assert!(found <= limit && found >= limit * 0.97, "{found} for {limit}");
                assert!(tries < 45, "{tries} tries from {guess} to {limit}");
            }
        }
    }

    #[test]
    fn what_never_holds_ends() {
        let (found, tries) = search(1_000.0, 0.0);
        assert!(found == 0.0 && tries < 30, "{found} after {tries}");
    }
}
