//! `graftd load` and `graftd unload`: one model of a running daemon.

use super::client::{Client, repository_path};
use super::exit::Failure;
use super::table;
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;

/// What `graftd load` and `graftd unload` take.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    /// The model's name
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Load the model, or load it again where its files changed.
    Load,
    /// Serve the model no longer.
    Unload,
}

/// A version in the daemon's index.
#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    reason: String,
}

/// Gives the order, waits until it is carried out, and writes what became of the model.
///
/// # Errors
/// When no daemon answers, or what it refuses.
pub async fn control(
    args: &ControlArgs,
    order: Order,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let verb = if order == Order::Load { "load" } else { "unload" };
    let path = repository_path(&args.model, verb);
    client.post(&path, None, Bytes::from_static(b"{}")).await?.success()?;
    let index = client.post("/v2/repository/index", None, Bytes::from_static(b"{}")).await?;
    let index: Vec<Entry> = serde_json::from_slice(&index.success()?.body)
        .map_err(|error| format!("{verb} was carried out; the index cannot be read: {error}"))?;
    let versions: Vec<&Entry> = index.iter().filter(|entry| entry.name == args.model).collect();
    Ok(table::print(out, |out| {
        if versions.is_empty() {
            return writeln!(out, "{} is served no longer", args.model);
        }
        versions.iter().try_for_each(|Entry { name, version, state, reason }| {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            writeln!(out, "{name}:{version} is {}{reason}", state.to_lowercase())
        })
    })?)
}
