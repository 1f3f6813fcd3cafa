//! One gate before every route and method, in both codecs and on both listeners.
//!
//! What may be asked is read from the sources of the two tables of the server, so that whatever is added there
//! fails here until it is entered, with who may ask for it.

use super::raw::{Raw, get};
use crate::serve::daemon::{Daemon, Setup, needs_runtime, soon};
use bytes::Bytes;
use graftd::cli::client::Client;
use graftd::proto;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_types::FileDescriptorSet;
use rustix::thread::set_thread_res_uid;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use {Who::Admins, Who::All};

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    All,
    Admins,
}

/// Every path, and who may read it and who may post to it, where that is to be had at all.
const ROUTES: [(&str, Option<Who>, Option<Who>); 36] = [
    ("/metrics", Some(All), None),
    ("/v2", Some(All), None),
    ("/v2/", Some(All), None),
    ("/v2/graftd/families", Some(All), None),
    ("/v2/graftd/explain", Some(All), None),
    ("/v2/graftd/explain/7", Some(All), None),
    ("/v2/graftd/status", Some(All), None),
    ("/v2/health/live", Some(All), None),
    ("/v2/health/ready", Some(All), None),
    ("/v2/models/stats", Some(All), None),
    ("/v2/models/mlp", Some(All), None),
    ("/v2/models/mlp/ready", Some(All), None),
    ("/v2/models/mlp/config", Some(All), None),
    ("/v2/models/mlp/stats", Some(All), None),
    ("/v2/models/mlp/infer", None, Some(All)),
    ("/v2/models/mlp/versions/1", Some(All), None),
    ("/v2/models/mlp/versions/1/ready", Some(All), None),
    ("/v2/models/mlp/versions/1/config", Some(All), None),
    ("/v2/models/mlp/versions/1/stats", Some(All), None),
    ("/v2/models/mlp/versions/1/infer", None, Some(All)),
    ("/v2/models/mlp/trace/setting", Some(All), Some(Admins)),
    ("/v2/repository/index", None, Some(All)),
    ("/v2/repository/models/nope/load", None, Some(Admins)),
    ("/v2/repository/models/nope/unload", None, Some(Admins)),
    ("/v2/logging", Some(All), Some(Admins)),
    ("/v2/trace/setting", Some(All), Some(Admins)),
    ("/v2/systemsharedmemory/status", Some(Admins), None),
    ("/v2/systemsharedmemory/region/r/status", Some(Admins), None),
    ("/v2/systemsharedmemory/region/r/register", None, Some(Admins)),
    ("/v2/systemsharedmemory/region/r/unregister", None, Some(Admins)),
    ("/v2/systemsharedmemory/unregister", None, Some(Admins)),
    ("/v2/cudasharedmemory/status", Some(Admins), None),
    ("/v2/cudasharedmemory/region/r/status", Some(Admins), None),
    ("/v2/cudasharedmemory/region/r/register", None, Some(Admins)),
    ("/v2/cudasharedmemory/region/r/unregister", None, Some(Admins)),
    ("/v2/cudasharedmemory/unregister", None, Some(Admins)),
];

/// Every method of the inference service, and who may call it with an empty message.
const METHODS: [(&str, Who); 20] = [
    ("ServerLive", All),
    ("ServerReady", All),
    ("ModelReady", All),
    ("ServerMetadata", All),
    ("ModelMetadata", All),
    ("ModelInfer", All),
    ("ModelStreamInfer", All),
    ("ModelConfig", All),
    ("ModelStatistics", All),
    ("RepositoryIndex", All),
    ("RepositoryModelLoad", Admins),
    ("RepositoryModelUnload", Admins),
    ("SystemSharedMemoryStatus", Admins),
    ("SystemSharedMemoryRegister", Admins),
    ("SystemSharedMemoryUnregister", Admins),
    ("CudaSharedMemoryStatus", Admins),
    ("CudaSharedMemoryRegister", Admins),
    ("CudaSharedMemoryUnregister", Admins),
    // Without settings they are only read.
    ("TraceSetting", All),
    ("LogSettings", All),
];

