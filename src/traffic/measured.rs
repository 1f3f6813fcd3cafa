//! What became of a run's requests, counted as they end.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_hours(1);
/// Intervals that a run is cut into, at most.
const INTERVALS_MAX: u32 = 240;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With its answer.
    Answered,
    /// With an error of the server, by its status.
    Refused(String),
    /// Without a word of the server, by why.
    Broken(String),
    /// The client hung up, as it was to.
    HungUp,
}

/// Times, in buckets of a thousandth.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let bounds = Histogram::new_with_bounds(1, micros(LONGEST), 3);
        Self(bounds.unwrap_or_else(|_| unreachable!("the bounds are constants that fit")))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Times {
    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(micros(time).max(1));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a share of all stay within, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// Their mean, in milliseconds.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e3
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        // Equal bounds: nothing of the other can be out of range.
        let _ = self.0.add(&other.0);
    }
}

/// A part of a run.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Requests that were to be sent in it.
    pub sent: u64,
    /// Of them, those answered.
    pub answered: u64,
    /// The times that these took.
    pub times: Times,
}

/// What devices did, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The time that runs could have taken in all.
    pub capacity: Duration,
    /// The time that they took.
    pub busy: Duration,
    /// Of it, what went into answers that came late, or that nobody waited for.
    pub late: Duration,
}

/// The requests of one run, from the end of its warm-up on.
#[derive(Clone, Debug)]
pub struct Measured {
    /// When counting began, from the start.
    from: Duration,
    /// How long it lasted.
    pub span: Duration,
    /// A time that answers are to be there in.
    target: Option<Duration>,
    interval: Duration,
    /// Requests.
    pub sent: u64,
    /// Those with an answer.
    pub answered: u64,
    /// Answers within the target; all where there is none.
    pub on_time: u64,
    /// Rows of answers.
    pub rows: u64,
    /// Requests of clients that hung up.
    pub hung_up: u64,
    /// Errors by what they are, refusals and broken connections.
    pub errors: BTreeMap<String, u64>,
    /// From when a request was to be sent until its answer was there.
    pub times: Times,
    /// From when a request was to be sent until the client had it in hand: how far the client itself was behind.
    pub behind: Times,
    /// The same by time.
    pub intervals: Vec<Interval>,
    /// What devices did.
    pub work: Work,
}

impl Measured {
    /// Nothing yet of a run that counts for `span` after `from`.
    #[must_use]
    pub fn new(from: Duration, span: Duration, target: Option<Duration>) -> Self {
        let interval = (span / INTERVALS_MAX).max(Duration::from_millis(250));
        Self {
            from,
            span,
            target,
            interval,
            sent: 0,
            answered: 0,
            on_time: 0,
            rows: 0,
            hung_up: 0,
            errors: BTreeMap::new(),
            times: Times::default(),
            behind: Times::default(),
            intervals: Vec::new(),
            work: Work::default(),
        }
    }

    /// Whether a request to be sent at a time counts.
    #[must_use]
    pub fn counts(&self, at: Duration) -> bool {
        at >= self.from && at < self.from + self.span
    }

    /// A request was taken in hand so long after its time.
    pub fn taken(&mut self, at: Duration, behind: Duration) {
        if self.counts(at) {
            self.behind.add(behind);
        }
    }

    /// A request of so many rows that was to be sent at a time ended after `took`.
    pub fn ended(&mut self, at: Duration, rows: u32, took: Duration, end: End) {
        if !self.counts(at) {
            return;
        }
        let place = (at - self.from).as_nanos() / self.interval.as_nanos().max(1);
        let place = usize::try_from(place).unwrap_or(0);
        if self.intervals.len() <= place {
            self.intervals.resize_with(place + 1, Interval::default);
        }
        let interval = &mut self.intervals[place];
        self.sent += 1;
        interval.sent += 1;
        match end {
            End::Answered => {
                self.answered += 1;
                self.rows += u64::from(rows);
                self.on_time += u64::from(self.target.is_none_or(|target| took <= target));
                self.times.add(took);
                interval.answered += 1;
                interval.times.add(took);
            }
            End::HungUp => self.hung_up += 1,
            End::Refused(why) | End::Broken(why) => *self.errors.entry(why).or_default() += 1,
        }
    }

    /// Adds what another part of the same run found.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.on_time += other.on_time;
        self.rows += other.rows;
        self.hung_up += other.hung_up;
        for (why, count) in &other.errors {
            *self.errors.entry(why.clone()).or_default() += count;
        }
        self.times.merge(&other.times);
        self.behind.merge(&other.behind);
        if self.intervals.len() < other.intervals.len() {
            self.intervals.resize_with(other.intervals.len(), Interval::default);
        }
        for (own, other) in self.intervals.iter_mut().zip(&other.intervals) {
            own.sent += other.sent;
            own.answered += other.answered;
            own.times.merge(&other.times);
        }
        self.work.capacity += other.work.capacity;
        self.work.busy += other.work.busy;
        self.work.late += other.work.late;
    }

    /// How long an interval is.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// The share of requests answered in time, of all whose clients waited.
    #[must_use]
    pub fn on_time_share(&self) -> f64 {
        self.on_time as f64 / (self.sent - self.hung_up).max(1) as f64
    }

    /// So many in the run, a second.
    #[must_use]
    pub fn rate(&self, count: u64) -> f64 {
        count as f64 / self.span.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_warms_up_does_not_count_and_lateness_does() {
        let mut run = Measured::new(1_000 * MS, 2_000 * MS, Some(10 * MS));
        run.ended(999 * MS, 1, MS, End::Answered);
        run.ended(1_000 * MS, 4, 10 * MS, End::Answered);
        run.ended(1_300 * MS, 1, 11 * MS, End::Answered);
        run.ended(1_300 * MS, 1, MS, End::HungUp);
        run.ended(2_999 * MS, 1, MS, End::Refused("503".to_owned()));
        run.ended(3_000 * MS, 1, MS, End::Answered);
        assert_eq!((run.sent, run.answered, run.on_time, run.rows, run.hung_up), (4, 2, 1, 5, 1));
        assert_eq!(run.errors, BTreeMap::from([("503".to_owned(), 1)]));
        assert!((run.on_time_share() - 1.0 / 3.0).abs() < 1e-9);
        assert!((run.rate(run.answered) - 1.0).abs() < 1e-9);
        let sent: Vec<u64> = run.intervals.iter().map(|interval| interval.sent).collect();
        assert_eq!(sent, [1, 2, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn times_are_a_thousandth_off_at_most() {
        let mut times = Times::default();
        (1..=10_000).for_each(|us| times.add(Duration::from_micros(us)));
        for (share, ms) in [(0.5, 5.0), (0.99, 9.9), (1.0, 10.0)] {
            assert!((times.quantile_ms(share) / ms - 1.0).abs() < 2e-3, "{share}");
        }
        let mut both = times.clone();
        both.merge(&times);
        assert_eq!(both.count(), 20_000);
        times.add(Duration::MAX);
        times.add(Duration::ZERO);
        assert!(times.quantile_ms(1.0) >= 3.59e6, "as long as can be told apart");
    }
}
