//! Descriptors that the runtime waits for, and an alarm that is exact to microseconds.
//!
//! The runtime's own timers are exact to a millisecond, which is as long as a small model runs.

use crate::clock::Clock;
use crate::time::MonoTime;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime's reactor.
///
/// # Errors
/// When the descriptor cannot be waited for.
#[expect(unsafe_code, reason = "the registration must not outlive the descriptor")]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same, for as long as the registration holds it.
    unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))
}

/// An alarm clock for one sleeper.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    clock: Clock,
}

impl Alarm {
    /// An alarm by this clock, not set.
    ///
    /// # Errors
    /// When the system gives no timer.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: watch(timer)?, clock })
    }

    /// Sleeps until a point of the clock, or forever. Setting it anew forgets the earlier setting.
    ///
    /// # Errors
    /// When the system refuses to set the timer.
    pub async fn until(&self, at: Option<MonoTime>) -> io::Result<()> {
        let Some(at) = at else { return std::future::pending().await };
        // Zero would switch the timer off; a point in the past rings at once.
        let left = at.since(self.clock.now()).max(Duration::from_nanos(1));
        let it_value =
            Timespec::try_from(left).map_err(|error| io::Error::other(error.to_string()))?;
        let setting = Itimerspec { it_interval: Timespec::default(), it_value };
        rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        loop {
            let mut guard = self.timer.readable().await?;
            let mut rings = [0; 8];
            let read = guard.try_io(|timer| {
                rustix::io::read(timer.get_ref(), &mut rings).map_err(io::Error::from)
            });
            // An empty timer only means that readiness was left over from an earlier setting.
            if let Ok(result) = read {
                return result.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_not_before_its_time() {
        let clock = Clock::start();
        let alarm = Alarm::new(clock).unwrap();
        for us in [0, 300, 50] {
            let at = clock.now().after(Duration::from_micros(us));
            alarm.until(Some(at)).await.unwrap();
            assert!(clock.now() >= at);
        }
    }
}
