//! Each limit: what is at it passes, one more is refused with its own status and the flag's name.

use super::raw::{Raw, get, head, infer, post};
use crate::serve::ask::{Ask, Form, fp32};
use crate::serve::daemon::{Daemon, Setup, needs_runtime};
use graftd::proto::ModelInferRequest;
use graftd::proto::model_infer_request::InferInputTensor;
use serde_json::{Value, json};

fn body() -> (String, Value) {
    let (body, _) = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]).body(Form::Json);
    let text = String::from_utf8(body.to_vec()).expect("text");
    let value = serde_json::from_str(&text).expect("JSON");
    (text, value)
}

/// Asks for what passes and for what does not.
async fn both(daemon: &Daemon, flag: &str, passes: Vec<u8>, refused: Vec<u8>, status: u16) {
    let reply = Raw::once(daemon, passes).await;
    assert!(!reply.body.contains("--"), "{flag}: {reply:?}");
    assert!([200, 400].contains(&reply.status), "{flag}: {reply:?}");
    let reply = Raw::once(daemon, refused).await;
    assert_eq!(reply.status, status, "{flag}: {reply:?}");
    assert!(reply.body.contains(flag), "{flag}: {reply:?}");
    assert!(reply.head.contains("content-type: application/json"), "{flag}: {reply:?}");
}

#[tokio::test]
async fn sizes_and_counts() {
    needs_runtime!();
    let (text, value) = body();
    let bytes = text.len().to_string();
    let flags = ["--body-bytes-max", &bytes, "--header-bytes-max", "1000", "--headers-max", "10"];
    let more = ["--json-depth-max", "5", "--tensors-max", "2"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).flags(&more).start().await;
    let path = infer("mlp");
    let longer = format!("{text} ");
    let plain = |body: &str| post(&path, body, "");
    both(&daemon, "--body-bytes-max", plain(&text), plain(&longer), 413).await;
    let chunked = |text: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).into_bytes()
    };
    both(&daemon, "--body-bytes-max", chunked(&text), chunked(&longer), 413).await;
    // Names, values: host 4 + 1, content-length 14 + its digits, and one more.
    let used = "hostx".len();
    let filler = |left: usize| {
        format!("GET /v2 HTTP/1.1\r\nHost: x\r\nf: {}\r\n\r\n", "v".repeat(left - 1)).into_bytes()
    };
    both(&daemon, "--header-bytes-max", filler(1000 - used), filler(1001 - used), 431).await;
    let many = |count: usize| {
        let fields: String = (1..count).map(|n| format!("h{n}: x\r\n")).collect();
        format!("GET /v2 HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
    };
    both(&daemon, "--headers-max", many(10), many(11), 431).await;
    // Far past the limit the parser itself refuses, without reading on.
    for rude in [many(500), filler(100_000)] {
        assert_eq!(Raw::once(&daemon, rude).await.status, 431);
    }
    let deep =
        |depth: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    both(&daemon, "--json-depth-max", plain(&deep(5)), plain(&deep(6)), 400).await;
    let several = |key: &str, count: usize| {
        let mut value = value.clone();
        let entry = json!({ "name": "q", "datatype": "FP32", "shape": [0], "data": [] });
        let entry = if key == "inputs" { entry } else { json!({ "name": "q" }) };
        value[key] = vec![entry; count].into();
        value["id"] = json!("");
        value.to_string()
    };
    let roomy = Setup::new(&["mlp"]).flags(&more).start().await;
    for key in ["inputs", "outputs"] {
        let (passes, refused) = (plain(&several(key, 2)), plain(&several(key, 3)));
        both(&roomy, "--tensors-max", passes, refused, 400).await;
    }
}

#[tokio::test]
async fn grpc_names_the_same_limits() {
    needs_runtime!();
    let flags = ["--body-bytes-max", "2000", "--tensors-max", "1", "--header-bytes-max", "500"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let x = |rows: usize| fp32("x", &[rows, 16], &vec![0.5; rows * 16]);
    let good = Ask::new("mlp", vec![x(1)]);
    good.of(&daemon, Form::GrpcRaw).await.expect("an answer");
    let code = |code: tonic::Code| u32::try_from(i32::from(code)).expect("a code");
    let large = Ask::new("mlp", vec![x(40)]).of(&daemon, Form::GrpcRaw).await;
    let large = large.expect_err("it is too large");
    assert_eq!(large.code, code(tonic::Code::ResourceExhausted), "{large:?}");
    assert!(large.message.contains("--body-bytes-max"), "{large:?}");
    let many = Ask::new("mlp", vec![x(1), x(1)]).of(&daemon, Form::GrpcRaw).await;
    let many = many.expect_err("too many inputs");
    assert_eq!(many.code, code(tonic::Code::InvalidArgument), "{many:?}");
    assert!(many.message.contains("--tensors-max"), "{many:?}");
    let mut request = tonic::Request::new(good.message(Form::GrpcRaw));
    request.metadata_mut().insert("x-long", "v".repeat(500).parse().expect("text"));
    let mut client = crate::serve::ask::grpc(&daemon.setup.socket()).await;
    let status = client.model_infer(request).await.expect_err("too long a head");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("--header-bytes-max"), "{status}");
}

