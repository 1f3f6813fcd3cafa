//! Told to stop: what was accepted is answered, what holds on is let go.

use super::raw::{Raw, get};
use crate::serve::ask::{Ask, Form, Http2, fp32};
use crate::serve::daemon::{Setup, needs_runtime, soon};
use crate::serve::refusals::short;
use graftd::cli::client::Client;
use rustix::process::Signal;

#[tokio::test]
async fn under_load_every_accepted_request_is_answered() {
    needs_runtime!();
    let mut daemon = Setup::new(&["mlp"]).start().await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::open(&daemon).await;
        raw.send(get("/v2/health/live")).await;
        assert_eq!(raw.reply().await.status, 200);
        idle.push(raw);
    }
    // One that never said a word, and one that speaks HTTP/2 and never says goodbye.
    idle.push(Raw::open(&daemon).await);
    let mut http2 = Raw::open(&daemon).await;
    http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let sleeper = Http2::connect(&daemon.setup.socket()).await;
    let socket = daemon.setup.socket();
    let lane = async |lane: u8| {
        let mut answered = 0;
        while let Ok(mut client) = Client::connect(&socket).await {
            for number in 0_u16.. {
                let value = f32::from(number) + f32::from(lane) / 8.0;
                let (body, length) =
                    Ask::new("mlp", vec![fp32("x", &[1, 16], &[value; 16])]).body(Form::Binary);
                let sent = client.post("/v2/models/mlp/infer", length, body);
                // A connection that is closed before anything came back accepted nothing.
                let Ok(answer) = soon("an answer or an end", sent).await else { break };
                assert!([200, 503].contains(&answer.status), "{answer:?}");
                answered += u32::from(answer.status == 200);
            }
        }
        answered
    };
    let first = Ask::new("mlp", vec![fp32("x", &[1, 16], &[-1.0; 16])]);
    first.of(&daemon, Form::Binary).await.expect("an answer");
    let told = async {
        while daemon.metric("graftd_batch_rows_count").await < 50.0 {}
        daemon.signal(Signal::TERM);
    };
    let (one, two, three, ()) = tokio::join!(lane(1), lane(2), lane(3), told);
    assert!(one > 0 && two > 0 && three > 0, "{one} {two} {three}");
    assert!(daemon.ended().await.success());
    assert!(daemon.lines().iter().all(|line| !line.contains("were not answered")));
    drop((idle, http2, sleeper));
}

#[tokio::test]
async fn what_takes_longer_than_the_time_to_drain_is_told_so() {
    needs_runtime!();
    let flags = ["--sessions", "1", "--drain-timeout-s", "0"];
    let mut daemon = Setup::new(&["loop"]).flags(&flags).start().await;
    let held = daemon.hold();
    let (first, second) = (short(0), short(1));
    let stopped = async {
        daemon.metric_is("graftd_requests_in_flight", 2.0).await;
        daemon.signal(Signal::TERM);
    };
    let (first, second, ()) =
        tokio::join!(first.of(&daemon, Form::Binary), second.of(&daemon, Form::GrpcRaw), stopped);
    let unavailable = u32::try_from(i32::from(tonic::Code::Unavailable)).expect("a code");
    for (refused, code) in [(first, 503), (second, unavailable)] {
        let refused = refused.expect_err("it cannot end");
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains("the daemon stopped"), "{refused:?}");
    }
    assert!(daemon.ended().await.success());
    drop(held);
}

#[tokio::test]
async fn told_twice_it_stops_at_once() {
    needs_runtime!();
    let mut daemon = Setup::new(&["loop"]).flags(&["--sessions", "1"]).start().await;
    let held = daemon.hold();
    let mut raw = Raw::open(&daemon).await;
    let (body, _) = short(9).body(Form::Json);
    raw.send(super::raw::post("/v2/models/loop/infer", body, "")).await;
    daemon.metric_is("graftd_requests_in_flight", 1.0).await;
    daemon.signal(Signal::TERM);
    daemon.logged("finishing what was accepted", 0).await;
    daemon.signal(Signal::TERM);
    daemon.logged("told twice", 0).await;
    assert!(daemon.ended().await.success());
    assert!(!daemon.setup.socket().exists());
    drop(held);
}

#[tokio::test]
async fn told_while_models_load_it_does_not_wait_for_them() {
    needs_runtime!();
    // Models are ready within milliseconds, and a line of the log may take longer to get here.
    let models = 400;
    let setup = Setup::new(&["mlp"]);
    for number in 0..models {
        setup.add("mlp", &format!("mlp{number}"));
    }
    let mut starting = setup.spawn();
    let daemon = &mut starting.daemon;
    daemon.logged("model mlp:1 is ready", 0).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let loaded = daemon.lines().iter().filter(|line| line.contains("is ready")).count();
    assert!(loaded <= models, "all were loaded before it stopped");
    // The same while it looks at them again.
    let setup = Setup::new(&["mlp"]);
    let mut daemon = setup.start().await;
    for number in 0..models {
        daemon.setup.add("mlp", &format!("mlp{number}"));
    }
    daemon.signal(Signal::HUP);
    daemon.logged("model mlp0:1 is ready", 0).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let loaded = daemon.lines().iter().filter(|line| line.contains("is ready")).count();
    assert!(loaded <= models, "all were loaded before it stopped");
}
