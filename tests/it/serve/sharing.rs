//! Equal rows run once, in flight and afterwards, and not where a caller forbids it.

use super::ask::{Ask, Form, fp32};
use super::daemon::{Setup, needs_runtime};
use std::ops::Range;

/// Rows of `mlp` that all differ.
fn rows(range: Range<u16>) -> Ask {
    let count = range.len();
    let values: Vec<f32> = range
        .flat_map(|row| (0..16_u16).map(move |n| f32::from(row) + f32::from(n) / 16.0))
        .collect();
    Ask::new("mlp", vec![fp32("x", &[count, 16], &values)])
}

#[tokio::test]
async fn equal_rows_run_once_whatever_the_transport() {
    needs_runtime!();
    let flags = ["--max-batch-rows", "2", "--cache-bytes", "0"];
    let daemon = Setup::new(&["slow"]).flags(&flags).start().await;
    // The same four rows, sixteen times at once, behind rows that keep the sessions busy meanwhile.
    let ask = |rows: Range<u8>| {
        let values: Vec<f32> = rows.clone().flat_map(|row| vec![f32::from(row); 256]).collect();
        Ask::new("slow", vec![fp32("x", &[rows.len(), 256], &values)])
    };
    let (busy, same) = (ask(10..26), ask(0..4));
    let mut asked = vec![busy.of(&daemon, Form::Binary)];
    for _ in 0..4 {
        for form in [Form::Json, Form::Binary, Form::GrpcRaw, Form::GrpcContents] {
            asked.push(same.of(&daemon, form));
        }
    }
    let mut tasks = Vec::new();
    for future in asked {
        tasks.push(future);
    }
    let answers = join_all(tasks).await;
    let outputs: Vec<_> = answers[1..].iter().map(|got| &got.outputs).collect();
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
    let executed = daemon.metric("graftd_rows_executed_total").await;
    let joined = daemon.metric("graftd_rows_joined_total").await;
    assert_eq!((executed, joined), (20.0, 60.0));
}

/// Waits for all of them at once.
async fn join_all<T, E: std::fmt::Debug>(
    futures: Vec<impl Future<Output = Result<T, E>>>,
) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(context)
            {
                *slot = Some(result.expect("an answer"));
            }
        }
        let all = done.iter().all(Option::is_some);
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn known_rows_are_not_computed_again() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let route = async |ask: Ask, form| ask.of(&daemon, form).await.expect("an answer").route;
    assert_eq!(route(rows(0..20), Form::Binary).await, "hit=0 join=0 run=20");
    let fresh = rows(0..32).parameter("no_cache", true);
    let fresh = fresh.of(&daemon, Form::GrpcRaw).await.expect("an answer");
    assert_eq!(fresh.route, "hit=0 join=0 run=32");
    let mixed = rows(0..32).parameter("graftd_rows", true);
    let mixed = mixed.of(&daemon, Form::GrpcRaw).await.expect("an answer");
    assert_eq!(mixed.route, "hit=20 join=0 run=12");
    assert_eq!(mixed.rows, Some(format!("{}whole{}", "hit,".repeat(20), ",whole".repeat(11))));
    let close = super::ask::singles(&fresh.outputs[0])
        .into_iter()
        .zip(super::ask::singles(&mixed.outputs[0]));
    assert!(close.into_iter().all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)));
    assert_eq!(route(rows(0..32), Form::Json).await, "hit=32 join=0 run=0");
    assert_eq!(daemon.metric("graftd_rows_hit_total").await, 52.0);
    assert_eq!(daemon.metric("graftd_rows_executed_total").await, 64.0);
}

#[tokio::test]
async fn a_caller_may_forbid_sharing() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    for form in [Form::Binary, Form::GrpcContents] {
        let first = if form == Form::Binary { 0 } else { 100 };
        let route = async |ask: Ask| ask.of(&daemon, form).await.expect("an answer").route;
        let unkept = rows(first..first + 2).parameter("no_store", true);
        assert_eq!(route(unkept.clone()).await, "hit=0 join=0 run=2");
        assert_eq!(route(unkept.clone()).await, "hit=0 join=0 run=2");
        assert_eq!(route(rows(first..first + 2)).await, "hit=0 join=0 run=2");
        // It may still be answered from what others let be kept.
        assert_eq!(route(unkept).await, "hit=2 join=0 run=0");
        let twice = |row: u16| {
            let mut ask = rows(row..row + 1);
            ask.inputs[0].data = [&ask.inputs[0].data[..], &ask.inputs[0].data[..]].concat().into();
            ask.inputs[0].shape.0[0] = 2;
            ask
        };
        assert_eq!(route(twice(first + 10)).await, "hit=0 join=1 run=1");
        let apart = twice(first + 20).parameter("no_dedupe", true);
        assert_eq!(route(apart).await, "hit=0 join=0 run=2");
    }
}

#[tokio::test]
async fn random_models_are_never_shared() {
    needs_runtime!();
    let names = ["random", "random_seeded", "random_in_if", "random_in_function"];
    let daemon = Setup::new(&names).start().await;
    for name in names {
        let ask = Ask::new(name, vec![fp32("x", &[1, 4], &[1.0; 4])]);
        let first = ask.of(&daemon, Form::Binary).await.expect("an answer");
        let second = ask.of(&daemon, Form::Binary).await.expect("an answer");
        assert_eq!((&*first.route, &*second.route), ("hit=0 join=0 run=1", "hit=0 join=0 run=1"));
        assert_ne!(first.outputs, second.outputs, "{name}");
    }
}

#[tokio::test]
async fn a_model_may_be_set_apart_from_the_others() {
    needs_runtime!();
    let flags = ["--set", "mlp.cache=off", "--set", "mlp.max_batch_rows=2"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    for _ in 0..2 {
        let answer = rows(0..4).of(&daemon, Form::Binary).await.expect("an answer");
        assert_eq!(answer.route, "hit=0 join=0 run=4");
    }
    let batches = daemon.metric("graftd_batch_rows_count").await;
    assert!(batches >= 4.0, "{batches} batches of two for eight rows");
}
