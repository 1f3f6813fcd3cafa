//! What a store of base outputs saves on a trace of popular and rare rows of mixed sizes and costs.

use super::device::key;
use super::trace::Draw;
use graftd::id::{RowKey, StageId};
use graftd::sched::cache::{OVERHEAD_BYTES, RowIndex};
use graftd::sched::event::Store;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows that are asked for time and again, by Zipf's law.
const ROWS: usize = 20_000;

/// Of all asks, in a hundred, those for rows that nobody asks for again.
const ONCE: u64 = 20;

/// One ask for a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    key: RowKey,
    bytes: u64,
    cost: Duration,
}

/// A store that is told of every ask, and says whether it had the row.
pub(crate) type Serve<'a> = dyn FnMut(Ask) -> bool + 'a;

/// Asks by Zipf's law with exponent 1, with sizes and costs that differ by orders of magnitude.
pub(crate) fn asks(count: usize, seed: u64) -> Vec<Ask> {
    let mut draw = Draw(seed);
    let mut total = 0.0;
    let shares: Vec<f64> = (1..=ROWS)
        .map(|rank| {
            total += 1.0 / rank as f64;
            total
        })
        .collect();
    (0..count as u64)
        .map(|number| {
            let point = draw.unit() * total;
            let rank = shares.partition_point(|&share| share < point) as u64;
            let row = if draw.next() % 100 < ONCE { ROWS as u64 + number } else { rank };
            let mut of_row = Draw(row ^ seed << 32);
            let cost = Duration::from_nanos((1e6 * lognormal(&mut of_row)) as u64);
            Ask {
                key: key(StageId(0), row),
                bytes: (4_096.0 * lognormal(&mut of_row)) as u64,
                cost,
            }
        })
        .collect()
}

/// A number around 1, with a standard deviation of 1 in its logarithm.
fn lognormal(draw: &mut Draw) -> f64 {
    let radius = (-2.0 * (1.0 - draw.unit()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * draw.unit()).cos()).exp()
}

/// The share of the compute that a store saves, the first fifth not counted.
pub(crate) fn saved(asks: &[Ask], serve: &mut Serve<'_>) -> f64 {
    let (mut saved, mut all) = (0.0, 0.0);
    for (number, &ask) in asks.iter().enumerate() {
        let hit = serve(ask);
        if number >= asks.len() / 5 {
            all += ask.cost.as_secs_f64();
            saved += if hit { ask.cost.as_secs_f64() } else { 0.0 };
        }
    }
    saved / all
}

/// The scheduler's own index: by compute saved a byte for base outputs, by SIEVE for answers.
pub(crate) fn index(store: Store, budget: u64) -> impl FnMut(Ask) -> bool {
    let mut index = RowIndex::new(store, budget);
    move |ask| {
        let hit = index.ask(&ask.key).is_some();
        if !hit {
            index.admit(ask.key, ask.bytes, ask.cost);
        }
        hit
    }
}

/// The least recently used row goes first, and every row is let in.
pub(crate) fn lru(budget: u64) -> impl FnMut(Ask) -> bool {
    let (mut rows, mut by_age, mut bytes, mut now) = (BTreeMap::new(), BTreeMap::new(), 0, 0_u64);
    move |ask| {
        now += 1;
        let size = ask.bytes + OVERHEAD_BYTES;
        let before = rows.insert(ask.key, (now, size));
        match before {
            Some((then, _)) => {
                by_age.remove(&then);
            }
            None => bytes += size,
        }
        by_age.insert(now, ask.key);
        while bytes > budget {
            let Some((_, oldest)) = by_age.pop_first() else { break };
            bytes -= rows.remove(&oldest).map_or(0, |(_, size)| size);
        }
        before.is_some()
    }
}
