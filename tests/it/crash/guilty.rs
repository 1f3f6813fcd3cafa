//! Rows that end the process that runs them, or only fail, among rows that do not.

use super::crowd::{Ask, all, int64};
use crate::daemon::{Chance, Daemon, Settings, library};
use graftd::error::ErrorKind;
use graftd::rows::Inputs;
use std::sync::Arc;

/// The columns of a row of `div`.
const COLUMNS: usize = 4;

/// A request to `div`.
fn division(a: &[i64], b: &[i64]) -> Inputs {
    let rows = a.len() / COLUMNS;
    let tensor = |values| int64(&[rows, COLUMNS], Some(0), values);
    Inputs { tensors: vec![tensor(a), tensor(b)], rows }
}

fn good(chance: &mut Chance) -> (Vec<i64>, Vec<i64>) {
    let count = COLUMNS * (1 + chance.below(3));
    let a: Vec<i64> = (0..count).map(|_| chance.next() as i64 >> 8).collect();
    let b: Vec<i64> = (0..count).map(|_| 1 + chance.below(1000) as i64).collect();
    (a, b)
}

fn ask(a: &[i64], b: &[i64], fault: Option<ErrorKind>) -> Ask {
    let quotient = |(a, b): (&i64, &i64)| (a / b).to_le_bytes();
    let expected = match fault {
        Some(kind) => Err(kind),
        None => Ok(a.iter().zip(b).flat_map(quotient).collect()),
    };
    Ask { inputs: division(a, b), expected }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rows_that_kill_their_process_fail() {
    let Some(library) = library("only_rows_that_kill_their_process_fail") else { return };
    let daemon = Arc::new(Daemon::start("guilty", Settings::new(library)));
    let spec = daemon.load_fixture("div").await;
    let mut chance = Chance::new(1);
    let crowd = (0..1000).map(|number| {
        let (mut a, mut b) = good(&mut chance);
        let at = chance.below(a.len());
        match number % 50 {
            7 => {
                (a[at], b[at]) = (i64::MIN, -1);
                ask(&a, &b, Some(ErrorKind::ModelCrashed))
            }
            23 => {
                b[at] = 0;
                ask(&a, &b, Some(ErrorKind::ModelFailed))
            }
            _ => ask(&a, &b, None),
        }
    });
    let crowd = crowd.collect();
    all(&daemon, &spec, crowd).await;
    daemon.assert_empty().await;
    println!("{} workers died", daemon.deaths());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guilty_row_that_comes_again_ends_no_process() {
    let Some(library) = library("a_guilty_row_that_comes_again_ends_no_process") else { return };
    let daemon = Arc::new(Daemon::start("again", Settings::new(library)));
    let spec = daemon.load_fixture("div").await;
    let guilty = || ask(&[i64::MIN, 1, 1, 1], &[-1, 1, 1, 1], Some(ErrorKind::ModelCrashed));
    all(&daemon, &spec, vec![guilty()]).await;
    let deaths = daemon.deaths();
    // Once in the pool and once alone, apart.
    assert_eq!(deaths, 2);
    let mut chance = Chance::new(2);
    let crowd = (0..500).map(|number| {
        let (a, b) = good(&mut chance);
        if number % 2 == 0 { guilty() } else { ask(&a, &b, None) }
    });
    let crowd = crowd.collect();
    all(&daemon, &spec, crowd).await;
    assert_eq!(daemon.deaths(), deaths);
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_fails_its_batch_fails_alone() {
    let Some(library) = library("a_row_that_fails_its_batch_fails_alone") else { return };
    let daemon = Arc::new(Daemon::start("poison", Settings::new(library)));
    let spec = daemon.load_fixture("gather").await;
    let mut chance = Chance::new(3);
    let crowd = (0..500).map(|number| {
        let mut rows: Vec<i64> =
            (0..3 * (1 + chance.below(8))).map(|_| chance.below(10) as i64).collect();
        let poisoned = number % 20 == 3;
        if poisoned {
            let at = chance.below(rows.len());
            rows[at] = 99;
        }
        let table = rows.iter().flat_map(|&row| (0..4).map(move |i| (row * 4 + i) as f32));
        let expected = if poisoned {
            Err(ErrorKind::ModelFailed)
        } else {
            Ok(table.flat_map(f32::to_le_bytes).collect())
        };
        let count = rows.len() / 3;
        let tensors = vec![int64(&[count, 3], Some(0), &rows)];
        Ask { inputs: Inputs { tensors, rows: count }, expected }
    });
    let crowd = crowd.collect();
    all(&daemon, &spec, crowd).await;
    assert_eq!(daemon.deaths(), 0);
    daemon.assert_empty().await;
}
