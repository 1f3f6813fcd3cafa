//! Runs without an end: asked to stop where they listen, ended with their process where they do not.

use super::crowd::{Ask, all, int64};
use crate::daemon::{Daemon, Oracle, Settings, fixture, library};
use graftd::error::ErrorKind;
use graftd::rows::{InputTensor, Inputs};
use graftd::tensor::DataType;
use std::sync::Arc;
use std::time::Duration;

fn float(shape: &[usize], first: f32) -> InputTensor {
    let count: usize = shape.iter().product();
    let data: Vec<u8> = (0..count).flat_map(|i| (first + i as f32).to_le_bytes()).collect();
    let (datatype, shape) = (DataType::Fp32, shape.to_vec());
    InputTensor {
        datatype,
        shape,
        axis: None,
        data: data.into(),
        row_ends: Vec::new(),
        storage: graftd::rows::Storage::Exact,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_deaf_to_everything_ends_with_its_process() {
    let Some(library) = library("a_run_deaf_to_everything_ends_with_its_process") else { return };
    let settings = Settings::new(library.clone()).watchdog(Duration::from_secs(1));
    let daemon = Arc::new(Daemon::start("deaf", settings));
    let spec = daemon.load_fixture("conv_kernel").await;
    let oracle = Oracle::load(&library, &fixture("conv_kernel"));
    let crowd = (0..100_u8).map(|number| {
        let kernel: &[usize] = if number == 30 { &[2, 1, 0, 0] } else { &[2, 1, 3, 3] };
        let tensors = vec![float(&[1, 1, 8, 8], f32::from(number)), float(kernel, 0.0)];
        let inputs = Inputs { tensors, rows: 1 };
        let expected = match number {
            30 => Err(ErrorKind::ModelCrashed),
            _ => Ok(oracle.answer(&inputs).unwrap().tensors[0].data.to_vec()),
        };
        Ask { inputs, expected }
    });
    let crowd = crowd.collect();
    all(&daemon, &spec, crowd).await;
    // In the pool, and then alone and apart.
    assert_eq!(daemon.deaths(), 2);
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_listens_is_stopped_and_its_process_lives() {
    let Some(library) = library("a_run_that_listens_is_stopped_and_its_process_lives") else {
        return;
    };
    let mut settings = Settings::new(library).watchdog(Duration::from_millis(500));
    settings.sched.watchdog_grace = Duration::from_secs(60);
    let daemon = Arc::new(Daemon::start("listens", settings));
    let spec = daemon.load_fixture("loop").await;
    let trips = |trips: i64, expected| {
        let inputs = Inputs { tensors: vec![int64(&[], None, &[trips])], rows: 1 };
        Ask { inputs, expected }
    };
    let mut crowd = vec![trips(1 << 60, Err(ErrorKind::ModelCrashed))];
    crowd.extend((0..50_i64).map(|number| trips(number, Ok(number.to_le_bytes().to_vec()))));
    all(&daemon, &spec, crowd).await;
    assert_eq!(daemon.deaths(), 0);
    daemon.assert_empty().await;
}
