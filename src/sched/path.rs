//! Rows on their way through shared bases: where a way begins, what is opened for it, and what is taken on.

use super::Scheduler;
use super::event::{Job, Leg, Path, RowRef, Slot};
use super::flight::{FlightId, State};
use super::queue::Rank;
use super::reuse::{self, Base, Choice, Cost, Offer, Reason, Route, Ways};
use super::why::{Weighed, Why};
use crate::id::{ClassKey, RowKey, StageId};
use smallvec::SmallVec;
use std::time::Duration;

/// Choices after which the way not taken is tried again, if the machine is idle: less than one in a hundred.
const TRY_AFTER: u32 = 128;

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

/// What was learned of what the ways cost; none of a stage that hardly ran.
#[derive(Clone, Copy)]
struct Known {
    making: Option<Cost>,
    head: Option<Cost>,
    whole: Option<Cost>,
}

impl Known {
    /// What is told of it, beside an offer that was made of it.
    fn weighed(&self, offer: &Offer) -> Weighed {
        let Self { making, head, whole } = *self;
        let above = || Some(making?.and(head?));
        let (base, head) = match offer.base {
            Base::Absent => (making.map(Cost::time), head),
            Base::InFlight(left) => (Some(left), above()),
            Base::Kept => (None, above()),
        };
        Weighed {
            base,
            head: head.map(Cost::time),
            whole: whole.map(Cost::time),
            again: offer.again,
            busy: offer.busy,
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
        let in_flight = self.flights.len() as u64;
        let footing = self.footing(job, path, row);
        for (level, leg) in path.bases.iter().enumerate() {
            let key = &leg.rows[row];
            self.bases.ask(key);
            let Some(stage) = self.stages.get_mut(&leg.stage) else { continue };
            let fit = self.bases.rows_fit(stage.config.output_bytes).max(in_flight);
            let known = stage.again.as_mut().is_some_and(|again| again.asked(key, fit));
            // Had it taken this way before, the base would have nothing to do for it.
            if !known && level >= footing.passed() {
                stage.gap.came(self.now);
            }
        }
        for stage in [path.head, job.stage] {
            if let Some(stage) = self.stages.get_mut(&stage) {
                stage.gap.came(self.now);
            }
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
    pub(super) fn choose(&self, job: &Job, path: &Path, row: usize, footing: Footing) -> Why {
        let legs = &path.bases[footing.passed()..];
        let base = match footing {
            Footing::Kept(..) => Base::Kept,
            Footing::InFlight(_, flight) => Base::InFlight(self.left(flight)),
            Footing::Inputs => Base::Absent,
        };
        let known = self.costs(job, path, legs);
        let costs = Ways::guessed(known.making, known.head, known.whole);
        // Bases between what is there and the head are work of the head's side.
        let head = match footing {
            Footing::Inputs => costs.head,
            _ => costs.making.and(costs.head),
        };
        // What rests is weighed as if it were up, so that it is known what its absence costs.
        let down = self.stages[&job.stage].is_down();
        let there = down || self.sessions.serving(job.stage).next().is_some();
        let idle = !down && self.devices.used() == 0 && self.queued_rows == 0;
        let offer = Offer {
            policy: path.policy,
            base,
            making: costs.making,
            head,
            whole: there.then_some(costs.whole),
            slack: job.deadline.map(|deadline| deadline.since(self.now)),
            again: self.again(legs, row),
            busy: self.devices.busy(self.now),
            lately: self.stages[&job.stage].lately,
            untried: idle && self.stages[&job.stage].untried >= TRY_AFTER,
        };
        let row = u32::try_from(row).unwrap_or(u32::MAX);
        Why { row, choice: reuse::choose(&offer), weighed: known.weighed(&offer) }
    }

    /// What is known of what the ways cost a row that came now.
    fn costs(&self, job: &Job, path: &Path, legs: &[Leg]) -> Known {
        let lowest = path.bases[0].stage;
        let (mut making, mut handed) = (Some(Cost::default()), usize::MAX);
        for leg in legs {
            let rows = self.rows_together(leg.stage).min(handed);
            making = making.and_then(|sum| Some(sum.and(self.cost(leg.stage, job.stage, rows)?)));
            // Rows come to the next stage as this one lets go of them, and only some of them.
            handed = self.stages[&path.head].gap.share(&self.stages[&leg.stage].gap, rows);
        }
        let rows = self.rows_together(path.head).min(handed);
        let head = self.cost(path.head, lowest, rows);
        let whole = self.cost(job.stage, lowest, self.rows_together(job.stage));
        Known { making, head, whole }
    }

    /// The rows of a stage's next batch, if rows take the way through it.
    fn rows_together(&self, id: StageId) -> usize {
        let stage = &self.stages[&id];
        stage.gap.rows_in(self.devices.usual_wait()).min(stage.config.batch_rows_max.max(1))
    }

    /// The chance in 1024 that the outputs of bases are wanted again, each weighed by what it costs.
    fn again(&self, legs: &[Leg], row: usize) -> u32 {
        let (mut saved, mut work) = (0_u128, 0_u128);
        for leg in legs {
            let key = &leg.rows[row];
            let Some(again) = &self.stages[&leg.stage].again else { continue };
            let row = self.stages[&leg.stage].costs.expected(1).unwrap_or_default();
            let ns = row.as_nanos().max(1);
            work += ns;
            saved += ns * u128::from(again.chance(key, self.bases.frequency(key)));
        }
        u32::try_from(saved / work.max(1)).unwrap_or(1024)
    }

    /// Counts a choice between making a base output and running the whole model.
    pub(super) fn chosen(&mut self, stage: StageId, Choice { route, reason, .. }: Choice) {
        let Some(stage) = self.stages.get_mut(&stage) else { return };
        if reason == Reason::Tried {
            stage.untried = 0;
        } else {
            stage.untried = stage.untried.saturating_add(1);
            stage.lately = Some(route);
        }
    }

    /// What a row that came now costs a stage in a batch of so many; none before its first runs.
    ///
    /// Batches larger than any that it ran are held to gain what those of `like` do: parts of one model are alike,
    /// and the way not taken must not look dear for having run no batches.
    fn cost(&self, id: StageId, like: StageId, rows: usize) -> Option<Cost> {
        let costs = Some(&self.stages[&id].costs).filter(|costs| costs.are_known())?;
        let run = costs.expected_like(rows, &self.stages[&like].costs)?;
        let work = run / u32::try_from(rows).unwrap_or(u32::MAX);
        Some(Cost { wait: self.wait(id), run, high: costs.high(rows)?, work })
    }

    /// When a run of a stage could begin that takes a row that came now.
    fn wait(&self, id: StageId) -> Duration {
        let device = self.stages[&id].config.device;
        let wait = self.devices.wait(device, self.queued_rows);
        // Rows go by rank whatever their stage, unless its sessions are too few to fill the device.
        let slots: u32 = self.sessions.serving(id).map(|(_, session)| session.slots).sum();
        if slots >= self.devices.slots(device) {
            return wait;
        }
        self.eta(id, 0).unwrap_or_default().max(wait)
    }

    /// When a flight is expected to have its output.
    fn left(&self, id: FlightId) -> Duration {
        let Some(flight) = self.flights.get(id) else { return Duration::ZERO };
        let run = |rows| self.stages[&flight.stage].costs.expected(rows).unwrap_or_default();
        match flight.state {
            State::InBatch(batch) => self.batches.get(&batch).map_or(Duration::ZERO, |batch| {
                let ran = batch.started.map(|started| self.now.since(started));
                run(batch.flights.len()).saturating_sub(ran.unwrap_or_default())
            }),
            State::Awaits(below, _) => self.left(below).saturating_add(run(1)),
            State::Queued(_) | State::Suspect => self.wait(flight.stage).saturating_add(run(1)),
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
