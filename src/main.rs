//! The binary: parse arguments, do what the verb says, choose the exit code.

use clap::Parser;
use graftd::cli::{Cli, Verb};
use graftd::daemon::Daemon;
use graftd::engine::worker::child;
use graftd::logging;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A worker takes its descriptors before anything else is opened.
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return finish(child::main());
    }
    let cli = Cli::parse();
    finish(match cli.verb {
        Verb::Serve(args) => serve(&args),
        Verb::Infer(args) => infer(&args),
        Verb::Worker { .. } => child::main(),
    })
}

fn serve(args: &graftd::cli::serve::ServeArgs) -> Result<(), String> {
    logging::init();
    let plan = args.plan()?;
    tracing::info!("ONNX Runtime from {}", plan.load.library.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("graftd-io")
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    runtime.block_on(async {
        let daemon = Daemon::start(plan).await?;
        daemon.run().await
    })
}

fn infer(args: &graftd::cli::infer::InferArgs) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    runtime.block_on(graftd::cli::infer::infer(args, &mut out))
}

#[expect(clippy::print_stderr, reason = "the last word goes to the user")]
fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("graftd: {why}");
            ExitCode::FAILURE
        }
    }
}
