//! The verbs of the command line.

pub mod serve;

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
    /// Run one model for a daemon (started by graftd itself)
    #[command(hide = true)]
    Worker {
        /// The model's name and version, as process listings show it
        label: String,
    },
}
