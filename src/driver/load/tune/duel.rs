//! Two ways of setting up a stage's sessions, loaded side by side in a process of their own and run by turns.
//!
//! By turns, because a machine is never the same for long: what a neighbour takes, it takes from both.

use super::calm::{Calm, Mark};
use crate::clock::Clock;
use crate::driver::Driver;
use crate::driver::load::rehearsal::Rehearsal;
use crate::engine::worker::{Housed, LoadOrder, Worker, WorkerConfig};
use crate::engine::{BatchPlan, EngineError, Lane};
use crate::id::SessionId;
use crate::sched::spread::{Measured, Size, Spread};
use crate::time::nanos;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Batches that a session has in hand: one that runs, and one so that none waits for us.
const IN_HAND: usize = 2;
/// Larger batches than those that take so long are not tried.
const LONG: Duration = Duration::from_millis(400);
/// Sizes past the best after which larger ones are not tried.
const PAST: usize = 2;

/// How thoroughly something is tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Turns of each.
    pub rounds: usize,
    /// How long a turn is, at least.
    pub turn: Duration,
}

/// Why a duel has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It was never calm for long enough.
    Disturbed,
    /// A sentence that says what went wrong.
    Failed(String),
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A worker with sessions that are set up as those that serve.
pub(super) struct Arena<'a> {
    driver: &'a Driver,
    worker: Worker,
    rehearsal: Arc<Rehearsal>,
    config: WorkerConfig,
    present: Housed,
    plans: &'a [Arc<BatchPlan>],
    effort: Effort,
    calm: Calm<'a>,
    /// Since when it is calm.
    since: Mutex<Option<Mark>>,
}

/// What a turn came to.
struct Turn {
    /// Rows in a thousand seconds.
    rate: u64,
    /// What each run took, in nanoseconds.
    runs: Vec<u64>,
}

/// The turns of one side.
#[derive(Default)]
struct Side {
    alone: Vec<Turn>,
    sizes: Vec<(usize, Vec<Turn>)>,
}

/// The order with sessions set up like this.
pub(super) fn spread_over(order: &LoadOrder, spread: Spread) -> LoadOrder {
    let mut order = order.clone();
    order.session.threads = spread.threads;
    order.session.lanes = spread.sessions;
    order.geometry.lanes = spread.sessions;
    order
}

