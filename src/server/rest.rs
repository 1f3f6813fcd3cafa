//! The protocol's HTTP routes, each onto the one function that means the same over gRPC.

use super::Limits;
use super::body::Body;
use super::intake::collect;
use super::rights::Peer;
use super::service::{Context, Service};
use crate::error::{ErrorKind, InferError};
use crate::oip::{rest, status};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const ROUTE: HeaderName = HeaderName::from_static("graftd-route");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");
/// A place in the protocol's tree of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Live,
    Ready,
    Server,
    Metrics,
    Model { model: String, version: Option<String>, verb: Verb },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Metadata,
    Ready,
    Infer,
}

/// Answers one request.
pub(super) async fn answer(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    request: Request<Incoming>,
) -> Response<Body> {
    let head = request.method() == Method::HEAD;
    let result = dispatch(service, peer, limits, request).await;
    let mut response = result.unwrap_or_else(|error| failure(&error));
    if head {
        *response.body_mut() = Body::pieces([]);
    }
    response
}

async fn dispatch(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    request: Request<Incoming>,
) -> Result<Response<Body>, InferError> {
    let path = request.uri().path();
    let route = parse(path).ok_or_else(|| {
        InferError::new(ErrorKind::NotFound, format!("there is nothing at {}", path.escape_debug()))
    })?;
    let post = matches!(route, Route::Model { verb: Verb::Infer, .. });
    let allowed = match *request.method() {
        Method::POST => post,
        Method::GET | Method::HEAD => !post,
        _ => false,
    };
    if !allowed {
        return Ok(wrong_method(request.method(), path, post));
    }
    match route {
        Route::Live => Ok(json(StatusCode::OK, rest::metadata::live(true))),
        Route::Ready => Ok(readiness(service.ready(), rest::metadata::ready)),
        Route::Server => {
            Ok(json(StatusCode::OK, rest::metadata::server_metadata(&service.server())))
        }
        Route::Metrics => {
            let mut response = Response::new(Body::pieces([Bytes::from(service.metrics())]));
            response.headers_mut().insert(CONTENT_TYPE, METRICS);
            Ok(response)
        }
        Route::Model { model, version, verb: Verb::Metadata } => {
            let metadata = service.model(&model, version.as_deref())?;
            Ok(json(StatusCode::OK, rest::metadata::model_metadata(&metadata)))
        }
        Route::Model { model, version, verb: Verb::Ready } => {
            let ready = service.model_ready(&model, version.as_deref())?;
            Ok(readiness(ready, |ready| rest::metadata::model_ready(&model, ready)))
        }
        Route::Model { model, version, verb: Verb::Infer } => {
            infer(service, peer, limits, model, version, request).await
        }
    }
}

async fn infer(
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

fn parse(path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let name = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (!decoded.is_empty()).then_some(decoded)
    };
    let model = |model: &str, version: Option<&str>, verb| {
        let version = version.map(str::to_owned);
        Some(Route::Model { model: name(model)?, version, verb })
    };
    match parts.as_slice() {
        ["metrics"] => Some(Route::Metrics),
        ["v2"] | ["v2", ""] => Some(Route::Server),
        ["v2", "health", "live"] => Some(Route::Live),
        ["v2", "health", "ready"] => Some(Route::Ready),
        ["v2", "models", m] => model(m, None, Verb::Metadata),
        ["v2", "models", m, "ready"] => model(m, None, Verb::Ready),
        ["v2", "models", m, "infer"] => model(m, None, Verb::Infer),
        ["v2", "models", m, "versions", v] => model(m, Some(v), Verb::Metadata),
        ["v2", "models", m, "versions", v, "ready"] => model(m, Some(v), Verb::Ready),
        ["v2", "models", m, "versions", v, "infer"] => model(m, Some(v), Verb::Infer),
        _ => None,
    }
}

fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::pieces([body]));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn readiness(ready: bool, body: impl Fn(bool) -> Bytes) -> Response<Body> {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, body(ready))
}

fn wrong_method(method: &Method, path: &str, post: bool) -> Response<Body> {
    let allow = if post { "POST" } else { "GET, HEAD" };
    let text = format!("{method} is not for {}; use {allow}", path.escape_debug());
    let mut response = failure(&InferError::new(ErrorKind::MethodNotAllowed, text));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn failure(error: &InferError) -> Response<Body> {
    let code = StatusCode::from_u16(status::http(error.kind));
    let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, rest::metadata::error(&error.message));
    if let Some(wait) = error.retry_after {
        let seconds = HeaderValue::from(status::retry_after_secs(wait));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_protocol_and_no_others() {
        let model = |model: &str, version: Option<&str>, verb| {
            let (model, version) = (model.to_owned(), version.map(str::to_owned));
            Some(Route::Model { model, version, verb })
        };
        let table = [
            ("/v2", Some(Route::Server)),
            ("/v2/", Some(Route::Server)),
            ("/v2/health/live", Some(Route::Live)),
            ("/v2/models/a%20b/infer", model("a b", None, Verb::Infer)),
            ("/v2/models/m/versions/3", model("m", Some("3"), Verb::Metadata)),
            ("/v2/models/m/versions/3/ready", model("m", Some("3"), Verb::Ready)),
            ("/v2/models//infer", None),
            ("/v2/models/%ff/infer", None),
            ("/v2/models/m/delete", None),
            ("/", None),
            ("*", None),
        ];
        for (path, expected) in table {
            assert_eq!(parse(path), expected, "{path}");
        }
    }
}
