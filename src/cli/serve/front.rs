//! The flags of the front door: who may come in, and how much of each.

use super::values::{bytes_some, count, depth, group, milliseconds, mode, user};
use crate::server::Policy;
use crate::server::limits::Limits;
use crate::server::rights::Rule;
use crate::server::socket::Access;
use clap::Args;
use std::time::Duration;

/// Who may come in.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Who may come in")]
pub struct Doors {
    /// Mode of the socket's file, in octal; 0660 lets its group in
    #[arg(long, value_name = "MODE", env = "GRAFTD_SOCKET_MODE", default_value = "0600")]
    #[arg(value_parser = mode)]
    pub socket_mode: u32,
    /// Group of the socket's file, by name or number [default: the daemon's own]
    #[arg(long, value_name = "GROUP", env = "GRAFTD_SOCKET_GROUP", value_parser = group)]
    pub socket_group: Option<u32>,
    /// Users of the socket who may load models and the like, beside the daemon's own and root
    #[arg(long, value_name = "USER,...", env = "GRAFTD_ADMIN_USERS", value_delimiter = ',')]
    #[arg(value_parser = user)]
    pub admin_users: Vec<u32>,
    /// Let TCP clients do all that the daemon's own user may
    #[arg(long, env = "GRAFTD_TCP_ADMIN")]
    pub tcp_admin: bool,
    /// Names by which TCP clients on this machine may call it, beside localhost and its own; * for all
    #[arg(long, value_name = "NAME,...", env = "GRAFTD_ALLOW_HOST", value_delimiter = ',')]
    pub allow_host: Vec<String>,
}

/// How much of each client is too much.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of each client")]
pub struct Manners {
    /// Bytes of one request's body at most, as sent and when inflated
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BODY_BYTES_MAX", default_value = "256M")]
    #[arg(value_parser = bytes_some)]
    pub body_bytes_max: u64,
    /// Bytes of a request's headers at most
    #[arg(long, value_name = "BYTES", env = "GRAFTD_HEADER_BYTES_MAX", default_value = "64K")]
    #[arg(value_parser = bytes_some)]
    pub header_bytes_max: u64,
    /// Headers of a request at most
    #[arg(long, value_name = "N", env = "GRAFTD_HEADERS_MAX", default_value = "64")]
    #[arg(value_parser = count)]
    pub headers_max: usize,
    /// Depth of a request's JSON at most
    #[arg(long, value_name = "N", env = "GRAFTD_JSON_DEPTH_MAX", default_value = "32")]
    #[arg(value_parser = depth)]
    pub json_depth_max: usize,
    /// Inputs of a request at most, and outputs that it names
    #[arg(long, value_name = "N", env = "GRAFTD_TENSORS_MAX", default_value = "64")]
    #[arg(value_parser = count)]
    pub tensors_max: usize,
    /// Connections at most
    #[arg(long, value_name = "N", env = "GRAFTD_CONNECTIONS_MAX", default_value = "4096")]
    #[arg(value_parser = count)]
    pub connections_max: usize,
    /// Connections of one user at most; TCP clients are one user [default: 3/4 of --connections-max]
    #[arg(long, value_name = "N", env = "GRAFTD_CONNECTIONS_PER_USER", value_parser = count)]
    pub connections_per_user: Option<usize>,
    /// How long a connection may be open without a request
    #[arg(long, value_name = "MS", env = "GRAFTD_IDLE_TIMEOUT_MS", default_value = "300000")]
    #[arg(value_parser = milliseconds)]
    pub idle_timeout_ms: Duration,
    /// How long a request's headers may take
    #[arg(long, value_name = "MS", env = "GRAFTD_HEAD_TIMEOUT_MS", default_value = "30000")]
    #[arg(value_parser = milliseconds)]
    pub head_timeout_ms: Duration,
    /// How long a request's body may pause
    #[arg(long, value_name = "MS", env = "GRAFTD_BODY_GAP_MS", default_value = "30000")]
    #[arg(value_parser = milliseconds)]
    pub body_gap_ms: Duration,
    /// How long a whole body may take
    #[arg(long, value_name = "MS", env = "GRAFTD_BODY_TIMEOUT_MS", default_value = "300000")]
    #[arg(value_parser = milliseconds)]
    pub body_timeout_ms: Duration,
    /// How long a client may leave an answer untaken
    #[arg(long, value_name = "MS", env = "GRAFTD_STALL_TIMEOUT_MS", default_value = "30000")]
    #[arg(value_parser = milliseconds)]
    pub stall_timeout_ms: Duration,
    /// Refuse compressed bodies and compress no answers
    #[arg(long, env = "GRAFTD_NO_COMPRESSION")]
    pub no_compression: bool,
}

