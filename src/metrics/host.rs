//! The machine and this process, as the system tells of them under `/proc`.

use super::memory::kibibytes;
use parking_lot::Mutex;
use std::fs;

/// What was seen of the processors so far.
#[derive(Debug, Default)]
pub(super) struct Host {
    last: Mutex<Option<Ticks>>,
}

/// Time of all processors since the system started, in its own ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Host {
    /// The share of all processors that was busy since this was last asked, or since the system started.
    pub(super) fn cpu_utilization(&self) -> Option<f64> {
        let now = Ticks::read(&fs::read_to_string("/proc/stat").ok()?)?;
        let mut last = self.last.lock();
        let before = last.replace(now).unwrap_or(Ticks { busy: 0, all: 0 });
        let (busy, all) =
            (now.busy.saturating_sub(before.busy), now.all.saturating_sub(before.all));
        Some(if all == 0 { 0.0 } else { busy as f64 / all as f64 })
    }
}

impl Ticks {
    fn read(stat: &str) -> Option<Self> {
        let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let times: Option<Vec<u64>> =
            fields.by_ref().take(8).map(|text| text.parse().ok()).collect();
        let times = times.filter(|times| times.len() >= 5)?;
        let all = times.iter().sum();
        // Idle, and idle while a disk is waited for.
        Some(Self { busy: all - times[3] - times[4], all })
    }
}

/// The machine's memory in bytes: all of it, and what is in use.
pub(super) fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let (total, free) = (kibibytes(&text, "MemTotal")?, kibibytes(&text, "MemAvailable")?);
    Some((total, total.saturating_sub(free)))
}

/// Bytes of memory that a process holds now; none where there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    kibibytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        let ticks = Ticks::read("cpu  10 2 5 70 3 0 1 9 0 0\ncpu0 1 1 1 1 1\n");
        assert_eq!(ticks, Some(Ticks { busy: 27, all: 100 }));
        assert_eq!(Ticks::read("cpu  10 2\n"), None);
        assert_eq!(kibibytes("A: 1 kB\nMemTotal:      16 kB\n", "MemTotal"), Some(16384));
        assert_eq!(kibibytes("MemTotal: much\n", "MemTotal"), None);
    }

    #[test]
    fn this_machine_has_memory_and_processors() {
        let (total, used) = memory().unwrap();
        assert!(used > 0 && used < total);
        let own = resident_bytes(std::process::id()).unwrap();
        assert!(own > 0 && own < total);
        assert_eq!(resident_bytes(u32::MAX), None);
        let host = Host::default();
        for _ in 0..2 {
            assert!((0.0..=1.0).contains(&host.cpu_utilization().unwrap()));
        }
    }
}
