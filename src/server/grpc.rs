//! The protocol's gRPC methods, each onto the one function that means the same over REST.

use super::rights::Peer;
use super::service::{Context, Service};
use crate::error::InferError;
use crate::oip::grpc;
use crate::proto;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// The service as one connection's peer sees it.
#[derive(Clone)]
pub(super) struct Grpc {
    pub service: Arc<Service>,
    pub peer: Peer,
}

fn status(error: &InferError) -> Status {
    grpc::error(error)
}

/// A version in a message: empty means none.
fn version(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The time that the caller waits, from its `grpc-timeout`.
///
/// # Source
/// gRPC over HTTP/2: up to eight digits and a unit.
fn timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
    async fn server_live(
        &self,
        _request: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.service.ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version: text } = request.into_inner();
        // An unknown model is not ready; stock clients take an error for a broken server.
        let ready = self.service.model_ready(&name, version(&text)).unwrap_or(false);
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(grpc::server_metadata(&self.service.server())))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version: text } = request.into_inner();
        let metadata = self.service.model(&name, version(&text)).map_err(|e| status(&e))?;
        Ok(Response::new(grpc::model_metadata(&metadata)))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let context = Context { peer: self.peer, timeout: timeout(&request) };
        let request = grpc::decode_infer(request.into_inner()).map_err(|e| status(&e))?;
        let response = self.service.infer(request, context).await.map_err(|e| status(&e))?;
        let route = response.route.parse();
        let mut response = Response::new(grpc::encode_infer(response));
        if let Ok(route) = route {
            response.metadata_mut().insert("graftd-route", route);
        }
        Ok(response)
    }

    type ModelStreamInferStream =
        tokio_stream::Empty<Result<proto::ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn model_config(
        &self,
        _request: Request<proto::ModelConfigRequest>,
    ) -> Result<Response<proto::ModelConfigResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn model_statistics(
        &self,
        _request: Request<proto::ModelStatisticsRequest>,
    ) -> Result<Response<proto::ModelStatisticsResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn repository_index(
        &self,
        _request: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn repository_model_load(
        &self,
        _request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn repository_model_unload(
        &self,
        _request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<proto::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<proto::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<proto::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<proto::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<proto::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<proto::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn trace_setting(
        &self,
        _request: Request<proto::TraceSettingRequest>,
    ) -> Result<Response<proto::TraceSettingResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }

    async fn log_settings(
        &self,
        _request: Request<proto::LogSettingsRequest>,
    ) -> Result<Response<proto::LogSettingsResponse>, Status> {
        Err(Status::unimplemented("not offered yet"))
    }
}