impl<'a> Arena<'a> {
    /// Starts a worker that gives way to everybody, with what is in place now. The plans are of growing size, the
    /// first of one row.
    pub(super) async fn start(
        driver: &'a Driver,
        config: &WorkerConfig,
        plans: &'a [Arc<BatchPlan>],
        (effort, calm): (Effort, Calm<'a>),
    ) -> Result<Self, Halt> {
        let mut config = config.clone();
        config.label.push_str(" tried out");
        (config.order.gives_way, config.order.trial) = (false, true);
        let rehearsal = Arc::new(Rehearsal::new(config.load_timeout));
        let sessions = sessions(driver, config.order.geometry.lanes);
        let started = Worker::start(&config, &sessions, rehearsal.clone()).await;
        let (worker, present) = started.map_err(|error| Halt::Failed(error.to_string()))?;
        let since = Mutex::new(None);
        Ok(Self { driver, worker, rehearsal, config, present, plans, effort, calm, since })
    }

    /// What is in place and a rival, each as measured beside the other.
    pub(super) async fn duel(&self, rival: Spread) -> Result<[Measured; 2], Halt> {
        let order = spread_over(&self.config.order, rival);
        let sessions = sessions(self.driver, rival.sessions);
        let housed = self.worker.load(&order, &sessions, self.config.load_timeout).await;
        let housed = housed.map_err(|error| Halt::Failed(error.to_string()))?;
        let result = self.by_turns([&self.present.lanes, &housed.lanes]).await;
        self.worker.unload(housed.model);
        let [present, other] = result?;
        let session = &self.config.order.session;
        let place = Spread { threads: session.threads, sessions: session.lanes };
        Ok([present.measured(place), other.measured(rival)])
    }

    async fn by_turns(&self, lanes: [&[Arc<dyn Lane>]; 2]) -> Result<[Side; 2], Halt> {
        let mut sides = [Side::default(), Side::default()];
        let first = self.plans.first().ok_or_else(|| Halt::Failed("nothing to run".into()))?;
        let single = lanes.map(|lanes| &lanes[..lanes.len().min(1)]);
        let [one, other] = self.rounds(single, first, 1).await?;
        (sides[0].alone, sides[1].alone) = (one, other);
        for plan in self.plans {
            let turns = self.rounds(lanes, plan, IN_HAND).await?;
            let long = turns.iter().all(|turns| of_runs(turns, 1, 2) > nanos(LONG));
            for (side, turns) in sides.iter_mut().zip(turns) {
                side.sizes.push((plan.rows(), turns));
            }
            if long || sides.iter().all(Side::is_past_its_best) {
                break;
            }
        }
        Ok(sides)
    }

    async fn rounds(
        &self,
        lanes: [&[Arc<dyn Lane>]; 2],
        plan: &Arc<BatchPlan>,
        in_hand: usize,
    ) -> Result<[Vec<Turn>; 2], Halt> {
        let mut turns = [Vec::new(), Vec::new()];
        for lanes in lanes {
            // The first run of a size makes room for it.
            self.turn(lanes, plan, (1, Duration::ZERO)).await?;
        }
        for round in 0..self.effort.rounds {
            // Whoever is first is not always the same.
            for side in [round % 2, (round + 1) % 2] {
                turns[side].push(self.turn(lanes[side], plan, (in_hand, self.effort.turn)).await?);
            }
        }
        Ok(turns)
    }

    /// Keeps sessions busy for a while in which nobody asks for anything.
    async fn turn(
        &self,
        lanes: &[Arc<dyn Lane>],
        plan: &Arc<BatchPlan>,
        (in_hand, span): (usize, Duration),
    ) -> Result<Turn, Halt> {
        loop {
            let mark = self.calm().await?;
            let clock = Clock::start();
            let hands = lanes.iter().flat_map(|lane| std::iter::repeat_n(lane, in_hand));
            let runs = hands.map(|lane| self.keep_busy(lane.as_ref(), plan, (&clock, span)));
            let runs: Vec<u64> = try_join_all(runs).await?.into_iter().flatten().collect();
            let passed = u128::from(nanos(clock.now().since(crate::time::MonoTime::ZERO)).max(1));
            if self.calm.lasted(mark) {
                let rows = (runs.len() * plan.rows()) as u128;
                let rate = u64::try_from(rows * 1_000_000_000_000 / passed).unwrap_or(u64::MAX);
                return Ok(Turn { rate, runs });
            }
        }
    }

    /// Waits until it is calm, if it is not still.
    async fn calm(&self) -> Result<Mark, Halt> {
        let since = *self.since.lock();
        let mark = match since.filter(|&mark| self.calm.lasted(mark)) {
            Some(mark) => mark,
            None => self.calm.comes().await.ok_or(Halt::Disturbed)?,
        };
        *self.since.lock() = Some(mark);
        Ok(mark)
    }

    async fn keep_busy(
        &self,
        lane: &dyn Lane,
        plan: &Arc<BatchPlan>,
        (clock, span): (&Clock, Duration),
    ) -> Result<Vec<u64>, EngineError> {
        let mut runs = Vec::new();
        loop {
            let (_, took) = self.rehearsal.run(lane, plan).await?;
            runs.push(nanos(took));
            if clock.now().since(crate::time::MonoTime::ZERO) >= span {
                return Ok(runs);
            }
        }
    }
}

fn sessions(driver: &Driver, count: usize) -> Vec<SessionId> {
    (0..count).map(|_| driver.session()).collect()
}

impl Side {
    fn measured(mut self, spread: Spread) -> Measured {
        self.sizes.sort_by_key(|&(rows, _)| rows);
        let size = |(rows, turns): &(usize, Vec<Turn>)| Size {
            rows: *rows,
            rate: rate(turns),
            run_ns: of_runs(turns, 1, 2),
            high_ns: of_runs(turns, 19, 20),
        };
        let sizes = self.sizes.iter().map(size).collect();
        Measured { spread, alone_ns: of_runs(&self.alone, 1, 2), sizes }
    }

    fn is_past_its_best(&self) -> bool {
        let rates: Vec<u64> = self.sizes.iter().map(|(_, turns)| rate(turns)).collect();
        let most = rates.iter().copied().max().unwrap_or(0);
        // A gain of a few hundredths is none.
        let first = rates.iter().position(|&rate| rate >= most / 100 * 97).unwrap_or(0);
        rates.len() - first > PAST
    }
}

/// The median over turns: one that something disturbed does not count.
fn rate(turns: &[Turn]) -> u64 {
    let mut rates: Vec<u64> = turns.iter().map(|turn| turn.rate).collect();
    rates.sort_unstable();
    rates.get(rates.len() / 2).copied().unwrap_or(0)
}

/// What this part of all runs stayed under.
fn of_runs(turns: &[Turn], part: usize, of: usize) -> u64 {
    let mut runs: Vec<u64> = turns.iter().flat_map(|turn| turn.runs.iter().copied()).collect();
    runs.sort_unstable();
    runs.get(runs.len() * part / of).or_else(|| runs.last()).copied().unwrap_or(0)
}