#[tokio::test]
async fn parts_are_weighed_before_anything_is_made_of_them() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    // Two bytes each on the wire, some three hundred once decoded.
    let inputs = vec![InferInputTensor::default(); 900_000];
    let message = ModelInferRequest { model_name: "mlp".into(), inputs, ..Default::default() };
    let mut client = crate::serve::ask::grpc(&daemon.setup.socket()).await;
    let status = client.model_infer(message).await.expect_err("too much for two bytes each");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("expected at most 256 MiB"), "{status}");
}

#[tokio::test]
async fn times() {
    needs_runtime!();
    let flags = ["--idle-timeout-ms", "700", "--head-timeout-ms", "300", "--body-gap-ms", "200"];
    let more = ["--body-timeout-ms", "500", "--stall-timeout-ms", "400"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).flags(&more).start().await;
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [preface, b"\0\0\0\x04\0\0\0\0\0"].concat();
    let silent: [&[u8]; 6] =
        [b"", b"P", b"GET /v2 HTTP/1.1\r\nHo", &preface[..20], preface, &settings];
    let silent = silent.map(|bytes| {
        let daemon = &daemon;
        async move {
            let mut raw = Raw::open(daemon).await;
            raw.send(bytes).await;
            let said = raw.ended().await;
            assert!(!said.starts_with(b"HTTP/1.1 2"), "{bytes:?}");
        }
    });
    for closed in silent {
        closed.await;
    }
    let mut kept = Raw::open(&daemon).await;
    for _ in 0..3 {
        kept.send(get("/v2/health/live")).await;
        assert_eq!(kept.reply().await.status, 200);
    }
    assert_eq!(kept.ended().await, b"", "an idle connection is closed without a word");
    // A body that stops, and one that never comes to its end.
    let mut stops = Raw::open(&daemon).await;
    stops.send(head(&infer("mlp"), 100, "")).await;
    let reply = stops.reply().await;
    assert!(reply.status == 408 && reply.body.contains("--body-gap-ms"), "{reply:?}");
    let dribbling = Raw::open(&daemon).await;
    let (mut reader, mut writer) = dribbling.0.into_split();
    let dribble = async {
        use tokio::io::AsyncWriteExt;
        writer.write_all(head(&infer("mlp"), 1_000_000, "").as_bytes()).await.expect("a head");
        let mut beat = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            beat.tick().await;
            if writer.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let reply = async {
        use tokio::io::AsyncReadExt;
        let mut said = String::new();
        reader.read_to_string(&mut said).await.expect("an answer");
        said
    };
    tokio::select! {
        said = reply => assert!(said.contains("408") && said.contains("--body-timeout-ms"), "{said}"),
        () = dribble => {}
    }
}

#[tokio::test]
async fn connections() {
    needs_runtime!();
    let flags = ["--connections-max", "4", "--connections-per-user", "4"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::open(&daemon).await;
        raw.send(get("/v2/health/live")).await;
        assert_eq!(raw.reply().await.status, 200);
        open.push(raw);
    }
    let reply = Raw::once(&daemon, get("/v2/health/live")).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.body.contains("--connections-max is 4"), "{reply:?}");
    assert!(reply.head.contains("retry-after: 1"), "{reply:?}");
    // HTTP/2 is closed, which gRPC clients take for "unavailable".
    let mut http2 = Raw::open(&daemon).await;
    http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(http2.ended().await, b"");
    for raw in &mut open {
        raw.send(get("/v2/health/live")).await;
        assert_eq!(raw.reply().await.status, 200, "who was there first is not touched");
    }
    drop(open);
    let reached = async { while Raw::once(&daemon, get("/v2/health/live")).await.status != 200 {} };
    crate::serve::daemon::soon("a place", reached).await;
}
