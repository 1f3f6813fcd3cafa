//! Sockets: connections in, one function per meaning behind them.
//!
//! HTTP/1.1, HTTP/2 and gRPC share each listener; they are told apart by a connection's first bytes and a
//! request's path.

mod accept;
mod activity;
mod answer;
pub mod authority;
mod body;
mod coding;
mod connection;
mod grpc;
mod health;
mod host;
mod intake;
pub mod limits;
mod methods;
pub mod phase;
pub mod record;
mod reflection;
mod refusal;
pub mod regions;
mod rest;
pub mod rights;
mod seats;
pub mod service;
pub mod socket;
mod stream;
mod upload;

use crate::clock::Clock;
use connection::Protocols;
use host::Hosts;
use limits::Limits;
use phase::{PhaseWatch, Phases};
use rights::{Peer, Rule};
use seats::Seats;
use service::Service;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Who may come in, and how much of each.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What one client may cost the others.
    pub limits: Limits,
    /// How credentials become rights.
    pub rule: Rule,
    /// Names by which TCP clients on this machine may call it, beside its own.
    pub hosts: Vec<String>,
}

/// Everything that connections need.
#[derive(Clone)]
pub struct Front {
    service: Arc<Service>,
    limits: Limits,
    rule: Arc<Rule>,
    hosts: Arc<Hosts>,
    clock: Clock,
    http: Protocols,
    seats: Seats,
    /// Connections that may be told at a time that there is no room.
    turned_away_max: usize,
    phases: PhaseWatch,
    /// Held by every connection; the last one gone tells that all are closed.
    open: watch::Sender<()>,
}

/// Who is on the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Caller {
    peer: Peer,
    /// A page in a browser could have been tricked into this connection.
    from_browser: bool,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Front {
    /// A front for a service; raises the process's limit of descriptors to what the system allows.
    #[must_use]
    pub fn new(service: Arc<Service>, policy: Policy, clock: Clock, phases: &Phases) -> Self {
        let Policy { limits, rule, hosts } = policy;
        let descriptors = accept::descriptors();
        let room = descriptors.connections;
        let seats = Seats::new(limits.connections_max, room, limits.connections_per_user);
        if room < limits.connections_max {
            tracing::info!("{room} connections at most: the limit of descriptors leaves no more");
        }
        let (open, _) = watch::channel(());
        Self {
            service,
            limits,
            rule: Arc::new(rule),
            hosts: Arc::new(Hosts::new(&hosts)),
            clock,
            http: Protocols::new(limits.header_bytes_max, limits.headers_max),
            seats,
            turned_away_max: descriptors.turned_away,
            phases: phases.watch(),
            open,
        }
    }

    /// Takes connections on a Unix socket until the daemon drains.
    pub async fn unix(self, listener: UnixListener) {
        accept::run(self, listener).await;
    }

    /// Takes connections on a TCP socket until the daemon drains.
    pub async fn tcp(self, listener: TcpListener) {
        accept::run(self, listener).await;
    }

    /// Waits until every connection is closed.
    pub async fn all_closed(&self) {
        self.open.closed().await;
    }
}
