//! One inference over HTTP: body in, answer out.

use super::{BINARY, JSON};
use crate::error::{ErrorKind, InferError};
use crate::oip::rest;
use crate::server::Limits;
use crate::server::body::Body;
use crate::server::intake::collect;
use crate::server::rights::Peer;
use crate::server::service::{Context, Service};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Request, Response};
use hyper::body::Incoming;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const ROUTE: HeaderName = HeaderName::from_static("graftd-route");

pub(super) async fn infer(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    model: String,
    version: Option<String>,
    request: Request<Incoming>,
) -> Result<Response<Body>, InferError> {
    let (head, body) = request.into_parts();
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let text = "compressed bodies are not taken here; send the request uncompressed";
        return Err(InferError::new(ErrorKind::Unsupported, text));
    }
    let header_length = header_length(&head.headers)?;
    let body = collect(body, &head.headers, limits.body_bytes_max).await?;
    let (mut request, form) = match rest::decode_infer(body, header_length)? {
        rest::Decoded::Request(request, form) => (request, form),
        rest::Decoded::Raw(raw) => {
            let metadata = service.model(&model, version.as_deref())?;
            let cut = service.cuts_rows(&model, version.as_deref());
            raw.complete(&metadata.inputs, cut)?
        }
    };
    (request.model, request.version) = (model, version);
    let answer = service.infer(request, Context { peer, timeout: None }).await?;
    let encoded = rest::encode_infer(&answer, &form)?;
    let mut response = Response::new(Body::pieces(encoded.chunks));
    let headers = response.headers_mut();
    match encoded.header_length {
        None => headers.insert(CONTENT_TYPE, JSON),
        Some(length) => {
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
            headers.insert(CONTENT_TYPE, BINARY)
        }
    };
    if let Ok(route) = HeaderValue::try_from(answer.route) {
        headers.insert(ROUTE, route);
    }
    Ok(response)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        InferError::bad_request(format!(
            "{HEADER_LENGTH} is {value:?}; expected the length of the JSON part in bytes"
        ))
    })
}
