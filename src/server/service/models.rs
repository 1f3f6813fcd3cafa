//! What models are, do and become, in the messages of Triton's extensions.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::model::State;
use crate::proto::repository_index_response::ModelIndex;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, ModelConfig, RepositoryIndexRequest, RepositoryIndexResponse,
};
use std::sync::Arc;

impl Service {
    /// The configuration of a model as it is in force.
    ///
    /// # Errors
    /// `NotFound` or `Unavailable`.
    pub fn model_config(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Arc<ModelConfig>, InferError> {
        Ok(self.catalog().find(model, version)?.config.clone())
    }

    /// The models with their states.
    #[must_use]
    pub fn index(&self, request: &RepositoryIndexRequest) -> RepositoryIndexResponse {
        let catalog = self.catalog();
        let entries = catalog.iter().map(|(name, version, state)| {
            let (state, reason) = match state {
                State::Ready(_) => ("READY", String::new()),
                State::Loading => ("LOADING", String::new()),
                State::Unavailable(why) => ("UNAVAILABLE", why.clone()),
            };
            let (name, version) = (name.to_owned(), version.to_string());
            ModelIndex { name, version, state: state.to_owned(), reason }
        });
        let wanted = |entry: &ModelIndex| !request.ready || entry.state == "READY";
        RepositoryIndexResponse { models: entries.filter(wanted).collect() }
    }

    /// GPU memory of clients cannot be had here.
    ///
    /// # Errors
    /// `Unsupported`, always.
    pub fn register_cuda(
        &self,
        request: &CudaSharedMemoryRegisterRequest,
    ) -> Result<(), InferError> {
        let text = format!(
            "region '{}': CUDA shared memory is not offered; use system shared memory",
            request.name.escape_debug()
        );
        Err(InferError::new(ErrorKind::Unsupported, text))
    }
}
