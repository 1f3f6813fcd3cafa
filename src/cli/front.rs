//! The flags of the front door: who may come in, and how much of each.

use super::serve::{bytes, positive};
use crate::server::Policy;
use crate::server::limits::Limits;
use crate::server::rights::Rule;
use crate::server::socket::Access;
use clap::Args;
use nix::unistd::{Group, User};
use std::time::Duration;

/// What `graftd serve` takes about its clients.
#[derive(Clone, Debug, Args)]
pub struct FrontArgs {
    /// Mode of the socket's file, in octal; 0660 lets a group in
    #[arg(long, value_name = "MODE", env = "GRAFTD_SOCKET_MODE", default_value = "0600", value_parser = mode, help_heading = "Who may come in")]
    pub socket_mode: u32,
    /// Group of the socket's file, by name or number [default: the daemon's own]
    #[arg(
        long,
        value_name = "GROUP",
        env = "GRAFTD_SOCKET_GROUP",
        help_heading = "Who may come in"
    )]
    pub socket_group: Option<String>,
    /// Users of the socket who may load models and the like, beside the daemon's own and root
    #[arg(
        long,
        value_name = "USER,...",
        env = "GRAFTD_ADMIN_USERS",
        value_delimiter = ',',
        help_heading = "Who may come in"
    )]
    pub admin_users: Vec<String>,
    /// Let TCP clients do all that the daemon's own user may
    #[arg(long, env = "GRAFTD_TCP_ADMIN", help_heading = "Who may come in")]
    pub tcp_admin: bool,
    /// A name by which TCP clients on this machine may call it, beside localhost and its own; * for all
    #[arg(
        long,
        value_name = "NAME,...",
        env = "GRAFTD_ALLOW_HOST",
        value_delimiter = ',',
        help_heading = "Who may come in"
    )]
    pub allow_host: Vec<String>,

    /// Bytes of one request's body at most, as sent and when inflated
    #[arg(long, value_name = "BYTES", env = "GRAFTD_BODY_BYTES_MAX", default_value = "256M", value_parser = bytes, help_heading = "Limits")]
    pub body_bytes_max: u64,
    /// Bytes of a request's headers at most
    #[arg(long, value_name = "BYTES", env = "GRAFTD_HEADER_BYTES_MAX", default_value = "64K", value_parser = bytes, help_heading = "Limits")]
    pub header_bytes_max: u64,
    /// Headers of a request at most
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_HEADERS_MAX",
        default_value_t = 64,
        help_heading = "Limits"
    )]
    pub headers_max: usize,
    /// Depth of a request's JSON at most; 100 is the most it can be
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_JSON_DEPTH_MAX",
        default_value_t = 32,
        help_heading = "Limits"
    )]
    pub json_depth_max: usize,
    /// Inputs of a request at most, and outputs that it names
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_TENSORS_MAX",
        default_value_t = 64,
        help_heading = "Limits"
    )]
    pub tensors_max: usize,
    /// Connections at most
    #[arg(
        long,
        value_name = "N",
        env = "GRAFTD_CONNECTIONS_MAX",
        default_value_t = 4096,
        help_heading = "Limits"
    )]
    pub connections_max: usize,
    /// Connections of one user at most; TCP clients are one user [default: 3/4 of --connections-max]
    #[arg(long, value_name = "N", env = "GRAFTD_CONNECTIONS_PER_USER", help_heading = "Limits")]
    pub connections_per_user: Option<usize>,
    /// How long a connection may be open without a request
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_IDLE_TIMEOUT_MS",
        default_value_t = 300_000,
        help_heading = "Limits"
    )]
    pub idle_timeout_ms: u64,
    /// How long a request's headers may take
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_HEAD_TIMEOUT_MS",
        default_value_t = 30_000,
        help_heading = "Limits"
    )]
    pub head_timeout_ms: u64,
    /// How long a request's body may pause
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_BODY_GAP_MS",
        default_value_t = 30_000,
        help_heading = "Limits"
    )]
    pub body_gap_ms: u64,
    /// How long a whole body may take
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_BODY_TIMEOUT_MS",
        default_value_t = 300_000,
        help_heading = "Limits"
    )]
    pub body_timeout_ms: u64,
    /// How long a client may leave an answer untaken
    #[arg(
        long,
        value_name = "MS",
        env = "GRAFTD_STALL_TIMEOUT_MS",
        default_value_t = 30_000,
        help_heading = "Limits"
    )]
    pub stall_timeout_ms: u64,
    /// Refuse compressed bodies and compress no answers
    #[arg(long, env = "GRAFTD_NO_COMPRESSION", help_heading = "Limits")]
    pub no_compression: bool,
}

