//! Whether a row goes through a shared base or through the whole model, and why.
//!
//! Separate and pure, so that every choice can be tried in a table: costs, queues and chances in, a route and
//! its reason out. Work is what cores are busy with, latency is what the caller waits; an idle machine minds
//! the latency, a busy one the work.
//!
//! # Source
//! design.md section 4 (the routes) and the recommended design of scheduling.md (recompute or reuse).

use crate::time::nanos;
use serde::Deserialize;
use std::time::Duration;

/// How a row gets its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// From the kept answers.
    Hit,
    /// From an equal row of the same model that is in flight.
    Join,
    /// By the head alone, from a kept base output.
    Reuse,
    /// By the head, once a base that is in flight has its output.
    Follow,
    /// By the base and then the head.
    Recompute,
    /// By the whole model in one run.
    #[default]
    Whole,
}

impl Route {
    /// The word that users see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Join => "join",
            Self::Reuse => "reuse",
            Self::Follow => "follow",
            Self::Recompute => "recompute",
            Self::Whole => "whole",
        }
    }
}

/// Whether a model's rows go through shared bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// As it pays.
    #[default]
    Auto,
    /// Wherever it can be done.
    Always,
    /// Not at all.
    Never,
}

impl std::str::FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(format!("is '{other}'; expected one of auto, always, never")),
        }
    }
}

/// What a stage on the way costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Until its run may start.
    pub wait: Duration,
    /// The run of the batch that it will be in, as half of all such last at most.
    pub run: Duration,
    /// The same as nearly all last at most.
    pub high: Duration,
    /// The row's share of the run.
    pub work: Duration,
}

impl Cost {
    /// Two stages one after the other. A row keeps its place, so the longer wait covers the shorter.
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self {
            wait: self.wait.max(next.wait),
            run: self.run.saturating_add(next.run),
            high: self.high.saturating_add(next.high),
            work: self.work.saturating_add(next.work),
        }
    }

    /// So many sixteenths of what is run.
    fn scaled(self, sixteenths: u32) -> Self {
        let part = |time: Duration| time / 16 * sixteenths;
        Self { run: part(self.run), high: part(self.high), work: part(self.work), ..self }
    }

    /// What is left to run once a part of it is done; a sixteenth at least.
    fn without(self, part: Self) -> Self {
        let least = self.scaled(1);
        let rest = |all: Duration, part, least| all.saturating_sub(part).max(least);
        Self {
            run: rest(self.run, part.run, least.run),
            high: rest(self.high, part.high, least.high),
            work: rest(self.work, part.work, least.work),
            ..self
        }
    }

    /// From now until the end of the run.
    #[must_use]
    pub fn time(self) -> Duration {
        self.wait.saturating_add(self.run)
    }

    /// Whether the answer may come after so long.
    fn is_late(&self, slack: Option<Duration>) -> bool {
        slack.is_some_and(|slack| self.wait.saturating_add(self.high.max(self.run)) > slack)
    }
}

/// What both ways cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Making the base output.
    pub making: Cost,
    /// The head.
    pub head: Cost,
    /// The whole model.
    pub whole: Cost,
}

impl Ways {
    /// Fills in what hardly ran by what did. A whole model is held to cost what its parts do less a sixteenth, so that
    /// it is tried where hardly anything is shared.
    #[must_use]
    pub fn guessed(making: Option<Cost>, head: Option<Cost>, whole: Option<Cost>) -> Self {
        let half = whole.unwrap_or_default().scaled(8);
        let rest = |part: Option<Cost>| match (whole, part) {
            (Some(whole), Some(part)) => whole.without(part),
            _ => half,
        };
        let guesses = (rest(head), rest(making));
        let (making, head) = (making.unwrap_or(guesses.0), head.unwrap_or(guesses.1));
        Self { making, head, whole: whole.unwrap_or_else(|| making.and(head).scaled(15)) }
    }
}

/// What is there of a row's base output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// It is kept.
    Kept,
    /// It will be there in so long.
    InFlight(Duration),
    /// It would have to be made.
    Absent,
}

