//! A request's body as it comes, for as long as it is waited for.

use super::activity::Visit;
use super::limits::Limits;
use super::phase::PhaseWatch;
use crate::error::{ErrorKind, InferError};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Pieces in which a body of no stated length may come, or more where bodies may be large: each costs what a large one
/// does, however small it is.
const PIECES_MAX: usize = 65_536;
/// The size of pieces that any client's are larger than, where its bodies are large.
const PIECE_BYTES_MIN: usize = 4096;

/// A body that may pause so long and take so long; past that it is an error.
///
/// No timer is set for a body that is there when it is asked for.
pub(super) struct Upload {
    inner: Incoming,
    /// The request; none once the body has ended.
    open: Option<Arc<Visit>>,
    pauses: Pauses,
    seen: usize,
    /// Pieces that may still come; none are counted where the length is known, and of streams of messages.
    pieces_left: Option<usize>,
}

/// What may end a body while more of it is waited for.
enum Pauses {
    /// It takes too long.
    Timed(Times),
    /// A stream of messages may pause as it likes, until the daemon drains: then it has ended.
    Until(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// The daemon drains.
    Over,
}

#[derive(Debug)]
struct Times {
    gap: Duration,
    whole: Duration,
    /// When the body has to be complete; from the first time that it kept us waiting.
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The sleep is for the pause that is now.
    waiting: bool,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Upload {
    /// The body of a request that is counted by `visit`; with phases a stream of messages.
    pub(super) fn new(
        inner: Incoming,
        visit: &Arc<Visit>,
        limits: &Limits,
        stream: Option<PhaseWatch>,
    ) -> Self {
        let open = (!inner.is_end_stream()).then(|| visit.clone());
        let counted = stream.is_none() && inner.size_hint().exact().is_none();
        let pieces_left = counted.then(|| PIECES_MAX.max(limits.body_bytes_max / PIECE_BYTES_MIN));
        let pauses = match stream {
            Some(phases) => Pauses::Until(Box::pin(async move { phases.draining().await })),
            None => Pauses::Timed(Times {
                gap: limits.body_gap,
                whole: limits.body,
                deadline: None,
                sleep: None,
                waiting: false,
            }),
        };
        Self { inner, open, pauses, seen: 0, pieces_left }
    }

    /// The error for a body whose sender closed its side in the middle of it.
    ///
    /// Asked only when nothing more is there: what came before the end has been handed out by then.
    fn cut_off(&self, context: &Context<'_>) -> Option<InferError> {
        let cut_off = self.open.as_ref().is_some_and(|visit| visit.activity().ended(context));
        cut_off.then(|| broken(self.seen, "the client closed its side"))
    }
}

fn broken(seen: usize, why: impl fmt::Display) -> InferError {
    InferError::bad_request(format!("the body broke off after {seen} bytes: {why}"))
}

fn too_many_pieces(seen: usize) -> InferError {
    let text = format!(
        "the body came in too many pieces for its {seen} bytes; send larger chunks, or its length"
    );
    InferError::new(ErrorKind::TooLarge, text)
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(visit) = self.open.take() {
            visit.activity().leave_unread();
        }
    }
}

impl Times {
    /// Whether the body has kept us waiting for too long.
    fn poll(&mut self, context: &mut Context<'_>, seen: usize) -> Poll<InferError> {
        if !self.waiting {
            let now = Instant::now();
            let deadline = *self.deadline.get_or_insert(now + self.whole);
            let until = deadline.min(now + self.gap);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(until),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(until))),
            }
            self.waiting = true;
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        sleep.as_mut().poll(context).map(|()| {
            let whole = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let text = if whole {
                format!(
                    "the body was not complete after {:?}, the limit of --body-timeout-ms; \
                     {seen} bytes had come",
                    self.whole
                )
            } else {
                format!(
                    "no more of the body came for {:?}, the limit of --body-gap-ms; {seen} bytes \
                     had come",
                    self.gap
                )
            };
            InferError::new(ErrorKind::TooSlow, text)
        })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = InferError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InferError>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if let Some(error) = this.cut_off(context) {
                    return Poll::Ready(Some(Err(error)));
                }
                return match &mut this.pauses {
                    Pauses::Timed(times) => {
                        times.poll(context, this.seen).map(|error| Some(Err(error)))
                    }
                    Pauses::Until(drained) => drained.as_mut().poll(context).map(|()| {
                        this.pauses = Pauses::Over;
                        None
                    }),
                    Pauses::Over => Poll::Ready(None),
                };
            }
        };
        if let Pauses::Timed(times) = &mut this.pauses {
            times.waiting = false;
        }
        if let Some(Ok(frame)) = &frame {
            this.seen += frame.data_ref().map_or(0, Bytes::len);
            match &mut this.pieces_left {
                Some(0) => return Poll::Ready(Some(Err(too_many_pieces(this.seen)))),
                Some(left) => *left -= 1,
                None => {}
            }
        }
        if frame.is_none() || this.inner.is_end_stream() {
            this.open = None;
        }
        let seen = this.seen;
        Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(seen, error))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
