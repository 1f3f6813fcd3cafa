//! Rows on their way through shared bases: where a way begins, what is opened for it, and what is taken on.

use super::Scheduler;
use super::event::{Job, Leg, Path, RowRef, Slot};
use super::flight::{FlightId, State};
use super::queue::Rank;
use super::reuse::{self, Base, Choice, Cost, Offer, Route};
use crate::id::{ClassKey, RowKey, StageId};
use smallvec::SmallVec;
use std::time::Duration;

/// The highest base output of a row that need not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// The output of this base is kept.
    Kept(usize, Slot),
    /// The output of this base is on its way.
    InFlight(usize, FlightId),
    /// There is none: the way begins at the inputs.
    Inputs,
}

impl Footing {
    /// The bases that need not run.
    pub(super) const fn passed(self) -> usize {
        match self {
            Self::Kept(level, _) | Self::InFlight(level, _) => level + 1,
            Self::Inputs => 0,
        }
    }

    pub(super) const fn route(self) -> Route {
        match self {
            Self::Kept(..) => Route::Reuse,
            Self::InFlight(..) => Route::Follow,
            Self::Inputs => Route::Recompute,
        }
    }
}

/// A flight to be opened.
pub(super) struct Opening {
    pub stage: StageId,
    pub class: ClassKey,
    pub key: RowKey,
    pub row: RowRef,
    pub waiters: super::event::Waiters,
    pub bytes: u64,
    /// Where its base output comes from, if it takes one.
    pub base: Option<Source>,
}

/// Where a flight's base output comes from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Kept(Slot),
    Flight(FlightId),
}

