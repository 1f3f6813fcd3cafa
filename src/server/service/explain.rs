//! Why requests took their routes and what made their answers, as `GET /v2/graftd/explain` tells it, `graftd explain`
//! shows it and answers carry it on request.

use super::Service;
use super::decisions::Decision;
use crate::driver::lineage::Made;
use crate::error::{ErrorKind, InferError};
use crate::id::RequestId;
use crate::request::{InferResponse, Parameter};
use crate::sched::reuse::Reason;
use crate::sched::why::Why;
use crate::server::rights::Peer;
use crate::text;
use crate::time::{MonoTime, micros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Decisions that are listed where no request is named.
const LISTED: usize = 20;

/// Requests of one id that are told; an id may be given many.
const OF_ONE_ID: usize = 5;

/// What was decided, the newest first. A reader passes over what it does not know, and has defaults for what a daemon
/// of another version does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// One for each request.
    pub decisions: Vec<Decided>,
}

/// What became of one request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decided {
    /// The daemon's number of it.
    pub request: u64,
    /// What its caller calls it.
    pub id: String,
    /// The model that was asked, as `name:version`.
    pub model: String,
    /// How it ended, in a word.
    pub outcome: String,
    /// What its caller was told where that was no answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// How many rows it has.
    pub rows: usize,
    /// How many of them went which way; empty where there was no answer.
    pub routes: BTreeMap<String, u64>,
    /// Why most of them did.
    pub reason: String,
    /// How long ago it ended.
    pub age_ms: u64,
    /// How long it took.
    pub took_us: u64,
    /// The same of each of its first rows; of none where many requests are listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<RowWhy>,
    /// Rows that are not told of.
    #[serde(skip_serializing_if = "is_none")]
    pub left_out: usize,
}

/// What an answer says of its own rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// The daemon's number of the request.
    pub request: u64,
    /// Its first rows.
    pub rows: Vec<RowWhy>,
    /// Rows that are not told of.
    pub left_out: usize,
}

/// How one row was answered and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowWhy {
    /// The route.
    pub route: String,
    /// Why it was taken.
    pub reason: String,
    /// What the ways were held to take when it was chosen; nothing where there was no choice.
    pub cost_us: Costs,
    /// What was compared: time and work, weighed by how busy the device was.
    pub weighed_us: Sums,
    /// The chance that another row will want the base output.
    pub chance: Option<f64>,
    /// The share of time that the device was at work lately.
    pub busy: Option<f64>,
    /// What made the answer: the last stage first, then what it took from below.
    pub lineage: Vec<Step>,
}

/// Microseconds until the end of a run, waiting included; none where nothing was learned yet or nothing has to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// Making the base output, or the time until it is there.
    pub base: Option<u64>,
    /// The head.
    pub head: Option<u64>,
    /// The whole model.
    pub whole: Option<u64>,
}

/// The two sums that were compared, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// Through the base, less what is expected to be saved for others.
    pub shared: Option<u64>,
    /// The whole model.
    pub whole: Option<u64>,
}

/// One stage that had a part in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Which part of a model it is: whole, base or head.
    pub stage: String,
    /// The model; empty for a base, which is of no one model.
    pub model: String,
    /// The beginning of its digest.
    pub digest: String,
    /// The batch that it ran in.
    pub batch: u64,
    /// The number of the request of whose input it ran.
    pub request: u64,
    /// What that request's caller called it, while that is remembered.
    pub id: String,
    /// How long ago.
    pub age_ms: u64,
}

impl Service {
    /// The last decisions that a peer may know of.
    #[must_use]
    pub fn explain(&self, peer: &Peer) -> Decisions {
        let now = self.driver.clock().now();
        let decisions = self.decisions.newest(LISTED, |it| may_know(peer, it));
        Decisions { decisions: decisions.iter().map(|decision| listed(decision, now)).collect() }
    }

    /// What was decided for the requests of this id, or for the one of this number, the newest few.
    ///
    /// # Errors
    /// `NotFound` where no such request is remembered that the peer may know of.
    pub fn explain_request(&self, peer: &Peer, id: &str) -> Result<Decisions, InferError> {
        let now = self.driver.clock().now();
        let number = id.parse().ok().map(RequestId);
        let is_it =
            |it: &Decision| may_know(peer, it) && (Some(it.request) == number || it.is_called(id));
        let found = self.decisions.newest(OF_ONE_ID, is_it);
        if found.is_empty() {
            let text = format!(
                "request '{}' is not among those remembered, about the last {}; `graftd explain` lists the \
                 newest, and `graftd_explain` among a request's parameters has its answer tell",
                text::name(id),
                super::decisions::REQUESTS_MAX
            );
            return Err(InferError::new(ErrorKind::NotFound, text));
        }
        let decisions = found.iter().map(|decision| {
            let Explanation { rows, left_out, .. } = self.explanation(decision, now);
            Decided { why: rows, left_out, ..listed(decision, now) }
        });
        Ok(Decisions { decisions: decisions.collect() })
    }

