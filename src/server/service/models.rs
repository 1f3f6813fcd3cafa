//! What models are, do and become, in the messages of Triton's extensions.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::repository_index_response::ModelIndex;
use crate::proto::{
    CudaSharedMemoryRegisterRequest, ModelConfig, ModelRepositoryParameter, RepositoryIndexRequest,
    RepositoryIndexResponse,
};
use crate::repository::Overrides;
use std::collections::BTreeMap;
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
        let spec = self.catalog().find(model, version)?.clone();
        let count = spec.runs.get().and_then(|runs| i32::try_from(runs.spread.sessions).ok());
        match (&spec.config.instance_group[..], count) {
            // Others may have been found better since it was loaded.
            ([group], Some(count)) if group.count != count => {
                let mut config = (*spec.config).clone();
                config.instance_group[0].count = count;
                Ok(Arc::new(config))
            }
            _ => Ok(spec.config.clone()),
        }
    }

    /// The models with their states.
    #[must_use]
    pub fn index(&self, request: &RepositoryIndexRequest) -> RepositoryIndexResponse {
        let entries = self.repository.index(request.ready).into_iter().map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version,
            state: entry.state.to_owned(),
            reason: entry.reason,
        });
        RepositoryIndexResponse { models: entries.collect() }
    }

    /// Loads a model, or what changed of it; see [`Repository::load`](crate::repository::Repository::load).
    ///
    /// # Errors
    /// Those of the repository, and `BadRequest` for parameters that say nothing here.
    pub async fn load(
        &self,
        model: &str,
        parameters: BTreeMap<String, ModelRepositoryParameter>,
    ) -> Result<(), InferError> {
        self.repository.load(model, overrides(parameters)?).await
    }

    /// Unloads a model; see [`Repository::unload`](crate::repository::Repository::unload).
    ///
    /// # Errors
    /// Those of the repository.
    pub fn unload(&self, model: &str) -> Result<(), InferError> {
        self.repository.unload(model)
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

/// What a load request brings along, from its parameters.
fn overrides(
    parameters: BTreeMap<String, ModelRepositoryParameter>,
) -> Result<Overrides, InferError> {
    let mut overrides = Overrides::default();
    for (key, parameter) in parameters {
        match (key.strip_prefix("file:"), parameter.parameter_choice) {
            (Some(path), Some(ParameterChoice::BytesParam(bytes))) => {
                overrides.files.push((path.to_owned(), bytes));
            }
            (None, Some(ParameterChoice::StringParam(text))) if key == "config" => {
                overrides.config = Some(text);
            }
            _ => {
                let text = format!(
                    "load parameter '{}' is not known; expected 'config' with JSON as a string, or \
                     'file:VERSION/NAME' with bytes",
                    key.escape_debug()
                );
                return Err(InferError::bad_request(text));
            }
        }
    }
    Ok(overrides)
}
