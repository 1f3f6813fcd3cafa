//! One inference over HTTP: body in, answer out.

use super::{BINARY, JSON};
use crate::error::InferError;
use crate::oip::rest;
use crate::server::body::Body;
use crate::server::coding::{self, Coding};
use crate::server::intake::collect;
use crate::server::limits::Limits;
use crate::server::rights::Peer;
use crate::server::service::{Codec, Context, Service};
use crate::server::upload::Upload;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Request, Response};

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const ROUTE: HeaderName = HeaderName::from_static("graftd-route");

pub(super) async fn infer(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    model: String,
    version: Option<String>,
    request: Request<Upload>,
) -> Result<Response<Body>, InferError> {
    let (head, body) = request.into_parts();
    let header_length = header_length(&head.headers)?;
    let body = collect(body, &head.headers, limits).await?;
    let decoded = rest::decode_infer_within(body, header_length, limits.json_depth_max)?;
    let (mut request, form) = match decoded {
        rest::Decoded::Request(request, form) => (request, form),
        rest::Decoded::Raw(raw) => {
            let metadata = service.model(&model, version.as_deref())?;
            let cut = service.cuts_rows(&model, version.as_deref());
            raw.complete(&metadata.inputs, cut)?
        }
    };
    limits.check_tensors(request.inputs.len(), request.outputs.len())?;
    (request.model, request.version) = (model, version);
    let answer =
        service.infer(request, Context { peer, codec: Codec::Rest, timeout: None }).await?;
    let encoded = rest::encode_infer(&answer, &form)?;
    let bytes = encoded.chunks.iter().map(Bytes::len).sum();
    let wanted = Coding::of_answer(&head.headers, bytes).filter(|_| limits.compression);
    let compressed = match wanted {
        Some(coding) => coding::compress(&encoded.chunks, coding).await.map(|body| (coding, body)),
        None => None,
    };
    let (coding, chunks) = match compressed {
        Some((coding, body)) => (Some(coding), vec![body]),
        None => (None, encoded.chunks),
    };
    let mut response = Response::new(Body::pieces(chunks));
    let headers = response.headers_mut();
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, coding.name());
    }
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