/// The methods of the other services; all may call them.
const OTHERS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// The code of a source file without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// The patterns of paths that the router has, each by its parts.
fn patterns() -> Vec<Vec<&'static str>> {
    let code = code(include_str!("../../../src/server/rest/route.rs"));
    let arms = code.lines().map(str::trim).filter(|line| line.starts_with('['));
    let arms: Vec<&str> = arms.collect();
    let whole = arms.iter().all(|arm| arm.contains("=>"));
    assert!(whole && arms.len() > 20, "the patterns are no longer written as they are read here");
    let slices = arms.iter().flat_map(|arm| {
        arm.split("=>")
            .next()
            .unwrap_or_default()
            .split(" if ")
            .next()
            .unwrap_or_default()
            .split(" | ")
    });
    slices
        .map(|slice| slice.trim().trim_matches(['[', ']']).split_terminator(", ").collect())
        .collect()
}

fn fits(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((&"rest @ ..", _)), _) => true,
        (Some((wanted, pattern)), Some((part, parts))) => {
            let literal = wanted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            literal.is_none_or(|literal| literal == *part) && fits(pattern, parts)
        }
        _ => false,
    }
}

/// A path as the router's patterns see it: whole, and what is left of it below a model or a kind of memory.
fn seen(path: &'static str) -> Vec<Vec<&'static str>> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let below = match parts.as_slice() {
        ["v2", "models", "stats"] => Vec::new(),
        ["v2", "models", _, "versions", _, rest @ ..] => {
            vec![parts[3..].to_vec(), rest.to_vec()]
        }
        ["v2", "models", _, rest @ ..] => vec![rest.to_vec()],
        ["v2", "systemsharedmemory" | "cudasharedmemory", rest @ ..] => vec![rest.to_vec()],
        _ => Vec::new(),
    };
    [vec![parts], below].concat()
}

#[test]
fn what_can_be_asked_is_in_the_tables() {
    let all: Vec<Vec<&str>> = ROUTES.iter().flat_map(|(path, ..)| seen(path)).collect();
    for pattern in patterns() {
        assert!(all.iter().any(|parts| fits(&pattern, parts)), "{pattern:?} is in no entry");
    }
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
    let services = set.file.iter().flat_map(|file| &file.service);
    let methods: BTreeSet<&str> =
        services.flat_map(|service| &service.method).map(|method| method.name()).collect();
    assert_eq!(methods, METHODS.iter().map(|(method, _)| *method).collect());
    let code = code(include_str!("../../../src/server/methods.rs"));
    let named = code.split('"').skip(1).step_by(2).filter(|text| text.starts_with("/grpc."));
    let named = named.filter(|text| !text.ends_with(['.', '/'])).collect::<BTreeSet<_>>();
    assert_eq!(named, OTHERS.into_iter().collect());
}

/// Asks for everything over REST.
async fn check_rest(client: &mut Client, admin: bool, who: &str) {
    for (path, read, post) in ROUTES {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
            let may = match method {
                Method::GET | Method::HEAD => read,
                Method::POST => post,
                _ => None,
            };
            let body = Bytes::from_static(if method == Method::POST { b"{}" } else { b"" });
            let sent = client.send(method.clone(), path, HeaderMap::new(), body);
            let answer = soon("an answer", sent).await.expect("the connection stays");
            let status = answer.status;
            let asked = format!("{who}: {method} {path}: {answer:?}");
            match may {
                None => assert_eq!(status, 405, "{asked}"),
                Some(Admins) if !admin => assert_eq!(status, 403, "{asked}"),
                Some(_) => assert!(
                    ![403, 405].contains(&status) && (status < 500 || status == 501),
                    "{asked}"
                ),
            }
        }
    }
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stream);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// The gRPC status of a call.
async fn status(sender: &mut SendRequest<Full<Bytes>>, path: &str, message: &[u8]) -> Code {
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new([&[0], &length[..], message].concat().into()))
        .expect("a request");
    let response = soon("an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    let told = response.headers().get("grpc-status").cloned();
    if told.is_none() && path.ends_with("/Watch") {
        // It goes on for ever.
        return Code::Ok;
    }
    let body = soon("a body", response.into_body().collect()).await.expect("a body");
    let told = told.or_else(|| body.trailers()?.get("grpc-status").cloned());
    Code::from_bytes(told.expect("a gRPC status").as_bytes())
}

