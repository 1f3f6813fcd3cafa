//! From everything that was given, flags, environment and file, to the arguments of `graftd serve`.

use super::ServeArgs;
use super::file::File;
use super::origin;
use crate::cli::exit::Failure;
use crate::cli::set_variable;
use clap::{ArgMatches, Command, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// What was given to `graftd serve`, put together.
#[derive(Debug)]
pub struct Given {
    /// The settings.
    pub args: ServeArgs,
    /// The same as a configuration file, each with its source.
    pub shown: String,
}

/// Puts `arguments`, which are all those of the program, together with the file they name.
///
/// `verb` is one that takes the arguments of `graftd serve`; `typed` is what clap made of them without a file.
///
/// # Errors
/// What is wrong in the file, with its line and what is allowed.
pub fn given(
    command: Command,
    verb: &str,
    arguments: &[OsString],
    typed: &ArgMatches,
) -> Result<Given, Failure> {
    let missing = || Failure::from(format!("{verb} has no arguments"));
    // What a verb takes beside is of the command line alone.
    let serve = command.find_subcommand("serve").cloned().ok_or_else(missing)?;
    let named = typed.get_one::<PathBuf>("config").cloned();
    let file = match named.or_else(found) {
        Some(path) => File::read(&path, &serve).map_err(Failure::configuration)?,
        None => File::default(),
    };
    let command = command.mut_subcommand(verb, |serve| file.apply(serve));
    let wrong = |error: clap::Error| Failure::configuration(error.to_string());
    let matches = command.try_get_matches_from(arguments).map_err(wrong)?;
    let matches = matches.subcommand_matches(verb).ok_or_else(missing)?;
    let mut args = ServeArgs::from_arg_matches(matches).map_err(wrong)?;
    let shown = origin::shown(&serve, matches, &file);
    // The last one counts, so what was typed comes behind.
    args.sharing.set.splice(0..0, file.models.into_iter().map(|(_, setting, _)| setting));
    Ok(Given { args, shown })
}

/// The configuration file that nobody named: the first that is there.
fn found() -> Option<PathBuf> {
    let folder = |name| set_variable(name).map(PathBuf::from);
    let user = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let places = [
        folder("CONFIGURATION_DIRECTORY"),
        user.map(|folder| folder.join("graftd")),
        Some(PathBuf::from("/etc/graftd")),
    ];
    places
        .into_iter()
        .flatten()
        .map(|folder| folder.join("graftd.toml"))
        .find(|file| file.is_file())
}
