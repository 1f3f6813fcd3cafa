//! Exactly once: an engine that counts, under storms of requests, cancels and hang-ups.
//!
//! Invariants: a row in flight runs once; every request that stays gets exactly one answer, and the right
//! one; at the end every table is empty.

mod counting;
mod world;

use world::{Storm, World};

/// Requests of a storm.
const REQUESTS: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_in_flight_runs_exactly_once() {
    let world = World::new(Storm { requests: REQUESTS, seed: 1, ..Storm::default() });
    let seen = world.run().await;
    world.assert_empty().await;
    assert_eq!(seen.answered, REQUESTS as u64);
    assert_eq!(world.executions(), seen.opened, "executions per distinct row in flight");
    println!(
        "{REQUESTS} requests, {} rows, {} executions: {seen:?}",
        seen.rows,
        world.executions()
    );
    assert!(seen.joined > 0, "equal rows met: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_and_hang_ups_cost_nobody_an_answer() {
    let storm = Storm { requests: REQUESTS, seed: 2, cancel_once_in: 3, ..Storm::default() };
    let world = World::new(storm);
    let seen = world.run().await;
    world.assert_empty().await;
    let executions = world.executions();
    println!("{REQUESTS} requests, {} rows, {executions} executions: {seen:?}", seen.rows);
    assert_eq!(seen.answered + seen.cancelled, REQUESTS as u64);
    // A third tries to; how many are faster than their answer is the machine's affair.
    assert!(seen.cancelled > REQUESTS as u64 / 100, "{seen:?}");
    // What a cancelled request opened may have run or not, but no more than once.
    assert!(executions >= seen.opened, "{executions} executions: {seen:?}");
    assert!(executions <= seen.opened + seen.cancelled_rows, "{executions} executions: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_rows_do_not_run_again() {
    let storm =
        Storm { requests: REQUESTS / 4, seed: 3, cache_bytes: 64 << 20, ..Storm::default() };
    let world = World::new(storm);
    let seen = world.run().await;
    world.assert_empty().await;
    println!("{} rows, {} executions: {seen:?}", seen.rows, world.executions());
    assert_eq!(world.executions(), seen.opened);
    assert!(seen.hit > seen.rows / 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoned_rows_fail_alone_and_the_rest_is_answered() {
    let storm = Storm {
        requests: REQUESTS / 4,
        seed: 4,
        cancel_once_in: 10,
        poison: Some(97),
        ..Storm::default()
    };
    let world = World::new(storm);
    let seen = world.run().await;
    world.assert_empty().await;
    println!("{} rows, {} executions: {seen:?}", seen.rows, world.executions());
    assert_eq!(seen.answered + seen.cancelled + seen.failed, REQUESTS as u64 / 4);
    assert!(seen.failed > 0, "{seen:?}");
}