/// Calls everything over gRPC.
async fn check_grpc(sender: &mut SendRequest<Full<Bytes>>, admin: bool, who: &str) {
    let level = proto::log_settings_request::SettingValue {
        parameter_choice: Some(
            proto::log_settings_request::setting_value::ParameterChoice::Uint32Param(0),
        ),
    };
    let logs =
        proto::LogSettingsRequest { settings: [("log_verbose_level".to_owned(), level)].into() };
    let value = proto::trace_setting_request::SettingValue { value: vec!["OFF".to_owned()] };
    let traces = proto::TraceSettingRequest {
        settings: [("trace_level".to_owned(), value)].into(),
        ..Default::default()
    };
    let inference = |method: &str| format!("/inference.GRPCInferenceService/{method}");
    let methods = METHODS.map(|(method, may)| (inference(method), Vec::new(), may));
    let changes = [
        (inference("LogSettings"), logs.encode_to_vec(), Admins),
        (inference("TraceSetting"), traces.encode_to_vec(), Admins),
    ];
    let others = OTHERS.map(|method| (method.to_owned(), Vec::new(), All));
    for (path, message, may) in methods.into_iter().chain(changes).chain(others) {
        let code = status(sender, &path, &message).await;
        let denied = !admin && may == Admins;
        assert_eq!(code == Code::PermissionDenied, denied, "{who}: {path}: {code:?}");
    }
    for path in ["/inference.GRPCInferenceService/Nope", "/other.Service/Method"] {
        assert_eq!(status(sender, path, b"").await, Code::Unimplemented, "{path}");
    }
}

async fn tcp(daemon: &Daemon) -> TcpStream {
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    TcpStream::connect(address).await.expect("it listens")
}

/// A user that owns nothing here.
const OTHER: u32 = 65_534;

/// A connection that the system takes for that user's; an error where this process may not do that.
fn as_other(socket: &Path) -> io::Result<UnixStream> {
    let socket = socket.to_owned();
    // Users are the kernel's matter thread by thread, and this thread is used for nothing else.
    let connecting = std::thread::Builder::new().name("stranger".to_owned()).spawn(move || {
        let other = rustix::process::Uid::from_raw(OTHER);
        set_thread_res_uid(other, other, other)?;
        std::os::unix::net::UnixStream::connect(socket)
    })?;
    let stream = connecting.join().map_err(|_| io::Error::other("it panicked"))??;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn open_to_all(daemon: &Daemon) {
    let socket = daemon.setup.socket();
    let folder = socket.parent().expect("a folder");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("it is ours");
}

#[tokio::test]
async fn every_route_and_method_on_both_listeners() {
    needs_runtime!();
    let flags = ["--listen", "127.0.0.1:0"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    check_rest(&mut Client::over(tcp(&daemon).await).await.expect("HTTP"), false, "TCP").await;
    check_grpc(&mut http2(tcp(&daemon).await).await, false, "TCP").await;
    let own = async || UnixStream::connect(daemon.setup.socket()).await.expect("it listens");
    check_rest(&mut Client::over(own().await).await.expect("HTTP"), true, "own user").await;
    check_grpc(&mut http2(own().await).await, true, "own user").await;
    let flags = ["--listen", "127.0.0.1:0", "--tcp-admin"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    check_rest(&mut Client::over(tcp(&daemon).await).await.expect("HTTP"), true, "TCP").await;
    check_grpc(&mut http2(tcp(&daemon).await).await, true, "TCP").await;
}

#[tokio::test]
async fn every_route_and_method_for_another_user() {
    needs_runtime!();
    if !rustix::process::geteuid().is_root() {
        let why = "only root can connect as another user";
        let name = "front::rights::every_route_and_method_for_another_user";
        // Past the test harness, which shows only what failing tests print.
        let _ = writeln!(io::stderr(), "skipped: {name}: {why}");
        return;
    }
    let other = OTHER.to_string();
    for (flags, admin) in [
        (vec!["--socket-mode", "0666"], false),
        (vec!["--socket-mode", "0666", "--admin-users", &other], true),
    ] {
        let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
        open_to_all(&daemon);
        let stranger = || as_other(&daemon.setup.socket()).expect("the socket is open to all");
        check_rest(&mut Client::over(stranger()).await.expect("HTTP"), admin, "other user").await;
        check_grpc(&mut http2(stranger()).await, admin, "other user").await;
    }
    // With the usual mode of the socket's file nobody else comes even as far as that.
    let daemon = Setup::new(&["mlp"]).start().await;
    open_to_all(&daemon);
    let refused = as_other(&daemon.setup.socket()).expect_err("the socket is its owner's");
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
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
