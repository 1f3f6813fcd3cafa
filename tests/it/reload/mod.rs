//! Models that come, change and go while others, and their own older content, are asked.

mod generation;
mod health;
mod requests;
mod storm;
mod versions;
mod watch;

use crate::daemon::{Daemon, sent};
use graftd::error::InferError;
use graftd::id::Tenant;
use graftd::repository::{IndexEntry, Overrides};
use graftd::request::{InferRequest, Input};
use graftd::server::rights::{Listener, Peer};
use graftd::server::service::{Codec, Context};
use graftd::tensor::{DataType, Shape, Tensor};

/// What a model that adds a number adds; its input differs from request to request, so that every one runs.
async fn asked(daemon: &Daemon, model: &str, value: f32) -> Result<f32, InferError> {
    let data: Vec<u8> = [value; 4].iter().flat_map(|x| x.to_le_bytes()).collect();
    let (shape, data) = (Shape(vec![1, 4]), data.into());
    let input = Tensor { name: "x".into(), datatype: DataType::Fp32, shape, data };
    let inputs = vec![Input::Sent(input)];
    let request = InferRequest { model: model.into(), inputs, ..InferRequest::default() };
    let peer = Peer { tenant: Tenant(0), listener: Listener::Unix, uid: Some(0), admin: true };
    let answer =
        daemon.service.infer(request, Context { peer, codec: Codec::Rest, timeout: None }).await?;
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

/// Waits until something holds; looks again whenever something else ran.
async fn until(daemon: &Daemon, what: &str, holds: impl Fn() -> bool) {
    let mut changes = daemon.repository.served().changes();
    let reached = async {
        while !holds() {
            // Not everything that is waited for is a change of the catalogue.
            let wait = std::time::Duration::from_millis(5);
            let _ = tokio::time::timeout(wait, changes.changed()).await;
        }
    };
    let wait = std::time::Duration::from_secs(60);
    let index = || daemon.repository.index(false);
    tokio::time::timeout(wait, reached).await.unwrap_or_else(|_| panic!("{what}? {:?}", index()));
}

/// Waits until the index says so.
async fn reaches(daemon: &Daemon, model: &str, state: &str) {
    until(daemon, state, || entry(daemon, model).map(|entry| entry.state) == Some(state)).await;
}

/// Waits until a model adds this number.
async fn added(daemon: &Daemon, model: &str, number: f32) {
    let mut changes = daemon.repository.served().changes();
    let reached = async {
        while asked(daemon, model, 0.0).await.ok() != Some(number) {
            changes.changed().await.unwrap();
        }
    };
    let wait = std::time::Duration::from_secs(60);
    let index = || daemon.repository.index(false);
    let late = |_| panic!("{model} never adds {number}: {:?}", index());
    tokio::time::timeout(wait, reached).await.unwrap_or_else(late);
}
