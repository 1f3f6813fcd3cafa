//! Completions and manual pages, from the same definition as the flags.

use clap::Args;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// What `graftd completions` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  graftd completions bash > ~/.local/share/bash-completion/completions/graftd
  graftd completions fish > ~/.config/fish/completions/graftd.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// What `graftd man` takes.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The folder, which must be there
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Writes a shell's completions.
///
/// # Errors
/// When they cannot be written.
pub fn completions(args: &CompletionArgs, out: &mut impl Write) -> Result<(), String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "graftd", &mut script);
    out.write_all(&script).map_err(|error| format!("cannot print completions: {error}"))
}

/// Writes the manual's pages.
///
/// # Errors
/// When the folder cannot be written.
pub fn man(args: &ManArgs) -> Result<(), String> {
    let written = clap_mangen::generate_to(super::command(), &args.folder);
    written.map_err(|error| format!("{}: {error}", args.folder.display()))
}
