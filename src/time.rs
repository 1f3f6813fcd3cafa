//! Monotonic time as plain data.
//!
//! Separate from any clock, so that whatever decides can be handed time instead of reading it.

use std::time::Duration;

/// A point on the daemon's monotonic clock: nanoseconds since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The moment the clock started.
    pub const ZERO: Self = Self(0);

    /// A point `ns` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This point moved later by `duration`; the far end of the clock where that would overflow.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// This point moved earlier by `duration`; the start where that would be before it.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to this point; zero where `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole microseconds of a duration, for logs; at most what 64 bits hold.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration in nanoseconds, capped at `u64::MAX` (584 years).
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration for people: three digits and the unit that suits them, such as `1.23 ms`.
#[must_use]
pub fn shown(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns as f64 / unit;
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_with_the_unit_that_suits_them() {
        let table = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 us"),
            (43_210, "43.2 us"),
            (1_230_000, "1.23 ms"),
            (250_000_000, "250 ms"),
            (90_000_000_000, "90.0 s"),
        ];
        for (ns, text) in table {
            assert_eq!(shown(Duration::from_nanos(ns)), text);
        }
    }
}
