//! What stands before a row on its device: the work of other stages, for rows go by rank whatever their stage.

use super::{Scheduler, Stage};
use crate::id::{DeviceId, StageId};
use crate::sched::event::Purpose;
use crate::time::nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of the wait for other stages one part in so many is counted: where there is much of it, some of what stands ahead is given
/// up and more of it shares batches. Counting all of it cost a twentieth of the goodput of eight models in overload, and
/// half of it nothing.
const SURE: u32 = 2;

/// Work of one stage that stands before a row of another.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// Nanoseconds of one slot.
    work: u64,
    /// Slots that its sessions can take side by side.
    slots: u32,
    /// What one run of it takes of these.
    a_run: u32,
}

impl Ahead {
    /// How long it takes with all the slots that it can take.
    fn alone(&self) -> u64 {
        self.work / u64::from(self.slots.max(1))
    }
}

impl Scheduler {
    /// The time until other stages leave a slot of a device to rows that come now, as far as it is sure; `own` are the
    /// stages that these go through, whose queues are counted elsewhere.
    ///
    /// # Cost
    /// A look at every stage, and at every session while other stages have something to do.
    pub(super) fn others_wait(&self, device: DeviceId, own: &[StageId]) -> Duration {
        let before = |id: StageId, stage: &Stage| {
            let rivals = if own.contains(&id) { stage.awaiting } else { stage.flights };
            stage.config.device == device && rivals > 0
        };
        if !self.stages.iter().any(|(&id, stage)| before(id, stage)) {
            return Duration::ZERO;
        }
        let mut ahead: BTreeMap<StageId, Ahead> = BTreeMap::new();
        for session in self.sessions.0.values() {
            let id = session.stage;
            let serves = session.purpose == Purpose::Serving && session.takes_more();
            if serves && self.stages.get(&id).is_some_and(|stage| before(id, stage)) {
                let ahead = ahead.entry(id).or_default();
                ahead.slots += session.slots;
                ahead.a_run = session.slots;
                if !own.contains(&id) {
                    let left = nanos(self.busy_for(session));
                    let left = left.saturating_mul(u64::from(session.slots));
                    ahead.work = ahead.work.saturating_add(left);
                }
            }
        }
        for (id, ahead) in &mut ahead {
            let Some(stage) = self.stages.get(id) else { continue };
            // Rows that wait for a base come to this stage before those that come now.
            let queued = if own.contains(id) { 0 } else { stage.queue.rows() };
            let work = nanos(stage.takes(queued + stage.awaiting));
            ahead.work = ahead.work.saturating_add(work.saturating_mul(u64::from(ahead.a_run)));
        }
        let slots = self.devices.slots(device);
        Duration::from_nanos(until_free(slots, ahead.into_values().collect())) / SURE
    }
}

impl Stage {
    /// What so many rows take one session, in batches as large as pay; zero while nothing was learned.
    fn takes(&self, rows: usize) -> Duration {
        let size = self.costs.useful_rows(self.config.batch_rows_max).max(1);
        let run = |rows: usize| self.costs.expected(rows).unwrap_or_default();
        let full = run(size).saturating_mul(u32::try_from(rows / size).unwrap_or(u32::MAX));
        let beside = rows % size;
        if beside == 0 { full } else { full.saturating_add(run(beside)) }
    }
}

/// The time in nanoseconds until stages that share a device leave one of its slots free: none can take more slots than it
/// has sessions for, and until then all slots are taken.
fn until_free(slots: u32, mut ahead: Vec<Ahead>) -> u64 {
    ahead.sort_unstable_by_key(Ahead::alone);
    let mut at_work: u32 = ahead.iter().map(|stage| stage.slots).sum();
    let mut done: u64 = 0;
    for stage in ahead {
        // Those that are not done take `at_work` slots of it all the time; the others have the rest.
        if at_work < slots && done / u64::from(slots - at_work) <= stage.alone() {
            return done / u64::from(slots - at_work);
        }
        done = done.saturating_add(stage.work);
        at_work -= stage.slots;
    }
    done / u64::from(slots.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ahead(work: u64, slots: u32) -> Ahead {
        Ahead { work, slots, a_run: 1 }
    }

    #[test]
    fn a_slot_is_free_once_those_before_can_fill_the_device_no_more() {
        for (slots, stages, free) in [
            (2, vec![], 0),
            // One session leaves the other core alone, however much it has to do.
            (2, vec![ahead(1_000, 1)], 0),
            (2, vec![ahead(1_000, 2)], 500),
            // Two of one session each: until the first is done.
            (2, vec![ahead(1_000, 1), ahead(300, 1)], 300),
            // The narrow one has its core all the time; the wide one is done with what is left of the other.
            (2, vec![ahead(10_000, 1), ahead(600, 2)], 600),
            (2, vec![ahead(400, 2), ahead(600, 2)], 500),
            (1, vec![ahead(5, 1), ahead(7, 1), ahead(9, 1)], 21),
            (4, vec![ahead(8, 2)], 0),
        ] {
            assert_eq!(until_free(slots, stages.clone()), free, "{slots} slots, {stages:?}");
        }
    }

    proptest! {
        #[test]
        fn it_takes_no_longer_than_all_work_and_never_less_for_more(
            slots in 1_u32..8,
            stages in prop::collection::vec((0_u64..10_000, 1_u32..8), 1..8),
            more in 0_u64..10_000,
        ) {
            let stages: Vec<Ahead> = stages.iter().map(|&(work, of)| ahead(work, of)).collect();
            let free = until_free(slots, stages.clone());
            let all: u64 = stages.iter().map(|stage| stage.work).sum();
            prop_assert!(free <= all / u64::from(slots) + 1);
            let mut grown = stages;
            grown[0].work += more;
            // A nanosecond or two are lost to rounding.
            prop_assert!(until_free(slots, grown) + 2 >= free);
        }
    }
}
