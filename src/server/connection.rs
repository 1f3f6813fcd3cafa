//! One connection, from its first byte to its close.

use super::activity::{Activity, Overdue};
use super::answer::Answer;
use super::seats::Seat;
use super::stream::{Protocol, Socket, Stream};
use super::{Caller, Front};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use std::sync::Arc;
use std::time::Duration;

/// Flow-control windows of HTTP/2: tensors of many megabytes are routine.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Streams of one HTTP/2 connection: stock gRPC clients put all their requests on one.
const STREAMS_MAX: u32 = 1024;
/// Headers that HTTP/1's parser has room for by itself.
const PARSER_HEADERS: usize = 100;
/// How long a client has to notice that a connection without requests is being closed.
const FAREWELL: Duration = Duration::from_millis(50);

/// The two protocols, ready to be spoken.
#[derive(Clone)]
pub(super) struct Protocols {
    http1: hyper::server::conn::http1::Builder,
    http2: hyper::server::conn::http2::Builder<TokioExecutor>,
}

impl Protocols {
    /// Limits of the parsers stand a step above ours, which can say what was wrong.
    pub(super) fn new(header_bytes_max: usize, headers_max: usize) -> Self {
        let mut http1 = hyper::server::conn::http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // It would count a quiet keep-alive connection as a slow head; `Activity` does not.
            .header_read_timeout(None)
            // `pipeline_flush` stays off: it holds answers back while bytes wait to be read, for ever where
            // those are the rest of what was refused.
            .max_header_size(header_bytes_max.saturating_mul(2));
        if headers_max >= PARSER_HEADERS {
            // Not the default, since it costs an allocation per request.
            http1.max_headers(headers_max.saturating_add(1));
        }
        let list_max = u32::try_from(header_bytes_max.saturating_mul(2)).unwrap_or(u32::MAX);
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(list_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX);
        Self { http1, http2 }
    }
}

impl Front {
    /// Serves a connection on a task of its own.
    pub(super) fn serve(self, stream: impl Socket, caller: Caller, seat: Seat) {
        let open = self.open.subscribe();
        let counted = self.service.counts().connection();
        tokio::spawn(async move {
            self.converse(stream, caller).await;
            drop((counted, seat, open));
        });
    }

    async fn converse(self, stream: impl Socket, caller: Caller) {
        let activity = Activity::new(self.clock);
        let mut stream = Stream::new(stream, activity.clone(), self.limits);
        let protocol = tokio::select! {
            protocol = stream.protocol() => protocol,
            why = activity.overdue(&self.limits) => return farewell(why),
            () = self.phases.draining() => return,
        };
        let Ok(protocol) = protocol else { return };
        let answer = Answer::new(&self, caller, activity.clone());
        let service = hyper::service::service_fn(move |request| answer.clone().call(request));
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                self.drive(self.http.http1.serve_connection(io, service), &activity).await;
            }
            Protocol::Http2 => {
                activity.multiplexed();
                self.drive(self.http.http2.serve_connection(io, service), &activity).await;
            }
        }
    }

    /// Drives a connection until it is closed, by either side or because a limit is passed.
    async fn drive<E: std::fmt::Display>(
        &self,
        connection: impl GracefulConnection<Error = E>,
        activity: &Arc<Activity>,
    ) {
        tokio::pin!(connection);
        let why = tokio::select! {
            biased;
            result = connection.as_mut() => return ended(result),
            why = activity.overdue(&self.limits) => Some(why),
            () = self.phases.draining() => None,
        };
        match why {
            None | Some(Overdue::Idle) => connection.as_mut().graceful_shutdown(),
            Some(why) => return farewell(why),
        }
        // HTTP/2 says goodbye in two steps, of which a client that sleeps never takes the second.
        let quiet = async {
            let mut was = false;
            loop {
                tokio::time::sleep(FAREWELL).await;
                let is = activity.quiet();
                if was && is {
                    return;
                }
                was = is;
            }
        };
        tokio::select! {
            biased;
            result = connection.as_mut() => ended(result),
            why = activity.overdue(&self.limits), if why.is_none() => farewell(why),
            () = quiet => {}
        }
    }
}

fn ended<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::debug!("a connection broke off: {error}");
    }
}

fn farewell(why: Overdue) {
    tracing::debug!("a connection is closed: {why:?}");
}
