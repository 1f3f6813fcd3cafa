//! The verbs of the command line.

pub mod bench;
pub mod check;
pub mod client;
pub mod control;
pub mod exit;
pub mod explain;
pub mod infer;
pub mod inspect;
pub mod npy;
pub mod paper;
pub mod serve;
pub mod show;
pub mod simulate;
pub mod status;
pub mod table;
pub mod traffic;
pub mod tune;

use crate::engine::runtime;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::{Failure, Kind};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Serves ONNX models over a Unix socket and never does the same work twice.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = exit::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What graftd can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve a directory of models
    #[command(after_help = serve::AFTER_HELP)]
    Serve(Box<serve::ServeArgs>),
    /// Look at settings and models as a start would, and serve nothing
    #[command(after_help = check::AFTER_HELP)]
    Check(Box<serve::ServeArgs>),
    /// Ask a running daemon for one answer
    Infer(Box<infer::InferArgs>),
    /// Show how a running daemon is
    Status(status::StatusArgs),
    /// Show what is known of a model, from a daemon or from its file
    Inspect(inspect::InspectArgs),
    /// Show why requests took their routes, and what made their answers
    Explain(explain::ExplainArgs),
    /// Load a server of the protocol with requests, and measure it
    #[command(after_help = bench::AFTER_HELP)]
    Bench(Box<bench::BenchArgs>),
    /// Try the scheduler on imagined machines, in virtual time
    #[command(after_help = simulate::AFTER_HELP)]
    Simulate(Box<simulate::SimulateArgs>),
    /// Find each model's best sessions and threads, and write them down
    #[command(after_help = tune::AFTER_HELP)]
    Tune(Box<tune::TuneArgs>),
    /// Have a running daemon load a model, or load it again
    Load(control::ControlArgs),
    /// Have a running daemon serve a model no longer
    Unload(control::ControlArgs),
    /// Print completions for a shell
    Completions(paper::CompletionArgs),
    /// Write the manual's pages to a folder
    #[command(hide = true)]
    Man(paper::ManArgs),
    /// Run one model for a daemon (started by graftd itself)
    #[command(hide = true)]
    Worker {
        /// The model's name and version, as process listings show it
        label: String,
    },
    /// Load ONNX Runtime's library and end (started by graftd itself)
    #[command(hide = true)]
    TryRuntime {
        /// The library
        library: PathBuf,
    },
}

/// What was asked of the program.
#[derive(Debug)]
pub enum Asked {
    /// To serve, with settings from flags, environment and file.
    Serve(Box<serve::Given>),
    /// To look at what would be served.
    Check(Box<serve::Given>),
    /// To try out what would be served.
    Tune(Box<serve::Given>, tune::TuneOnly),
    /// Anything else.
    Other(Verb),
}

/// The whole command line as clap knows it, with a switch's value optional: `--no-dedupe=false`.
#[must_use]
pub fn command() -> Command {
    let switch = |arg: clap::Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let arg = arg.action(ArgAction::Set).num_args(0..=1).require_equals(true);
        let arg = arg.default_value("false").default_missing_value("true");
        // A variable may say 1 or yes.
        let arg = arg.value_parser(BoolishValueParser::new());
        arg.value_name("BOOL").hide_default_value(true).hide_possible_values(true)
    };
    let command = Cli::command().long_version(long_version());
    // Names of variables are enough; their values stand behind an '=' that says nothing where there is none.
    let command = command.mut_subcommands(|verb| {
        verb.mut_args(|arg| without_empty_variable(arg).hide_env_values(true))
    });
    let command = command.mut_subcommand("serve", |serve| serve.mut_args(switch));
    let command = command.mut_subcommand("check", |check| check.mut_args(switch));
    command.mut_subcommand("tune", |tune| tune.mut_args(switch))
}

/// A flag whose variable counts as unset where it is empty, as a service's environment file may have it.
fn without_empty_variable(arg: clap::Arg) -> clap::Arg {
    let value = arg.get_env().and_then(std::env::var_os);
    if value.is_some_and(|value| value.is_empty()) { arg.env(None::<&str>) } else { arg }
}

/// A variable of the environment; one that is empty counts as unset.
fn set_variable(name: impl AsRef<OsStr>) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What was asked by these arguments of the program, its name first; ends the process for `--help`, `--version` and
/// wrong usage.
///
/// # Errors
/// What is wrong in the environment or the configuration file.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, Failure> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = command();
    let matches = match command.clone().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => {
            if let Some(why) = serve::wrong_variable(&command, &error, &arguments) {
                return Err(Failure::configuration(why));
            }
            if let Some(why) = serve::foreign_flag(&error) {
                return Err(Failure::new(Kind::Usage, why));
            }
            error.exit()
        }
    };
    if let Some((verb @ ("serve" | "check" | "tune"), typed)) = matches.subcommand() {
        let given = Box::new(serve::given(command, verb, &arguments, typed)?);
        return Ok(match verb {
            "serve" => Asked::Serve(given),
            "check" => Asked::Check(given),
            _ => {
                let own = tune::TuneOnly::from_arg_matches(typed);
                Asked::Tune(given, own.unwrap_or_else(|error| error.exit()))
            }
        });
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok(Asked::Other(cli.verb))
}

fn long_version() -> String {
    let commit = option_env!("GRAFTD_COMMIT").map_or_else(String::new, |id| format!(" ({id})"));
    let library = match runtime::find(None) {
        Ok(path) => path.display().to_string(),
        Err(_) => format!("not found; {} is what it is tested with", runtime::PINNED_VERSION),
    };
    format!("{}{commit}\nONNX Runtime: {library}", env!("CARGO_PKG_VERSION"))
}
