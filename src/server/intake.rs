//! Bodies of requests, read up to a limit and never believed on what they claim.

use crate::error::{ErrorKind, InferError};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Room made at once for a body of a claimed length; more comes as bytes come.
const BODY_ROOM_MAX: usize = 1 << 20;

/// Reads a body up to the limit, making no room for what is only claimed.
pub(super) async fn collect(
    mut body: Incoming,
    headers: &HeaderMap,
    max: usize,
) -> Result<Bytes, InferError> {
    let too_large = || {
        let text = format!("the body is larger than {max} bytes, the limit of --body-bytes-max");
        InferError::new(ErrorKind::TooLarge, text)
    };
    let claimed = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if claimed.is_some_and(|claimed| claimed > max) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    let mut only: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            InferError::bad_request(format!(
                "the body broke off after {} bytes: {error}",
                whole.len()
            ))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + only.as_ref().map_or(0, Bytes::len) + data.len() > max {
            return Err(too_large());
        }
        // A body that comes in one piece, as small ones do, is not copied.
        match only.take() {
            None if whole.is_empty() => only = Some(data),
            first => {
                if let Some(first) = first {
                    whole.reserve(claimed.unwrap_or(0).min(BODY_ROOM_MAX));
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(only.unwrap_or_else(|| whole.freeze()))
}
