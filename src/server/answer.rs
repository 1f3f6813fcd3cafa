//! What answers the requests of one connection: the gate, then the route.

use super::activity::Activity;
use super::body::Body;
use super::limits::Limits;
use super::phase::PhaseWatch;
use super::service::Service;
use super::upload::Upload;
use super::{Caller, Front, Hosts, grpc, health, methods, reflection, rest};
use crate::error::{ErrorKind, InferError};
use crate::oip;
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower_service::Service as _;

/// The header by which a gRPC client says how its messages are compressed.
const GRPC_ENCODING: &str = "grpc-encoding";

/// Answers for one connection; copies are cheap.
#[derive(Clone)]
pub(super) struct Answer {
    service: Arc<Service>,
    caller: Caller,
    limits: Limits,
    hosts: Arc<Hosts>,
    phases: PhaseWatch,
    activity: Arc<Activity>,
    grpc: GrpcInferenceServiceServer<grpc::Grpc>,
}

impl Answer {
    pub(super) fn new(front: &Front, caller: Caller, activity: Arc<Activity>) -> Self {
        let limits = front.limits;
        let service = front.service.clone();
        let grpc = grpc::Grpc { service: service.clone(), peer: caller.peer, limits };
        let mut grpc = GrpcInferenceServiceServer::new(grpc)
            .max_decoding_message_size(limits.body_bytes_max)
            .max_encoding_message_size(usize::MAX);
        if limits.compression {
            grpc = grpc
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate);
        }
        let (hosts, phases) = (front.hosts.clone(), front.phases.clone());
        Self { service, caller, limits, hosts, phases, activity, grpc }
    }

    /// Answers one request.
    ///
    /// The request is in flight from the call on, not only when the future is first asked.
    pub(super) fn call(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        let visit = Arc::new(self.activity.visit());
        let path = request.uri().path();
        let is_grpc = methods::is_grpc(path, request.headers());
        let streams = methods::streams(path).then(|| self.phases.clone());
        let admitted = self.admit(&request, is_grpc);
        let request = request.map(|body| Upload::new(body, &visit, &self.limits, streams));
        async move {
            let phases = self.phases.clone();
            let answered = async {
                admitted?;
                Ok(if is_grpc { self.grpc(request).await } else { self.rest(request).await })
            };
            let answered = tokio::select! {
                biased;
                answered = answered => answered,
                () = phases.ending() => {
                    let text =
                        "the daemon stopped before this was answered; send it to its successor";
                    Err(InferError::new(ErrorKind::ShuttingDown, text))
                }
            };
            let response = answered.unwrap_or_else(|error| match is_grpc {
                true => oip::grpc::error(&error).into_http().map(Body::grpc),
                false => rest::failure(&error),
            });
            Ok(response.map(|body| body.answering(visit)))
        }
    }

    /// What every request has to pass, whatever it asks for.
    fn admit(&self, request: &Request<Incoming>, is_grpc: bool) -> Result<(), InferError> {
        self.limits.check_headers(request.headers())?;
        check_transfer(request.headers())?;
        if self.caller.from_browser {
            self.hosts.check(request)?;
        }
        if is_grpc {
            let path = request.uri().path();
            let operation = methods::operation(path).ok_or_else(|| {
                let text = format!("there is no method {}", path.escape_debug());
                InferError::new(ErrorKind::MethodNotAllowed, text)
            })?;
            self.caller.peer.allow(operation)?;
        }
        Ok(())
    }

    async fn rest(self, request: Request<Upload>) -> Response<Body> {
        rest::answer(&self.service, self.caller.peer, &self.limits, request).await
    }

    async fn grpc(self, request: Request<Upload>) -> Response<Body> {
        let path = request.uri().path();
        if path.starts_with(methods::INFERENCE) {
            return self.inference(request).await;
        }
        let answered = if path.starts_with(methods::HEALTH) {
            let probe = health::Probe { service: self.service, phases: self.phases };
            HealthServer::new(probe).call(request).await
        } else {
            Ok(reflection::answer(request).await)
        };
        match answered {
            Ok(response) => response.map(Body::grpc),
            Err(never) => match never {},
        }
    }

    async fn inference(self, request: Request<Upload>) -> Response<Body> {
        let encoding = request.headers().get(GRPC_ENCODING).map(http::HeaderValue::as_bytes);
        let coding = match encoding {
            Some(b"gzip") => Some(CompressionEncoding::Gzip),
            Some(b"deflate") => Some(CompressionEncoding::Deflate),
            _ => None,
        };
        let request = request.map(|body| body.map_err(|error| oip::grpc::error(&error)));
        let mut service = self.grpc;
        let response = match coding.filter(|_| self.limits.compression) {
            None => service.call(request).await,
            Some(coding) => {
                // Stock clients accept compression on every call; one that uses it wants it.
                let mut service = service.send_compressed(coding);
                let mut call = std::pin::pin!(service.call(request));
                // Tonic inflates a message in one go: others shall not wait for it.
                std::future::poll_fn(|context| {
                    tokio::task::block_in_place(|| call.as_mut().poll(context))
                })
                .await
            }
        };
        match response {
            Ok(response) => in_our_words(response, self.limits.body_bytes_max).map(Body::grpc),
            Err(never) => match never {},
        }
    }
}

/// Refuses a body that is coded for its transfer in more ways than by chunks.
fn check_transfer(headers: &HeaderMap) -> Result<(), InferError> {
    for coding in headers.get_all(TRANSFER_ENCODING) {
        if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            let text = format!(
                "the Transfer-Encoding is {:?}, expected chunked; name a compression in Content-Encoding",
                String::from_utf8_lossy(coding.as_bytes())
            );
            return Err(InferError::new(ErrorKind::Unsupported, text));
        }
    }
    Ok(())
}

/// An answer whose refusal, where tonic made it, names the limit or the fault as the others do.
fn in_our_words(response: Response<tonic::body::Body>, max: usize) -> Response<tonic::body::Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let inflating = status.message().starts_with("Error decompressing");
    let error = match status.code() {
        Code::OutOfRange => {
            let text =
                format!("the message is larger than {max} bytes, the limit of --body-bytes-max");
            InferError::new(ErrorKind::TooLarge, text)
        }
        Code::ResourceExhausted if inflating => {
            let text = format!(
                "the message is larger than {max} bytes when inflated, the limit of --body-bytes-max"
            );
            InferError::new(ErrorKind::TooLarge, text)
        }
        // As gRPC has it, which reads as if the fault were the server's.
        Code::Internal if status.message().starts_with("failed to decode Protobuf message") => {
            let why = status.message().rsplit(": ").next().unwrap_or_default();
            InferError::bad_request(format!(
                "the message is not what this method takes, as its protobuf says: {why}"
            ))
        }
        Code::Internal if inflating => {
            InferError::bad_request("the message is not compressed as grpc-encoding says it is")
        }
        _ => return response,
    };
    oip::grpc::error(&error).into_http()
}
