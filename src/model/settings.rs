//! What a user set for one model, over what holds for all.

use crate::rows::Storage;
use crate::sched::quantile::Quantile;
use crate::sched::reuse::Policy;
use crate::text;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

/// The settings of one model; what is none is as for all models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Equal rows in flight may become one.
    pub dedupe: Option<bool>,
    /// Output rows may be kept.
    pub cache: Option<bool>,
    /// How long requests wait that do not say.
    pub timeout: Option<Duration>,
    /// Rows of one batch, at most.
    pub batch_rows_max: Option<usize>,
    /// Batch sizes to prefer, ascending.
    pub batch_rows_preferred: Option<Vec<usize>>,
    /// How long the oldest row may be held to fill a batch.
    pub queue_delay: Option<Duration>,
    /// The time within which it should answer; what cannot be is refused.
    pub latency_target: Option<Duration>,
    /// The share of its answers that are to be there by then.
    pub latency_quantile: Option<Quantile>,
    /// Runs at the same time.
    pub sessions: Option<usize>,
    /// Threads of one run.
    pub threads: Option<usize>,
    /// Whether its rows go through shared bases.
    pub sharing: Option<Policy>,
    /// How the outputs of bases that it stands on may lie in memory.
    pub base_storage: Option<Storage>,
    /// The model that it is said to share a base with.
    pub base: Option<String>,
}

impl Settings {
    /// These, and those of `lower` where these say nothing.
    #[must_use]
    pub fn over(self, lower: &Self) -> Self {
        let Self {
            dedupe,
            cache,
            timeout,
            batch_rows_max,
            batch_rows_preferred,
            queue_delay,
            latency_target,
            latency_quantile,
            sessions,
            threads,
            sharing,
            base_storage,
            base,
        } = self;
        Self {
            dedupe: dedupe.or(lower.dedupe),
            cache: cache.or(lower.cache),
            timeout: timeout.or(lower.timeout),
            batch_rows_max: batch_rows_max.or(lower.batch_rows_max),
            batch_rows_preferred: batch_rows_preferred
                .or_else(|| lower.batch_rows_preferred.clone()),
            queue_delay: queue_delay.or(lower.queue_delay),
            latency_target: latency_target.or(lower.latency_target),
            latency_quantile: latency_quantile.or(lower.latency_quantile),
            sessions: sessions.or(lower.sessions),
            threads: threads.or(lower.threads),
            sharing: sharing.or(lower.sharing),
            base_storage: base_storage.or(lower.base_storage),
            base: base.or_else(|| lower.base.clone()),
        }
    }
}

/// One setting as it was typed: `MODEL.KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    model: String,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Dedupe(bool),
    Cache(bool),
    TimeoutMs(u64),
    MaxBatchRows(usize),
    QueueDelayMaxUs(u64),
    LatencyTargetMs(u64),
    LatencyQuantile(Quantile),
    Sessions(usize),
    Threads(usize),
    Sharing(Policy),
    BaseStorage(Storage),
    Base(String),
}

/// Sessions or threads past which a number is a slip of the finger.
const COUNT_MAX: usize = 1024;

const KEYS: &str = "dedupe=on|off, cache=on|off, timeout_ms=N, max_batch_rows=N, \
                    queue_delay_max_us=N, latency_target_ms=N, latency_quantile=SHARE, sessions=N, threads=N, sharing=auto|always|never, \
                    base_storage=exact|float16, base=NAME";

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("'{text}' is no setting; expected MODEL.KEY=VALUE with {KEYS}");
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        // Names may hold dots, keys do not.
        let (model, key) = path.rsplit_once('.').ok_or_else(form)?;
        let switch = || match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("{path} is '{value}'; expected on or off")),
        };
        let number = || -> Result<u64, String> {
            value.parse().map_err(|_| format!("{path} is '{value}'; expected a whole number"))
        };
        let key = match key {
            "dedupe" => Key::Dedupe(switch()?),
            "cache" => Key::Cache(switch()?),
            "timeout_ms" => Key::TimeoutMs(number()?),
            "max_batch_rows" => {
                let rows = usize::try_from(number()?).unwrap_or(usize::MAX);
                if rows == 0 {
                    return Err(format!("{path} is 0; a batch has at least one row"));
                }
                Key::MaxBatchRows(rows)
            }
            "queue_delay_max_us" => Key::QueueDelayMaxUs(number()?),
            "latency_target_ms" => match number()? {
                0 => return Err(format!("{path} is 0; expected milliseconds, 1 or more")),
                ms => Key::LatencyTargetMs(ms),
            },
            "latency_quantile" => {
                Key::LatencyQuantile(value.parse().map_err(|why| format!("{path} {why}"))?)
            }
            "sessions" => Key::Sessions(count(path, number()?)?),
            "threads" => Key::Threads(count(path, number()?)?),
            "sharing" => Key::Sharing(value.parse().map_err(|why| format!("{path} {why}"))?),
            "base_storage" => {
                Key::BaseStorage(value.parse().map_err(|why| format!("{path} {why}"))?)
            }
            "base" if value.is_empty() => {
                return Err(format!("{path} is empty; expected a model's name"));
            }
            "base" => Key::Base(value.to_owned()),
            other => return Err(format!("'{other}' is no key; expected one of {KEYS}")),
        };
        Ok(Self { model: model.to_owned(), key })
    }
}

