//! What the routes lead to and is not there yet.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::proto::{ModelRepositoryParameter, ModelStatisticsResponse};
use std::collections::BTreeMap;

fn gap<T>() -> Result<T, InferError> {
    Err(InferError::new(ErrorKind::Unsupported, "not offered yet"))
}

#[expect(missing_docs, clippy::missing_errors_doc, clippy::unused_async, reason = "replaced soon")]
impl Service {
    pub fn statistics(
        &self,
        _model: Option<&str>,
        _version: Option<&str>,
    ) -> Result<ModelStatisticsResponse, InferError> {
        gap()
    }

    pub async fn load(
        &self,
        _model: &str,
        _parameters: BTreeMap<String, ModelRepositoryParameter>,
    ) -> Result<(), InferError> {
        gap()
    }

    pub fn unload(&self, _model: &str) -> Result<(), InferError> {
        gap()
    }
}
