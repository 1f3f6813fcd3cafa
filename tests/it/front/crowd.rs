//! Crowds of bad clients, and good ones that must not notice them.

use super::raw::{Raw, get, head, infer, post};
use super::size;
use crate::serve::ask::{Ask, Form, fp32, tensor};
use crate::serve::daemon::{Daemon, Setup, needs_runtime, soon};
use graftd::tensor::DataType;
use rustix::process::{Pid, Resource, Rlimit, prlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

fn ask(number: u32) -> Ask {
    let value = f32::from_bits(0x3f00_0000 + number);
    Ask::new("mlp", vec![fp32("x", &[1, 16], &[value; 16])])
}

/// As many descriptors for this process as it may have.
fn many_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("allowed");
}

fn open_descriptors(daemon: &Daemon) -> usize {
    let pid = daemon.child.id().expect("it runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Waits until the daemon has no more descriptors open than these.
async fn closed_down_to(daemon: &Daemon, count: usize) {
    let closed = async {
        while open_descriptors(daemon) > count {
            tokio::task::yield_now().await;
        }
    };
    soon("connections to be closed", closed).await;
}

pub(super) fn resident_kib(daemon: &Daemon) -> u64 {
    let pid = daemon.child.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Numbers that look like chance and are the same every time.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).expect("31 bits")
}

/// Asks one after the other and says how long the slowest hundredth took at least.
#[expect(clippy::disallowed_methods, reason = "a figure, on which no test depends")]
async fn good_traffic(daemon: &Daemon, from: u32, count: u32) -> Duration {
    let mut client = daemon.client().await;
    let mut times = Vec::new();
    for number in from..from + count {
        let start = Instant::now();
        ask(number).over(&mut client, Form::Binary).await.expect("good clients are served");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnects_at_random_points_leave_nothing_behind() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    good_traffic(&daemon, 0, 20).await;
    let (before, memory) = (open_descriptors(&daemon), resident_kib(&daemon));
    let count = size(1_000, 100_000);
    let (body, length) = ask(7).body(Form::Binary);
    let more = format!("inference-header-content-length: {}\r\n", length.expect("binary"));
    let request = post(&infer("mlp"), body, &more);
    let http2 = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"\0\0\x13\x01\x04\0\0\0\x01\x83\x86\x41\x01x\x04\x0c/v2/whatever",
    ]
    .concat();
    let leave = async |lane: usize| {
        let mut state = lane as u64;
        for _ in 0..count / 8 {
            let whole = if next(&mut state).is_multiple_of(4) { &http2 } else { &request };
            let cut = next(&mut state) % (whole.len() + 1);
            let mut raw = Raw::open(&daemon).await;
            let _ = raw.0.write_all(&whole[..cut]).await;
            if next(&mut state).is_multiple_of(3) {
                let _ = raw.0.shutdown().await;
            }
            if cut == whole.len() && next(&mut state).is_multiple_of(2) {
                let _ = soon("a byte", raw.0.read_u8()).await;
            }
        }
    };
    let crowd = async {
        tokio::join!(
            leave(0),
            leave(1),
            leave(2),
            leave(3),
            leave(4),
            leave(5),
            leave(6),
            leave(7)
        );
    };
    let (p99, ()) = tokio::join!(good_traffic(&daemon, 1_000, 300), crowd);
    daemon.metric_is("graftd_requests_in_flight", 0.0).await;
    daemon.metric_is("graftd_flights", 0.0).await;
    closed_down_to(&daemon, before + 2).await;
    good_traffic(&daemon, 2_000, 20).await;
    println!(
        "{count} disconnects: p99 beside them {p99:?}, memory {memory} KiB before, {} KiB after",
        resident_kib(&daemon)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dribbling_senders_hold_nothing_that_others_need() {
    needs_runtime!();
    many_descriptors();
    let flags = ["--sessions", "1", "--head-timeout-ms", "600000", "--body-gap-ms", "600000"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let alone = good_traffic(&daemon, 0, 300).await;
    let memory = resident_kib(&daemon);
    let count = size(200, 2_000);
    let mut crowd = Vec::new();
    for number in 0..count {
        let mut raw = Raw::open(&daemon).await;
        // Half of them dribble their head, half their body.
        if number % 2 == 0 {
            raw.send(head(&infer("mlp"), 100_000, "")).await;
        }
        crowd.push(raw);
    }
    let grown = resident_kib(&daemon);
    let beat = async {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            beat.tick().await;
            for raw in &mut crowd {
                raw.0.write_all(b"G").await.expect("they are let in");
            }
        }
    };
    let beside = tokio::select! {
        beside = good_traffic(&daemon, 1_000, 300) => beside,
        () = beat => unreachable!("it goes on for ever"),
    };
    assert_eq!(daemon.metric("graftd_requests_in_flight").await, 0.0);
    println!(
        "{count} dribbling: p99 alone {alone:?}, beside them {beside:?}; memory {memory} KiB alone, \
         {grown} KiB with them"
    );
}

#[tokio::test]
async fn slow_readers_hold_no_slot_and_are_left_in_the_end() {
    needs_runtime!();
    let flags = ["--sessions", "1", "--stall-timeout-ms", "1500"];
    let daemon = Setup::new(&["mlp", "id_fp32"]).flags(&flags).start().await;
    let rows = 1 << 14;
    let mut readers = Vec::new();
    for number in 0..4_u8 {
        let data = vec![number; rows * 64 * 4];
        let ask = Ask::new("id_fp32", vec![tensor("x", DataType::Fp32, &[rows, 64], data)]);
        let (body, length) = ask.body(Form::Binary);
        let more = format!("inference-header-content-length: {}\r\n", length.expect("binary"));
        let mut raw = Raw::open(&daemon).await;
        raw.send(post(&infer("id_fp32"), body, &more)).await;
        // The answer is there; nobody takes it.
        soon("the answer's first byte", raw.0.read_u8()).await.expect("an answer");
        readers.push(raw);
    }
    daemon.metric_is("graftd_requests_in_flight", 0.0).await;
    good_traffic(&daemon, 0, 50).await;
    for mut raw in readers {
        // Reading would be taking it: the end has to be noticed without.
        let left = async {
            while !raw.0.ready(Interest::WRITABLE).await.expect("a state").is_write_closed() {
                tokio::task::yield_now().await;
            }
        };
        soon("the daemon to leave", left).await;
        let rest = raw.ended().await;
        assert!(rest.len() < rows * 64 * 4, "it was cut off");
    }
}

#[tokio::test]
async fn descriptors_that_run_out_come_back() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let pid = i32::try_from(daemon.child.id().expect("it runs")).expect("small");
    let few = u64::try_from(open_descriptors(&daemon) + 10).expect("few");
    let limit = Rlimit { current: Some(few), maximum: Some(few) };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limit).expect("it is our child");
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(Raw::open(&daemon).await);
    }
    daemon.logged("connections cannot be accepted for now", 0).await;
    drop(crowd);
    daemon.logged("connections are accepted again", 0).await;
    good_traffic(&daemon, 0, 20).await;
    let lines = daemon.lines();
    let told = lines.iter().filter(|line| line.contains("cannot be accepted for now")).count();
    assert_eq!(told, 1, "once per episode: {lines:?}");
}

