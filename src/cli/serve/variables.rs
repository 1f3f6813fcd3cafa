//! Variables of the environment: those that are misspelt, and those whose value is wrong.

use super::file::allowed;
use crate::text;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Error};
use std::ffi::{OsStr, OsString};

const PREFIX: &str = "GRAFTD_";

/// A sentence for each variable that is one slip of the finger away from one of ours.
///
/// Others stay unsaid: whoever runs containers adds variables of a service's name, such as `GRAFTD_SERVICE_HOST`.
#[must_use]
pub(super) fn unknown(command: &Command, names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let known: Vec<&str> = arguments(command).filter_map(variable).collect();
    let ours = |name: OsString| name.into_string().ok().filter(|name| name.starts_with(PREFIX));
    let strangers =
        names.into_iter().filter_map(ours).filter(|name| !known.contains(&name.as_str()));
    let sentence = |name: String| {
        let near = text::meant(&name, known.iter().copied().filter(|known| near(known, &name)))?;
        Some(format!(
            "the variable {} is none of graftd's; did you mean {near}?",
            text::name(&name)
        ))
    };
    strangers.filter_map(sentence).collect()
}

/// What is wrong with a variable, where an error is about one: whoever wrote it into a service's file typed no flag.
#[must_use]
pub fn wrong(command: &Command, error: &Error, typed: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = shown.split([' ', '=', '[']).next()?.strip_prefix("--")?;
    let flag = |given: &OsString| {
        let given = given.to_string_lossy();
        given.strip_prefix("--").and_then(|given| given.split('=').next()) == Some(long)
    };
    if typed.iter().any(flag) {
        return None;
    }
    let name = arguments(command).find(|arg| arg.get_long() == Some(long)).and_then(variable)?;
    let value = std::env::var_os(name)?;
    let value = text::name(&value.to_string_lossy());
    Some(format!("the variable {name} is '{value}': {}", allowed(error)))
}

/// Whether a name is the other but for a letter or two that are missing, added or wrong.
fn near(known: &str, name: &str) -> bool {
    known.len().abs_diff(name.len()) <= 2 && !name.contains("_SERVICE_")
}

fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_subcommands().flat_map(Command::get_arguments)
}

fn variable(arg: &Arg) -> Option<&str> {
    arg.get_env().and_then(OsStr::to_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_told_with_the_likely_one() {
        let told =
            |names: &[&str]| unknown(&crate::cli::command(), names.iter().map(OsString::from));
        assert_eq!(told(&["GRAFTD_ROWS_MAX", "GRAFTD_SOCKET", "PATH", "GRAFT"]), [""; 0]);
        assert_eq!(told(&["GRAFTD_SERVICE_HOST", "GRAFTD_PORT_8000_TCP_ADDR"]), [""; 0]);
        let told = told(&["GRAFTD_ROW_MAX", "GRAFTD_TREADS"]);
        assert!(
            told[0].contains("GRAFTD_ROW_MAX is none of graftd's; did you mean GRAFTD_ROWS_MAX?")
        );
        assert!(told[1].contains("did you mean GRAFTD_THREADS?"), "{told:?}");
    }
}
