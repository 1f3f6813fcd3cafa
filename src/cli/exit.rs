//! How a verb ends when it fails: a sentence, and one of the exit codes of sysexits.h.

use std::fmt;

/// The exit codes, as `--help` lists them.
pub const HELP: &str = "\
To begin: graftd serve --models DIR, and in another shell graftd status.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 no daemon there, 75 not now but perhaps later,
78 a setting is wrong.";

/// What kind of failure it is, for scripts and supervisors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything else.
    Failed,
    /// What was typed is none of graftd's.
    Usage,
    /// There is no daemon, or it went away.
    Unavailable,
    /// The same may work later.
    Temporary,
    /// A setting is wrong; trying again will not help.
    Configuration,
}

/// Why a verb failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: Kind,
    /// What was wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A wrong setting.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Kind::Configuration, message)
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Unavailable => 69,
            Kind::Temporary => 75,
            Kind::Configuration => 78,
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(Kind::Failed, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
