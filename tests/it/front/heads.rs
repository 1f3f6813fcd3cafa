//! Requests that are none: what the parser refuses is told in the same words as everything else.

use super::raw::{Raw, infer};
use crate::serve::ask::{Ask, Form, Http2, fp32};
use crate::serve::daemon::{Setup, needs_runtime};
use bytes::Bytes;
use graftd::proto::RepositoryIndexRequest;
use http_body_util::Full;
use tower_service::Service as _;

fn chunked(path: &str, more: &str, chunks: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{more}\r\n");
    let piece = |chunk: &str| format!("{:x}\r\n{chunk}\r\n", chunk.len());
    let pieces: String = chunks.into_iter().map(|chunk| piece(chunk.as_ref())).collect();
    format!("{head}{pieces}0\r\n\r\n").into_bytes()
}

fn text() -> String {
    let (body, _) = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]).body(Form::Json);
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test]
async fn what_is_no_request_is_told_so_in_json() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let headed = |more: &str| format!("GET /v2 HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let many: String = (0..300).map(|n| format!("h{n}: x\r\n")).collect();
    let long = format!("f: {}\r\n", "v".repeat(200_000));
    let path = infer("mlp");
    let two = format!("POST {path} HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    let ones = text().chars().map(String::from).collect::<Vec<_>>();
    let storm = chunked(&path, "", ones.iter().cycle().take(70_000));
    let twice =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n");
    let table: [(Vec<u8>, u16, &str); 9] = [
        (headed(&many).into(), 431, "--headers-max"),
        (headed(&long).into(), 431, "--header-bytes-max"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).into(), 414, "path is too long"),
        (headed("f: a\0b\r\n").into(), 400, "visible characters"),
        (two.into(), 400, "no more than one Content-Length"),
        (headed("Content-Length: -1\r\n").into(), 400, "Content-Length"),
        (b"what is this\r\n\r\n".to_vec(), 400, "no HTTP/1.1 request"),
        (twice.into(), 501, "expected chunked"),
        (storm, 413, "too many pieces"),
    ];
    for (bytes, status, words) in table {
        let reply = Raw::once(&daemon, bytes).await;
        assert_eq!(reply.status, status, "{words}: {reply:?}");
        assert!(reply.head.contains("content-type: application/json"), "{words}: {reply:?}");
        let body: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
        let told = body["error"].as_str().is_some_and(|error| error.contains(words));
        assert!(told, "{words}: {reply:?}");
    }
}

#[tokio::test]
async fn nothing_follows_a_body_with_two_lengths() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    // Chunks decide, as RFC 9112 has it; somebody between may have believed the other length, so no more is read.
    let mut raw = Raw::open(&daemon).await;
    let request = chunked(&infer("mlp"), "Content-Length: 5\r\n", [text()]);
    raw.send([request, super::raw::get("/v2").into_bytes()].concat()).await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.head.contains("connection: close"), "{reply:?}");
    assert_eq!(raw.ended().await, b"");
}

#[tokio::test]
async fn what_is_no_protobuf_is_the_senders_fault() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut http2 = Http2::connect(&daemon.setup.socket()).await;
    for method in ["ModelInfer", "ModelMetadata", "RepositoryIndex"] {
        let message = Bytes::from_static(b"\0\0\0\0\x05\xff\xff\xff\xff\xff");
        let request = http::Request::post(format!("/inference.GRPCInferenceService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(Full::new(message)))
            .expect("a request");
        let response = http2.call(request).await.expect("an answer");
        let status = tonic::Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{method}: {status}");
        assert!(status.message().contains("invalid varint"), "{method}: {status}");
    }
}

#[tokio::test]
async fn there_is_one_repository() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut client = crate::serve::ask::grpc(&daemon.setup.socket()).await;
    let request =
        |name: &str| RepositoryIndexRequest { repository_name: name.into(), ready: false };
    let refused = client.repository_index(request("other")).await.expect_err("no such repository");
    assert_eq!(refused.code(), tonic::Code::Unimplemented, "{refused}");
    assert!(refused.message().contains("leave repository_name out"), "{refused}");
    let listed = client.repository_index(request("")).await.expect("the index").into_inner();
    assert_eq!(listed.models.len(), 1);
}
