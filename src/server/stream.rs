//! A connection's bytes on their way in and out, watched.
//!
//! Tells HTTP/2 from HTTP/1 by the first bytes, notes when bytes move and when they do not, and settles what
//! the end of a client's bytes means.

use super::activity::Activity;
use super::authority::Authority;
use super::limits::Limits;
use super::refusal;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read of a refused body, and for how long, so that its sender gets to read the refusal.
const LINGER_BYTES: usize = 64 << 10;
const LINGER: Duration = Duration::from_millis(100);

/// What the end of a client's bytes says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It closed its side and reads on.
    Reads,
    /// It is gone.
    Gone,
    /// It may be either.
    Unknown,
}

/// A socket that can say what the end of its bytes means.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// What is known of a client whose bytes ended.
    fn rest(&self) -> Rest;
}

impl Socket for TcpStream {
    fn rest(&self) -> Rest {
        // One FIN for both.
        Rest::Unknown
    }
}

impl Socket for UnixStream {
    fn rest(&self) -> Rest {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut watched = [PollFd::new(self, PollFlags::empty())];
        let polled = poll(&mut watched, Some(&Timespec::default()));
        let up = polled.is_ok() && !watched[0].revents().contains(PollFlags::HUP);
        if up { Rest::Reads } else { Rest::Gone }
    }
}

impl<S: Socket> Socket for Authority<S> {
    fn rest(&self) -> Rest {
        self.inner().rest()
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A watched socket.
#[derive(Debug)]
pub(super) struct Stream<S> {
    inner: S,
    activity: Arc<Activity>,
    limits: Limits,
    /// Bytes that were looked at and are still to be read.
    first: Bytes,
    /// Bytes that are written in place of those that were given.
    instead: Option<Bytes>,
    closing: Closing,
}

/// How far this side's end of the connection is.
#[derive(Debug)]
enum Closing {
    Not,
    /// Closed for writing; reading what nobody wants, so many bytes and so long.
    Lingering(Pin<Box<Sleep>>, usize),
    Done,
}

impl<S: Socket> Stream<S> {
    pub(super) fn new(inner: S, activity: Arc<Activity>, limits: Limits) -> Self {
        Self { inner, activity, limits, first: Bytes::new(), instead: None, closing: Closing::Not }
    }

    /// Tells the protocol by the first bytes, which stay to be read.
    ///
    /// Anything but the whole preface of HTTP/2 is HTTP/1, whose parser knows how to refuse it.
    pub(super) async fn protocol(&mut self) -> io::Result<Protocol> {
        let mut seen = BytesMut::with_capacity(PREFACE.len());
        let protocol = loop {
            let mut piece = [0; PREFACE.len()];
            let room = piece.get_mut(..PREFACE.len() - seen.len()).unwrap_or_default();
            let count = self.read(room).await?;
            seen.extend_from_slice(room.get(..count).unwrap_or_default());
            if !PREFACE.starts_with(&seen) || count == 0 {
                break Protocol::Http1;
            }
            if seen.len() == PREFACE.len() {
                break Protocol::Http2;
            }
        };
        self.first = seen.freeze();
        Ok(protocol)
    }

    /// Writes what stands in place of the bytes given, if anything does; they are written when it is.
    fn poll_instead(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = refusal::worded(bytes, &self.limits);
        }
        let instead = self.instead.as_mut()?;
        while instead.has_remaining() {
            match Pin::new(&mut self.inner).poll_write(context, instead) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Ok(0))),
                Poll::Ready(Ok(count)) => instead.advance(count),
                other => return Some(other),
            }
        }
        self.instead = None;
        Some(Poll::Ready(Ok(bytes.len())))
    }

    /// Reads on for a moment, so that what was written last is not lost to a reset.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Closing::Lingering(until, seen) = &mut self.closing else { return Poll::Ready(()) };
        let mut scratch = [0; 4096];
        while *seen < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *seen += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return until.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.has_remaining() {
            let take = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first.split_to(take));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            this.activity.read();
            return Poll::Ready(Ok(()));
        }
        if !this.activity.awaited() {
            return Poll::Ready(Ok(()));
        }
        // A client that closed its side while it waits for an answer gets it. Whoever reads here would
        // take the end for a client that left; when the answer is written it reads again and sees it.
        let rest = this.inner.rest();
        if rest == Rest::Gone {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        this.activity.half_closed(rest == Rest::Unknown);
        Poll::Pending
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match this.poll_instead(context, bytes) {
            Some(polled) => polled,
            None => Pin::new(&mut this.inner).poll_write(context, bytes),
        };
        this.activity.wrote(polled.is_ready());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = slices.first().map_or(&[][..], |slice| slice);
        let polled = match this.poll_instead(context, first) {
            Some(polled) => polled,
            None => Pin::new(&mut this.inner).poll_write_vectored(context, slices),
        };
        this.activity.wrote(polled.is_ready());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.closing, Closing::Not) {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
            this.closing = if this.activity.unread() {
                Closing::Lingering(Box::pin(tokio::time::sleep(LINGER)), 0)
            } else {
                Closing::Done
            };
        }
        ready!(this.poll_linger(context));
        this.closing = Closing::Done;
        Poll::Ready(Ok(()))
    }
}
