//! When the rows of a class are ripe, and how many of them to take.
//!
//! Work-conserving unless the user set a queue delay: an idle session takes what is there, a busy one
//! lets the queue grow, and only a batch that could not become any better is formed ahead of time.

use crate::sched::config::StageConfig;
use crate::sched::event::RunReason;
use std::time::Duration;

/// What there is to take.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Rows of the class that wait.
    pub queued: usize,
    /// How long the first of them has waited.
    pub head_age: Duration,
    /// Rows beyond which a batch of this class was seen not to pay.
    pub useful: usize,
    /// Sessions that could take a batch now; 0 where it would be formed ahead for a busy one.
    pub idle: usize,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take so many rows.
    Take(usize, RunReason),
    /// Look again after this time.
    Wait(Duration),
    /// Nothing to do until a row or a session comes.
    Leave,
}

/// Decides about the rows of one class.
///
/// # Source
/// Eager batching as in Triton's default; the split among idle sessions and the knee are from
/// Nexus and Symphony as summarised in ARCHITECTURE.md.
#[must_use]
pub fn choose(config: &StageConfig, offer: Offer) -> Verdict {
    if offer.queued == 0 {
        return Verdict::Leave;
    }
    if offer.idle == 0 {
        return ahead(config, offer);
    }
    let waits = !config.queue_delay.is_zero();
    let goal = goal(config).min(offer.useful);
    if waits && offer.queued < goal && offer.head_age < config.queue_delay {
        return Verdict::Wait(config.queue_delay - offer.head_age);
    }
    let share = offer.queued.div_ceil(offer.idle).max(config.batch_rows_knee).min(offer.queued);
    let rows = preferred(config, share.min(config.batch_rows_max).min(offer.useful));
    let reason = match () {
        () if rows >= goal => RunReason::Full,
        () if waits => RunReason::Delay,
        () => RunReason::Idle,
    };
    Verdict::Take(rows, reason)
}

/// A batch is formed ahead only when more rows would not help it: until then the queue may grow.
fn ahead(config: &StageConfig, Offer { queued, useful, .. }: Offer) -> Verdict {
    let enough = if config.queue_delay.is_zero() { config.batch_rows_knee } else { goal(config) };
    if queued < enough.min(useful) {
        return Verdict::Leave;
    }
    let rows = queued.min(config.batch_rows_max).min(useful);
    Verdict::Take(preferred(config, rows), RunReason::Ahead)
}

/// The size that is worth waiting for.
fn goal(config: &StageConfig) -> usize {
    config.batch_rows_preferred.last().copied().unwrap_or(config.batch_rows_max)
}

/// The largest preferred size that can be filled, or all rows where none can.
fn preferred(config: &StageConfig, rows: usize) -> usize {
    config.batch_rows_preferred.iter().rev().copied().find(|&size| size <= rows).unwrap_or(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn config(max: usize, knee: usize, preferred: &[usize], delay: Duration) -> StageConfig {
        StageConfig {
            batch_rows_max: max,
            batch_rows_knee: knee,
            batch_rows_preferred: preferred.to_vec(),
            queue_delay: delay,
            ..StageConfig::default()
        }
    }

    #[test]
    fn never_takes_more_than_was_seen_to_pay() {
        let config = config(8, 4, &[], Duration::ZERO);
        let offer = |idle| Offer { queued: 20, head_age: Duration::ZERO, useful: 2, idle };
        assert_eq!(choose(&config, offer(1)), Verdict::Take(2, RunReason::Full));
        assert_eq!(choose(&config, offer(0)), Verdict::Take(2, RunReason::Ahead));
    }

    #[test]
    fn takes_what_is_there_when_idle_and_only_full_batches_ahead() {
        use RunReason::{Ahead, Delay, Full, Idle};
        use Verdict::{Leave, Take, Wait};
        let table = [
            // max, knee, preferred, delay, queued, age, idle, expected
            (8, 4, &[][..], Duration::ZERO, 0, Duration::ZERO, 1, Leave),
            (8, 4, &[], Duration::ZERO, 1, Duration::ZERO, 1, Take(1, Idle)),
            (8, 4, &[], Duration::ZERO, 20, Duration::ZERO, 1, Take(8, Full)),
            (8, 4, &[], Duration::ZERO, 3, Duration::ZERO, 0, Leave),
            (8, 4, &[], Duration::ZERO, 4, Duration::ZERO, 0, Take(4, Ahead)),
            (8, 1, &[], Duration::ZERO, 1, Duration::ZERO, 0, Take(1, Ahead)),
            // Two idle sessions share ten rows, but never below the knee.
            (8, 4, &[], Duration::ZERO, 10, Duration::ZERO, 2, Take(5, Idle)),
            (8, 4, &[], Duration::ZERO, 6, Duration::ZERO, 2, Take(4, Idle)),
            (8, 4, &[], Duration::ZERO, 3, Duration::ZERO, 2, Take(3, Idle)),
            // A queue delay holds rows until enough are there or the first has waited.
            (8, 4, &[], 5 * MS, 3, MS, 1, Wait(4 * MS)),
            (8, 4, &[], 5 * MS, 3, 5 * MS, 1, Take(3, Delay)),
            (8, 4, &[], 5 * MS, 8, MS, 1, Take(8, Full)),
            (8, 4, &[], 5 * MS, 6, MS, 0, Leave),
            // Preferred sizes are met from below.
            (8, 1, &[2, 4], Duration::ZERO, 7, Duration::ZERO, 1, Take(4, Full)),
            (8, 1, &[2, 4], Duration::ZERO, 3, Duration::ZERO, 1, Take(2, Idle)),
            (8, 1, &[2, 4], Duration::ZERO, 1, Duration::ZERO, 1, Take(1, Idle)),
        ];
        for (max, knee, sizes, delay, queued, head_age, idle, expected) in table {
            let offer = Offer { queued, head_age, useful: usize::MAX, idle };
            assert_eq!(choose(&config(max, knee, sizes, delay), offer), expected, "{offer:?}");
        }
    }
}
