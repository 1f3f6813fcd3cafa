//! Finding out by trying how a model's runs are best spread over the cores, and setting its sessions up so.
//!
//! What is tried runs in a process of its own that gives way to everybody, on made-up rows, and in the daemon only while
//! nobody asks for anything. What the figures come to is decided in `sched::spread`.

mod calm;
mod duel;
mod found;

pub use duel::Effort;

use super::Loader;
use super::own::Own;
use crate::digest::StageDigest;
use crate::driver::pool::Recipe;
use crate::engine::cores;
use crate::id::StageId;
use crate::model::ModelSpec;
use crate::model::runs::{Origin, Runs};
use crate::model::settings::Settings;
use crate::sched::config::Tuned;
use crate::sched::spread::{self, Goal, Measured, Spread};

use calm::Calm;
use duel::{Arena, Halt, spread_over};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What is tried while nobody asks: enough to tell a twentieth.
const PASSING: Effort = Effort { rounds: 7, turn: Duration::from_millis(30) };
/// After so long a trial that was disturbed is begun again.
const AGAIN: Duration = Duration::from_secs(30);

/// The models whose sessions may be set up in other ways.
#[derive(Debug, Default)]
pub(super) struct Tunable {
    models: Mutex<BTreeMap<StageId, Arc<Subject>>>,
    more: Notify,
}

/// A model whose sessions may be set up in other ways.
#[derive(Debug)]
struct Subject {
    spec: ModelSpec,
    /// Where what was found best is kept.
    key: StageDigest,
    /// It is to be tried while nobody asks.
    due: bool,
}

/// What trying came to.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// All that was measured, what is in place first.
    pub all: Vec<Measured>,
    /// Which of it is best.
    pub best: usize,
    /// What it was found best for.
    pub goal: Option<Goal>,
}

impl Tuning {
    /// What is in place.
    #[must_use]
    pub fn present(&self) -> &Measured {
        &self.all[0]
    }

    /// What is best.
    #[must_use]
    pub fn best(&self) -> &Measured {
        &self.all[self.best]
    }
}

impl Loader {
    /// A model's settings with its sessions as they were found best, where the user leaves that to us.
    pub(super) fn as_tried(&self, mut own: Own) -> Own {
        if own.origin == Origin::Usual
            && let Some(spread) = self.tried(&self.spread_key(&own), goal(&own.settings))
        {
            (own.session.threads, own.session.lanes) = (spread.threads, spread.sessions);
            own.origin = Origin::Tried;
        }
        own
    }

    /// Notes how a model's runs are spread; others are tried where the user leaves that to us.
    pub(super) fn keep_tunable(&self, own: &Own, spec: &ModelSpec) {
        let key = self.spread_key(own);
        // What runs on a GPU shares it in ways of the driver's.
        let due = self.config.autotune && own.origin == Origin::Usual && !own.on_gpu();
        let spread = Spread { threads: own.session.threads, sessions: own.session.lanes };
        spec.runs.set(Some(Runs { spread, origin: own.origin }));
        let subject = Arc::new(Subject { spec: spec.clone(), key, due });
        self.tunable.models.lock().insert(spec.stage, subject);
        self.tunable.more.notify_one();
    }

    /// Forgets a model that is served no more.
    pub(super) fn forget_tunable(&self, stage: StageId) {
        self.tunable.models.lock().remove(&stage);
    }

    /// Tries models out while nobody asks for anything, each once; runs for as long as the daemon.
    pub async fn tune_when_idle(self: Arc<Self>) {
        loop {
            let more = self.tunable.more.notified();
            let due = {
                let models = self.tunable.models.lock();
                models.values().find(|subject| subject.due).cloned()
            };
            match due {
                None => more.await,
                Some(subject) => self.try_out(&subject).await,
            }
        }
    }

    /// Tries one model out while nobody asks, and has its sessions set up as is best.
    async fn try_out(&self, subject: &Subject) {
        let spec = &subject.spec;
        let label = format!("model {}:{}", spec.name, spec.version);
        let spreads = Spread::filling(cores::available());
        let tuning = self.compare(subject, &spreads, (PASSING, Calm::WhileIdle(self))).await;
        let tuning = match tuning {
            Ok(tuning) => tuning,
            Err(Halt::Disturbed) => return tokio::time::sleep(AGAIN).await,
            Err(Halt::Failed(why)) => {
                tracing::debug!("{label}: how its runs are best spread was not found: {why}");
                return self.done_with(spec.stage);
            }
        };
        self.done_with(spec.stage);
        let best = tuning.best();
        if tuning.best != 0
            && let Err(why) = self.set_up(spec, best).await
        {
            return tracing::info!("{label}: {} were found best: {why}", best.spread);
        }
        spec.runs.set(Some(Runs { spread: best.spread, origin: Origin::Tried }));
        self.keep_tried(subject.key, best.spread, tuning.goal).await;
        tracing::debug!("{label}: measured were {:?}", tuning.all);
        tracing::info!("{label}: its runs were tried out: {}", outcome(&tuning));
    }

