//! Flags of other servers, for whoever brings a start script along.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

const ONE_DOOR: &str =
    "REST, gRPC and metrics share each address; give it as --listen 127.0.0.1:8000";

/// Flags, with what does the same here.
const KNOWN: [(&str, &str); 11] = [
    ("--http-port", ONE_DOOR),
    ("--http_port", ONE_DOOR),
    ("--grpc-port", ONE_DOOR),
    ("--grpc_port", ONE_DOOR),
    ("--metrics-port", ONE_DOOR),
    ("--http-address", ONE_DOOR),
    ("--grpc-address", ONE_DOOR),
    ("--log-verbose", "use --log debug, for a line to each request"),
    (
        "--exit-on-error",
        "a model that fails is named and the others are served; graftd check ends with 1 for it",
    ),
    (
        "--disable-auto-complete-config",
        "settings that are missing come from the model; leave the flag out",
    ),
    ("--exit-timeout-secs", "use --drain-timeout-s"),
];

/// What does the same here as a flag that is not known, where the flag is another server's.
pub(super) fn hint(flag: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| *known == flag).map(|(_, hint)| *hint)
}

/// What to say to wrong usage by another server's flag.
#[must_use]
pub fn refused(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = shown.split(['=', ' ']).next()?;
    hint(flag).map(|hint| format!("{flag} is not a flag of graftd: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_of_ours_is_foreign() {
        let command = crate::cli::command();
        let mut ours = command.get_subcommands().flat_map(clap::Command::get_arguments);
        let foreign = |arg: &clap::Arg| {
            arg.get_long_and_visible_aliases()
                .into_iter()
                .flatten()
                .any(|long| hint(&format!("--{long}")).is_some())
        };
        assert!(!ours.any(foreign));
    }

    #[test]
    fn a_foreign_flag_is_told_what_does_the_same() {
        let told = |flags: &[&str]| {
            let error = crate::cli::command().try_get_matches_from(flags).unwrap_err();
            refused(&error)
        };
        let port = told(&["graftd", "serve", "--http-port=8000"]).unwrap();
        assert!(port.contains("--http-port is not") && port.contains("--listen"), "{port}");
        assert_eq!(told(&["graftd", "serve", "--nonsense"]), None);
        assert_eq!(told(&["graftd", "serve", "--rows-max=x"]), None);
    }
}
