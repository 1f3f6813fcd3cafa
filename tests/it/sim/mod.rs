//! The whole scheduler in a seeded world, watched by a model of its own.
//!
//! `GRAFTD_SIM_SEEDS=n` runs `n` seeds, `GRAFTD_SIM_SEED=s` runs one and nothing else.

mod checker;
mod decisions;
mod plan;
mod planted;
mod replay;
mod rng;
mod tiny;
mod ways;
mod world;

use checker::Checker;
use graftd::id::StageId;
use graftd::sched::cost::Learned;
use graftd::sched::event::Action;
use graftd::sched::{Load, Scheduler};
use graftd::time::MonoTime;
use plan::{Mode, Plan};
use rng::mix;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Input, Tallies, World};

/// Seeds that every test run goes through.
const SEEDS: u64 = 2_000;

/// Steps after which a world counts as endless.
const STEPS_MAX: u64 = 200_000;

/// Steps that a report shows.
const SHOWN: usize = 40;

/// What is simulated: the scheduler, or one with a planted bug.
trait Subject {
    fn handle(&mut self, now: MonoTime, input: &Input);
    fn poll(&mut self) -> Option<Action>;
    fn next_wakeup(&self) -> Option<MonoTime>;
    /// What it says of itself; a planted bug keeps that to itself.
    fn own_view(&self) -> Result<Option<(Load, bool)>, String>;
    /// What it learned of a stage's runs.
    fn learned(&self, stage: StageId) -> Vec<Learned>;
}

impl Subject for Scheduler {
    fn handle(&mut self, now: MonoTime, input: &Input) {
        match input {
            Input::Event(event) => Self::handle(self, now, event.clone()),
            Input::Timeout => self.handle_timeout(now),
        }
    }

    fn poll(&mut self) -> Option<Action> {
        Self::poll(self)
    }

    fn next_wakeup(&self) -> Option<MonoTime> {
        Self::next_wakeup(self)
    }

    fn own_view(&self) -> Result<Option<(Load, bool)>, String> {
        self.verify()?;
        Ok(Some((self.load(), self.is_idle())))
    }

    fn learned(&self, stage: StageId) -> Vec<Learned> {
        Self::learned(self, stage, usize::MAX).unwrap_or_default()
    }
}

type Step = (MonoTime, Input, Vec<Action>);

/// One world with its scheduler and its model.
struct Sim<S> {
    subject: S,
    world: World,
    checker: Checker,
    history: VecDeque<Step>,
    steps: u64,
    /// A number that stands for all actions so far, where asked for.
    trace: Option<u64>,
}

impl<S: Subject> Sim<S> {
    fn new(plan: Plan, subject: S) -> Self {
        let checker = Checker::new(plan.config.clone());
        let (world, history) = (World::new(plan), VecDeque::new());
        Self { subject, world, checker, history, steps: 0, trace: None }
    }

    fn run(&mut self) -> Result<(), String> {
        let mut idle = true;
        while let Some((now, input)) = self.world.next(self.subject.next_wakeup()) {
            self.steps += 1;
            if self.steps > STEPS_MAX || now.since(MonoTime::ZERO) > Checker::PATIENCE {
                return Err("it never ends".into());
            }
            if self.world.plan.mode == Mode::Safety && self.cut_off() {
                return Ok(());
            }
            self.history.truncate(SHOWN - 1);
            self.history.push_front((now, input, Vec::new()));
            let (_, input, actions) = &mut self.history[0];
            self.subject.handle(now, input);
            while let Some(action) = self.subject.poll() {
                actions.push(action);
            }
            self.checker.step(now, input, actions)?;
            self.checker.costs(input, |stage| self.subject.learned(stage))?;
            self.checker.wakes(self.subject.next_wakeup())?;
            if let Some((load, is_idle)) = self.subject.own_view()? {
                self.checker.agrees(load)?;
                idle = is_idle;
            }
            actions.iter().for_each(|action| self.world.act(action));
            if let Some(trace) = &mut self.trace {
                let line = format!("{now:?} {actions:?}");
                *trace = line.bytes().fold(*trace, |hash, byte| mix(hash ^ u64::from(byte)));
            }
        }
        if self.world.plan.mode == Mode::Liveness {
            self.checker.healed()?;
            if !idle {
                return Err("nothing is left to do, and it is not idle".into());
            }
        }
        Ok(())
    }

    /// A safety run may end anywhere.
    fn cut_off(&self) -> bool {
        mix(mix(self.world.plan.seed) ^ self.steps).is_multiple_of(1_024)
    }

    fn report(&self, seed: u64, why: &str) -> String {
        let mut text = format!("seed {seed}, step {}: {why}\n", self.steps);
        for (now, input, actions) in self.history.iter().rev() {
            let ms = now.as_nanos() as f64 / 1e6;
            match input {
                Input::Event(event) => text += &format!("{ms:>12.3} ms  {event:?}\n"),
                Input::Timeout => text += &format!("{ms:>12.3} ms  timeout\n"),
            }
            for action in actions {
                text += &format!("                 -> {action:?}\n");
            }
        }
        text += &format!("{seed}: {why}\nto replay: GRAFTD_SIM_SEED={seed} ");
        text + "cargo test --test it sim::every_seed_holds -- --exact --nocapture\n"
    }
}

fn plain(seed: u64) -> Sim<Scheduler> {
    let plan = Plan::new(seed);
    let subject = Scheduler::new(plan.config.clone());
    Sim::new(plan, subject)
}

/// Runs a world to its end; a panic inside counts as a violation.
fn outcome<S: Subject>(sim: &mut Sim<S>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| sim.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn every_seed_holds() {
    let seeds = match number("GRAFTD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GRAFTD_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut steps, mut all, count) = (0, Tallies::default(), seeds.end - seeds.start);
    for seed in seeds {
        let mut sim = plain(seed);
        if let Err(why) = outcome(&mut sim) {
            panic!("{}", sim.report(seed, &why));
        }
        steps += sim.steps;
        let Tallies { submits, deaths, failures, hangs, isolations, replaced } = sim.world.tallies;
        all.submits += submits;
        all.deaths += deaths;
        all.failures += failures;
        all.hangs += hangs;
        all.isolations += isolations;
        all.replaced += replaced;
    }
    println!("{count} seeds, {steps} steps, {all:?}");
    if count >= SEEDS {
        let least =
            [all.submits, all.deaths, all.failures, all.hangs, all.isolations, all.replaced];
        assert!(least.iter().all(|&number| number > count / 10), "faults are rare: {all:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    for seed in 0..100 {
        let trace = || {
            let mut sim = plain(seed);
            sim.trace = Some(0);
            outcome(&mut sim).unwrap_or_else(|why| panic!("{}", sim.report(seed, &why)));
            (sim.steps, sim.trace)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