    fn done_with(&self, stage: StageId) {
        if let Some(subject) = self.tunable.models.lock().get_mut(&stage) {
            let Subject { spec, key, .. } = subject.as_ref();
            *subject = Arc::new(Subject { spec: spec.clone(), key: *key, due: false });
        }
    }

    /// Tries a model out at once, whoever asks for something meanwhile.
    ///
    /// # Errors
    /// A sentence, when it cannot be tried.
    pub async fn tune(
        &self,
        stage: StageId,
        spreads: &[Spread],
        effort: Effort,
    ) -> Result<Tuning, String> {
        let subject = self.tunable.models.lock().get(&stage).cloned();
        let subject = subject.ok_or("it is not loaded")?;
        match self.compare(&subject, spreads, (effort, Calm::Always)).await {
            Ok(tuning) => Ok(tuning),
            Err(Halt::Failed(why)) => Err(why),
            Err(Halt::Disturbed) => Err("it was disturbed".to_owned()),
        }
    }

    /// Measures what is in place against all that may be better.
    async fn compare(
        &self,
        subject: &Subject,
        spreads: &[Spread],
        (effort, calm): (Effort, Calm<'_>),
    ) -> Result<Tuning, Halt> {
        let stage = subject.spec.stage;
        calm.comes().await.ok_or(Halt::Disturbed)?;
        let Recipe { config, warm, .. } =
            self.pools.recipe(stage).ok_or_else(|| Halt::Failed(NOT_APART.into()))?;
        if warm.is_empty() {
            return Err(Halt::Failed("no made-up row was accepted".into()));
        }
        // What is in place is loaded beside its rival.
        self.pools.room_beside(stage, 2).map_err(Halt::Failed)?;
        let session = &config.order.session;
        let place = Spread { threads: session.threads, sessions: session.lanes };
        let arena = Arena::start(&self.driver, &config, &warm, (effort, calm)).await?;
        let mut all: Vec<Measured> = Vec::new();
        for &rival in spreads.iter().filter(|&&rival| rival != place) {
            let [present, other] = arena.duel(rival).await?;
            let first = all.first().unwrap_or(&present).clone();
            let other = other.rebased(&present, &first);
            if all.is_empty() {
                all.push(present);
            }
            all.push(other);
        }
        if all.is_empty() {
            return Err(Halt::Failed("there is nothing else to try on one core".into()));
        }
        let goal = goal(&subject.spec.settings);
        Ok(Tuning { best: spread::choose(&all, goal), all, goal })
    }

    /// Has a model's sessions set up as was measured, while they serve: what was accepted is answered, and what comes
    /// meanwhile.
    ///
    /// # Errors
    /// A sentence, when they stay as they are.
    pub async fn set_up(&self, spec: &ModelSpec, best: &Measured) -> Result<(), String> {
        let recipe = self.pools.recipe(spec.stage).ok_or(NOT_APART)?;
        let mut recipe = Recipe { slots: slots(best.spread), ..recipe };
        let times: Vec<(usize, u64)> =
            best.sizes.iter().map(|size| (size.rows, size.run_ns)).collect();
        let config = self.stage_config(spec, &times);
        let before = self.cost_key(&spec.digest, &recipe.config.order.session);
        recipe.config.order = spread_over(&recipe.config.order, best.spread);
        let key = self.cost_key(&spec.digest, &recipe.config.order.session);
        let tuned = Tuned {
            batch_rows_max: config.batch_rows_max,
            batch_rows_knee: config.batch_rows_knee,
            known: self.known(&key, &times),
        };
        self.put_costs_away(spec.stage);
        let replaced = self.pools.replace(spec.stage, recipe, tuned).await;
        // It may have been let go meanwhile.
        if self.tunable.models.lock().contains_key(&spec.stage) {
            self.keep_costs(spec.stage, if replaced.is_ok() { key } else { before });
        }
        replaced?;
        spec.runs.set(Some(Runs { spread: best.spread, origin: Origin::Tried }));
        Ok(())
    }
}

/// What a model's answers are to hold, if anything.
fn goal(settings: &Settings) -> Option<Goal> {
    let quantile = settings.latency_quantile.unwrap_or_default();
    settings.latency_target.map(|target| Goal { target, quantile })
}

/// Why a model is not tried.
const NOT_APART: &str = "its sessions live in no worker of their own now";

fn slots(spread: Spread) -> u32 {
    u32::try_from(spread.threads).unwrap_or(u32::MAX)
}

/// What is best and what it brings, in words.
fn outcome(tuning: &Tuning) -> String {
    let (now, then) = (tuning.present(), tuning.best());
    if tuning.best == 0 {
        return format!("{} stay best", now.spread);
    }
    let rate = |measured: &Measured| measured.answers(tuning.goal) as f64 / 1_000.0;
    let within = tuning.goal.map_or_else(String::new, |goal| format!(" within {:?}", goal.target));
    format!(
        "{} now, which answer {:.0} rows/s{within} and a row alone in {:.2} ms, against {:.0} and {:.2} with {}",
        then.spread,
        rate(then),
        then.alone_ns as f64 / 1e6,
        rate(now),
        now.alone_ns as f64 / 1e6,
        now.spread
    )
}
