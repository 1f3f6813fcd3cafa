//! The verbs of the command line.

pub mod client;
pub mod front;
pub mod infer;
pub mod npy;
pub mod serve;
pub mod show;

use clap::{Parser, Subcommand};

/// Serves ONNX models over a Unix socket and never does the same work twice.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What graftd can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve a directory of models
    Serve(Box<serve::ServeArgs>),
    /// Ask a running daemon for one answer
    Infer(Box<infer::InferArgs>),
    /// Run one model for a daemon (started by graftd itself)
    #[command(hide = true)]
    Worker {
        /// The model's name and version, as process listings show it
        label: String,
    },
}
