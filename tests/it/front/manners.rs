//! HTTP as it should be spoken, and what clients do that speak it badly.

use super::raw::{Raw, get, head, infer, post};
use crate::serve::ask::{Ask, Form, fp32, tensor};
use crate::serve::daemon::{Setup, needs_runtime, soon};
use graftd::tensor::DataType;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn small() -> String {
    let (body, _) = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]).body(Form::Json);
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn who_closes_one_side_gets_the_answer() {
    needs_runtime!();
    let flags = ["--listen", "127.0.0.1:0", "--sessions", "1"];
    let daemon = Setup::new(&["mlp", "loop"]).flags(&flags).start().await;
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    // Long enough that the end of the client's bytes is seen first.
    let trips = tensor("trips", DataType::Int64, &[], 20_000_i64.to_le_bytes().to_vec());
    let (slow, _) = Ask::new("loop", vec![trips]).body(Form::Json);
    let requests =
        [post(&infer("mlp"), small(), ""), post(&infer("loop"), slow, ""), get("/v2").into()];
    for request in requests {
        // Twice, so that one answer comes from a run and one from kept rows.
        for _ in 0..2 {
            let mut raw = Raw::open(&daemon).await;
            raw.send(&request).await;
            raw.0.shutdown().await.expect("one side can be closed");
            assert_eq!(raw.reply().await.status, 200);
            assert_eq!(raw.ended().await, b"");
        }
        let mut raw = Raw(TcpStream::connect(address).await.expect("it listens"));
        raw.send(&request).await;
        raw.0.shutdown().await.expect("one side can be closed");
        assert_eq!(raw.reply().await.status, 200);
    }
    // In the middle of a body it is the body that broke off, and that is said.
    for sent in [head(&infer("mlp"), 100, ""), head(&infer("mlp"), 100, "") + "{\"inputs\""] {
        let mut raw = Raw::open(&daemon).await;
        raw.send(sent).await;
        raw.0.shutdown().await.expect("one side can be closed");
        let reply = raw.reply().await;
        assert!(reply.status == 400 && reply.body.contains("broke off"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_refused_body_does_not_hide_the_refusal() {
    needs_runtime!();
    let flags = ["--body-bytes-max", "1M", "--listen", "127.0.0.1:0"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    let path = infer("mlp");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let chunked =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let endless = chunked + &chunk.repeat(64);
    for request in [post(&path, vec![b'x'; 3 << 20], ""), endless.into_bytes()] {
        let mut raw = Raw::open(&daemon).await;
        raw.send(&request).await;
        assert_eq!(raw.reply().await.status, 413);
        let mut raw = Raw(TcpStream::connect(address).await.expect("it listens"));
        raw.send(&request).await;
        assert_eq!(raw.reply().await.status, 413);
    }
    // Whoever asks first is spared the sending.
    let mut raw = Raw::open(&daemon).await;
    raw.send(head(&path, 3 << 20, "Expect: 100-continue\r\n")).await;
    assert_eq!(raw.reply().await.status, 413);
    let body = small();
    let mut raw = Raw::open(&daemon).await;
    raw.send(head(&path, body.len(), "Expect: 100-continue\r\n")).await;
    assert_eq!(raw.reply().await.status, 100);
    raw.send(&body).await;
    assert_eq!(raw.reply().await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut raw = Raw::open(&daemon).await;
    let four = [
        get("/v2/health/live").into_bytes(),
        post(&infer("mlp"), small(), ""),
        get("/nowhere").into_bytes(),
        post(&infer("mlp"), "{", ""),
    ];
    raw.send(four.concat()).await;
    for status in [200, 200, 404, 400] {
        assert_eq!(raw.reply().await.status, status);
    }
    // A request line in pieces is a request line.
    for byte in get("/v2/health/live").bytes() {
        raw.send([byte]).await;
    }
    assert_eq!(raw.reply().await.status, 200);
    // The start of another protocol's first bytes is HTTP/1 all the same.
    let reply = Raw::once(&daemon, "PRI /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(reply.status, 405, "{reply:?}");
    let upgrade = "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert_eq!(Raw::once(&daemon, upgrade).await.status, 200, "an upgrade is passed over");
}

#[tokio::test]
async fn heads_methods_and_lengths() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut raw = Raw::open(&daemon).await;
    raw.send(get("/v2")).await;
    let whole = raw.reply().await;
    let line = format!("content-length: {}\r\n", whole.body.len());
    raw.send("HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\n") {
        told.push(
            soon("an answer", tokio::io::AsyncReadExt::read_u8(&mut raw.0)).await.expect("one"),
        );
    }
    let told = String::from_utf8(told).expect("text");
    assert!(told.starts_with("HTTP/1.1 200") && told.contains(&line), "{told}");
    raw.send(get("/v2")).await;
    assert_eq!(raw.reply().await.body, whole.body, "no body came with HEAD");
    for (request, allow) in [
        (format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", infer("mlp")), "POST"),
        ("DELETE /v2 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "GET, HEAD"),
    ] {
        let reply = Raw::once(&daemon, request).await;
        assert_eq!(reply.status, 405, "{reply:?}");
        assert!(reply.head.contains(&format!("allow: {allow}\r\n")), "{reply:?}");
    }
    // Two lengths: the chunks count, and nothing that follows is taken for a request.
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        let mut raw = Raw::open(&daemon).await;
        let path = infer("mlp");
        raw.send(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n{}",
            get("/v2")
        ))
        .await;
        assert_eq!(raw.reply().await.status, 400);
        assert_eq!(raw.ended().await, b"", "{lengths}");
    }
    for bad in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: -1", "Content-Length: x"]
    {
        let path = infer("mlp");
        let reply =
            Raw::once(&daemon, format!("POST {path} HTTP/1.1\r\nHost: x\r\n{bad}\r\n\r\n{{}}"))
                .await;
        assert_eq!(reply.status, 400, "{bad}");
    }
    let old = Raw::once(&daemon, "GET /v2/health/live HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.status, 200);
}
