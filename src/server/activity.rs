//! What one connection is doing, and how long it may go on doing it.
//!
//! The timers of hyper are not enough, and some are inert: `header_read_timeout` does nothing without a
//! timer and counts a quiet keep-alive connection as a slow head; HTTP/2 has none for connections without
//! streams, nor for clients that take nothing; `keep_alive_interval` is off and would only show that the
//! peer's kernel lives. So whatever happens leaves a time here, and one sleeping future per connection looks
//! when the earliest limit could be reached. A request costs a few atomic stores and sets no timer.

use super::limits::Limits;
use crate::clock::Clock;
use crate::time::{MonoTime, nanos};
use parking_lot::Mutex;
use slotmap::{DefaultKey, SlotMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a TCP client that closed its side waits for an answer: it may as well be gone, and no system
/// call can tell.
const HALF_CLOSED_TCP: Duration = Duration::from_secs(2);
/// No time was noted.
const NEVER: u64 = u64::MAX;

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nobody asked anything for a while.
    Idle,
    /// A request's head did not come to its end.
    Head,
    /// An answer is not taken.
    Stalled,
    /// The client closed its side and is taken to be gone.
    Gone,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Clock,
    /// Requests whose answers were not wholly handed over.
    in_flight: AtomicUsize,
    /// A body was left unread: whoever sends it must still get the answer.
    unread: AtomicBool,
    /// Since when there is no request.
    idle_since: AtomicU64,
    /// When the first bytes of a head came that is not whole.
    head_since: AtomicU64,
    /// Since when the system takes no more bytes.
    write_since: AtomicU64,
    /// When a TCP client closed its side while it waits.
    eof_since: AtomicU64,
    /// The client closed its side while it waits.
    ended: AtomicBool,
    /// Who reads a body that the end of the client's bytes would cut off.
    reader: Mutex<Option<Waker>>,
    /// Bytes between requests are heads; on HTTP/2 they may be anything.
    heads: AtomicBool,
    /// Answers whose next piece is ready, and since when it waits to be taken.
    offered: Mutex<SlotMap<DefaultKey, MonoTime>>,
    /// A limit begins to count that is shorter than what is slept.
    sooner: Notify,
}

