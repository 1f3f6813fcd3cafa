//! gRPC's own health service, as probes and proxies ask it.
//!
//! The empty name and the protocol's service are the daemon; any other name is a model's.

use super::phase::PhaseWatch;
use super::service::Service;
use crate::error::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What the protocol's service is called.
const SERVICE: &str = "inference.GRPCInferenceService";

/// The health of the daemon and its models.
#[derive(Clone)]
pub(super) struct Probe {
    pub service: Arc<Service>,
    pub phases: PhaseWatch,
}

impl Probe {
    /// The state of the daemon or of a model; none for a name that is neither.
    fn status(&self, name: &str) -> Option<ServingStatus> {
        let ready = match name {
            "" | SERVICE => Ok(self.service.ready()),
            model => self.service.model_ready(model, None),
        };
        match ready {
            Ok(true) => Some(ServingStatus::Serving),
            Ok(false) => Some(ServingStatus::NotServing),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(_) => Some(ServingStatus::Unknown),
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let status = self.status(&name).ok_or_else(|| {
            Status::not_found(format!("there is no service or model '{}'", name.escape_debug()))
        })?;
        Ok(Response::new(answer(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (probe, name) = (self.clone(), request.into_inner().service);
        let phases = self.phases.clone();
        let mut last = None;
        let states = self.service.changes().filter_map(move |()| {
            // A name that is not known may come to be.
            let status = probe.status(&name).unwrap_or(ServingStatus::ServiceUnknown);
            (last.replace(status) != Some(status)).then(|| Ok(answer(status)))
        });
        // A daemon that stops is not waited upon by those who watch it.
        let drained = Box::pin(async move { phases.draining().await });
        let states = futures_util::StreamExt::take_until(states, drained);
        let last = Err(Status::unavailable("the daemon is stopping"));
        Ok(Response::new(Box::pin(states.chain(tokio_stream::once(last)))))
    }
}
