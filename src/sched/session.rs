//! The sessions and devices as the scheduler knows them: who is idle, and which cores are taken.

use crate::id::{BatchId, DeviceId, SessionId, StageId};
use crate::sched::event::Purpose;
use std::collections::{BTreeMap, VecDeque};

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
}

/// The slots of one device.
#[derive(Clone, Copy, Debug)]
struct Device {
    slots: u32,
    used: u32,
}

/// All devices.
#[derive(Debug)]
pub struct Devices(BTreeMap<DeviceId, Device>);

impl Devices {
    /// Devices with these numbers of slots.
    #[must_use]
    pub fn new(devices: &[(DeviceId, u32)]) -> Self {
        Self(devices.iter().map(|&(id, slots)| (id, Device { slots, used: 0 })).collect())
    }

    /// Whether a run of `slots` may start; one that is wider than its device runs alone.
    #[must_use]
    pub fn fits(&self, device: DeviceId, slots: u32) -> bool {
        self.0.get(&device).is_none_or(|d| d.used == 0 || d.used + slots <= d.slots)
    }

    /// A run starts.
    pub fn take(&mut self, device: DeviceId, slots: u32) {
        if let Some(device) = self.0.get_mut(&device) {
            device.used += slots;
        }
    }

    /// A session has nothing left in hand.
    pub fn give_back(&mut self, device: DeviceId, slots: u32) {
        if let Some(device) = self.0.get_mut(&device) {
            debug_assert!(device.used >= slots, "more slots given back than taken");
            device.used = device.used.saturating_sub(slots);
        }
    }

    /// The share of all slots that are in use, in 1024.
    #[must_use]
    pub fn busy(&self) -> u32 {
        let slots: u32 = self.0.values().map(|device| device.slots).sum();
        u32::try_from(u64::from(self.used()) * 1024 / u64::from(slots.max(1)))
            .unwrap_or(1024)
            .min(1024)
    }

    /// Slots in use over all devices.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.0.values().map(|device| device.used).sum()
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
                session.stage == stage && session.purpose == Purpose::Serving && !session.doomed
            })
            .map(|(&id, session)| (id, session))
    }
}
