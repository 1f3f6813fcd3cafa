//! The sessions and devices as the scheduler knows them: who is idle, and which cores are taken.

use crate::id::{BatchId, DeviceId, SessionId, StageId};
use crate::sched::event::Purpose;
use crate::time::{MonoTime, nanos};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Batches a session may have in hand: the one that runs and one formed ahead.
pub const IN_HAND_MAX: usize = 2;

/// One warm session.
#[derive(Debug)]
pub struct Session {
    /// The stage it runs.
    pub stage: StageId,
    /// What it is for.
    pub purpose: Purpose,
    /// The device it runs on.
    pub device: DeviceId,
    /// Slots of the device that it occupies while it runs.
    pub slots: u32,
    /// What it has been given, the running batch first.
    pub in_hand: VecDeque<BatchId>,
    /// Its process is to be killed: it gets no more batches.
    pub doomed: bool,
    /// Others take its place: it gets no more batches, and goes once it has nothing in hand.
    pub leaves: bool,
}

impl Session {
    /// Whether it may be given batches at all.
    #[must_use]
    pub const fn takes_more(&self) -> bool {
        !self.doomed && !self.leaves
    }
}

/// The slots of one device.
#[derive(Clone, Copy, Debug)]
struct Device {
    slots: u32,
    used: u32,
}

/// How far back the share of slots in use is remembered.
const MEMORY: Duration = Duration::from_millis(100);

/// All devices.
#[derive(Debug)]
pub struct Devices {
    all: BTreeMap<DeviceId, Device>,
    /// The share of all slots in use lately, in 2^20.
    lately: u64,
    /// Until when it is counted.
    counted: MonoTime,
    /// What a row costs lately, in nanoseconds of one slot.
    row_ns: u64,
    /// How long rows wait lately until they run.
    waited_ns: u64,
}

impl Devices {
    /// Devices with these numbers of slots.
    #[must_use]
    pub fn new(devices: &[(DeviceId, u32)]) -> Self {
        let all = devices.iter().map(|&(id, slots)| (id, Device { slots, used: 0 })).collect();
        Self { all, lately: 0, counted: MonoTime::ZERO, row_ns: 0, waited_ns: 0 }
    }

    /// Whether a run of `slots` may start; one that is wider than its device runs alone.
    #[must_use]
    pub fn fits(&self, device: DeviceId, slots: u32) -> bool {
        self.all.get(&device).is_none_or(|d| d.used == 0 || d.used + slots <= d.slots)
    }

    /// A run starts.
    pub fn take(&mut self, device: DeviceId, slots: u32, now: MonoTime) {
        self.count(now);
        if let Some(device) = self.all.get_mut(&device) {
            device.used += slots;
        }
    }

    /// A session has nothing left in hand.
    pub fn give_back(&mut self, device: DeviceId, slots: u32, now: MonoTime) {
        self.count(now);
        if let Some(device) = self.all.get_mut(&device) {
            debug_assert!(device.used >= slots, "more slots given back than taken");
            device.used = device.used.saturating_sub(slots);
        }
    }

    /// Takes the slots in use since the last change into account.
    fn count(&mut self, now: MonoTime) {
        self.lately = self.lately(now);
        self.counted = now;
    }

    fn lately(&self, now: MonoTime) -> u64 {
        let (span, memory) = (nanos(now.since(self.counted)), nanos(MEMORY));
        let slots: u32 = self.all.values().map(|device| device.slots).sum();
        let used = (u64::from(self.used()) << 20) / u64::from(slots.max(1));
        let mixed =
            u128::from(self.lately) * u128::from(memory) + u128::from(used) * u128::from(span);
        u64::try_from(mixed / u128::from(memory.saturating_add(span))).unwrap_or(1 << 20)
    }

    /// The share of all slots that were in use lately, in 1024.
    #[must_use]
    pub fn busy(&self, now: MonoTime) -> u32 {
        u32::try_from(self.lately(now) >> 10).unwrap_or(1024).min(1024)
    }

    /// Learns what rows cost, whatever stage ran them.
    pub fn learn(&mut self, slots: u32, rows: usize, service: Duration) {
        let row = nanos(service).saturating_mul(u64::from(slots)) / rows.max(1) as u64;
        self.row_ns = self.row_ns - self.row_ns / 32 + row / 32;
    }

    /// Learns how long a row waited that runs now.
    pub fn waited(&mut self, wait: Duration) {
        self.waited_ns = self.waited_ns - self.waited_ns / 64 + nanos(wait) / 64;
    }

    /// How long rows wait lately until they run.
    #[must_use]
    pub const fn usual_wait(&self) -> Duration {
        Duration::from_nanos(self.waited_ns)
    }

    /// When a slot is expected to be free for a row behind so many.
    #[must_use]
    pub fn wait(&self, device: DeviceId, rows: usize) -> Duration {
        let Some(device) = self.all.get(&device) else { return Duration::ZERO };
        if device.used < device.slots && rows == 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(
            self.row_ns.saturating_mul(rows as u64) / u64::from(device.slots.max(1)),
        )
    }

    /// The slots of a device.
    #[must_use]
    pub fn slots(&self, device: DeviceId) -> u32 {
        self.all.get(&device).map_or(0, |device| device.slots)
    }

    /// Slots in use over all devices.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.all.values().map(|device| device.used).sum()
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions(pub BTreeMap<SessionId, Session>);

impl Sessions {
    /// The serving sessions of a stage that have nothing in hand.
    pub fn idle(&self, stage: StageId) -> impl Iterator<Item = (SessionId, &Session)> {
        self.serving(stage).filter(|(_, session)| session.in_hand.is_empty())
    }

    /// The serving sessions of a stage that run one batch and have room for one more.
    pub fn room_ahead(&self, stage: StageId) -> impl Iterator<Item = (SessionId, &Session)> {
        self.serving(stage).filter(|(_, session)| {
            !session.in_hand.is_empty() && session.in_hand.len() < IN_HAND_MAX
        })
    }

    /// The serving sessions of a stage.
    pub fn serving(&self, stage: StageId) -> impl Iterator<Item = (SessionId, &Session)> {
        self.0
            .iter()
            .filter(move |(_, session)| {
                session.stage == stage
                    && session.purpose == Purpose::Serving
                    && session.takes_more()
            })
            .map(|(&id, session)| (id, session))
    }
}
