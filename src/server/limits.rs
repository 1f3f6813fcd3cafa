//! What one client may cost the others: bytes, counts and times, each of which is a flag.

use crate::error::{ErrorKind, InferError};
use http::HeaderMap;
use std::time::Duration;

/// Limits of the front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request's body, as sent and when inflated, at most.
    pub body_bytes_max: usize,
    /// Bytes of the names and values of a request's headers, at most.
    pub header_bytes_max: usize,
    /// Headers of a request, at most.
    pub headers_max: usize,
    /// Depth to which a request's JSON may be nested.
    pub json_depth_max: usize,
    /// Inputs of a request, and outputs that it names, at most.
    pub tensors_max: usize,
    /// Connections at a time, at most.
    pub connections_max: usize,
    /// Connections of one user at a time, at most; all TCP peers are one user.
    pub connections_per_user: usize,
    /// How long a connection may be open without a request.
    pub idle: Duration,
    /// How long a request's head may take from its first byte to its last.
    pub head: Duration,
    /// How long a body may pause between two pieces.
    pub body_gap: Duration,
    /// How long a whole body may take.
    pub body: Duration,
    /// How long a client may leave an answer untaken.
    pub stall: Duration,
    /// Compressed bodies are taken, and answers compressed for those who ask.
    pub compression: bool,
}

impl Limits {
    /// Refuses a head with too many headers or too many bytes of them.
    pub(super) fn check_headers(&self, headers: &HeaderMap) -> Result<(), InferError> {
        let over = |text| Err(InferError::new(ErrorKind::HeadersTooLarge, text));
        if headers.len() > self.headers_max {
            return over(format!(
                "the request has {} headers, the limit of --headers-max is {}; send fewer",
                headers.len(),
                self.headers_max
            ));
        }
        let length = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            name.as_str().len() + value.len()
        };
        let bytes: usize = headers.iter().map(length).sum();
        if bytes > self.header_bytes_max {
            return over(format!(
                "the request's headers are {bytes} bytes, the limit of --header-bytes-max is {}; \
                 send less",
                self.header_bytes_max
            ));
        }
        Ok(())
    }

    /// Refuses a request with too many inputs or too many outputs named.
    pub(super) fn check_tensors(&self, inputs: usize, outputs: usize) -> Result<(), InferError> {
        for (what, count) in [("inputs", inputs), ("outputs", outputs)] {
            if count > self.tensors_max {
                return Err(InferError::bad_request(format!(
                    "the request has {count} {what}, the limit of --tensors-max is {}; send fewer",
                    self.tensors_max
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    pub(in crate::server) const LIMITS: Limits = Limits {
        body_bytes_max: 1 << 20,
        header_bytes_max: 100,
        headers_max: 3,
        json_depth_max: 32,
        tensors_max: 4,
        connections_max: 8,
        connections_per_user: 6,
        idle: Duration::from_secs(1),
        head: Duration::from_secs(1),
        body_gap: Duration::from_secs(1),
        body: Duration::from_secs(1),
        stall: Duration::from_secs(1),
        compression: true,
    };

    #[test]
    fn what_is_at_a_limit_passes_and_one_more_does_not() {
        let headers = |count: usize, value: usize| -> HeaderMap {
            let name = |n| HeaderName::try_from(format!("x{n}")).unwrap();
            (0..count)
                .map(|n| (name(n), HeaderValue::try_from("v".repeat(value)).unwrap()))
                .collect()
        };
        assert_eq!(LIMITS.check_headers(&headers(3, 1)), Ok(()));
        let error = LIMITS.check_headers(&headers(4, 1)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::HeadersTooLarge);
        assert!(error.message.contains("--headers-max"), "{error}");
        assert_eq!(LIMITS.check_headers(&headers(1, 98)), Ok(()));
        let error = LIMITS.check_headers(&headers(1, 99)).unwrap_err();
        assert!(
            error.message.contains("101 bytes") && error.message.contains("--header-bytes-max")
        );
        assert_eq!(LIMITS.check_tensors(4, 4), Ok(()));
        for (inputs, outputs) in [(5, 0), (0, 5)] {
            let error = LIMITS.check_tensors(inputs, outputs).unwrap_err();
            assert!(error.message.contains("--tensors-max"), "{error}");
        }
    }
}