/// What is known of a row that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the user wants.
    pub policy: Policy,
    /// What is there of the base output.
    pub base: Base,
    /// Making the base output.
    pub making: Cost,
    /// The head.
    pub head: Cost,
    /// The whole model; none while it has no session.
    pub whole: Option<Cost>,
    /// How long the answer may take.
    pub slack: Option<Duration>,
    /// The chance in 1024 that another row will want the base output.
    pub again: u32,
    /// The share of the device in 1024 that was at work lately.
    pub busy: u32,
    /// The way that the last row without a base output took.
    pub lately: Option<Route>,
    /// The way that costs more was not taken for long, and the machine has nothing else to do.
    pub untried: bool,
}

/// Why a route was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The answer is kept.
    Kept,
    /// An equal row of the same model is in flight.
    InFlight,
    /// The model shares no base with another, or its way through one is closed.
    NoWay,
    /// The user's setting leaves no choice.
    Set,
    /// The whole model has no session.
    NoWhole,
    /// The whole model would be better, but its sessions rest.
    Resting,
    /// The base output is there or on its way.
    BaseThere,
    /// Only this way is expected to be in time.
    InTime,
    /// It costs least, the chance of sharing included.
    Cheapest,
    /// It was held to cost more for long, and an idle machine found out whether it still does.
    Tried,
}

impl Reason {
    /// Every reason, for tables that must cover them all.
    pub const ALL: [Self; 10] = [
        Self::Kept,
        Self::InFlight,
        Self::NoWay,
        Self::Set,
        Self::NoWhole,
        Self::Resting,
        Self::BaseThere,
        Self::InTime,
        Self::Cheapest,
        Self::Tried,
    ];

    /// Why a row took a route where nothing was to be chosen.
    #[must_use]
    pub const fn without_choice(route: Route) -> Self {
        match route {
            Route::Hit => Self::Kept,
            Route::Join => Self::InFlight,
            Route::Reuse | Route::Follow | Route::Recompute | Route::Whole => Self::NoWay,
        }
    }

    /// The words that users see.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Kept => "the answer is kept",
            Self::InFlight => "an equal row is in flight",
            Self::NoWay => "there is no shared base to go through",
            Self::Set => "the sharing setting says so",
            Self::NoWhole => "the whole model has no session",
            Self::Resting => "the whole model rests",
            Self::BaseThere => "the base output is there or on its way",
            Self::InTime => "no other way is expected to be in time",
            Self::Cheapest => "it costs least, the chance of sharing included",
            Self::Tried => "it was not tried for long and the machine was idle",
        }
    }
}

/// A route with what spoke for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The route.
    pub route: Route,
    /// Why.
    pub reason: Reason,
    /// What the way through the base was held to cost, in weighed nanoseconds.
    pub split: u64,
    /// The same of the whole model.
    pub whole: Option<u64>,
}

/// A way that is taken is left only for one that costs less by so small a share: going both ways halves the batches.
const STAYS: u64 = 32;

/// Chooses between the way through the base and the whole model.
#[must_use]
pub fn choose(offer: &Offer) -> Choice {
    let (route, split, saved) = through_base(offer);
    let score = |cost: Cost| score(cost, offer.busy);
    let split_score = score(split).saturating_sub(saved);
    let whole_score = offer.whole.map(score);
    let by = |route, reason| Choice { route, reason, split: split_score, whole: whole_score };
    let Some(whole) = offer.whole else { return by(route, Reason::NoWhole) };
    match offer.policy {
        Policy::Always => return by(route, Reason::Set),
        Policy::Never => return by(Route::Whole, Reason::Set),
        Policy::Auto => {}
    }
    match (split.is_late(offer.slack), whole.is_late(offer.slack)) {
        (false, true) => return by(route, Reason::InTime),
        (true, false) => return by(Route::Whole, Reason::InTime),
        _ => {}
    }
    let whole_is_cheaper = whole_score.is_some_and(|whole| {
        let stays = |way, score| if offer.lately == Some(way) { score / STAYS } else { 0 };
        let (whole_stays, split_stays) = (stays(Route::Whole, whole), stays(route, split_score));
        whole - whole_stays < split_score - split_stays
    });
    match (whole_is_cheaper, route == Route::Recompute) {
        (_, true) if offer.untried => {
            by(if whole_is_cheaper { route } else { Route::Whole }, Reason::Tried)
        }
        (true, _) => by(Route::Whole, Reason::Cheapest),
        (false, true) => by(route, Reason::Cheapest),
        (false, false) => by(route, Reason::BaseThere),
    }
}