    /// Has an answer say of its rows what was decided.
    pub(super) fn tell_why(
        &self,
        decision: &Decision,
        answer: &mut InferResponse,
    ) -> Result<(), InferError> {
        let text = serde_json::to_string(&self.explanation(decision, decision.at));
        let text = text.map_err(|why| InferError::new(ErrorKind::Internal, why.to_string()))?;
        answer.parameters.insert("graftd_explain".to_owned(), Parameter::Text(text));
        Ok(())
    }

    /// What there is to say of the rows of a request.
    fn explanation(&self, decision: &Decision, now: MonoTime) -> Explanation {
        let mut ids = BTreeMap::from([(decision.request, decision.shown_id())]);
        let made = decision.trail.made.iter().flatten();
        let others = made.flat_map(steps).map(|made| made.request);
        ids.extend(self.decisions.ids(others.filter(|other| *other != decision.request)));
        let told = decision.told();
        let row = |row: usize| {
            let route = decision.tally.route(&decision.routes, row);
            let why = decision.why(row);
            let made = decision.trail.made.get(row).into_iter().flatten();
            RowWhy {
                route: route.word().to_owned(),
                reason: decision.reason(row).words().to_owned(),
                lineage: made.flat_map(steps).map(|made| step(made, &ids, now)).collect(),
                ..why.map(weighed).unwrap_or_default()
            }
        };
        Explanation {
            request: decision.request.0,
            rows: (0..told).map(row).collect(),
            left_out: decision.rows - told,
        }
    }
}

/// Whether a peer may know of a request: ids and times are data, so of his own alone, or he runs the daemon.
fn may_know(peer: &Peer, decision: &Decision) -> bool {
    peer.admin || peer.tenant == decision.tenant
}

/// What made a row, the last stage first.
fn steps(made: &Made) -> impl Iterator<Item = &Made> {
    std::iter::successors(Some(made), |made| made.below.as_deref())
}

fn step(made: &Made, ids: &BTreeMap<RequestId, String>, now: MonoTime) -> Step {
    Step {
        stage: made.stage.part.word().to_owned(),
        model: made.stage.model.clone(),
        digest: made.stage.digest.to_string(),
        batch: made.batch.0,
        request: made.request.0,
        id: ids.get(&made.request).cloned().unwrap_or_default(),
        age_ms: millis(now.since(made.at)),
    }
}

/// What was known when a row's route was chosen.
fn weighed(why: &Why) -> RowWhy {
    let us = |time: Option<Duration>| time.map(micros);
    let share = |parts: u32| Some((f64::from(parts) / 1.024).round() / 1e3);
    let Why { choice, weighed, .. } = why;
    RowWhy {
        cost_us: Costs { base: us(weighed.base), head: us(weighed.head), whole: us(weighed.whole) },
        weighed_us: Sums {
            shared: Some(choice.split / 1000),
            whole: choice.whole.map(|ns| ns / 1000),
        },
        chance: share(weighed.again),
        busy: share(weighed.busy),
        ..RowWhy::default()
    }
}

/// A decision without its rows.
fn listed(decision: &Decision, now: MonoTime) -> Decided {
    let routes = decision.tally.routes().filter(|&(_, rows)| rows > 0);
    Decided {
        request: decision.request.0,
        id: decision.shown_id(),
        model: decision.stage.model.clone(),
        outcome: decision.outcome.to_owned(),
        error: decision.error.as_deref().unwrap_or_default().to_owned(),
        rows: decision.rows,
        routes: routes.map(|(route, rows)| (route.word().to_owned(), rows.into())).collect(),
        reason: most(decision).map_or(String::new(), |reason| reason.words().to_owned()),
        age_ms: millis(now.since(decision.at)),
        took_us: micros(decision.took),
        ..Decided::default()
    }
}

/// The reason of most rows that are told of.
fn most(decision: &Decision) -> Option<Reason> {
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    for row in 0..decision.told() {
        *reasons.entry(decision.reason(row)).or_default() += 1;
    }
    reasons.into_iter().max_by_key(|&(_, rows)| rows).map(|(reason, _)| reason)
}

fn millis(duration: Duration) -> u64 {
    micros(duration) / 1000
}

fn is_none(rows: &usize) -> bool {
    *rows == 0
}
