//! The README's client in Rust: one request over the Unix socket, with hyper and no package of ours.
//!
//! `cargo run --example client` beside a running daemon; a test compares what follows with the README and runs it.

#![expect(clippy::print_stdout, reason = "an example shows its answer")]

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stream = tokio::net::UnixStream::connect("graftd.sock").await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);

    let row = [5.1, 3.5, 1.4, 0.2];
    let x = json!({"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row});
    let request = Request::post("/v2/models/iris/infer")
        .header("host", "localhost")
        .body(Full::<Bytes>::from(json!({"inputs": [x]}).to_string()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    println!("{status}: {}", answer["outputs"][0]["data"]);
    Ok(())
}
