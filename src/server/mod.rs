//! Sockets: connections in, one function per meaning behind them.
//!
//! HTTP/1.1, HTTP/2 and gRPC share each listener; they are told apart by a connection's first bytes and a
//! request's path.

mod authority;
mod body;
mod grpc;
mod health;
mod intake;
mod reflection;
pub mod regions;
mod rest;
pub mod rights;
pub mod service;
pub mod socket;

use crate::id::Tenant;
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rights::Peer;
use service::Service;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service as _;

/// Flow-control windows of HTTP/2: tensors of many megabytes are routine.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Streams of one HTTP/2 connection: stock gRPC clients put all their requests on one.
const STREAMS_MAX: u32 = 4096;
/// How long a connection may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// TCP peers have no credentials; they are one tenant of their own.
const TCP_PEER: Peer = Peer { tenant: Tenant(u64::MAX), uid: None, admin: false };

/// Limits of the front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request's body, at most.
    pub body_bytes_max: usize,
    /// Connections at a time, at most.
    pub connections_max: usize,
}

/// Everything that connections need.
#[derive(Clone)]
pub struct Front {
    service: Arc<Service>,
    limits: Limits,
    http: Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    /// Held by every connection; the last one gone tells that all are closed.
    open: watch::Sender<()>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Front {
    /// A front for a service; `closing` becomes true when no more requests are to be taken.
    #[must_use]
    pub fn new(service: Arc<Service>, limits: Limits, closing: watch::Receiver<bool>) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .pipeline_flush(true)
            // Clients of all ages spell headers in all ways; answers keep to lower case.
            .keep_alive(true);
        http.http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX);
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let (open, _) = watch::channel(());
        Self { service, limits, http, connections, closing, open }
    }

    /// Takes connections on a Unix socket until closing.
    pub async fn unix(self, listener: UnixListener) {
        loop {
            let Some(permit) = self.permit().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closed(self.closing.clone()) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Whoever cannot be told apart from others is not let in.
                    let Ok(credentials) = stream.peer_cred() else { continue };
                    let peer = local_peer(credentials.uid());
                    self.clone().serve(authority::Authority::new(stream), peer, permit);
                }
                Err(error) => survive(&error).await,
            }
        }
    }

    /// Takes connections on a TCP socket until closing.
    pub async fn tcp(self, listener: TcpListener) {
        loop {
            let Some(permit) = self.permit().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = closed(self.closing.clone()) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Without it small answers wait for acknowledgements.
                    let _ = stream.set_nodelay(true);
                    self.clone().serve(stream, TCP_PEER, permit);
                }
                Err(error) => survive(&error).await,
            }
        }
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        self.open.closed().await;
    }

    async fn permit(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        tokio::select! {
            permit = self.connections.clone().acquire_owned() => permit.ok(),
            () = closed(self.closing.clone()) => None,
        }
    }

    fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) {
        let open = self.open.subscribe();
        let closing = self.closing.clone();
        let answer = Answer::new(self.service, peer, self.limits);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer.clone().call(request));
            let connection = self.http.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = closed(closing) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!("a connection broke off: {error}");
            }
            drop((permit, open));
        });
    }
}

async fn closed(mut closing: watch::Receiver<bool>) {
    // A sender that is gone means the daemon ends.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// No error of one connection ends the listener; where descriptors are short, a pause lets some come back.
async fn survive(error: &std::io::Error) {
    tracing::warn!("a connection could not be accepted: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A peer on the Unix socket: the daemon's own user and root may change the daemon.
fn local_peer(uid: u32) -> Peer {
    let admin = uid == 0 || uid == rustix::process::geteuid().as_raw();
    Peer { tenant: Tenant(uid.into()), uid: Some(uid), admin }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answer {
    service: Arc<Service>,
    peer: Peer,
    limits: Limits,
    grpc: GrpcInferenceServiceServer<grpc::Grpc>,
}

impl Answer {
    fn new(service: Arc<Service>, peer: Peer, limits: Limits) -> Self {
        let grpc = grpc::Grpc { service: service.clone(), peer };
        let grpc = GrpcInferenceServiceServer::new(grpc)
            .max_decoding_message_size(limits.body_bytes_max)
            .max_encoding_message_size(usize::MAX);
        Self { service, peer, limits, grpc }
    }

    async fn call(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        if path.starts_with("/inference.GRPCInferenceService/") {
            let response = self.grpc.call(request).await?;
            return Ok(response.map(Body::Grpc));
        }
        if path.starts_with("/grpc.health.v1.Health/") {
            let mut health = HealthServer::new(health::Probe { service: self.service });
            let response = health.call(request).await?;
            return Ok(response.map(Body::Grpc));
        }
        if path.starts_with("/grpc.reflection.v1.ServerReflection/") {
            let response = reflection::answer(request).await;
            return Ok(response.map(Body::Grpc));
        }
        Ok(rest::answer(&self.service, self.peer, &self.limits, request).await)
    }
}
