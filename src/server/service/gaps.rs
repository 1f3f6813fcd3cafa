//! What the routes lead to and is not there yet.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::proto::ModelStatisticsResponse;

fn gap<T>() -> Result<T, InferError> {
    Err(InferError::new(ErrorKind::Unsupported, "not offered yet"))
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "replaced soon")]
impl Service {
    pub fn statistics(
        &self,
        _model: Option<&str>,
        _version: Option<&str>,
    ) -> Result<ModelStatisticsResponse, InferError> {
        gap()
    }
}