impl FrontArgs {
    /// The mode and group of the socket's file.
    ///
    /// # Errors
    /// A sentence that names the flag, the value and what is allowed.
    pub fn access(&self) -> Result<Access, String> {
        let group = self.socket_group.as_deref().map(group).transpose()?;
        Ok(Access { mode: self.socket_mode, group })
    }

    /// Who may come in, and how much of each.
    ///
    /// # Errors
    /// A sentence that names the flag, the value and what is allowed.
    pub fn policy(&self) -> Result<Policy, String> {
        let admins = self.admin_users.iter().filter(|name| !name.is_empty());
        let admins = admins.map(|name| user(name)).collect::<Result<_, _>>()?;
        let rule = Rule { admins, tcp_admin: self.tcp_admin };
        Ok(Policy { limits: self.limits()?, rule, hosts: self.allow_host.clone() })
    }

    fn limits(&self) -> Result<Limits, String> {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let time = |flag: &str, ms: u64| match ms {
            0 => Err(format!("{flag} 0: expected 1 or more milliseconds")),
            ms => Ok(Duration::from_millis(ms)),
        };
        let connections_max = positive("--connections-max", self.connections_max)?;
        let per_user = self.connections_per_user.unwrap_or_else(|| connections_max.div_ceil(4) * 3);
        if self.json_depth_max > 100 {
            return Err(format!("--json-depth-max {}: expected 1 to 100", self.json_depth_max));
        }
        Ok(Limits {
            body_bytes_max: size(self.body_bytes_max),
            header_bytes_max: positive("--header-bytes-max", size(self.header_bytes_max))?,
            headers_max: positive("--headers-max", self.headers_max)?,
            json_depth_max: positive("--json-depth-max", self.json_depth_max)?,
            tensors_max: positive("--tensors-max", self.tensors_max)?,
            connections_max,
            connections_per_user: positive("--connections-per-user", per_user)?,
            idle: time("--idle-timeout-ms", self.idle_timeout_ms)?,
            head: time("--head-timeout-ms", self.head_timeout_ms)?,
            body_gap: time("--body-gap-ms", self.body_gap_ms)?,
            body: time("--body-timeout-ms", self.body_timeout_ms)?,
            stall: time("--stall-timeout-ms", self.stall_timeout_ms)?,
            compression: !self.no_compression,
        })
    }
}

/// A file's mode in octal; nobody has a use for executing a socket, nor for special bits.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| mode & !0o777 == 0);
    let mode = mode.ok_or_else(|| format!("'{text}' is no mode; expected octal such as 0660"))?;
    if mode & 0o600 != 0o600 {
        return Err(format!(
            "'{text}' shuts the daemon's own user out; expected 06xx, such as 0660"
        ));
    }
    Ok(mode)
}

fn group(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    found.ok_or_else(|| {
        format!("--socket-group '{name}': there is no such group; expected a name or a number")
    })
}

fn user(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    found.ok_or_else(|| {
        format!("--admin-users '{name}': there is no such user; expected a name or a number")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        front: FrontArgs,
    }

    fn parsed(flags: &[&str]) -> Result<Policy, String> {
        let line = Line::try_parse_from([&["graftd"], flags].concat());
        let front = line.map_err(|error| error.to_string())?.front;
        front.access()?;
        front.policy()
    }

    #[test]
    fn names_become_numbers_and_unknown_ones_are_named() {
        let policy = parsed(&["--admin-users", "root,1234"]).unwrap();
        assert_eq!(policy.rule.admins, [0, 1234]);
        let line = Line::parse_from(["graftd", "--socket-group", "root"]);
        assert_eq!(line.front.access(), Ok(Access { mode: 0o600, group: Some(0) }));
        for (flag, value) in [("--admin-users", "no such user"), ("--socket-group", "no:group")] {
            let why = parsed(&[flag, value]).unwrap_err();
            assert!(why.contains(flag) && why.contains(value), "{why}");
        }
    }

    #[test]
    fn modes_are_octal_and_keep_the_owner() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("600"), Ok(0o600));
        for text in ["0800", "rw", "", "0060", "04600", "-1"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn senseless_limits_are_refused_by_name() {
        for flag in [
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
            let why = parsed(&[flag, "0"]).unwrap_err();
            assert!(why.contains(flag), "{why}");
        }
        assert!(parsed(&["--json-depth-max", "101"]).unwrap_err().contains("1 to 100"));
        let limits = parsed(&["--connections-max", "1"]).unwrap().limits;
        assert_eq!(limits.connections_per_user, 3);
    }
}