#[tokio::test]
async fn started_with_few_descriptors_it_keeps_some_for_itself() {
    needs_runtime!();
    let shell = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\""];
    let daemon = Setup::new(&["mlp"]).under(&shell).start().await;
    daemon.logged("connections at most: the limit of descriptors", 0).await;
    let mut crowd = Vec::new();
    let reply = loop {
        let mut raw = Raw::open(&daemon).await;
        raw.send(get("/v2/health/live")).await;
        let reply = raw.reply().await;
        if reply.status != 200 {
            break reply;
        }
        crowd.push(raw);
    };
    assert!(reply.status == 503 && reply.body.contains("RLIMIT_NOFILE"), "{reply:?}");
    assert!((10..50).contains(&crowd.len()), "{} were let in", crowd.len());
    // A flood on top, and a reload in the middle of it: nothing of it is in anybody's way.
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(Raw::open(&daemon).await);
    }
    daemon.setup.add("mlp", "again");
    daemon.reload().await;
    drop((crowd, flood));
    // Until the flood has left, a newcomer may find the door shut in its face.
    let ready = async || {
        let mut raw = Raw::open(&daemon).await;
        raw.send(get("/v2/models/again/ready")).await;
        raw.try_reply().await.is_some_and(|reply| reply.status == 200)
    };
    soon("normal service", async { while !ready().await {} }).await;
    good_traffic(&daemon, 0, 20).await;
}
