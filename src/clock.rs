//! The only reader of the system's clock.

use crate::time::MonoTime;
use std::time::Instant;

/// A monotonic clock; copies share their start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        MonoTime::ZERO.after(self.0.elapsed())
    }
}

/// The time since 1970 as the system has it, for comparing with the times of files; it may be set back.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> std::time::Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
