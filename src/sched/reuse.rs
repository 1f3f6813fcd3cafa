//! Whether a row goes through a shared base or through the whole model, and why.
//!
//! Separate and pure, so that every choice can be tried in a table: costs, queues and chances in, a route and
//! its reason out. Work is what cores are busy with, latency is what the caller waits; an idle machine minds
//! the latency, a busy one the work.
//!
//! # Source
//! design.md section 4 (the routes) and the recommended design of scheduling.md (recompute or reuse).

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

/// What a way costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Until its run may start.
    pub wait: Duration,
    /// What the row adds to the runs that take it.
    pub work: Duration,
}

impl Cost {
    fn latency(self) -> Duration {
        self.wait.saturating_add(self.work)
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
    /// The share of the device in 1024 that is at work.
    pub busy: u32,
}

/// Why a route was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
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
}

impl Reason {
    /// The words that users see.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Set => "the sharing setting says so",
            Self::NoWhole => "the whole model has no session",
            Self::Resting => "the whole model rests",
            Self::BaseThere => "the base output is there or on its way",
            Self::InTime => "no other way is expected to be in time",
            Self::Cheapest => "it costs least, the chance of sharing included",
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

/// The weight in 1024 of a nanosecond of work on an idle machine; on a busy one it is 1024.
const IDLE_WORK: u64 = 256;

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
    let late = |cost: Cost| offer.slack.is_some_and(|slack| cost.latency() > slack);
    match (late(split), late(whole)) {
        (false, true) => return by(route, Reason::InTime),
        (true, false) => return by(Route::Whole, Reason::InTime),
        _ => {}
    }
    match whole_score {
        Some(whole) if whole < split_score => by(Route::Whole, Reason::Cheapest),
        _ if route == Route::Recompute => by(route, Reason::Cheapest),
        _ => by(route, Reason::BaseThere),
    }
}

/// The route through the base, what it costs, and what it is expected to save others.
fn through_base(offer: &Offer) -> (Route, Cost, u64) {
    let Offer { head, making, .. } = *offer;
    match offer.base {
        Base::Kept => (Route::Reuse, head, 0),
        Base::InFlight(left) => {
            (Route::Follow, Cost { wait: left.max(head.wait), work: head.work }, 0)
        }
        Base::Absent => {
            let wait = making.wait.saturating_add(head.wait);
            let work = making.work.saturating_add(head.work);
            // Whoever asks again pays nothing for the base; that is work, and worth as much.
            let saved = weighed(making.work, offer.busy)
                .saturating_mul(u64::from(offer.again.min(1024)))
                / 1024;
            (Route::Recompute, Cost { wait, work }, saved)
        }
    }
}

/// Work as it counts at this load.
fn weighed(work: Duration, busy: u32) -> u64 {
    let weight = IDLE_WORK + (1024 - IDLE_WORK) * u64::from(busy.min(1024)) / 1024;
    crate::time::nanos(work).saturating_mul(weight) / 1024
}

/// What a way costs: the work at its weight, and the latency at what the weight leaves.
fn score(cost: Cost, busy: u32) -> u64 {
    let idle = u64::from(1024 - busy.min(1024));
    let latency = crate::time::nanos(cost.latency()).saturating_mul(idle) / 1024;
    weighed(cost.work, busy).saturating_add(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    const fn cost(wait: u64, work: u64) -> Cost {
        Cost { wait: us(wait), work: us(work) }
    }

    /// A base of 900 us and a head of 100, the whole at 980: nine tenths of the cost are shared.
    const OFFER: Offer = Offer {
        policy: Policy::Auto,
        base: Base::Absent,
        making: cost(0, 900),
        head: cost(0, 100),
        whole: Some(cost(0, 980)),
        slack: None,
        again: 0,
        busy: 0,
    };

    fn of(offer: Offer) -> (Route, Reason) {
        let Choice { route, reason, .. } = choose(&offer);
        (route, reason)
    }

    #[test]
    fn settings_and_sessions_leave_no_choice() {
        let never = Offer { policy: Policy::Never, base: Base::Kept, ..OFFER };
        assert_eq!(of(never), (Route::Whole, Reason::Set));
        let always = Offer { policy: Policy::Always, ..OFFER };
        assert_eq!(of(always), (Route::Recompute, Reason::Set));
        let bare = Offer { whole: None, ..never };
        assert_eq!(of(bare), (Route::Reuse, Reason::NoWhole));
    }

    #[test]
    fn nothing_to_share_means_whole_and_sharing_means_the_base() {
        for busy in [0, 512, 1024] {
            assert_eq!(of(Offer { busy, ..OFFER }), (Route::Whole, Reason::Cheapest), "{busy}");
            let again = Offer { again: 512, busy, ..OFFER };
            assert_eq!(of(again), (Route::Recompute, Reason::Cheapest), "{busy}");
            let kept = Offer { base: Base::Kept, busy, ..OFFER };
            assert_eq!(of(kept), (Route::Reuse, Reason::BaseThere));
            let follow = Offer { base: Base::InFlight(us(300)), busy, ..OFFER };
            assert_eq!(of(follow), (Route::Follow, Reason::BaseThere));
        }
    }

    #[test]
    fn a_long_queue_at_the_base_is_not_worth_its_wait_on_an_idle_machine() {
        let queued = Offer { base: Base::InFlight(us(5_000)), ..OFFER };
        assert_eq!(of(queued), (Route::Whole, Reason::Cheapest));
        assert_eq!(of(Offer { busy: 1024, ..queued }), (Route::Follow, Reason::BaseThere));
    }

    #[test]
    fn who_is_late_one_way_goes_the_other() {
        let tight = Offer { slack: Some(us(990)), again: 1024, busy: 1024, ..OFFER };
        assert_eq!(of(tight), (Route::Whole, Reason::InTime));
        let tighter = Offer { base: Base::Kept, slack: Some(us(200)), ..OFFER };
        assert_eq!(of(tighter), (Route::Reuse, Reason::InTime));
        let hopeless = Offer { slack: Some(us(1)), ..OFFER };
        assert_eq!(of(hopeless), (Route::Whole, Reason::Cheapest));
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let most = Cost { wait: Duration::MAX, work: Duration::MAX };
        let offer = Offer { making: most, head: most, again: u32::MAX, busy: u32::MAX, ..OFFER };
        assert_eq!(of(offer).1, Reason::Cheapest);
    }
}
