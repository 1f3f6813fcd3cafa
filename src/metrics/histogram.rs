//! How long things took, or how large they were: counted in buckets that are fine enough for quantiles.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets between one power of two and the next, as a power of two: an eighth of the value at most is lost.
const FINE: u32 = 3;
/// Values of two to this power and more share the last buckets: 137 s, in nanoseconds.
const TOP: u32 = 37;
const BUCKETS: usize = ((TOP - FINE + 1) << FINE) as usize;

/// Counts of whole numbers, by size; any thread may add to it.
///
/// # Cost
/// Two atomic additions a value, 2 KiB of memory.
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    buckets: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
    /// How many there are.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, sum: AtomicU64::new(0) }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Snapshot { sum, count, .. } = self.snapshot();
        f.debug_struct("Histogram").field("sum", &sum).field("count", &count).finish()
    }
}

/// The bucket of a value. Bounds belong to the bucket below them, as Prometheus has it.
fn place(value: u64) -> usize {
    let below = value.saturating_sub(1).min((1 << TOP) - 1);
    if below < 1 << FINE {
        return below as usize;
    }
    let octave = below.ilog2();
    let within = (below >> (octave - FINE)) & ((1 << FINE) - 1);
    ((u64::from(octave - FINE + 1) << FINE) + within) as usize
}

/// The largest value of a bucket.
fn bound(place: usize) -> u64 {
    let (step, within) = ((place >> FINE) as u32, (place as u64) & ((1 << FINE) - 1));
    if step == 0 { within + 1 } else { ((1 << FINE) + within + 1) << (step - 1) }
}

impl Histogram {
    /// Adds a value.
    pub(crate) fn observe(&self, value: u64) {
        self.buckets[place(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What it holds now; what is added meanwhile may be counted and not yet summed up.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let sum = self.sum.load(Ordering::Relaxed);
        let buckets: Vec<u64> =
            self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count = buckets.iter().sum();
        Snapshot { buckets, sum, count }
    }
}

impl Snapshot {
    /// How many values are at most two to the power of `exponent`.
    pub(crate) fn up_to(&self, exponent: u32) -> u64 {
        let end = if exponent >= TOP { BUCKETS } else { place(1 << exponent) + 1 };
        self.buckets[..end].iter().sum()
    }

    /// The value that a share of all values does not exceed, at most an eighth too large; none of none.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(place, count)| {
            seen += count;
            (*count > 0 && seen >= rank).then(|| bound(place))
        })
    }

    /// This and another one together.
    pub(crate) fn merged(mut self, other: &Self) -> Self {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| *a += b);
        self.sum += other.sum;
        self.count += other.count;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_whose_bound_is_the_next_above() {
        let spread = (0..TOP).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
        for value in spread.chain(1..5000) {
            let at = place(value);
            assert!(value <= bound(at), "{value} in {at}");
            assert!(at == 0 || value > bound(at - 1), "{value} in {at}");
            assert!(bound(at) - value.max(1) <= value / 8 + 1, "{value}: {}", bound(at));
        }
        assert_eq!(bound(BUCKETS - 1), 1 << TOP);
        assert_eq!(place(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn powers_of_two_count_what_is_at_most_as_large() {
        let histogram = Histogram::default();
        [1, 2, 3, 8, 9, 1024, 1025, u64::MAX >> 8]
            .into_iter()
            .for_each(|value| histogram.observe(value));
        let found = histogram.snapshot();
        let table = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (10, 6), (11, 7), (36, 7), (37, 8)];
        for (exponent, count) in table {
            assert_eq!(found.up_to(exponent), count, "2^{exponent}");
        }
        assert_eq!(found.count, 8);
    }

    #[test]
    fn quantiles_are_an_eighth_off_at_most() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        (1..=10_000).for_each(|value| histogram.observe(value * 1000));
        let found = histogram.snapshot();
        for (share, exact) in [(0.0, 1000), (0.5, 5_000_000), (0.99, 9_900_000), (1.0, 10_000_000)]
        {
            let quantile = found.quantile(share).unwrap();
            assert!(quantile >= exact && quantile <= exact + exact / 8, "{share}: {quantile}");
        }
    }

    #[test]
    fn nothing_is_lost_when_many_threads_add() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let histogram = &histogram;
                scope.spawn(move || (0..20_000).for_each(|n| histogram.observe(n * 8 + thread)));
            }
        });
        let found = histogram.snapshot();
        assert_eq!((found.count, found.sum), (160_000, (0..160_000).sum()));
    }
}
