//! What is asked of the machine: families, and arrivals that know nothing of how they are served.

/// The sizes that make up a point of the grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// The base's share of what the whole model costs.
    pub share: f64,
    /// The chance that, after one head, another asks for the same row while it matters.
    pub reuse: f64,
    /// Arrivals as a share of what the better fixed choice can bear.
    pub load: f64,
    /// Models of the family.
    pub heads: u32,
}

/// What a model costs: a run of `b` rows takes `fixed + (1 - fixed) * b` times a single row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// A single row of the whole model, in nanoseconds.
    pub whole_ns: f64,
    /// The share of it that more rows in a batch do not add to.
    pub fixed: f64,
    /// What a head's run costs more than its part of the whole: another hand-over.
    pub hop_ns: f64,
    /// What each of its rows costs more, as a share of the whole: base outputs are written and read.
    pub ship: f64,
    /// Until then something else slows the base down to a tenth.
    pub slowed_ns: u64,
}

/// A model of a millisecond that gains a third from batches.
pub(crate) const USUAL: Shape =
    Shape { whole_ns: 1e6, fixed: 0.3, hop_ns: 30e3, ship: 0.03, slowed_ns: 0 };

/// Rows of a batch, at most.
pub(crate) const BATCH_MAX: usize = 8;

/// Cores of the machine.
pub(crate) const CORES: u32 = 2;

/// How long the next head waits before it asks, on average, where it does not ask at once.
const GAP_NS: f64 = 5e6;

impl Shape {
    /// A run of so many rows of a part that makes up `share` of the whole, in nanoseconds.
    pub(crate) fn run(&self, share: f64, rows: usize) -> f64 {
        share * self.whole_ns * (self.fixed + (1.0 - self.fixed) * rows as f64)
    }

    /// The same of a head over a base of that share.
    pub(crate) fn head(&self, base: f64, rows: usize) -> f64 {
        self.run(1.0 - base, rows) + self.hop_ns + self.ship * self.whole_ns * rows as f64
    }
}

impl Point {
    /// How many heads ask for a row, on average.
    pub(crate) fn asks(&self) -> f64 {
        (0..self.heads).map(|more| self.reuse.powi(more.cast_signed())).sum()
    }

    /// Requests a second that the better fixed choice could bear at the very most, in full batches.
    pub(crate) fn limit(&self, shape: &Shape) -> f64 {
        let row = |run: f64| run / BATCH_MAX as f64;
        let whole = row(shape.run(1.0, BATCH_MAX));
        let base = row(shape.run(self.share, BATCH_MAX));
        let split = base / self.asks() + row(shape.head(self.share, BATCH_MAX));
        f64::from(CORES) * 1e9 / whole.min(split)
    }
}

/// One request: when it comes, which model it asks, and for which row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub at_ns: u64,
    pub head: u32,
    pub row: u64,
}

/// The same numbers for the same seed anywhere: splitmix64.
pub(crate) struct Draw(pub u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1, 1 excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Times between events of a Poisson process.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// So many requests a second: rows come by chance, and each is asked for by one head after the other.
///
/// Half of the heads that ask again do so at once, as when a caller wants all answers to one input. The first fifth
/// comes at half the rate: what a cold start costs an overloaded machine would hide all that follows.
pub(crate) fn trace(point: &Point, rate: f64, count: usize, seed: u64) -> Vec<Ask> {
    let mut draw = Draw(seed);
    let rows_a_second = rate / point.asks();
    let (mut at, mut asks) = (0.0, Vec::with_capacity(count + 8));
    for row in 0.. {
        if asks.len() >= count {
            break;
        }
        let gently = if asks.len() < count / 5 { 2.0 } else { 1.0 };
        at += draw.exponential(gently * 1e9 / rows_a_second);
        let first = draw.next() % u64::from(point.heads);
        let mut asked = at;
        for turn in 0..u64::from(point.heads) {
            if turn > 0 {
                if draw.unit() >= point.reuse {
                    break;
                }
                asked += if draw.unit() < 0.5 { 0.0 } else { draw.exponential(GAP_NS) };
            }
            let head = ((first + turn) % u64::from(point.heads)) as u32;
            asks.push(Ask { at_ns: asked as u64, head, row });
        }
    }
    asks.sort_by_key(|ask| ask.at_ns);
    asks
}
