//! Bytes on a socket, for what no client library would send.

use crate::serve::daemon::{Daemon, soon};
use std::fmt::Display;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// A connection.
pub(super) struct Raw<S = UnixStream>(pub(super) S);

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Raw {
    pub(super) async fn open(daemon: &Daemon) -> Self {
        Self(UnixStream::connect(daemon.setup.socket()).await.expect("the daemon listens"))
    }

    /// One request on a connection of its own.
    pub(super) async fn once(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> Reply {
        let mut raw = Self::open(daemon).await;
        raw.send(bytes).await;
        raw.reply().await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Sends bytes; a daemon that does not take them all has its reasons.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("bytes to be taken", self.0.write_all(bytes.as_ref())).await;
    }

    /// Reads one answer with a length.
    pub(super) async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer")
    }

    /// Reads one answer; none where the connection ends first.
    pub(super) async fn try_reply(&mut self) -> Option<Reply> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("an answer", self.0.read_u8()).await.ok()?);
        }
        let head = String::from_utf8(head).expect("text");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
        soon("a body", self.0.read_exact(&mut body)).await.ok()?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Some(Reply { status, head, body })
    }

    /// Waits for the end of the connection and says what came before it.
    pub(super) async fn ended(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(1..) = soon("the connection's end", async {
            let read = self.0.read(&mut piece).await;
            if let Ok(count) = read {
                rest.extend_from_slice(&piece[..count]);
            }
            read
        })
        .await
        {}
        rest
    }
}

/// The head of a request with a body of this length.
pub(super) fn head(path: &str, length: impl Display, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n")
}

/// A whole request.
pub(super) fn post(path: &str, body: impl AsRef<[u8]>, more: &str) -> Vec<u8> {
    let body = body.as_ref();
    [head(path, body.len(), more).as_bytes(), body].concat()
}

/// A request for something small.
pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The path for inference.
pub(super) fn infer(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}
