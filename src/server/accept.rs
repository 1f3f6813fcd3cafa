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
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// Pauses after the system had no descriptor or memory for a connection: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long connections must have been accepted for a shortage to be over.
const CALM: Duration = Duration::from_secs(2);
/// Connections that are being turned away at a time; the others past the limit are closed without a word.
const TURNED_AWAY_MAX: usize = 16;
/// How long one that is turned away has to send what it wants and to take the answer.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// Descriptors kept for models, workers and files.
const RESERVE_MAX: usize = 1024;
const RESERVE_MIN: usize = 16;

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
    let turned_away = Arc::new(Semaphore::new(front.turned_away_max));
    // While the system is short of descriptors: the last pause, and when it counts as over.
    let mut shortage: Option<(Duration, Pin<Box<Sleep>>)> = None;
    loop {
        let calm = async {
            match &mut shortage {
                Some((_, over)) => over.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            () = calm => {
                tracing::info!("connections are accepted again");
                shortage = None;
                continue;
            }
            () = front.phases.draining() => return,
        };
        match accepted {
            Ok(stream) => show_in::<D>(&front, stream, &turned_away),
            Err(error) if short(&error) => {
                let pause = match &shortage {
                    // Once per episode, however long it lasts.
                    None => {
                        tracing::warn!("connections cannot be accepted for now: {error}");
                        PAUSE_MIN
                    }
                    Some((last, _)) => PAUSE_MAX.min(2 * *last),
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = front.phases.draining() => return,
                }
                shortage = Some((pause, Box::pin(tokio::time::sleep(CALM))));
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

/// How many descriptors there are for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// For connections.
    pub(super) connections: usize,
    /// For those that are told that there is no room.
    pub(super) turned_away: usize,
}

/// Raises the number of descriptors to what the system allows and shares it out.
pub(super) fn descriptors() -> Descriptors {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let all = limit.current.and_then(|all| usize::try_from(all).ok()).unwrap_or(usize::MAX);
    // Where the system does not tell, the reserve has to do.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    share_out(all, open)
}

fn share_out(all: usize, open: usize) -> Descriptors {
    let turned_away = (all / 16).clamp(1, TURNED_AWAY_MAX);
    let reserve = (all / 4).clamp(RESERVE_MIN, RESERVE_MAX);
    let connections = all.saturating_sub(open + turned_away + reserve).max(1);
    Descriptors { connections, turned_away }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_needs_itself_comes_first() {
        assert_eq!(share_out(64, 22), Descriptors { connections: 22, turned_away: 4 });
        assert_eq!(share_out(20, 22), Descriptors { connections: 1, turned_away: 1 });
        let many = share_out(1 << 20, 22);
        assert!(many.connections > 1_000_000 && many.turned_away == TURNED_AWAY_MAX, "{many:?}");
    }

    #[test]
    fn only_what_comes_back_is_waited_for() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(short(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM] {
            assert!(!short(&errno.into()), "{errno}");
        }
    }
}