impl Activity {
    pub(super) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            in_flight: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
            idle_since: AtomicU64::new(clock.now().as_nanos()),
            head_since: AtomicU64::new(NEVER),
            write_since: AtomicU64::new(NEVER),
            eof_since: AtomicU64::new(NEVER),
            ended: AtomicBool::new(false),
            reader: Mutex::default(),
            heads: AtomicBool::new(true),
            offered: Mutex::default(),
            sooner: Notify::new(),
        })
    }

    /// Notes that a request is here, for as long as the visit lives.
    pub(super) fn visit(self: &Arc<Self>) -> Visit {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head_since.store(NEVER, Ordering::Release);
        Visit(self.clone())
    }

    /// Notes that the connection speaks HTTP/2, where bytes between requests need not be a head.
    pub(super) fn multiplexed(&self) {
        self.heads.store(false, Ordering::Release);
        self.head_since.store(NEVER, Ordering::Release);
    }

    /// Notes that bytes came.
    pub(super) fn read(&self) {
        let waits =
            self.in_flight.load(Ordering::Acquire) == 0 && self.heads.load(Ordering::Acquire);
        if waits && self.head_since.load(Ordering::Acquire) == NEVER {
            self.head_since.store(self.clock.now().as_nanos(), Ordering::Release);
        }
    }

    /// Notes that the system took bytes, or that it takes none.
    pub(super) fn wrote(&self, taken: bool) {
        if taken {
            self.write_since.store(NEVER, Ordering::Release);
        } else if self.write_since.load(Ordering::Acquire) == NEVER {
            self.write_since.store(self.clock.now().as_nanos(), Ordering::Release);
        }
    }

    /// Whether a client whose bytes end may be waiting for an answer.
    ///
    /// Not on HTTP/2, whose clients keep both sides open.
    pub(super) fn awaited(&self) -> bool {
        self.heads.load(Ordering::Acquire) && !self.quiet()
    }

    /// Notes that the client closed its side while it waits, and whether it may be gone altogether.
    pub(super) fn half_closed(&self, doubtful: bool) {
        if doubtful {
            self.eof_since.store(self.clock.now().as_nanos(), Ordering::Release);
            self.sooner.notify_one();
        }
        self.ended.store(true, Ordering::Release);
        let reader = self.reader.lock().take();
        reader.inspect(Waker::wake_by_ref);
    }

    /// Whether the client's bytes have ended; where not, the task that reads a body is woken when they do.
    pub(super) fn ended(&self, context: &Context<'_>) -> bool {
        if !self.heads.load(Ordering::Acquire) {
            return false;
        }
        *self.reader.lock() = Some(context.waker().clone());
        self.ended.load(Ordering::Acquire)
    }

    /// Whether no request is here.
    pub(super) fn quiet(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Whether a client may still be sending what nobody will read.
    pub(super) fn unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// Notes that nobody wants the rest of a request's body.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    /// Notes that a piece of an answer is ready, or (none) that the answer itself is waited for.
    pub(super) fn offer(&self, place: &mut Option<DefaultKey>, ready: bool) {
        match (*place, ready) {
            (None, true) => *place = Some(self.offered.lock().insert(self.clock.now())),
            (Some(key), true) => {
                if let Some(since) = self.offered.lock().get_mut(key) {
                    *since = self.clock.now();
                }
            }
            (Some(key), false) => {
                self.offered.lock().remove(key);
                *place = None;
            }
            (None, false) => {}
        }
    }

    /// Waits until a limit is passed.
    pub(super) async fn overdue(&self, limits: &Limits) -> Overdue {
        loop {
            match self.judge(limits, self.clock.now()) {
                Err(why) => return why,
                Ok(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }

    /// How long nothing can become overdue, or what is.
    ///
    /// A state that is not there yet cannot be overdue before its whole limit has passed.
    fn judge(&self, limits: &Limits, now: MonoTime) -> Result<Duration, Overdue> {
        let noted = |time: &AtomicU64| Some(time.load(Ordering::Acquire)).filter(|&t| t != NEVER);
        let quiet = self.quiet();
        let offered = self.offered.lock().values().min().map(|since| since.as_nanos());
        let states = [
            (noted(&self.eof_since), HALF_CLOSED_TCP, Overdue::Gone),
            (noted(&self.write_since), limits.stall, Overdue::Stalled),
            (offered, limits.stall, Overdue::Stalled),
            (noted(&self.head_since).filter(|_| quiet), limits.head, Overdue::Head),
            (noted(&self.idle_since).filter(|_| quiet), limits.idle, Overdue::Idle),
        ];
        let mut wait = Duration::MAX;
        for (since, limit, why) in states {
            let left = match since {
                // The one that wakes the sleeper.
                None if why == Overdue::Gone => continue,
                None => limit,
                Some(since) => {
                    let gone = now.as_nanos().saturating_sub(since);
                    Duration::from_nanos(nanos(limit).saturating_sub(gone))
                }
            };
            if left.is_zero() {
                return Err(why);
            }
            wait = wait.min(left);
        }
        Ok(wait)
    }
}

/// One request of a connection, from its head until its answer is handed over.
#[derive(Debug)]
pub(super) struct Visit(Arc<Activity>);

impl Visit {
    /// The connection's state.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.0.clock.now().as_nanos();
        // First, so that nobody sees an idle connection with an old time.
        self.0.idle_since.store(now, Ordering::Release);
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            idle: Duration::from_secs(300),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            ..crate::server::limits::tests::LIMITS
        }
    }

    fn at(activity: &Activity, secs: u64) -> Result<Duration, Overdue> {
        activity.judge(&limits(), activity.clock.now().after(Duration::from_secs(secs)))
    }

    #[test]
    fn a_quiet_connection_is_idle_and_a_busy_one_is_not() {
        let activity = Activity::new(Clock::start());
        assert!(at(&activity, 299).is_ok());
        assert_eq!(at(&activity, 300), Err(Overdue::Idle));
        let visit = activity.visit();
        assert!(at(&activity, 3000).is_ok());
        drop(visit);
        assert_eq!(at(&activity, 301), Err(Overdue::Idle));
    }

    #[test]
    fn a_head_counts_from_its_first_byte_and_not_on_http2() {
        let activity = Activity::new(Clock::start());
        activity.read();
        assert_eq!(at(&activity, 31), Err(Overdue::Head));
        activity.multiplexed();
        assert!(at(&activity, 31).is_ok());
        activity.read();
        assert!(at(&activity, 31).is_ok());
    }

    #[test]
    fn an_answer_that_is_not_taken_is_stalled_and_one_that_is_not_there_is_not() {
        let activity = Activity::new(Clock::start());
        let _visit = activity.visit();
        let mut place = None;
        activity.offer(&mut place, true);
        assert_eq!(at(&activity, 21), Err(Overdue::Stalled));
        activity.offer(&mut place, false);
        assert!(at(&activity, 21).is_ok());
        activity.wrote(false);
        assert_eq!(at(&activity, 21), Err(Overdue::Stalled));
        activity.wrote(true);
        assert!(at(&activity, 21).is_ok());
    }

    #[test]
    fn nothing_is_slept_over() {
        let activity = Activity::new(Clock::start());
        // A stall that begins now must be noticed in time, though the idle limit is far away.
        assert!(at(&activity, 0).is_ok_and(|wait| wait <= limits().stall));
        activity.half_closed(true);
        assert!(at(&activity, 0).is_ok_and(|wait| wait <= HALF_CLOSED_TCP));
        assert_eq!(at(&activity, 3), Err(Overdue::Gone));
    }
}
