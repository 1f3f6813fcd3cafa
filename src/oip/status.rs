//! The one table from an error's kind to the status that each transport sends.
//!
//! Separate from both codecs, so that one failure has one meaning on either transport.

use crate::error::ErrorKind;
use std::time::Duration;
use tonic::Code;

/// The HTTP status and the gRPC code of an error of this kind.
///
/// # Source
/// Triton's mapping, with the corrections that its users asked for: a malformed request is never a
/// server error, and a deadline has its own code. 499 is nginx's status for a caller who hung up.
#[must_use]
pub const fn of(kind: ErrorKind) -> (u16, Code) {
    match kind {
        ErrorKind::BadRequest => (400, Code::InvalidArgument),
        ErrorKind::NotFound => (404, Code::NotFound),
        // A path with such a version leads nowhere, and a field of a message is wrong.
        ErrorKind::NoVersion => (404, Code::InvalidArgument),
        ErrorKind::MethodNotAllowed => (405, Code::Unimplemented),
        ErrorKind::Forbidden => (403, Code::PermissionDenied),
        ErrorKind::AlreadyExists => (409, Code::AlreadyExists),
        ErrorKind::TooLarge => (413, Code::ResourceExhausted),
        ErrorKind::HeadersTooLarge => (431, Code::ResourceExhausted),
        ErrorKind::TooSlow => (408, Code::Aborted),
        ErrorKind::UnknownCoding => (415, Code::Unimplemented),
        ErrorKind::Unsupported => (501, Code::Unimplemented),
        ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::ShuttingDown => {
            (503, Code::Unavailable)
        }
        ErrorKind::DeadlineExceeded => (504, Code::DeadlineExceeded),
        ErrorKind::Cancelled => (499, Code::Cancelled),
        ErrorKind::ModelFailed | ErrorKind::ModelCrashed | ErrorKind::Internal => {
            (500, Code::Internal)
        }
    }
}

/// The HTTP status of an error of this kind.
#[must_use]
pub const fn http(kind: ErrorKind) -> u16 {
    of(kind).0
}

/// The gRPC code of an error of this kind.
#[must_use]
pub const fn grpc(kind: ErrorKind) -> Code {
    of(kind).1
}

/// The value of a `Retry-After` header: whole seconds, rounded up, at least one.
#[must_use]
pub const fn retry_after_secs(wait: Duration) -> u64 {
    let whole = wait.as_secs();
    let up = if wait.subsec_nanos() > 0 { whole.saturating_add(1) } else { whole };
    if up == 0 { 1 } else { up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_an_error_on_both_transports() {
        for kind in ErrorKind::ALL {
            let (status, code) = of(kind);
            assert!((400..600).contains(&status), "{kind:?} is HTTP {status}");
            assert_ne!(code, Code::Ok, "{kind:?}");
            assert_eq!((http(kind), grpc(kind)), (status, code));
        }
    }

    #[test]
    fn the_fault_is_on_the_same_side_on_both_transports() {
        let client_codes = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::PermissionDenied,
            Code::Cancelled,
            Code::AlreadyExists,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        for kind in ErrorKind::ALL {
            let (status, code) = of(kind);
            let either_side = code == Code::Unimplemented;
            assert!(either_side || client_codes.contains(&code) == (status < 500), "{kind:?}");
        }
    }

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        let table = [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_000, 59), (59_500, 60)];
        for (millis, secs) in table {
            assert_eq!(retry_after_secs(Duration::from_millis(millis)), secs, "{millis} ms");
        }
        assert_eq!(retry_after_secs(Duration::MAX), u64::MAX);
    }
}
