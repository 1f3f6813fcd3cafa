//! Bodies of answers: pieces that were there already, or a gRPC stream.

use super::activity::Visit;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use slotmap::DefaultKey;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The largest piece handed over at once, so that a client that takes nothing shows.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    source: Source,
    /// What did not fit into the last piece.
    rest: Bytes,
    /// Whom it answers; nobody yet while it is being made.
    visit: Option<Arc<Visit>>,
    /// Where it is noted that the next piece waits to be taken.
    offered: Option<DefaultKey>,
}

#[derive(Debug)]
enum Source {
    /// Pieces of known length, sent as they are.
    Pieces(VecDeque<Bytes>),
    /// gRPC frames and trailers.
    Grpc(tonic::body::Body),
}

impl Body {
    fn new(source: Source) -> Self {
        Self { source, rest: Bytes::new(), visit: None, offered: None }
    }

    /// A body of these pieces.
    pub(super) fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        Self::new(Source::Pieces(pieces.collect()))
    }

    /// A body that gRPC makes.
    pub(super) fn grpc(body: tonic::body::Body) -> Self {
        Self::new(Source::Grpc(body))
    }

    /// The same as the answer to a request, which is in flight until this is handed over.
    pub(super) fn answering(mut self, visit: Arc<Visit>) -> Self {
        self.visit = Some(visit);
        self
    }

    /// Notes whether the next piece is ready and waits for the client, or is waited for.
    fn offer(&mut self, ready: bool) {
        if let Some(visit) = &self.visit {
            visit.activity().offer(&mut self.offered, ready);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.offer(false);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let polled = match &mut this.source {
                Source::Pieces(pieces) => {
                    Poll::Ready(pieces.pop_front().map(|p| Ok(Frame::data(p))))
                }
                Source::Grpc(body) => Pin::new(body).poll_frame(context),
            };
            if polled.is_pending() {
                this.offer(false);
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        let more = !http_body::Body::is_end_stream(this);
        this.offer(more);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.source {
                Source::Pieces(pieces) => pieces.is_empty(),
                Source::Grpc(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Pieces(pieces) => {
                let bytes: usize = pieces.iter().map(Bytes::len).sum();
                SizeHint::with_exact((bytes + self.rest.len()) as u64)
            }
            Source::Grpc(body) if self.rest.is_empty() => body.size_hint(),
            Source::Grpc(_) => SizeHint::default(),
        }
    }
}
