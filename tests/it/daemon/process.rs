//! Worker processes as the system sees them: found, hurt, and waited for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;

/// One process; the descriptor keeps its number from meaning another.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: i32,
    handle: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        Some(Self { pid, handle })
    }

    /// Whether it is a worker for `label`.
    pub(crate) fn serves(&self, label: &str) -> bool {
        arguments(self.pid).get(1..) == Some(&["worker".into(), label.into()])
    }

    /// For what a worker was started.
    pub(crate) fn label(&self) -> String {
        arguments(self.pid).get(2).cloned().unwrap_or_default()
    }

    /// Sends a signal; one to a process that is gone is lost.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_raw(self.pid).unwrap(), signal);
    }

    /// Stops all its threads, and returns once they stand still: the signal alone says only that they will.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stands = |stat: String| {
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'));
            state.unwrap_or(true)
        };
        let moving = || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
            let stats = threads.flatten().map(|it| fs::read_to_string(it.path().join("stat")));
            stats.flatten().any(|stat| !stands(stat))
        };
        while moving() {
            std::thread::yield_now();
        }
    }

    /// Waits for the end of the process and says whether it came within the time.
    pub(crate) fn ended_within(&self, seconds: i64) -> bool {
        let mut watched = [PollFd::new(&self.handle, PollFlags::IN)];
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut watched, Some(&time)).is_ok_and(|ready| ready == 1)
    }
}

/// The workers of this process that serve `label`.
pub(crate) fn workers(label: &str) -> Vec<Process> {
    let us = i32::try_from(std::process::id()).unwrap();
    children(us).into_iter().filter(|process| process.serves(label)).collect()
}

/// The processes that a process started and that live.
pub(crate) fn children(parent: i32) -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| parent_of(pid) == Some(parent))
        .filter_map(Process::open)
        .collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the fields after it do not.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z")
}

fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parts = line.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into());
    parts.filter(|part: &String| !part.is_empty()).collect()
}
