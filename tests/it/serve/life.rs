//! A daemon's life: its sockets, its metrics, its end.

use super::ask::{Ask, Form, Http2, fp32, read_rest};
use super::daemon::{PROGRAM, Setup, fixtures, needs_runtime, soon};
use super::refusals::short;
use bytes::Bytes;
use graftd::cli::client::{Answer, Client, HEADER_LENGTH};
use http_body_util::{BodyExt, Full};
use rustix::process::Signal;
use std::process::Stdio;
use tokio::net::TcpStream;
use tower_service::Service as _;

fn ask() -> Ask {
    Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])])
}

#[tokio::test]
async fn tcp_and_http2_answer_as_the_socket_does() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).flags(&["--listen", "127.0.0.1:0"]).start().await;
    let expected = ask().of(&daemon, Form::Binary).await.expect("an answer");
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut client = Client::over(stream).await.expect("HTTP");
    for form in [Form::Json, Form::Binary] {
        let got = ask().over(&mut client, form).await.expect("an answer");
        assert_eq!(got.outputs, expected.outputs);
    }
    let mut http2 = Http2::connect(&daemon.setup.socket()).await;
    for form in [Form::Json, Form::Binary] {
        let (body, length) = ask().body(form);
        let mut request = http::Request::post(format!("http://localhost{}", ask().path()));
        if let Some(length) = length {
            request = request.header(HEADER_LENGTH, length);
        }
        let body = tonic::body::Body::new(Full::new(body));
        let response = http2.call(request.body(body).expect("a request"));
        let response = soon("an answer", response).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let got = read_rest(&Answer { status, headers, body }).expect("an answer");
        assert_eq!(got.outputs, expected.outputs);
    }
}

#[tokio::test]
async fn health_routes_and_methods() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut client = daemon.client().await;
    let table: [(&str, u16, &[u8]); 5] = [
        ("/v2/health/live", 200, br#"{"live":true}"#),
        ("/v2/health/ready", 200, br#"{"ready":true}"#),
        ("/v2/models/mlp/ready", 200, br#"{"name":"mlp","ready":true}"#),
        ("/nowhere", 404, br#"{"error":"there is nothing at /nowhere"}"#),
        (
            "/v2/models/mlp/infer",
            405,
            br#"{"error":"GET is not for /v2/models/mlp/infer; use POST"}"#,
        ),
    ];
    for (path, status, body) in table {
        let answer = client.get(path).await.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (status, body), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
    let empty = client.post(&ask().path(), None, Bytes::new()).await.expect("an answer");
    assert_eq!(empty.status, 400);
    let head = http::HeaderMap::new();
    let answer = client.send(http::Method::HEAD, "/v2", head, Bytes::new()).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(client.get("/v2").await.expect("the connection stays").status, 200);
}

#[tokio::test]
async fn every_phase_has_a_histogram() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    ask().of(&daemon, Form::GrpcRaw).await.expect("an answer");
    for phase in ["request", "queue", "gather", "run", "scatter"] {
        let name = format!("graftd_{phase}_seconds_count");
        daemon.metric_is(&name, 1.0).await;
        let name = format!("graftd_{phase}_seconds_bucket{{le=\"+Inf\"}}");
        assert_eq!(daemon.metric(&name).await, 1.0, "{name}");
    }
    assert_eq!(daemon.metric("graftd_batch_rows_count").await, 1.0);
    assert_eq!(daemon.metric("graftd_requests_total{end=\"ok\"}").await, 1.0);
}

#[tokio::test]
async fn told_to_stop_it_answers_what_it_accepted() {
    needs_runtime!();
    let mut daemon = Setup::new(&["loop"]).flags(&["--sessions", "1"]).start().await;
    let held = daemon.hold();
    let (first, second) = (short(0), short(1));
    // A connection that nobody uses must not hold it up.
    let idle = daemon.client().await;
    let stopped = async {
        daemon.metric_is("graftd_requests_in_flight", 2.0).await;
        daemon.signal(Signal::TERM);
        daemon.logged("finishing what was accepted", 0).await;
        drop(held);
    };
    let (first, second, ()) =
        tokio::join!(first.of(&daemon, Form::Binary), second.of(&daemon, Form::GrpcRaw), stopped);
    assert_eq!(first.expect("it was accepted").outputs.len(), 1);
    assert_eq!(second.expect("it was accepted").outputs.len(), 1);
    assert!(daemon.ended().await.success());
    assert!(!daemon.setup.socket().exists());
    drop(idle);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    drop(std::os::unix::net::UnixListener::bind(setup.socket()).expect("a new socket"));
    let mut daemon = setup.start().await;
    let mut second = tokio::process::Command::new(PROGRAM);
    second.arg("serve").arg("--models").arg(fixtures().join("flat"));
    second.arg("--socket").arg(daemon.setup.socket());
    second.arg("--work-dir").arg(daemon.setup.beside("work")).stdin(Stdio::null());
    let output = soon("the second daemon's end", second.output()).await.expect("it ends");
    let why = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(78), "{why}");
    assert!(why.contains("another graftd (process ") && why.contains("graftd.sock"), "{why}");
    ask().of(&daemon, Form::Binary).await.expect("the first is not touched");
    // Killed, it leaves its socket behind, and the next one starts all the same.
    daemon.child.kill().await.expect("it can be killed");
    assert!(daemon.setup.socket().exists());
    let next = daemon.setup.start().await;
    ask().of(&next, Form::Binary).await.expect("an answer");
}
