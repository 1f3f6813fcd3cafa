//! Who may do what: one gate, before any request reaches a function.
//!
//! REST and gRPC name what a request wants as an [`Operation`]; what it takes to be allowed that is decided
//! here and nowhere else, so that no second route leads around it.

use crate::error::{ErrorKind, InferError};
use crate::id::Tenant;

/// Everything that can be asked of the daemon, whatever the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Whether the daemon lives, and whether it is ready.
    Health,
    /// What the server or a model says of itself; its configuration and state.
    Describe,
    /// Counts and times, for machines and people.
    Observe,
    /// One inference.
    Infer,
    /// Loading and unloading models.
    ChangeModels,
    /// Registering, listing and forgetting shared memory.
    SharedMemory,
    /// What is logged and traced.
    ChangeLogging,
}

impl Operation {
    /// Every operation, for tables that must cover them all.
    pub const ALL: [Self; 7] = [
        Self::Health,
        Self::Describe,
        Self::Observe,
        Self::Infer,
        Self::ChangeModels,
        Self::SharedMemory,
        Self::ChangeLogging,
    ];

    /// Whether this changes the daemon, which only administrators may.
    #[must_use]
    pub const fn changes_daemon(self) -> bool {
        match self {
            Self::Health | Self::Describe | Self::Observe | Self::Infer => false,
            Self::ChangeModels | Self::SharedMemory | Self::ChangeLogging => true,
        }
    }
}

/// Who is on the other end of a connection, by what the system says and never by what the peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose rows are shared with whose.
    pub tenant: Tenant,
    /// The user whose shared memory the peer may name; none over TCP without rights.
    pub uid: Option<u32>,
    /// May change the daemon.
    pub admin: bool,
}

impl Peer {
    /// Lets the peer do something, or says why not.
    ///
    /// # Errors
    /// `Forbidden`, with what would allow it.
    pub fn allow(&self, operation: Operation) -> Result<(), InferError> {
        if self.admin || !operation.changes_daemon() {
            return Ok(());
        }
        let text = match self.uid {
            Some(_) => {
                "this changes the daemon, which only its own user and root may; ask as one of them, \
                 or start it with --admin-users"
            }
            None => {
                "this changes the daemon, which TCP peers may not; use the Unix socket, or start it \
                 with --tcp-admin"
            }
        };
        Err(InferError::new(ErrorKind::Forbidden, text))
    }
}
