//! A socket that answers as a daemon might, as late as a test wants.

use crate::serve::daemon::soon;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

/// What it answers: a status, and a body.
pub(super) type Said = (u16, &'static str);

/// A stand-in for a daemon; it goes with the test.
pub(super) struct StandIn {
    folder: TempDir,
    go: Arc<Semaphore>,
}

impl StandIn {
    /// Answers as `says` does by the path; to a path that ends with `late` only when it is let go.
    pub(super) fn new(late: &'static str, says: fn(&str) -> Said) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("s.sock")).expect("a new socket");
        let go = Arc::new(Semaphore::new(0));
        let gate = go.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gate = gate.clone();
                let answer = move |request: Request<Incoming>| {
                    let gate = gate.clone();
                    async move { Ok::<_, Infallible>(answer(&request, &gate, late, says).await) }
                };
                let stream = TokioIo::new(stream);
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(stream, service_fn(answer)));
            }
        });
        Self { folder, go }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    /// Lets what is late be answered.
    pub(super) fn let_go(&self) {
        self.go.close();
    }
}

async fn answer(
    request: &Request<Incoming>,
    gate: &Semaphore,
    late: &str,
    says: fn(&str) -> Said,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !late.is_empty() && path.ends_with(late) {
        // It opens by being closed.
        let _ = soon("the test to let go", gate.acquire()).await;
    }
    let (status, body) = says(path);
    let response = Response::builder().status(status).header("retry-after", "2");
    response.body(Full::from(body)).expect("a response")
}

/// A socket whose listener is gone.
pub(super) fn stale(folder: &Path) -> PathBuf {
    let path = folder.join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a new socket"));
    path
}
