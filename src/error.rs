//! The one error that a caller sees.
//!
//! Every layer has its own errors; each becomes an [`InferError`] once, at that layer's edge. The
//! message is written for the client and holds no paths, addresses or library text; what only the
//! operator should read goes to the log. It may quote names that the client sent, so it is made
//! fit for terminals and headers here, once.

use crate::text;
use std::fmt;
use std::time::Duration;

/// What went wrong, in the terms that decide status codes and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The request is wrong and will be wrong again.
    BadRequest,
    /// No such model, version or route.
    NotFound,
    /// What stands for a version is none, whatever the model has.
    NoVersion,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The peer has no right to do this.
    Forbidden,
    /// The name is in use.
    AlreadyExists,
    /// The request is larger than a limit, and will be again.
    TooLarge,
    /// The request's head is larger than the limit.
    HeadersTooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body is compressed in a way that is not offered.
    UnknownCoding,
    /// The encoding or feature is not offered.
    Unsupported,
    /// A bound is reached; the same request may succeed later.
    Overloaded,
    /// The deadline passed, or could not have been met.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The model is known but cannot answer now.
    Unavailable,
    /// The daemon is stopping.
    ShuttingDown,
    /// The model reported an error for these rows.
    ModelFailed,
    /// Running these rows ended the worker process.
    ModelCrashed,
    /// A bug of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables that must cover them all.
    pub const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::NotFound,
        Self::NoVersion,
        Self::MethodNotAllowed,
        Self::Forbidden,
        Self::AlreadyExists,
        Self::TooLarge,
        Self::HeadersTooLarge,
        Self::TooSlow,
        Self::UnknownCoding,
        Self::Unsupported,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Unavailable,
        Self::ShuttingDown,
        Self::ModelFailed,
        Self::ModelCrashed,
        Self::Internal,
    ];
}

/// A failed request: its kind, a sentence for the client, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferError {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What was wrong, what was expected, what to do.
    pub message: String,
    /// How long to wait before the same request may succeed; none where it never will.
    pub retry_after: Option<Duration>,
}

impl InferError {
    /// An error that no waiting will cure.
    ///
    /// The message is kept as [`text::plain`] leaves it: on one line and of bounded length.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: text::plain(message), retry_after: None }
    }

    /// An error of the request itself.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// The same error with a hint when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl fmt::Display for InferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InferError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_stays_on_one_line() {
        let error = InferError::bad_request("input 'a\nb\u{1b}[2J' has no 'shape'");
        assert_eq!(error.message, "input 'a\\nb\\u{1b}[2J' has no 'shape'");
    }
}
