//! The compute that a store of base outputs saves on a Zipf trace of mixed sizes and costs, against simpler stores.

use crate::machine::kept::{asks, index, lru, saved};
use crate::support::Effort;
use crate::support::table::{Rounds, Table, Target};
use graftd::sched::event::Store;

const ASKS: usize = 200_000;
/// Shares of what the popular rows take in all, and the bytes of it: 20,000 rows of 6,750 bytes and 256.
const BUDGETS: [(&str, u64); 3] = [("2 %", 2_800_000), ("5 %", 7_000_000), ("20 %", 28_000_000)];

pub(crate) fn bench(effort: Effort, table: &mut Table) {
    let traces: Vec<_> = (1..=effort.rounds as u64).map(|seed| asks(ASKS, seed)).collect();
    for (share, budget) in BUDGETS {
        let by = |rule: &dyn Fn() -> Box<dyn FnMut(crate::machine::kept::Ask) -> bool>| {
            Rounds(traces.iter().map(|asks| saved(asks, &mut *rule())).collect())
        };
        let worth = by(&|| Box::new(index(Store::Bases, budget)));
        let rules = [
            (
                "LRU",
                by(&|| Box::new(lru(budget))),
                if budget < 5 << 20 { Target::AtLeast(1.25) } else { Target::None },
            ),
            ("SIEVE with the gate", by(&|| Box::new(index(Store::Answers, budget))), Target::None),
        ];
        for (rule, rounds, aim) in rules {
            let what =
                format!("compute saved by kept base outputs, {share} of them kept, against {rule}");
            let shown = |rounds: &Rounds| format!("{:.1} %", 100.0 * rounds.median());
            table.add(&what, &shown(&worth), &shown(&rounds), &worth.over(&rounds), aim);
        }
    }
}
