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

/// The kind of socket that a peer came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A Unix socket, where the system says who the peer is.
    Unix,
    /// A TCP socket, where nobody does.
    Tcp,
}

impl Listener {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }
}

/// Who is on the other end of a connection, by what the system says and never by what the peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whose rows are shared with whose.
    pub tenant: Tenant,
    /// How the peer came in.
    pub listener: Listener,
    /// The user whose shared memory the peer may name; none over TCP without rights.
    pub uid: Option<u32>,
    /// May change the daemon.
    pub admin: bool,
}

/// TCP peers have no credentials; they are one tenant of their own.
const TCP_TENANT: Tenant = Tenant(u64::MAX);

/// Who is what: how credentials become a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Users beside the daemon's own and root who may change the daemon.
    pub admins: Vec<u32>,
    /// TCP peers may do what the daemon's own user may.
    pub tcp_admin: bool,
}

impl Rule {
    /// A peer on the Unix socket.
    #[must_use]
    pub fn local(&self, uid: u32) -> Peer {
        let own = rustix::process::geteuid().as_raw();
        let admin = uid == 0 || uid == own || self.admins.contains(&uid);
        Peer { tenant: Tenant(uid.into()), listener: Listener::Unix, uid: Some(uid), admin }
    }

    /// A peer over TCP.
    #[must_use]
    pub fn tcp(&self) -> Peer {
        let uid = self.tcp_admin.then(|| rustix::process::geteuid().as_raw());
        Peer { tenant: TCP_TENANT, listener: Listener::Tcp, uid, admin: self.tcp_admin }
    }
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
        let text = match self.listener {
            Listener::Unix => {
                "this changes the daemon, which only its own user and root may; ask as one of them, \
                 or start it with --admin-users"
            }
            Listener::Tcp => {
                "this changes the daemon, which TCP peers may not; use the Unix socket, or start it \
                 with --tcp-admin"
            }
        };
        Err(InferError::new(ErrorKind::Forbidden, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uids, what they are by the rule, and whether they may change the daemon.
    #[test]
    fn every_operation_for_every_kind_of_peer() {
        let own = rustix::process::geteuid().as_raw();
        let closed = Rule::default();
        let open = Rule { admins: vec![77], tcp_admin: true };
        let table = [
            (closed.local(own), true),
            (closed.local(0), true),
            (closed.local(77), false),
            (open.local(77), true),
            (open.local(78), false),
            (closed.tcp(), false),
            (open.tcp(), true),
        ];
        for (peer, admin) in table {
            for operation in Operation::ALL {
                let allowed = peer.allow(operation).is_ok();
                assert_eq!(allowed, admin || !operation.changes_daemon(), "{peer:?} {operation:?}");
            }
        }
    }

    #[test]
    fn tcp_keeps_its_own_rows_whatever_it_may_do() {
        for tcp_admin in [false, true] {
            let rule = Rule { admins: Vec::new(), tcp_admin };
            let own = rustix::process::geteuid().as_raw();
            assert_ne!(rule.tcp().tenant, rule.local(own).tenant);
            assert_eq!(rule.tcp().uid, tcp_admin.then_some(own));
        }
    }
}
