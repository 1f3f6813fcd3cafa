//! What batches of any size cost, from the sizes that were seen: more rows never take less.

/// A size that was seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The rows of its batches.
    pub rows: usize,
    /// Runs that it was seen in, as far as they are remembered.
    pub runs: u64,
    /// It ran often enough to be believed.
    pub believed: bool,
    /// What a run took, in nanoseconds.
    pub ns: u64,
}

/// What batches cost, by their rows: times that never fall, in between which lines are drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve(Vec<(usize, u64)>);

impl Curve {
    /// Fits what was seen, the smallest size first.
    ///
    /// Believed sizes of which the larger took less are pooled with those beside them until none does. The others say
    /// only what these leave open: they count for no less than a smaller size, for no more than a larger one, and
    /// beyond the largest for no more than in proportion to it: first runs are slow, and a size that looks dear is not
    /// run again.
    #[must_use]
    pub fn fit(seen: &[Seen]) -> Self {
        let some = seen.iter().any(|size| size.believed);
        let known: Vec<Seen> = seen.iter().filter(|size| size.believed || !some).copied().collect();
        let known = pooled(&known);
        let mut least = 0;
        let fitted = seen.iter().map(|&Seen { rows, ns, .. }| {
            let at = known.partition_point(|&(size, _)| size < rows);
            let ns = match (known.get(at), at.checked_sub(1).map(|below| known[below])) {
                (Some(&(size, own)), _) if size == rows => own,
                (Some(&(_, above)), _) => ns.min(above),
                (None, Some(largest)) => ns.min(in_proportion(largest, rows)),
                (None, None) => ns,
            };
            least = least.max(ns);
            (rows, least)
        });
        Self(fitted.collect())
    }

    /// What a batch takes, in nanoseconds: between two sizes that were seen what lies between them, beyond the largest
    /// in proportion to it, and below the smallest what that takes. None where none was seen.
    #[must_use]
    pub fn at(&self, rows: usize) -> Option<u64> {
        let at = self.0.partition_point(|&(size, _)| size < rows);
        let below = at.checked_sub(1).map(|below| self.0[below]);
        match (below, self.0.get(at).copied()) {
            (None, above) => above.map(|(_, ns)| ns),
            (Some(largest), None) => Some(in_proportion(largest, rows)),
            (Some((less, low)), Some((more, high))) => {
                let parts = (high - low) as u128 * (rows - less) as u128 / (more - less) as u128;
                Some(low + parts as u64)
            }
        }
    }
}

/// The times of these sizes, none less than that of a smaller one: those that would be are pooled with it, each counted
/// as often as it ran (pool adjacent violators).
fn pooled(sizes: &[Seen]) -> Vec<(usize, u64)> {
    let mut pools: Vec<Pool> = Vec::with_capacity(sizes.len());
    for size in sizes {
        let runs = u128::from(size.runs.max(1));
        let mut pool = Pool { sizes: 1, runs, sum: runs * u128::from(size.ns) };
        while let Some(below) = pools.pop_if(|below| below.mean() > pool.mean()) {
            pool.sizes += below.sizes;
            pool.runs += below.runs;
            pool.sum += below.sum;
        }
        pools.push(pool);
    }
    let times = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.mean(), pool.sizes));
    sizes.iter().map(|size| size.rows).zip(times).collect()
}

/// Sizes beside each other that are held to take the same.
struct Pool {
    sizes: usize,
    runs: u128,
    sum: u128,
}

impl Pool {
    fn mean(&self) -> u64 {
        u64::try_from(self.sum / self.runs).unwrap_or(u64::MAX)
    }
}

/// What so many rows take where a batch of `size` takes `ns`.
fn in_proportion((size, ns): (usize, u64), rows: usize) -> u64 {
    let ns = u128::from(ns) * rows as u128 / size.max(1) as u128;
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn believed(rows: usize, ns: u64) -> Seen {
        Seen { rows, runs: 4, believed: true, ns }
    }

    fn thin(rows: usize, ns: u64) -> Seen {
        Seen { rows, runs: 1, believed: false, ns }
    }

    fn at(seen: &[Seen], rows: &[usize]) -> Vec<u64> {
        let curve = Curve::fit(seen);
        rows.iter().map(|&rows| curve.at(rows).unwrap()).collect()
    }

    #[test]
    fn a_larger_size_that_took_less_is_pooled_with_the_smaller() {
        let seen = [believed(1, 100), believed(4, 600), believed(8, 400), believed(16, 900)];
        assert_eq!(at(&seen, &[1, 4, 6, 8, 12, 16, 32]), [100, 500, 500, 500, 700, 900, 1_800]);
        let often = Seen { runs: 32, ..believed(8, 400) };
        assert_eq!(at(&[believed(4, 600), often], &[4, 8]), [422, 422]);
        assert_eq!(Curve::fit(&[]).at(1), None);
    }

    #[test]
    fn sizes_that_hardly_ran_say_what_those_that_did_leave_open() {
        let known = [believed(2, 200), believed(8, 400)];
        let with = |size: Seen| {
            let mut seen = [known[0], known[1], size];
            seen.sort_by_key(|size| size.rows);
            at(&seen, &[1, 2, 4, 8, 16])
        };
        assert_eq!(with(thin(4, 9_000)), [200, 200, 400, 400, 800]);
        assert_eq!(with(thin(4, 10)), [200, 200, 200, 400, 800]);
        assert_eq!(with(thin(1, 9_000)), [200, 200, 266, 400, 800], "its first run was slow");
        assert_eq!(with(thin(16, 9_000)), [200, 200, 266, 400, 800], "no more than in proportion");
        assert_eq!(with(thin(16, 500)), [200, 200, 266, 400, 500]);
        assert_eq!(with(thin(16, 50)), [200, 200, 266, 400, 400]);
    }

    proptest! {
        #[test]
        fn more_rows_never_take_less(
            sizes in prop::collection::btree_map(1_usize..200, (1_u64..33, any::<bool>(), any::<u64>()), 1..20)
        ) {
            let seen = sizes.into_iter();
            let seen: Vec<Seen> =
                seen.map(|(rows, (runs, believed, ns))| Seen { rows, runs, believed, ns }).collect();
            let curve = Curve::fit(&seen);
            let mut last = 0;
            for rows in 0..300 {
                let ns = curve.at(rows).unwrap();
                prop_assert!(ns >= last, "{rows} rows: {ns} after {last}");
                last = ns;
            }
        }
    }
}
