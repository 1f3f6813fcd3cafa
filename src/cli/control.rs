//! `graftd load` and `graftd unload`: one model of a running daemon.

use super::client::{Client, repository_path};
use super::exit::Failure;
use super::table;
use crate::progress::{Foot, LATE};
use crate::text;
use bytes::Bytes;
use clap::Args;
use parking_lot::Mutex;
use serde::Deserialize;
use std::convert::Infallible;
use std::future::pending;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at how far a load is.
const LOOK: Duration = Duration::from_millis(250);

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
    let done = tokio::select! {
        done = client.post(&path, None, Bytes::from_static(b"{}")) => done?,
        never = follow(args, verb) => match never {},
    };
    done.success()?;
    let index = index(&mut client).await;
    let index = index.map_err(|why| format!("{verb} was carried out, but: {why}"))?;
    let versions: Vec<&Entry> = index.iter().filter(|entry| entry.name == args.model).collect();
    Ok(table::print(out, |out| {
        if versions.is_empty() {
            return writeln!(out, "{} is not served", args.model);
        }
        versions.iter().try_for_each(|Entry { name, version, state, reason }| {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            writeln!(out, "{name}:{version} is {}{reason}", state.to_lowercase())
        })
    })?)
}

async fn index(client: &mut Client) -> Result<Vec<Entry>, Failure> {
    let index = client.post("/v2/repository/index", None, Bytes::from_static(b"{}")).await?;
    serde_json::from_slice(&index.success()?.body)
        .map_err(|error| Failure::from(format!("the daemon's index cannot be read: {error}")))
}

/// Shows at the foot of the terminal how far the daemon is, asked over a connection of its own.
async fn follow(args: &ControlArgs, verb: &str) -> Infallible {
    let foot = Foot::of_stderr();
    if !foot.is_there() {
        return pending().await;
    }
    let begun = format!("{verb}ing {}", text::name(&args.model));
    let line = Arc::new(Mutex::new(begun.clone()));
    let drawn = line.clone();
    let _shown = foot.show(LATE, move || drawn.lock().clone());
    let Ok(mut client) = Client::connect(&args.socket).await else { return pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(entries) = index(&mut client).await else { return pending().await };
        let here = entries.iter().filter(|one| one.name == args.model && one.state == "LOADING");
        let steps: Vec<_> = here.map(|one| format!("{}: {}", one.version, one.reason)).collect();
        *line.lock() = format!("{begun}  {}", steps.join(", "));
    }
}
