//! What was typed, as values: each parser says what is allowed when it refuses.

use crate::driver::load::Isolation;
use crate::rows::Storage;
use crate::sched::config::Batching;
use crate::sched::reuse::Policy;
use nix::unistd::{Group, User};
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Threads or sessions past which a number is a slip of the finger.
const RUN_THREADS_MAX: u64 = 1024;

/// A batch of fewer bytes holds no row of any but toy models.
const BATCH_BYTES_MIN: u64 = 4 << 10;

pub(super) fn isolation(text: &str) -> Result<Isolation, String> {
    match text {
        "worker" => Ok(Isolation::Worker),
        "auto" => Ok(Isolation::Auto),
        "none" => Ok(Isolation::None),
        _ => Err("expected one of worker, auto, none".to_owned()),
    }
}

pub(super) fn sharing(text: &str) -> Result<Policy, String> {
    text.parse().map_err(|_: String| "expected one of auto, always, never".to_owned())
}

pub(super) fn batching(text: &str) -> Result<Batching, String> {
    match text {
        "learned" => Ok(Batching::Learned),
        "eager" => Ok(Batching::Eager),
        _ => Err("expected learned or eager".to_owned()),
    }
}

pub(super) fn storage(text: &str) -> Result<Storage, String> {
    text.parse().map_err(|_: String| "expected exact or float16".to_owned())
}

/// Something that is there or not.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

/// A number of bytes, with K, M, G or T for powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number of bytes such as 65536, 512M or 2G";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1_u64,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| EXPECTED)?;
    number.checked_mul(factor).ok_or_else(|| "is more than can be counted".to_owned())
}

/// A number of bytes that lets something through.
pub(super) fn bytes_some(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("lets nothing through; expected at least one byte, such as 256M".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A number of bytes that a batch can have.
pub(super) fn batch_bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes < BATCH_BYTES_MIN {
        return Err("is too small for a batch; expected 4K or more, such as 256M".to_owned());
    }
    Ok(bytes)
}

/// A time of at least one millisecond.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    within(text, 1..=u64::MAX, "expected milliseconds, 1 or more").map(Duration::from_millis)
}

/// A depth that the reader of JSON can follow.
pub(super) fn depth(text: &str) -> Result<usize, String> {
    let depth = within(text, 1..=100, "expected a depth, 1 to 100")?;
    usize::try_from(depth).map_err(|_| "is more than can be counted".to_owned())
}

/// A file's mode in octal; nobody has a use for executing a socket, nor for special bits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| mode & !0o777 == 0);
    let mode = mode.ok_or("expected a mode in octal, such as 0660")?;
    if mode & 0o600 != 0o600 {
        return Err("shuts the daemon's own user out; expected 06xx, such as 0660".to_owned());
    }
    Ok(mode)
}

/// A group's number, from it or its name.
pub(super) fn group(text: &str) -> Result<u32, String> {
    let named = || Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    let number = text.parse().ok().or_else(named);
    number.ok_or_else(|| "there is no such group; expected its name or number".to_owned())
}

/// A user's number, from it or their name.
pub(super) fn user(text: &str) -> Result<u32, String> {
    let named = || User::from_name(text).ok().flatten().map(|user| user.uid.as_raw());
    let number = text.parse().ok().or_else(named);
    number.ok_or_else(|| "there is no such user; expected their name or number".to_owned())
}

/// One or more.
pub(super) fn count(text: &str) -> Result<usize, String> {
    let number = within(text, 1..=u64::MAX, "expected a whole number, 1 or more")?;
    usize::try_from(number).map_err(|_| "is more than can be counted".to_owned())
}

/// Threads or sessions.
pub(super) fn threads(text: &str) -> Result<usize, String> {
    let number = within(text, 1..=RUN_THREADS_MAX, "expected a whole number from 1 to 1024")?;
    usize::try_from(number).map_err(|error| error.to_string())
}

/// Milliseconds, at least one.
pub(super) fn ms_some(text: &str) -> Result<u64, String> {
    within(text, 1..=u64::MAX, "expected milliseconds, 1 or more")
}

/// A span of seconds that has some length.
pub(super) fn seconds_some(text: &str) -> Result<u64, String> {
    within(text, 1..=u64::from(u32::MAX), "expected seconds, 1 or more")
}

fn within(text: &str, range: RangeInclusive<u64>, expected: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| expected.to_owned())
}

/// An address; a host's name stands for the first of its addresses.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    const EXPECTED: &str =
        "expected HOST:PORT, such as 127.0.0.1:8000, localhost:8000 or [::]:8000";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(EXPECTED.to_owned());
    }
    let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| format!("no host '{host}' is known; {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let table = [("0", 0), ("7", 7), ("2k", 2048), ("1GiB", 1 << 30), ("1T", 1 << 40)];
        for (text, expected) in table {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "1P", "-1", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_lets_nothing_through_is_refused() {
        assert!(bytes_some("0").unwrap_err().contains("at least"));
        assert!(batch_bytes("1").unwrap_err().contains("4K or more"));
        assert_eq!(batch_bytes("4K"), Ok(4096));
        assert!(count("0").is_err() && count("x").is_err());
        assert!(threads("1025").unwrap_err().contains("1024"));
        assert_eq!(threads("1024"), Ok(1024));
    }

    #[test]
    fn hosts_may_be_named() {
        assert_eq!(listen("127.0.0.1:80").unwrap().port(), 80);
        assert!(listen("localhost:80").unwrap().ip().is_loopback());
        for text in ["localhost", "8000", ":8000", "localhost:x", "host.invalid:80"] {
            assert!(listen(text).unwrap_err().contains("HOST:PORT"), "{text}");
        }
    }
}
