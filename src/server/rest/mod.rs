//! The protocol's HTTP routes, each onto the one function that means the same over gRPC.

mod infer;
mod route;

use super::body::Body;
use super::coding;
use super::intake::collect;
use super::limits::Limits;
use super::rights::Peer;
use super::service::Service;
use super::upload::Upload;
use crate::error::{ErrorKind, InferError};
use crate::oip::rest::{extensions, metadata};
use crate::oip::status;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use route::{Memory, Methods, RegionVerb, Route, Verb};
use serde::Serialize;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// Answers one request.
pub(super) async fn answer(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    request: Request<Upload>,
) -> Response<Body> {
    let head = request.method() == Method::HEAD;
    let result = dispatch(service, peer, limits, request).await;
    let mut response = result.unwrap_or_else(|error| failure(&error));
    if head {
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Body::pieces([]);
    }
    response
}

async fn dispatch(
    service: &Service,
    peer: Peer,
    limits: &Limits,
    request: Request<Upload>,
) -> Result<Response<Body>, InferError> {
    let path = request.uri().path();
    let route = Route::parse(path).ok_or_else(|| {
        InferError::new(ErrorKind::NotFound, format!("there is nothing at {}", path.escape_debug()))
    })?;
    if !route.methods().allow(request.method()) {
        return Ok(wrong_method(request.method(), path, route.methods()));
    }
    peer.allow(route.operation(request.method()))?;
    match route {
        Route::Model { model, version, verb: Verb::Infer } => {
            infer::infer(service, peer, limits, model, version, request).await
        }
        route if *request.method() == Method::POST => {
            let (head, body) = request.into_parts();
            let body = collect(body, &head.headers, limits).await?;
            change(service, &peer, route, &body).await
        }
        route => read(service, &peer, route),
    }
}

/// The routes that only look.
fn read(service: &Service, peer: &Peer, route: Route) -> Result<Response<Body>, InferError> {
    Ok(match route {
        Route::Live => json(metadata::live(true)),
        Route::Ready => {
            let ready = service.ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            with_status(status, json(metadata::ready(ready)))
        }
        Route::Server => json(metadata::server_metadata(&service.server())),
        Route::Metrics => {
            let mut response = Response::new(Body::pieces([Bytes::from(service.metrics())]));
            response.headers_mut().insert(CONTENT_TYPE, METRICS);
            response
        }
        Route::Status => json(told(&service.status())?),
        Route::Families => json(told(&service.families())?),
        Route::Explain(None) => json(told(&service.explain(peer))?),
        Route::Explain(Some(id)) => json(told(&service.explain_request(peer, &id)?)?),
        Route::Statistics => json(extensions::statistics(&service.statistics(None, None)?)),
        Route::Model { model, version, verb } => {
            return of_model(service, &model, version.as_deref(), verb);
        }
        Route::Logging => json(extensions::log_settings(&service.log_settings())),
        Route::Tracing(model) => {
            json(extensions::trace_settings(&service.trace_settings(model.as_deref())?))
        }
        Route::Regions(Memory::System, RegionVerb::Status(region)) => {
            let request = SystemSharedMemoryStatusRequest { name: region.unwrap_or_default() };
            json(extensions::regions(&service.region_status(peer, &request)?))
        }
        // There is no GPU memory that clients could share here.
        Route::Regions(Memory::Cuda, _) => json(Bytes::from_static(b"[]")),
        Route::Index | Route::Load(_) | Route::Unload(_) | Route::Regions(..) => {
            return Err(InferError::new(ErrorKind::Internal, "a changing route was only read"));
        }
    })
}

fn of_model(
    service: &Service,
    model: &str,
    version: Option<&str>,
    verb: Verb,
) -> Result<Response<Body>, InferError> {
    Ok(match verb {
        Verb::Metadata => json(metadata::model_metadata(&service.model(model, version)?)),
        Verb::Ready => {
            let ready = service.model_ready(model, version)?;
            // As Triton has it; its clients take a server error for a broken server.
            let status = if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            with_status(status, json(metadata::model_ready(model, ready)))
        }
        Verb::Config => {
            json(extensions::model_config(service.model_config(model, version)?.as_ref()))
        }
        Verb::Statistics => {
            json(extensions::statistics(&service.statistics(Some(model), version)?))
        }
        Verb::Infer => {
            return Err(InferError::new(ErrorKind::Internal, "an inference was only read"));
        }
    })
}

/// The routes that take a body.
async fn change(
    service: &Service,
    peer: &Peer,
    route: Route,
    body: &[u8],
) -> Result<Response<Body>, InferError> {
    match route {
        Route::Index => {
            let request = extensions::decode_index(body)?;
            return Ok(json(extensions::index(&service.index(&request))));
        }
        Route::Load(model) => {
            let parameters = extensions::decode_repository_parameters(body)?;
            service.load(&model, parameters).await?;
        }
        Route::Unload(model) => {
            // `unload_dependents` is about ensembles, which there are none of.
            extensions::decode_repository_parameters(body)?;
            service.unload(&model)?;
        }
        Route::Logging => {
            let request = extensions::decode_log_settings(body)?;
            return Ok(json(extensions::log_settings(&service.change_logging(&request)?)));
        }
        Route::Tracing(model) => {
            let request = extensions::decode_trace_settings(model.as_deref(), body)?;
            return Ok(json(extensions::trace_settings(&service.change_tracing(&request)?)));
        }
        Route::Regions(Memory::System, RegionVerb::Register(region)) => {
            service.register_region(peer, &extensions::decode_register(&region, body)?)?;
        }
        Route::Regions(Memory::System, RegionVerb::Unregister(region)) => {
            let request = SystemSharedMemoryUnregisterRequest { name: region.unwrap_or_default() };
            service.unregister_region(peer, &request);
        }
        Route::Regions(Memory::Cuda, RegionVerb::Register(region)) => {
            let request = CudaSharedMemoryRegisterRequest { name: region, ..Default::default() };
            service.register_cuda(&request)?;
        }
        Route::Regions(Memory::Cuda, RegionVerb::Unregister(_)) => {}
        route => return read(service, peer, route),
    }
    Ok(Response::new(Body::pieces([])))
}

fn told(facts: &impl Serialize) -> Result<Bytes, InferError> {
    let text = serde_json::to_vec(facts);
    text.map(Bytes::from).map_err(|why| InferError::new(ErrorKind::Internal, why.to_string()))
}

fn json(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::pieces([body]));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn with_status(status: StatusCode, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = status;
    response
}

fn wrong_method(method: &Method, path: &str, allowed: Methods) -> Response<Body> {
    let allow = allowed.names();
    let text = format!("{method} is not for {}; use {allow}", path.escape_debug());
    let mut response = failure(&InferError::new(ErrorKind::MethodNotAllowed, text));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The answer to a request that failed.
pub(super) fn failure(error: &InferError) -> Response<Body> {
    let status = StatusCode::from_u16(status::http(error.kind));
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = with_status(status, json(metadata::error(&error.message)));
    if error.kind == ErrorKind::UnknownCoding {
        // What RFC 7694 asks for, so that a client can choose another.
        response.headers_mut().insert(ACCEPT_ENCODING, coding::OFFERED);
    }
    if let Some(wait) = error.retry_after {
        let seconds = HeaderValue::from(status::retry_after_secs(wait));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}
