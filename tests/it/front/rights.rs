//! One gate before every gRPC method, on both listeners; and names that only web pages would use.

use super::raw::{Raw, get};
use crate::serve::daemon::{Daemon, Setup, needs_runtime, soon};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;

/// What only administrators may do.
const CHANGING: [&str; 8] = [
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
];

fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(graftd::proto::DESCRIPTORS).expect("descriptors");
    let services = set.file.iter().flat_map(|file| &file.service);
    services.flat_map(|service| &service.method).map(|method| method.name().to_owned()).collect()
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stream);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The gRPC status of a call with an empty message.
async fn status(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> Code {
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .expect("a request");
    let response = soon("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    let told = response.headers().get("grpc-status").cloned();
    let body = soon("a body", response.into_body().collect()).await.expect("a body");
    let told = told.or_else(|| body.trailers()?.get("grpc-status").cloned());
    Code::from_bytes(told.expect("a gRPC status").as_bytes())
}

async fn check(sender: &mut SendRequest<Full<Bytes>>, admin: bool) {
    for method in methods() {
        let code = status(sender, &format!("/inference.GRPCInferenceService/{method}")).await;
        let denied = !admin && CHANGING.contains(&method.as_str());
        assert_eq!(code == Code::PermissionDenied, denied, "{method}: {code:?}");
    }
    for path in ["/inference.GRPCInferenceService/Nope", "/other.Service/Method"] {
        assert_eq!(status(sender, path).await, Code::Unimplemented, "{path}");
    }
}

async fn tcp(daemon: &Daemon) -> TcpStream {
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    TcpStream::connect(address).await.expect("it listens")
}

#[tokio::test]
async fn every_grpc_method_on_both_listeners() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).flags(&["--listen", "127.0.0.1:0"]).start().await;
    let unix = UnixStream::connect(daemon.setup.socket()).await.expect("it listens");
    check(&mut http2(unix).await, true).await;
    check(&mut http2(tcp(&daemon).await).await, false).await;
    let flags = ["--listen", "127.0.0.1:0", "--tcp-admin"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    check(&mut http2(tcp(&daemon).await).await, true).await;
}

#[tokio::test]
async fn a_web_page_cannot_talk_to_it() {
    needs_runtime!();
    let flags = ["--listen", "127.0.0.1:0", "--allow-host", "models.test"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let ask = |host: &str, more: &str| {
        get("/v2/health/live").replace("localhost\r\n", &format!("{host}\r\n{more}"))
    };
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for host in ["localhost:8000", "127.0.0.1", "[::1]:8000", "models.test", &own] {
        let mut raw = Raw(tcp(&daemon).await);
        raw.send(ask(host, "")).await;
        assert_eq!(raw.reply().await.status, 200, "{host}");
    }
    for (host, more) in [("evil.test", ""), ("localhost", "Origin: http://evil.test\r\n")] {
        let mut raw = Raw(tcp(&daemon).await);
        raw.send(ask(host, more)).await;
        let reply = raw.reply().await;
        assert!(reply.status == 403 && reply.body.contains("--allow-host"), "{reply:?}");
        // No page reaches a Unix socket, whatever its clients call it.
        assert_eq!(Raw::once(&daemon, ask(host, more)).await.status, 200);
    }
}
