//! What the scheduler decides about bases, held against simpler rules on a clock of its own.
//!
//! A thinned grid and a short trace; `make bench` prints the whole tables.

use crate::machine::device::run;
use crate::machine::goodput::Regime;
use crate::machine::grid::{compare, points};
use crate::machine::kept;
use crate::machine::trace::{Point, Shape, USUAL, trace};
use graftd::sched::event::Store;
use graftd::sched::reuse::Policy;
use graftd::simulate::machine as simulate;

/// What the learned choice may cost over the better fixed one.
const WORST: f64 = 1.05;

#[test]
fn the_learned_choice_is_nearly_as_good_as_the_better_fixed_one_and_far_better_than_the_worse() {
    let mut to_worst: f64 = 0.0;
    // Below saturation by the mean time to an answer, near it by the answers in time.
    for point in points(&[0.2, 0.8], &[0.0, 0.5, 0.9], &[0.3, 0.95], &[2, 8]) {
        let compared = compare(point, &USUAL, 2_500, 1);
        assert!(compared.to_best() <= WORST, "{:.3}: {compared:?}", compared.to_best());
        assert!(compared.mean_to_best() <= 1.6, "{:.3}: {compared:?}", compared.mean_to_best());
        let worse = compared.always.p99.max(compared.never.p99);
        assert!(compared.auto.p99 <= 1.1 * worse, "a tail of its own: {compared:?}");
        to_worst = to_worst.max(compared.to_worst());
    }
    assert!(to_worst >= 1.5, "{to_worst:.2}");
}

#[test]
fn with_nothing_to_share_hardly_a_row_takes_the_way_through_the_base() {
    let point = Point { share: 0.8, reuse: 0.0, load: 0.1, heads: 4 };
    let compared = compare(point, &USUAL, 5_000, 1);
    let routes = compared.auto.routes;
    assert!(routes.recompute > 0, "the way not taken is never tried: {routes:?}");
    assert!(routes.recompute * 100 <= routes.run(), "{routes:?}");
}

#[test]
fn a_base_that_was_slow_for_a_while_is_taken_again() {
    let point = Point { share: 0.8, reuse: 0.9, load: 0.1, heads: 4 };
    let asks = trace(&point, 200.0, 10_000, 1);
    let slowed = Shape { slowed_ns: asks[2_000].at_ns, ..USUAL };
    let routes = run(&point, &slowed, &asks, Policy::Auto).routes;
    assert!(routes.recompute > routes.whole, "{routes:?}");
}

#[test]
fn base_outputs_kept_by_what_they_save_save_more_than_by_sieve_or_by_age() {
    let asks = kept::asks(60_000, 1);
    // About a fiftieth of what all popular rows would take.
    let budget = 3 << 20;
    let by_worth = kept::saved(&asks, &mut kept::index(Store::Bases, budget));
    let by_sieve = kept::saved(&asks, &mut kept::index(Store::Answers, budget));
    let by_age = kept::saved(&asks, &mut kept::lru(budget));
    println!(
        "saved of the compute: {by_worth:.3} by worth, {by_sieve:.3} by SIEVE, {by_age:.3} by age"
    );
    assert!(by_worth > 1.25 * by_age, "{by_worth} to {by_age}");
    assert!(by_worth > 1.03 * by_sieve, "{by_worth} to {by_sieve}");
}

#[test]
fn told_of_deadlines_it_answers_more_in_time_than_eager_batching_and_wastes_nothing() {
    let regime = Regime {
        name: "a transformer",
        row_ms: 8.0,
        fixed_ms: 12.0,
        within_ms: 150.0,
        batch_max: 16,
        cv: 2.0,
        ..Regime::PLAIN
    };
    let (ours, eager) = (
        regime.goodput(simulate::Policy::Learned, 4_000, 1),
        regime.goodput(simulate::Policy::Eager, 4_000, 1),
    );
    assert!(ours >= 1.1 * eager, "{}: {ours:.2} of capacity, eager {eager:.2}", regime.name);
    let overloaded = regime.serve(2.0, simulate::Policy::Learned, 4_000, 1);
    assert!(overloaded.on_time_rate >= 0.85 && overloaded.wasted <= 0.05, "{overloaded:?}");
}

#[test]
fn the_larger_the_share_that_is_to_be_in_time_the_fewer_answers_are_late() {
    let late = |quantile| {
        let regime =
            Regime { name: "uneven runs", noise: 0.3, within_ms: 40.0, quantile, ..Regime::PLAIN };
        regime.serve(1.2, simulate::Policy::Learned, 20_000, 1).late
    };
    let [often, usual, seldom] = ["0.5", "0.99", "0.999"].map(late);
    assert!(often > 2.0 * usual && usual > 2.0 * seldom, "{often} {usual} {seldom}");
    assert!(seldom < 0.0015, "{seldom} of them, and one in a thousand may be");
}

#[test]
fn in_overload_heads_and_models_that_share_a_device_waste_little_of_it() {
    for base_share in [None, Some(0.8)] {
        let regime = Regime {
            name: "twelve transformers",
            row_ms: 4.0,
            fixed_ms: 6.0,
            within_ms: 150.0,
            batch_max: 16,
            cv: 1.0,
            models: 12,
            base_share,
            ..Regime::PLAIN
        };
        let overloaded = regime.serve(1.5, simulate::Policy::Learned, 6_000, 1);
        assert!(overloaded.wasted <= 0.06, "{base_share:?}: {overloaded:?}");
        assert!(overloaded.on_time_rate >= 0.5, "{base_share:?}: {overloaded:?}");
    }
}
