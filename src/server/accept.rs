//! The doors: connections are taken, counted, and shown in or turned away.

use super::authority::Authority;
use super::rights::{Peer, Rule};
use super::stream::Socket;
use super::{Caller, Front};
use crate::error::InferError;
use crate::oip::{rest, status};
use bytes::Bytes;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Pauses after the system had no descriptor or memory for a connection: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections that are being turned away at a time; the others past the limit are closed without a word.
const TURNED_AWAY_MAX: usize = 16;
/// How long one that is turned away has to send what it wants and to take the answer.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// Descriptors kept for models, workers and files.
const RESERVE_MAX: usize = 1024;
const RESERVE_MIN: usize = 32;

/// What takes connections.
pub(super) trait Door: Send + Sync + 'static {
    /// A connection that was taken.
    type Stream: Socket;
    /// Whether peers are told apart by their user.
    const USERS: bool;

    /// Takes the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who is at the other end; none where the system does not say.
    fn peer(stream: &Self::Stream, rule: &Rule) -> Option<Peer>;

    /// Whether a page in a browser could have been tricked into this connection.
    fn from_browser(stream: &Self::Stream) -> bool;
}

impl Door for UnixListener {
    type Stream = Authority<UnixStream>;
    const USERS: bool = true;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(Authority::new(Self::accept(self).await?.0))
    }

    fn peer(stream: &Self::Stream, rule: &Rule) -> Option<Peer> {
        stream.inner().peer_cred().ok().map(|credentials| rule.local(credentials.uid()))
    }

    fn from_browser(_: &Self::Stream) -> bool {
        false
    }
}

impl Door for TcpListener {
    type Stream = TcpStream;
    const USERS: bool = false;

    async fn accept(&self) -> io::Result<Self::Stream> {
        let (stream, _) = Self::accept(self).await?;
        // Without it small answers wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn peer(_: &Self::Stream, rule: &Rule) -> Option<Peer> {
        Some(rule.tcp())
    }

    fn from_browser(stream: &Self::Stream) -> bool {
        stream.local_addr().is_ok_and(|address| address.ip().is_loopback())
    }
}

/// Takes connections until closing. No error of one connection ends it.
pub(super) async fn run<D: Door>(front: Front, door: D) {
    let mut pause = None;
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            () = front.phases.draining() => return,
        };
        match accepted {
            Ok(stream) => {
                if pause.take().is_some() {
                    tracing::info!("connections are accepted again");
                }
                show_in::<D>(&front, stream, &turned_away);
            }
            Err(error) if short(&error) => {
                let wait = match pause {
                    // Once per episode, however long it lasts.
                    None => {
                        tracing::warn!("connections cannot be accepted for now: {error}");
                        PAUSE_MIN
                    }
                    Some(last) => PAUSE_MAX.min(2 * last),
                };
                pause = Some(wait);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = front.phases.draining() => return,
                }
            }
            Err(error) => tracing::debug!("a connection was gone before it was accepted: {error}"),
        }
    }
}

fn show_in<D: Door>(front: &Front, stream: D::Stream, turned_away: &Arc<Semaphore>) {
    // Whoever cannot be told apart from others is not let in.
    let Some(peer) = D::peer(&stream, &front.rule) else { return };
    match front.seats.take(D::USERS.then_some(peer.uid).flatten()) {
        Ok(seat) => {
            let from_browser = D::from_browser(&stream);
            front.clone().serve(stream, Caller { peer, from_browser }, seat);
        }
        Err(error) => {
            let Ok(permit) = turned_away.clone().try_acquire_owned() else { return };
            tokio::spawn(async move {
                // Whatever comes of it, the connection is closed.
                let _ = tokio::time::timeout(TURN_AWAY, turn_away(stream, &error)).await;
                drop(permit);
            });
        }
    }
}

/// Answers an HTTP/1 request with the refusal; HTTP/2 clients take a closed connection for the same.
async fn turn_away(mut stream: impl Socket, error: &InferError) -> io::Result<()> {
    let mut seen = [0; 4096];
    let count = stream.read(&mut seen).await?;
    if count == 0 || seen.starts_with(b"PRI ") {
        return Ok(());
    }
    let body: Bytes = rest::metadata::error(&error.message);
    let wait = error.retry_after.map_or(1, status::retry_after_secs);
    let head = format!(
        "HTTP/1.1 {} Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: {wait}\r\nconnection: close\r\n\r\n",
        status::http(error.kind),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    // What is still being sent would otherwise turn the answer into a reset.
    while stream.read(&mut seen).await? > 0 {}
    Ok(())
}

/// Whether the system is short of something that comes back; anything else concerns one connection.
fn short(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Raises the number of descriptors to what the system allows, and says how many connections that leaves.
pub(super) fn descriptors() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let Some(all) = limit.current else { return usize::MAX };
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    all.saturating_sub((all / 4).clamp(RESERVE_MIN, RESERVE_MAX)).max(1)
}
