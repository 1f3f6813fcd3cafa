//! HTTP/2's pings: those of clients that keep a connection alive, and those of one that sends nothing else.

use super::crowd::resident_kib;
use super::raw::Raw;
use crate::serve::ask::{Ask, Form, Http2, fp32, grpc_over, read_grpc};
use crate::serve::daemon::{Daemon, PATIENCE, Setup, needs_runtime, soon};
use crate::serve::refusals::long;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A client's first words: the preface, and settings that change nothing.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingping";
const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0pingping";

async fn is_well(daemon: &Daemon, values: std::ops::Range<u16>) {
    for value in values {
        let row = Ask::new("mlp", vec![fp32("x", &[1, 16], &[f32::from(value); 16])]);
        row.of(daemon, Form::Binary).await.expect("an answer");
    }
}

#[tokio::test]
async fn pings_keep_a_connection_alive_that_waits_for_a_slow_answer() {
    needs_runtime!();
    let flags = ["--idle-timeout-ms", "200"];
    let daemon = Setup::new(&["loop"]).flags(&flags).start().await;
    // What tonic's client does for `http2_keep_alive_interval` and its companions.
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    builder.keep_alive_interval(Duration::from_millis(20)).keep_alive_timeout(PATIENCE);
    builder.keep_alive_while_idle(true);
    let stream = UnixStream::connect(daemon.setup.socket()).await.expect("it listens");
    let mut client = grpc_over(Http2::spoken(builder, stream).await);
    for number in 0..2 {
        let answer = client.model_infer(long(number).message(Form::GrpcRaw));
        read_grpc(soon("an answer", answer).await).expect("the connection stays");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_is_answered_as_fast_as_answers_are_taken_and_no_faster() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    is_well(&daemon, 0..20).await;
    let before = resident_kib(&daemon);
    // One that reads no answers: at some point its pings are read no more.
    let mut deaf = Raw::open(&daemon).await;
    deaf.send(HELLO).await;
    let pings = PING.repeat(2_000_000);
    let flood = async {
        let ended = deaf.0.write_all(&pings).await;
        panic!("all pings were taken: {ended:?}");
    };
    tokio::select! {
        () = flood => {}
        () = is_well(&daemon, 100..400) => {}
    }
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < 16 << 10, "the daemon grew by {grown} KiB");
    // One that reads them gets them all, settings aside.
    let stream = UnixStream::connect(daemon.setup.socket()).await.expect("it listens");
    let (mut reading, mut writing) = stream.into_split();
    let count = 10_000;
    writing.write_all(HELLO).await.expect("bytes are taken");
    let pings = PING.repeat(count);
    let write = async { writing.write_all(&pings).await.expect("bytes are taken") };
    let read = async {
        let (mut pongs, mut head, mut body) = (0, [0; 9], Vec::new());
        while pongs < count {
            reading.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            body.resize(usize::try_from(length).expect("small"), 0);
            reading.read_exact(&mut body).await.expect("a frame");
            pongs += usize::from([&head[..], &body].concat() == PONG);
        }
    };
    soon("all pongs", async { tokio::join!(write, read) }).await;
    is_well(&daemon, 500..520).await;
}