impl Scheduler {
    /// The way through bases that a job's rows can take now.
    pub(super) fn path<'a>(&self, job: &'a Job) -> Option<&'a Path> {
        let there = |stage: &StageId| self.stages.get(stage).is_some_and(|stage| !stage.retired);
        job.path
            .as_ref()
            .filter(|path| !path.bases.is_empty())
            .filter(|path| there(&path.head) && path.bases.iter().all(|leg| there(&leg.stage)))
    }

    /// Counts that a row's base outputs were asked for, and says where its way would begin.
    pub(super) fn ask_bases(&mut self, job: &Job, path: &Path, row: usize) -> Footing {
        for leg in &path.bases {
            self.bases.ask(&leg.rows[row]);
        }
        let footing = self.footing(job, path, row);
        let asked = self.bases.frequency(&path.bases[0].rows[row]) > 1;
        let again = asked || footing != Footing::Inputs;
        if let Some(stage) = self.stages.get_mut(&path.bases[0].stage) {
            stage.asked_again(again);
        }
        footing
    }

    /// Where a row's way would begin.
    pub(super) fn footing(&self, job: &Job, path: &Path, row: usize) -> Footing {
        for (level, leg) in path.bases.iter().enumerate().rev() {
            let (key, config) = (&leg.rows[row], &self.stages[&leg.stage].config);
            if job.sharing.lookup
                && config.store
                && let Some(slot) = self.bases.peek(key)
            {
                return Footing::Kept(level, slot);
            }
            if job.sharing.join
                && config.join
                && let Some(flight) = self.flights.joinable(key)
            {
                return Footing::InFlight(level, flight);
            }
        }
        Footing::Inputs
    }

    /// Chooses between the way through the bases and the whole model.
    pub(super) fn choose(&self, job: &Job, path: &Path, footing: Footing) -> Choice {
        let legs = &path.bases[footing.passed()..];
        let making = legs.iter().map(|leg| self.cost(leg.stage));
        let add = |a: Cost, b: Cost| Cost {
            wait: a.wait.saturating_add(b.wait),
            work: a.work.saturating_add(b.work),
        };
        let making = making.fold(Cost::default(), add);
        let base = match footing {
            Footing::Kept(..) => Base::Kept,
            Footing::InFlight(_, flight) => Base::InFlight(self.left(flight)),
            Footing::Inputs => Base::Absent,
        };
        // Bases between what is there and the head are work of the head's side.
        let head = match footing {
            Footing::Inputs => self.cost(path.head),
            _ => add(making, self.cost(path.head)),
        };
        // What rests is weighed as if it were up, so that it is known what its absence costs.
        let whole =
            self.stages[&job.stage].is_down() || self.sessions.serving(job.stage).next().is_some();
        reuse::choose(&Offer {
            policy: path.policy,
            base,
            making,
            head,
            whole: whole.then(|| self.cost(job.stage)),
            slack: job.deadline.map(|deadline| deadline.since(self.now)),
            again: self.stages[&path.bases[0].stage].again,
            busy: self.devices.busy(),
        })
    }

    /// What one more row costs a stage.
    fn cost(&self, id: StageId) -> Cost {
        let stage = &self.stages[&id];
        let size = stage.config.batch_rows_knee.max(1);
        let batch = stage.costs.expected(size).unwrap_or_default();
        let work = batch / u32::try_from(size).unwrap_or(u32::MAX);
        Cost { wait: self.eta(id, 0).unwrap_or_default(), work }
    }

    /// When a flight is expected to have its output.
    fn left(&self, id: FlightId) -> Duration {
        let Some(flight) = self.flights.get(id) else { return Duration::ZERO };
        let run = self.stages[&flight.stage].costs.expected(1).unwrap_or_default();
        match flight.state {
            State::InBatch(_) => run,
            _ => self.eta(flight.stage, 0).unwrap_or_default().saturating_add(run),
        }
    }

    /// The flights that the way through the bases opens for a row, and the bytes that they hold.
    pub(super) fn weight(&self, job: &Job, path: &Path, footing: Footing) -> (usize, u64) {
        let legs = path.bases.len() - footing.passed() + 1;
        let first = footing.passed().saturating_sub(1);
        let below = path.bases[first..].iter().map(|leg| self.output_bytes(leg)).sum::<u64>();
        (legs, job.row_bytes.saturating_mul(legs as u64).saturating_add(below))
    }

    fn output_bytes(&self, leg: &Leg) -> u64 {
        self.stages[&leg.stage].config.output_bytes
    }

    /// Opens what a row needs on its way through the bases; its route comes with its last flight.
    pub(super) fn open_way(&mut self, job: &Job, row: RowRef) -> (SmallVec<[FlightId; 2]>, Route) {
        let Some(path) = &job.path else { return (SmallVec::new(), Route::Whole) };
        let number = row.row as usize;
        let footing = self.footing(job, path, number);
        let mut base = match footing {
            Footing::Kept(_, slot) => Some(Source::Kept(slot)),
            Footing::InFlight(_, flight) => Some(Source::Flight(flight)),
            Footing::Inputs => None,
        };
        let mut opened = SmallVec::new();
        for level in footing.passed()..=path.bases.len() {
            let below =
                level.checked_sub(1).map_or(0, |below| self.output_bytes(&path.bases[below]));
            let leg = path.bases.get(level);
            let flight = self.open(
                job,
                Opening {
                    stage: leg.map_or(path.head, |leg| leg.stage),
                    class: leg.map_or(job.class, |leg| leg.class),
                    key: leg.map_or(job.rows[number], |leg| leg.rows[number]),
                    row,
                    waiters: if leg.is_none() { smallvec::smallvec![row] } else { SmallVec::new() },
                    bytes: job.row_bytes.saturating_add(below),
                    base,
                },
            );
            opened.push(flight);
            base = Some(Source::Flight(flight));
        }
        (opened, footing.route())
    }

    /// A base output is there: the flight that awaits it can be run.
    pub(super) fn fed(&mut self, id: FlightId) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        let State::Awaits(_, rank) = flight.state else { return };
        flight.state = State::Queued(rank);
        let (stage, class) = (flight.stage, flight.class);
        self.queued_rows += 1;
        if let Some(stage) = self.stages.get_mut(&stage) {
            stage.awaiting -= 1;
            stage.work_came(self.now);
            stage.queue.insert(class, rank, id);
        }
    }

    /// Takes a flight that awaits its base output off that base's list.
    pub(super) fn part(&mut self, id: FlightId, below: FlightId) {
        if let Some(base) = self.flights.get_mut(below) {
            base.above.retain(|above| *above != id);
            if !base.is_wanted() {
                self.abandoned(below);
            }
        }
    }

    /// Moves a flight forward, and the bases that it awaits with it.
    pub(super) fn hurry(&mut self, id: FlightId, late: Duration) {
        let Some(flight) = self.flights.get_mut(id) else { return };
        let due = flight.arrival.after(late);
        let (class, stage) = (flight.class, flight.stage);
        match flight.state {
            State::Queued(old) if due < old.due => {
                let new = Rank { due, ..old };
                flight.state = State::Queued(new);
                if let Some(stage) = self.stages.get_mut(&stage) {
                    stage.queue.remove(class, old);
                    stage.queue.insert(class, new, id);
                }
            }
            State::Awaits(below, old) if due < old.due => {
                flight.state = State::Awaits(below, Rank { due, ..old });
                self.hurry(below, late);
            }
            _ => {}
        }
    }
}
