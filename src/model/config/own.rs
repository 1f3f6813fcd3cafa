//! `model.toml`: what can be set for a model that Triton's configuration cannot say.

use crate::model::padding::Declared;
use crate::model::settings::Settings;
use crate::rows::Storage;
use crate::sched::quantile::Quantile;
use crate::sched::reuse::Policy;
use serde::Deserialize;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// Sessions or threads past which a number is a slip of the finger.
const COUNT_MAX: usize = 1024;

/// The keys of the file; what is left out is as for all models.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    dedupe: Option<bool>,
    cache: Option<bool>,
    timeout_ms: Option<u64>,
    max_batch_rows: Option<NonZeroUsize>,
    preferred_batch_rows: Option<Vec<NonZeroUsize>>,
    queue_delay_max_us: Option<u64>,
    latency_target_ms: Option<NonZeroU64>,
    latency_quantile: Option<Quantile>,
    sessions: Option<NonZeroUsize>,
    threads: Option<NonZeroUsize>,
    sharing: Option<Policy>,
    base_storage: Option<Storage>,
    base: Option<String>,
    #[serde(default)]
    padding: Vec<Declared>,
}

/// What a `model.toml` sets, and the padding that it declares.
///
/// # Errors
/// A sentence with the line, the key, the value and what is allowed.
pub(super) fn parse(text: &str) -> Result<(Settings, Vec<Declared>), String> {
    let own: Own = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| 1 + before.matches('\n').count());
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        // The whole line, for the span is that of the value alone.
        let start = before.and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let shown = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let numbers = [
            ("a nonzero usize", "a whole number, 1 or more"),
            ("a nonzero u64", "a whole number, 1 or more"),
            ("u64", "a whole number"),
        ];
        let message = numbers.iter().fold(error.message().to_owned(), |message, (ours, plain)| {
            message.replace(ours, plain)
        });
        format!("{line}{}: {message}", crate::text::name(shown.trim()))
    })?;
    let Own {
        dedupe,
        cache,
        timeout_ms,
        max_batch_rows,
        preferred_batch_rows,
        queue_delay_max_us,
        latency_target_ms,
        latency_quantile,
        sessions,
        threads,
        sharing,
        base_storage,
        base,
        padding,
    } = own;
    let count = |key: &str, value: Option<NonZeroUsize>| match value.map(NonZeroUsize::get) {
        Some(count) if count > COUNT_MAX => {
            Err(format!("{key} is {count}; expected at most {COUNT_MAX}"))
        }
        count => Ok(count),
    };
    let preferred = preferred_batch_rows.map(|sizes| {
        let mut sizes: Vec<usize> = sizes.into_iter().map(NonZeroUsize::get).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    });
    let settings = Settings {
        dedupe,
        cache,
        timeout: timeout_ms.map(Duration::from_millis),
        batch_rows_max: max_batch_rows.map(NonZeroUsize::get),
        batch_rows_preferred: preferred,
        queue_delay: queue_delay_max_us.map(Duration::from_micros),
        latency_target: latency_target_ms.map(|ms| Duration::from_millis(ms.get())),
        latency_quantile,
        sessions: count("sessions", sessions)?,
        threads: count("threads", threads)?,
        sharing,
        base_storage,
        base,
    };
    Ok((settings, padding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_read() {
        let text = "dedupe = false\ncache = true # kept\ntimeout_ms = 20\nmax_batch_rows = 8\n\
                    preferred_batch_rows = [8, 4]\nqueue_delay_max_us = 50\nlatency_target_ms = 30\nlatency_quantile = 0.999\nsessions = 2\nthreads = 3\nsharing = \"always\"\n\
                    base_storage = \"float16\"\nbase = \"encoder\"\n";
        let expected = Settings {
            dedupe: Some(false),
            cache: Some(true),
            timeout: Some(Duration::from_millis(20)),
            batch_rows_max: Some(8),
            batch_rows_preferred: Some(vec![4, 8]),
            queue_delay: Some(Duration::from_micros(50)),
            latency_target: Some(Duration::from_millis(30)),
            latency_quantile: "0.999".parse().ok(),
            sessions: Some(2),
            sharing: Some(Policy::Always),
            base_storage: Some(Storage::Half),
            base: Some("encoder".to_owned()),
            threads: Some(3),
        };
        assert_eq!(parse(text), Ok((expected, vec![])));
        assert_eq!(parse(""), Ok((Settings::default(), vec![])));
    }

    #[test]
    fn wrong_ones_name_the_line_the_key_and_what_is_allowed() {
        let table: [(&str, &[&str]); 9] = [
            ("latency_quantile = 99.9", &["line 1", "is 99.9; expected a share of 0.5"]),
            ("cache = true\nbatch = 3", &["line 2", "unknown field `batch`", "max_batch_rows"]),
            ("threads = 0", &["line 1: threads = 0: ", "expected a whole number, 1 or more"]),
            ("threads = 5000", &["threads is 5000", "at most 1024"]),
            ("cache = 'yes'", &["cache = 'yes'", "expected a boolean"]),
            ("timeout_ms = -1", &["timeout_ms = -1", "expected a whole number"]),
            ("dedupe = true\ncache = ", &["line 2: cache =:"]),
            ("[[padding]]\ninputs = { x = { axes = 1 } }", &["line 2", "unknown field `axes`"]),
            ("[[padding]]\ninputs = { x = { axis = [1] } }", &["line 2", "an axis by its number"]),
        ];
        for (text, parts) in table {
            let why = parse(text).unwrap_err();
            parts.iter().for_each(|part| assert!(why.contains(part), "{text}: {why}"));
        }
    }
}
