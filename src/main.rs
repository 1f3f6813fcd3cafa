//! The binary: parse arguments, do what the verb says, choose the exit code.

use clap::Parser;
use graftd::cli::{Cli, Verb};
use graftd::daemon::{Daemon, Signals};
use graftd::engine::worker::child;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

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
    log();
    let plan = args.plan()?;
    tracing::info!("ONNX Runtime from {}", plan.load.library.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("graftd-io")
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let result = runtime.block_on(async {
        let signals = Signals::listen()?;
        Daemon::start(plan).await?.run(signals).await;
        Ok(())
    });
    // A model that was just being read does not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

fn infer(args: &graftd::cli::infer::InferArgs) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    runtime.block_on(graftd::cli::infer::infer(args, &mut out))
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    layer.with_writer(std::io::stderr).init();
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
