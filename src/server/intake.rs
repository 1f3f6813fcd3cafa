//! Bodies of requests, read up to a limit and never believed on what they claim.

use super::coding::{Coding, Inflate};
use super::limits::Limits;
use super::upload::Upload;
use crate::error::{ErrorKind, InferError};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

/// Room made at once for a body of a claimed length; more comes as bytes come.
const BODY_ROOM_MAX: usize = 1 << 20;

/// Reads a body up to the limit, inflating it where it is compressed.
///
/// # Errors
/// `TooLarge` past the limit, `TooSlow` where it takes too long, `UnknownCoding` for a coding that is not
/// offered, `BadRequest` where it breaks off or is not what it says.
///
/// # Cost
/// A body that comes in one piece is not copied; no room is made for what is only claimed.
pub(super) async fn collect(
    body: Upload,
    headers: &HeaderMap,
    limits: &Limits,
) -> Result<Bytes, InferError> {
    let max = limits.body_bytes_max;
    let coding = Coding::of_request(headers, limits.compression)?;
    let claimed = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if claimed.is_some_and(|claimed| claimed > max) {
        return Err(too_large(max));
    }
    match coding {
        None => plain(body, claimed.unwrap_or(0), max).await,
        Some(coding) => inflated(body, coding, max).await,
    }
}

fn too_large(max: usize) -> InferError {
    let text = format!("the body is larger than {max} bytes, the limit of --body-bytes-max");
    InferError::new(ErrorKind::TooLarge, text)
}

async fn plain(mut body: Upload, claimed: usize, max: usize) -> Result<Bytes, InferError> {
    let mut whole = BytesMut::new();
    let mut only: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if whole.len() + only.as_ref().map_or(0, Bytes::len) + data.len() > max {
            return Err(too_large(max));
        }
        // A body that comes in one piece, as small ones do, is not copied.
        match only.take() {
            None if whole.is_empty() => only = Some(data),
            first => {
                if let Some(first) = first {
                    whole.reserve(claimed.min(BODY_ROOM_MAX));
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(only.unwrap_or_else(|| whole.freeze()))
}

async fn inflated(mut body: Upload, coding: Coding, max: usize) -> Result<Bytes, InferError> {
    let mut whole = Inflate::new(coding);
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        seen += data.len();
        if seen > max {
            return Err(too_large(max));
        }
        whole.push(&data, max).await?;
    }
    whole.finish()
}
