//! The protocol's gRPC methods, each onto the one function that means the same over REST.

use super::limits::Limits;
use super::rights::{Operation, Peer};
use super::service::{Codec, Context, Service};
use crate::error::{ErrorKind, InferError};
use crate::oip::grpc;
use crate::proto;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use crate::request::{InferRequest, Input};
use crate::text;
use futures_util::StreamExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Requests of one stream that are worked on at a time.
const STREAM_REQUESTS_MAX: usize = 1024;

/// The service as one connection's peer sees it.
#[derive(Clone)]
pub(super) struct Grpc {
    pub service: Arc<Service>,
    pub peer: Peer,
    pub limits: Limits,
}

fn status(error: &InferError) -> Status {
    grpc::error(error)
}

/// A version in a message: empty means none.
fn version(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Refuses to tell repositories apart: there is one, and it has no name.
fn of_one_repository(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    let text = format!(
        "there is one model repository here, and none called '{}'; leave repository_name out",
        text::name(name)
    );
    Err(status(&InferError::new(ErrorKind::Unsupported, text)))
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
        match self.service.model_ready(&name, version(&text)) {
            Ok(ready) => Ok(Response::new(ModelReadyResponse { ready })),
            Err(error) if error.kind == ErrorKind::NoVersion => Err(status(&error)),
            // An unknown model is not ready; stock clients take an error for a broken server.
            Err(_) => Ok(Response::new(ModelReadyResponse { ready: false })),
        }
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
        let context = Context { peer: self.peer, codec: Codec::Grpc, timeout: timeout(&request) };
        let request = self.decode(request.into_inner()).map_err(|e| status(&e))?;
        let response = self.service.infer(request, context).await.map_err(|e| status(&e))?;
        let route = response.route.parse();
        let mut response = Response::new(grpc::encode_infer(response));
        if let Ok(route) = route {
            response.metadata_mut().insert("graftd-route", route);
        }
        Ok(response)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<proto::ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let grpc = self.clone();
        // The deadline of a stream is not that of its requests.
        let context = Context { peer: self.peer, codec: Codec::Grpc, timeout: None };
        let answers = request.into_inner().map(move |message| {
            let grpc = grpc.clone();
            async move {
                // A message that is no request ends the stream: what follows cannot be told apart.
                Ok(grpc.stream_item(message?, context).await)
            }
        });
        // Answers come as they are ready; a client that goes away drops what is in flight.
        Ok(Response::new(Box::pin(answers.buffer_unordered(STREAM_REQUESTS_MAX))))
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Result<Response<proto::ModelConfigResponse>, Status> {
        let proto::ModelConfigRequest { name, version: text } = request.into_inner();
        let config = self.service.model_config(&name, version(&text)).map_err(|e| status(&e))?;
        let config = Some(proto::ModelConfig::clone(&config));
        Ok(Response::new(proto::ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Result<Response<proto::ModelStatisticsResponse>, Status> {
        let proto::ModelStatisticsRequest { name, version: text } = request.into_inner();
        let model = Some(name.as_str()).filter(|name| !name.is_empty());
        let statistics = self.service.statistics(model, version(&text));
        Ok(Response::new(statistics.map_err(|e| status(&e))?))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Result<Response<proto::RepositoryIndexResponse>, Status> {
        let request = request.into_inner();
        of_one_repository(&request.repository_name)?;
        Ok(Response::new(self.service.index(&request)))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Result<Response<proto::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        of_one_repository(&request.repository_name)?;
        let loaded = self.service.load(&request.model_name, request.parameters).await;
        loaded.map_err(|e| status(&e))?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Result<Response<proto::RepositoryModelUnloadResponse>, Status> {
        let request = request.into_inner();
        of_one_repository(&request.repository_name)?;
        self.service.unload(&request.model_name).map_err(|e| status(&e))?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<proto::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryStatusResponse>, Status> {
        let regions = self.service.region_status(&self.peer, &request.into_inner());
        Ok(Response::new(regions.map_err(|e| status(&e))?))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<proto::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryRegisterResponse>, Status> {
        let registered = self.service.register_region(&self.peer, &request.into_inner());
        registered.map_err(|e| status(&e))?;
        Ok(Response::new(proto::SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<proto::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::SystemSharedMemoryUnregisterResponse>, Status> {
        self.service.unregister_region(&self.peer, &request.into_inner());
        Ok(Response::new(proto::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<proto::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(proto::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<proto::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryRegisterResponse>, Status> {
        self.service.register_cuda(&request.into_inner()).map_err(|e| status(&e))?;
        Ok(Response::new(proto::CudaSharedMemoryRegisterResponse {}))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<proto::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<proto::CudaSharedMemoryUnregisterResponse>, Status> {
        Ok(Response::new(proto::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<proto::TraceSettingRequest>,
    ) -> Result<Response<proto::TraceSettingResponse>, Status> {
        let request = request.into_inner();
        self.may_change(!request.settings.is_empty())?;
        Ok(Response::new(self.service.change_tracing(&request).map_err(|e| status(&e))?))
    }

    async fn log_settings(
        &self,
        request: Request<proto::LogSettingsRequest>,
    ) -> Result<Response<proto::LogSettingsResponse>, Status> {
        let request = request.into_inner();
        self.may_change(!request.settings.is_empty())?;
        Ok(Response::new(self.service.change_logging(&request).map_err(|e| status(&e))?))
    }
}

impl Grpc {
    fn decode(&self, message: ModelInferRequest) -> Result<InferRequest<Input>, InferError> {
        self.limits.check_tensors(message.inputs.len(), message.outputs.len())?;
        grpc::decode_infer(message)
    }

    /// One answer of a stream; what is wrong with a request is told in it, and the stream goes on.
    async fn stream_item(
        &self,
        message: ModelInferRequest,
        context: Context,
    ) -> proto::ModelStreamInferResponse {
        let id = message.id.clone();
        let last = grpc::wants_final_response(&message);
        let answer = match self.decode(message) {
            Ok(request) => self.service.infer(request, context).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => grpc::stream_answer(response, last),
            Err(error) => grpc::stream_error(&error, id),
        }
    }

    /// Reading settings is for everybody, changing them is not, and one method does both.
    fn may_change(&self, changes: bool) -> Result<(), Status> {
        let wanted = if changes { Operation::ChangeLogging } else { Operation::Describe };
        self.peer.allow(wanted).map_err(|e| status(&e))
    }
}