impl Doors {
    /// The mode and group of the socket's file.
    #[must_use]
    pub fn access(&self) -> Access {
        Access { mode: self.socket_mode, group: self.socket_group }
    }

    /// Who may come in, and by these limits how much of each.
    #[must_use]
    pub fn policy(&self, limits: Limits) -> Policy {
        let rule = Rule { admins: self.admin_users.clone(), tcp_admin: self.tcp_admin };
        Policy { limits, rule, hosts: self.allow_host.clone() }
    }
}

impl Manners {
    /// The limits of the front door.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let per_user = self.connections_max.div_ceil(4).saturating_mul(3);
        Limits {
            body_bytes_max: super::size(self.body_bytes_max),
            header_bytes_max: super::size(self.header_bytes_max),
            headers_max: self.headers_max,
            json_depth_max: self.json_depth_max,
            tensors_max: self.tensors_max,
            connections_max: self.connections_max,
            connections_per_user: self.connections_per_user.unwrap_or(per_user),
            idle: self.idle_timeout_ms,
            head: self.head_timeout_ms,
            body_gap: self.body_gap_ms,
            body: self.body_timeout_ms,
            stall: self.stall_timeout_ms,
            compression: !self.no_compression,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        doors: Doors,
        #[command(flatten)]
        manners: Manners,
    }

    fn parsed(flag: &str, value: &str) -> Result<Line, String> {
        Line::try_parse_from(["graftd", flag, value]).map_err(|error| error.to_string())
    }

    #[test]
    fn names_become_numbers_and_unknown_ones_are_named() {
        let line = parsed("--admin-users", "root,1234").unwrap();
        assert_eq!(line.doors.policy(line.manners.limits()).rule.admins, [0, 1234]);
        let line = parsed("--socket-group", "root").unwrap();
        assert_eq!(line.doors.access(), Access { mode: 0o600, group: Some(0) });
        for (flag, value) in [("--admin-users", "no such user"), ("--socket-group", "no:group")] {
            let why = parsed(flag, value).unwrap_err();
            assert!(why.contains(flag) && why.contains(value), "{why}");
        }
    }

    #[test]
    fn modes_are_octal_and_keep_the_owner() {
        for (text, expected) in [("0660", 0o660), ("600", 0o600), ("0666", 0o666)] {
            assert_eq!(parsed("--socket-mode", text).unwrap().doors.socket_mode, expected);
        }
        for text in ["0800", "rw", "", "0060", "04600", "-1"] {
            assert!(parsed("--socket-mode", text).is_err(), "{text}");
        }
    }

    #[test]
    fn senseless_limits_are_refused_by_name() {
        for flag in [
            "--body-bytes-max",
            "--header-bytes-max",
            "--headers-max",
            "--json-depth-max",
            "--tensors-max",
            "--connections-max",
            "--connections-per-user",
            "--idle-timeout-ms",
            "--head-timeout-ms",
            "--body-gap-ms",
            "--body-timeout-ms",
            "--stall-timeout-ms",
        ] {
            let why = parsed(flag, "0").unwrap_err();
            assert!(why.contains(flag) && why.contains("expected"), "{why}");
        }
        assert!(parsed("--json-depth-max", "101").unwrap_err().contains("1 to 100"));
        let limits = parsed("--connections-max", "100").unwrap().manners.limits();
        assert_eq!(limits.connections_per_user, 75);
    }
}