/// The route through the base, what it costs, and what it is expected to save others.
fn through_base(offer: &Offer) -> (Route, Cost, u64) {
    let Offer { head, making, .. } = *offer;
    match offer.base {
        Base::Kept => (Route::Reuse, head, 0),
        Base::InFlight(left) => (Route::Follow, Cost { wait: left.max(head.wait), ..head }, 0),
        Base::Absent => {
            // Whoever asks again neither waits for the base nor has it run.
            let saved = score(Cost { wait: Duration::ZERO, ..making }, offer.busy);
            let saved = u128::from(saved) * u128::from(offer.again.min(1024)) / 1024;
            (Route::Recompute, making.and(head), u64::try_from(saved).unwrap_or(u64::MAX))
        }
    }
}

/// What a way costs: of the time to the answer the share that the machine is idle, of the work the share that it is busy.
///
/// Work delays whoever comes while the machine is busy, and those are the more the busier it is: where it is busy for a
/// share `u` of the time, a second of work costs the others about `u / (1 - u)` seconds.
fn score(cost: Cost, busy: u32) -> u64 {
    let busy = u128::from(busy.min(1024));
    let latency = u128::from(nanos(cost.time()));
    let weighed = latency * (1024 - busy) + u128::from(nanos(cost.work)) * busy;
    u64::try_from(weighed / 1024).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// A run of one row.
    const fn cost(wait: u64, run: u64) -> Cost {
        Cost { wait: us(wait), run: us(run), high: us(run + run / 10), work: us(run) }
    }

    /// A base of 900 us and a head of 150, the whole at 1,000: nine tenths of the cost are shared.
    const OFFER: Offer = Offer {
        policy: Policy::Auto,
        base: Base::Absent,
        making: cost(0, 900),
        head: cost(0, 150),
        whole: Some(cost(0, 1_000)),
        slack: None,
        again: 0,
        busy: 0,
        lately: None,
        untried: false,
    };

    const KEPT: Offer = Offer { base: Base::Kept, ..OFFER };

    const fn following(left: u64) -> Offer {
        Offer { base: Base::InFlight(us(left)), ..OFFER }
    }

    #[test]
    fn every_choice_has_its_reason() {
        use Reason::{BaseThere, Cheapest, InTime, NoWhole, Set, Tried};
        use Route::{Follow, Recompute, Reuse, Whole};
        let dear = Some(cost(0, 1_200));
        let batch = |run: u64, rows: u32| Cost { work: us(run) / rows, ..cost(0, run) };
        let table = [
            // Settings and sessions leave no choice.
            (Offer { policy: Policy::Never, ..KEPT }, Whole, Set),
            (Offer { policy: Policy::Always, ..OFFER }, Recompute, Set),
            (Offer { policy: Policy::Never, whole: None, ..KEPT }, Reuse, NoWhole),
            // Nothing to share means whole, idle or busy.
            (OFFER, Whole, Cheapest),
            (Offer { busy: 512, ..OFFER }, Whole, Cheapest),
            (Offer { busy: 1024, ..OFFER }, Whole, Cheapest),
            // 50 us more for the first are won back at a chance above 50/900.
            (Offer { again: 50, ..OFFER }, Whole, Cheapest),
            (Offer { again: 70, ..OFFER }, Recompute, Cheapest),
            (Offer { again: 70, busy: 1000, ..OFFER }, Recompute, Cheapest),
            (Offer { whole: dear, ..OFFER }, Recompute, Cheapest),
            // A base output that is there is used, unless the head is the larger part.
            (KEPT, Reuse, BaseThere),
            (Offer { busy: 1024, ..KEPT }, Reuse, BaseThere),
            (Offer { head: cost(0, 1_100), ..KEPT }, Whole, Cheapest),
            (following(300), Follow, BaseThere),
            // A long wait for it is not worth it on an idle machine, but on a busy one.
            (following(5_000), Whole, Cheapest),
            (Offer { busy: 900, ..following(5_000) }, Follow, BaseThere),
            // Batches save work at the price of a longer run: on a busy machine that is worth it.
            (Offer { whole: Some(batch(2_000, 4)), ..OFFER }, Recompute, Cheapest),
            (Offer { whole: Some(batch(2_000, 4)), busy: 800, ..OFFER }, Whole, Cheapest),
            // Who would be late one way goes the other; who would be late anyhow goes the cheaper.
            (Offer { slack: Some(us(1_120)), again: 1024, ..OFFER }, Whole, InTime),
            (Offer { slack: Some(us(200)), head: cost(0, 150), ..KEPT }, Reuse, InTime),
            (Offer { slack: Some(us(1)), ..OFFER }, Whole, Cheapest),
            // Of two that cost about the same the one that was taken last goes on.
            (Offer { again: 70, lately: Some(Whole), ..OFFER }, Whole, Cheapest),
            (Offer { again: 120, lately: Some(Whole), ..OFFER }, Recompute, Cheapest),
            (Offer { again: 40, lately: Some(Recompute), ..OFFER }, Recompute, Cheapest),
            (Offer { lately: Some(Recompute), ..OFFER }, Whole, Cheapest),
            // What was not tried for long is, but no base output that is there is left unused for it.
            (Offer { untried: true, ..OFFER }, Recompute, Tried),
            (Offer { untried: true, again: 512, ..OFFER }, Whole, Tried),
            (Offer { untried: true, ..KEPT }, Reuse, BaseThere),
            (Offer { untried: true, policy: Policy::Never, ..OFFER }, Whole, Set),
            (Offer { untried: true, slack: Some(us(1_120)), ..OFFER }, Whole, InTime),
        ];
        for (number, (offer, route, reason)) in table.into_iter().enumerate() {
            let choice = choose(&offer);
            assert_eq!((choice.route, choice.reason), (route, reason), "{number}: {offer:?}");
        }
    }

    #[test]
    fn the_readme_has_every_route_and_reason() {
        let readme = include_str!("../../README.md");
        for reason in Reason::ALL {
            assert!(readme.contains(&format!("\n| {} | ", reason.words())), "{reason:?}");
        }
        for (route, _) in crate::sched::tally::Tally::default().routes() {
            assert!(readme.contains(&format!("\n| `{}` | ", route.word())), "{route:?}");
        }
    }

    #[test]
    fn what_never_ran_is_guessed_from_what_did() {
        let known = Ways::guessed(Some(cost(0, 900)), Some(cost(0, 150)), Some(cost(0, 1_000)));
        assert_eq!((known.making, known.whole), (cost(0, 900), cost(0, 1_000)));
        let whole = Ways::guessed(Some(cost(0, 800)), Some(cost(0, 160)), None).whole;
        assert_eq!((whole.run, whole.work), (us(900), us(900)), "a sixteenth less");
        let head = Ways::guessed(Some(cost(0, 800)), None, Some(cost(0, 1_600))).head;
        assert_eq!(head.work, us(800), "the rest");
        let head = Ways::guessed(Some(cost(0, 1_700)), None, Some(cost(0, 1_600))).head;
        assert_eq!(head.work, us(100), "never nothing");
        let halves = Ways::guessed(None, None, Some(cost(0, 1_600)));
        assert_eq!((halves.making.work, halves.head.work), (us(800), us(800)));
        assert_eq!(Ways::guessed(None, None, None), Ways::default());
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let most = Cost {
            wait: Duration::MAX,
            run: Duration::MAX,
            high: Duration::MAX,
            work: Duration::MAX,
        };
        let offer = Offer { making: most, head: most, again: u32::MAX, busy: u32::MAX, ..OFFER };
        assert_eq!(choose(&offer).reason, Reason::Cheapest);
        assert_eq!(choose(&Offer { whole: Some(most), ..offer }).reason, Reason::Cheapest);
        assert_eq!(Ways::guessed(Some(most), None, None).making, most);
    }
}
