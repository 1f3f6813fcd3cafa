//! The binary: parse arguments, do what the verb says, choose the exit code.

use graftd::cli::control::{Order, control};
use graftd::cli::exit::Failure;
use graftd::cli::serve::{Logging, ServeArgs};
use graftd::cli::table::width;
use graftd::cli::tune::TuneOnly;
use graftd::cli::{self, Asked, Verb};
use graftd::daemon::{Daemon, Signals};
use graftd::engine::runtime;
use graftd::engine::worker::child;
use graftd::logging;
use graftd::progress::Foot;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    // A worker takes its descriptors before anything else is opened.
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return finish(child::main().map_err(Failure::from));
    }
    finish(cli::parse(std::env::args_os()).and_then(obey))
}

fn obey(asked: Asked) -> Result<(), Failure> {
    let verb = match asked {
        Asked::Serve(given) | Asked::Check(given) | Asked::Tune(given, _)
            if given.args.places.print_config =>
        {
            return print(&given.shown);
        }
        Asked::Serve(given) => return serve(&given.args),
        Asked::Check(given) => return check(&given.args),
        Asked::Tune(given, own) => return tune(&given.args, &own),
        Asked::Other(verb) => verb,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match verb {
        Verb::Serve(args) => serve(&args),
        Verb::Check(args) => check(&args),
        Verb::Tune(args) => tune(&args.serve, &args.own),
        Verb::Infer(args) => client(cli::infer::infer(&args, &mut out)),
        Verb::Status(args) => client(cli::status::status(&args, width(), &mut out)),
        Verb::Inspect(args) => client(cli::inspect::inspect(&args, &mut out)),
        Verb::Explain(args) => client(cli::explain::explain(&args, width(), &mut out)),
        Verb::Bench(args) => client(cli::bench::bench(&args, width(), &mut out)),
        Verb::Simulate(args) => client(cli::simulate::simulate(&args, width(), &mut out)),
        Verb::Load(args) => client(control(&args, Order::Load, &mut out)),
        Verb::Unload(args) => client(control(&args, Order::Unload, &mut out)),
        Verb::Completions(args) => Ok(cli::paper::completions(&args, &mut out)?),
        Verb::Man(args) => Ok(cli::paper::man(&args)?),
        Verb::Worker { .. } => Ok(child::main()?),
        Verb::TryRuntime { library } => Ok(runtime::tried(&library)?),
    }
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let foot = Foot::of_stderr();
    let Logging { log, log_format, .. } = &args.logging;
    let log = logging::init(log.as_deref(), *log_format, foot.clone());
    args.doubts()
        .iter()
        .for_each(|why| tracing::warn!("a setting does not do what it says: {why}"));
    let plan = args.plan().map_err(Failure::configuration)?;
    runtime::try_out(&plan.load.program, &plan.load.library).map_err(Failure::configuration)?;
    tracing::info!("ONNX Runtime from {}", plan.load.library.display());
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("graftd-io")
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let result = threads.block_on(async {
        let signals = Signals::listen()?;
        let daemon = Daemon::start(plan).await.map_err(Failure::configuration)?;
        daemon.count_lost_lines(log.lost_lines());
        daemon.run(signals, &foot).await;
        Ok(())
    });
    // A model that was just being read does not hold up the end.
    threads.shutdown_timeout(Duration::from_millis(500));
    result
}

fn check(args: &ServeArgs) -> Result<(), Failure> {
    cli::check::check(args, width(), &mut std::io::stdout().lock())
}

fn tune(args: &ServeArgs, own: &TuneOnly) -> Result<(), Failure> {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let threads = threads.map_err(|error| format!("cannot start threads: {error}"))?;
    let mut out = std::io::stdout().lock();
    let result = threads.block_on(cli::tune::tune(args, own, width(), &mut out));
    threads.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Runs a verb that talks to a daemon.
fn client(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    threads.block_on(verb)
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(written.map_err(|error| format!("cannot print: {error}"))?)
}

#[expect(clippy::print_stderr, reason = "the last word goes to the user")]
fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("graftd: {why}");
            why.code().into()
        }
    }
}
