//! Compressed bodies over both transports, honest ones and bombs.

use super::raw::{Raw, infer, post};
use crate::serve::ask::{Ask, Form, fp32, grpc, read_grpc};
use crate::serve::daemon::{Daemon, Setup, needs_runtime, soon};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};
use graftd::cli::client::HEADER_LENGTH;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use std::fs;
use std::io::Read;
use tonic::codec::CompressionEncoding;

fn read(mut reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("good bytes");
    bytes
}

fn packed(bytes: &[u8], coding: &str) -> Vec<u8> {
    match coding {
        "gzip" => read(GzEncoder::new(bytes, Compression::fast())),
        _ => read(ZlibEncoder::new(bytes, Compression::fast())),
    }
}

/// A question whose answer is long enough to be compressed.
fn ask(rows: usize) -> Ask {
    Ask::new("id_fp32", vec![fp32("x", &[rows, 64], &vec![1.5; rows * 64])])
}

#[tokio::test]
async fn rest_takes_and_gives_both_codings() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32"]).start().await;
    let mut client = daemon.client().await;
    for form in [Form::Json, Form::Binary] {
        let (body, length) = ask(40).body(form);
        let mut headers = HeaderMap::new();
        length.map(|length| headers.insert(HEADER_LENGTH, HeaderValue::from(length)));
        let path = ask(40).path();
        let send = |headers: HeaderMap, body: Vec<u8>| (Method::POST, path.clone(), headers, body);
        let plain = send(headers.clone(), body.to_vec());
        let plain =
            client.send(plain.0, &plain.1, plain.2, plain.3.into()).await.expect("an answer");
        assert_eq!(plain.status, 200);
        for coding in ["gzip", "deflate"] {
            let mut headers = headers.clone();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding));
            let body = packed(&body, coding).into();
            let answer = client.send(Method::POST, &path, headers, body).await.expect("an answer");
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            assert_eq!(answer.header("content-encoding"), Some(coding));
            // The length of the JSON is counted before compression.
            let length = HEADER_LENGTH;
            assert_eq!(answer.header(length.as_str()), plain.header(length.as_str()));
            let body = match coding {
                "gzip" => read(GzDecoder::new(&answer.body[..])),
                _ => read(ZlibDecoder::new(&answer.body[..])),
            };
            assert_eq!(body, plain.body, "{coding} {form:?}");
        }
        // What libraries send by themselves gets the plain answer, and so does every other route.
        let mut headers = headers.clone();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br, zstd"));
        let answer = client.send(Method::POST, &path, headers.clone(), body).await.expect("one");
        assert_eq!(answer.header("content-encoding"), None);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let answer = client.send(Method::GET, "/metrics", headers, "".into()).await.expect("one");
        assert_eq!(answer.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn grpc_takes_both_codings_and_answers_in_kind() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32"]).start().await;
    let expected = ask(40).of(&daemon, Form::GrpcRaw).await.expect("an answer");
    for coding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let client = grpc(&daemon.setup.socket()).await.send_compressed(coding);
        let mut client = client.accept_compressed(coding);
        let answer = soon("an answer", client.model_infer(ask(40).message(Form::GrpcRaw))).await;
        let used = answer.as_ref().expect("an answer").metadata().get("grpc-encoding").cloned();
        assert!(used.is_some(), "{coding:?} is not used for the answer");
        assert_eq!(read_grpc(answer).expect("an answer").outputs, expected.outputs);
        // A client that only accepts it, as all stock ones do, is not made to pay for it.
        let mut client = grpc(&daemon.setup.socket()).await.accept_compressed(coding);
        let answer = soon("an answer", client.model_infer(ask(40).message(Form::GrpcRaw))).await;
        assert_eq!(answer.expect("an answer").metadata().get("grpc-encoding"), None);
    }
}

fn resident(daemon: &Daemon) -> u64 {
    let pid = daemon.child.id().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn bombs_cost_less_than_two_bodies() {
    needs_runtime!();
    const LIMIT: u64 = 32 << 20;
    let flags = ["--body-bytes-max", "32M"];
    let daemon = Setup::new(&["id_fp32"]).flags(&flags).start().await;
    ask(1).of(&daemon, Form::Json).await.expect("an answer");
    let before = resident(&daemon);
    let zeros = vec![0; 512 << 20];
    let gzip = packed(&zeros, "gzip");
    let members = packed(&zeros[..16 << 20], "gzip").repeat(32);
    let bombs = [("gzip", gzip.clone()), ("deflate", packed(&zeros, "deflate")), ("gzip", members)];
    drop(zeros);
    for (coding, bomb) in &bombs {
        let more = format!("Content-Encoding: {coding}\r\n");
        let reply = Raw::once(&daemon, post(&infer("id_fp32"), bomb, &more)).await;
        assert_eq!(reply.status, 413, "{reply:?}");
        assert!(reply.body.contains("--body-bytes-max"), "{reply:?}");
    }
    // One layer is taken off: a bomb in a parcel is a small body that is no request.
    let nested = post(&infer("id_fp32"), packed(&gzip, "gzip"), "Content-Encoding: gzip\r\n");
    assert_eq!(Raw::once(&daemon, nested).await.status, 400);
    let huge = Ask::new("id_fp32", vec![fp32("x", &[1 << 20, 16], &vec![0.0; 16 << 20])]);
    for coding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = grpc(&daemon.setup.socket()).await.send_compressed(coding);
        let status = soon("an answer", client.model_infer(huge.message(Form::GrpcRaw))).await;
        let status = status.expect_err("it is too large");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        assert!(
            status.message().contains("when inflated, the limit of --body-bytes-max"),
            "{status}"
        );
    }
    let grown = resident(&daemon) - before;
    assert!(grown < 2 * LIMIT, "grew by {grown} bytes");
    ask(1).of(&daemon, Form::Json).await.expect("it serves on");
}

#[tokio::test]
async fn what_is_not_offered_is_said() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32"]).start().await;
    let path = infer("id_fp32");
    let send =
        |coding: &str, body: &[u8]| post(&path, body, &format!("Content-Encoding: {coding}\r\n"));
    let (body, _) = ask(1).body(Form::Json);
    for (coding, bytes, status) in [
        ("br", body.to_vec(), 415),
        ("gzip, gzip", packed(&packed(&body, "gzip"), "gzip"), 415),
        ("gzip", body.to_vec(), 400),
        ("deflate", body.to_vec(), 400),
        ("gzip", packed(&body, "gzip")[..20].to_vec(), 400),
        ("identity", body.to_vec(), 200),
    ] {
        let reply = Raw::once(&daemon, send(coding, &bytes)).await;
        assert_eq!(reply.status, status, "{coding}: {reply:?}");
        assert_eq!(
            reply.head.contains("accept-encoding: gzip, deflate"),
            status == 415,
            "{coding}"
        );
    }
    let daemon = Setup::new(&["id_fp32"]).flags(&["--no-compression"]).start().await;
    let reply = Raw::once(&daemon, send("gzip", &packed(&body, "gzip"))).await;
    assert!(reply.status == 415 && reply.body.contains("--no-compression"), "{reply:?}");
    let mut client = grpc(&daemon.setup.socket()).await.send_compressed(CompressionEncoding::Gzip);
    let status = soon("an answer", client.model_infer(ask(1).message(Form::GrpcRaw))).await;
    assert_eq!(status.expect_err("a refusal").code(), tonic::Code::Unimplemented);
}
