//! What services there are, for tools such as grpcurl that ask instead of being told.

use super::upload::Upload;
use crate::proto::DESCRIPTORS;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use std::sync::LazyLock;
use tonic::body::Body;
use tower_service::Service as _;

type Server = Box<dyn Fn(Request<Upload>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Made when somebody asks first; the definitions never change.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| {
    let built = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let server = built.inspect_err(|error| tracing::error!("no reflection: {error}")).ok()?;
    Some(Box::new(move |request| {
        let mut server = server.clone();
        Box::pin(async move {
            let Ok(response) = server.call(request).await;
            response
        })
    }))
});

/// Answers one request for the definitions.
pub(super) async fn answer(request: Request<Upload>) -> Response<Body> {
    match SERVER.as_ref() {
        Some(server) => server(request).await,
        None => tonic::Status::unimplemented("there is no reflection here").into_http(),
    }
}
