//! Models that come, change and go while others, and their own older content, are asked.

mod generation;
mod requests;

use crate::daemon::{Daemon, sent};
use graftd::error::InferError;
use graftd::id::Tenant;
use graftd::repository::{IndexEntry, Overrides};
use graftd::request::{InferRequest, Input};
use graftd::server::rights::Peer;
use graftd::server::service::Context;
use graftd::tensor::{DataType, Shape, Tensor};

/// What a model that adds a number adds; its input differs from request to request, so that every one runs.
async fn asked(daemon: &Daemon, model: &str, value: f32) -> Result<f32, InferError> {
    let data: Vec<u8> = [value; 4].iter().flat_map(|x| x.to_le_bytes()).collect();
    let (shape, data) = (Shape(vec![1, 4]), data.into());
    let input = Tensor { name: "x".into(), datatype: DataType::Fp32, shape, data };
    let inputs = vec![Input::Sent(input)];
    let request = InferRequest { model: model.into(), inputs, ..InferRequest::default() };
    let peer = Peer { tenant: Tenant(0), uid: Some(0), admin: true };
    let answer = daemon.service.infer(request, Context { peer, timeout: None }).await?;
    let bytes = sent(&answer.outputs[0]).contiguous();
    Ok(f32::from_le_bytes(bytes[..4].try_into().unwrap()) - value)
}

/// The one version of a model in the index.
fn entry(daemon: &Daemon, model: &str) -> Option<IndexEntry> {
    let mut found = daemon.repository.index(false).into_iter().filter(|entry| entry.name == model);
    let entry = found.next();
    assert!(found.next().is_none(), "one version");
    entry
}

async fn load(daemon: &Daemon, model: &str) -> Result<(), InferError> {
    daemon.repository.load(model, Overrides::default()).await
}

/// Waits until the index says so.
async fn reaches(daemon: &Daemon, model: &str, state: &str) {
    let reached = async {
        while entry(daemon, model).map(|entry| entry.state) != Some(state) {
            tokio::task::yield_now().await;
        }
    };
    let wait = std::time::Duration::from_secs(60);
    tokio::time::timeout(wait, reached)
        .await
        .unwrap_or_else(|_| panic!("{model} is never {state}"));
}