/// A sentence for each model that has settings and is not among those that are known: most likely a slip of the
/// finger.
#[must_use]
pub fn strangers(set: &BTreeMap<String, Settings>, known: &BTreeSet<&str>) -> Vec<String> {
    const SHOWN_MAX: usize = 8;
    let shown: Vec<&str> = known.iter().copied().take(SHOWN_MAX).collect();
    let more = if known.len() > SHOWN_MAX { " and others" } else { "" };
    let hint = |name: &str| match text::meant(name, known.iter().copied()) {
        Some(near) => format!("did you mean {}?", text::name(near)),
        None if known.is_empty() => "it has none yet: add it, or leave the setting out".to_owned(),
        None => format!(
            "it has {}{more}: correct the name, or leave the setting out",
            text::name(&shown.join(", "))
        ),
    };
    let strangers = set.keys().filter(|name| !known.contains(name.as_str()));
    let sentence = |name: &String| {
        let (quoted, hint) = (text::name(name), hint(name));
        format!("the settings of model {quoted} are for none that the directory has; {hint}")
    };
    strangers.map(sentence).collect()
}

fn count(path: &str, number: u64) -> Result<usize, String> {
    let count = usize::try_from(number).ok().filter(|count| (1..=COUNT_MAX).contains(count));
    count.ok_or_else(|| format!("{path} is {number}; expected 1 to {COUNT_MAX}"))
}

/// Puts settings together by model; the last one of a kind counts.
#[must_use]
pub fn by_model(settings: &[Setting]) -> BTreeMap<String, Settings> {
    let mut models: BTreeMap<String, Settings> = BTreeMap::new();
    for Setting { model, key } in settings {
        let place = models.entry(model.clone()).or_default();
        match key.clone() {
            Key::Dedupe(on) => place.dedupe = Some(on),
            Key::Cache(on) => place.cache = Some(on),
            Key::TimeoutMs(ms) => place.timeout = Some(Duration::from_millis(ms)),
            Key::MaxBatchRows(rows) => place.batch_rows_max = Some(rows),
            Key::Sessions(count) => place.sessions = Some(count),
            Key::Threads(count) => place.threads = Some(count),
            Key::Sharing(policy) => place.sharing = Some(policy),
            Key::BaseStorage(storage) => place.base_storage = Some(storage),
            Key::Base(name) => place.base = Some(name),
            Key::LatencyTargetMs(ms) => place.latency_target = Some(Duration::from_millis(ms)),
            Key::LatencyQuantile(share) => place.latency_quantile = Some(share),
            Key::QueueDelayMaxUs(us) => place.queue_delay = Some(Duration::from_micros(us)),
        }
    }
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_model_that_is_not_there_are_told_with_the_likely_one() {
        let set = |name: &str| by_model(&[format!("{name}.cache=off").parse().unwrap()]);
        let known = BTreeSet::from(["mlp", "iris"]);
        assert!(strangers(&set("mlp"), &known).is_empty());
        let told = |name: &str, known| strangers(&set(name), known).concat();
        assert!(told("mpl", &known).ends_with(
            "the settings of model mpl are for none that the directory has; did you mean mlp?"
        ));
        assert!(told("bert", &known).contains("it has iris, mlp: correct"));
        assert!(told("bert", &BTreeSet::new()).contains("it has none yet"));
    }

    #[test]
    fn settings_are_read_and_wrong_ones_say_what_is_allowed() {
        let read = |text: &str| text.parse::<Setting>();
        let settings =
            ["a.b.dedupe=off", "a.b.timeout_ms=20", "c.max_batch_rows=4", "a.b.dedupe=on"];
        let models = by_model(&settings.map(|text| read(text).unwrap()));
        let timeout = Some(Duration::from_millis(20));
        let expected = Settings { dedupe: Some(true), timeout, ..Settings::default() };
        assert_eq!(models["a.b"], expected);
        assert_eq!(models["c"].batch_rows_max, Some(4));
        let wrong = [
            "a",
            "a=1",
            "a.nope=1",
            "a.dedupe=maybe",
            "a.timeout_ms=-1",
            "a.max_batch_rows=0",
            "a.sessions=0",
            "a.threads=5000",
        ];
        for text in wrong {
            let why = read(text).unwrap_err();
            assert!(why.contains("expected") || why.contains("at least"), "{text}: {why}");
        }
    }

    #[test]
    fn the_upper_settings_count_and_the_lower_fill_in() {
        let upper = Settings { cache: Some(false), threads: Some(2), ..Settings::default() };
        let lower = Settings { cache: Some(true), sessions: Some(3), ..Settings::default() };
        let expected = Settings { sessions: Some(3), ..upper.clone() };
        assert_eq!(upper.over(&lower), expected);
    }
}
