//! What holds for requests that wait: how long, how many, and how urgent they may say they are.

use crate::sched::event::Priority;
use std::collections::BTreeMap;
use std::time::Duration;

/// What holds for the requests of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a request waits; none for as long as it says itself.
    pub timeout: Option<Duration>,
    /// A request may ask for less.
    pub overridable: bool,
}

/// What holds for requests that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// The number of levels and the level of requests that name none; none for the daemon's own levels.
    pub levels: Option<(u8, u8)>,
    /// What holds for requests of any level.
    pub policy: Policy,
    /// What holds for single levels instead.
    pub by_level: BTreeMap<u8, Policy>,
    /// Rows that wait, at most.
    pub rows_max: Option<usize>,
}

impl Queue {
    /// The priority that a request means by a number; 0 stands for none.
    #[must_use]
    pub fn priority(&self, number: u64) -> Priority {
        let Some((levels, default)) = self.levels else { return Priority::new(number) };
        let named = 1..=u64::from(levels);
        Priority::new(if named.contains(&number) { number } else { u64::from(default) })
    }

    /// How long a request waits that names `asked` itself and whose caller waits for `transport`, where
    /// `usual` is for requests that name nothing.
    #[must_use]
    pub fn timeout(
        &self,
        priority: Priority,
        asked: Option<Duration>,
        transport: Option<Duration>,
        usual: Option<Duration>,
    ) -> Option<Duration> {
        let policy = self.by_level.get(&priority.level()).unwrap_or(&self.policy);
        let shortest = |times: [Option<Duration>; 3]| times.into_iter().flatten().min();
        match *policy {
            Policy { timeout: None, .. } => shortest([asked, transport, None]).or(usual),
            Policy { timeout, overridable: true } => shortest([asked, transport, timeout]),
            Policy { timeout, overridable: false } => shortest([transport, timeout, None]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_timeouts_are_as_declared() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let plain = Queue::default();
        assert_eq!((plain.priority(0).level(), plain.priority(7).level()), (5, 7));
        let any = Priority::DEFAULT;
        assert_eq!(plain.timeout(any, ms(9), ms(3), ms(1)), ms(3));
        assert_eq!(plain.timeout(any, None, None, ms(1)), ms(1));
        let strict = Policy { timeout: ms(5), overridable: false };
        let loose = Policy { timeout: ms(5), overridable: true };
        let queue = Queue {
            levels: Some((3, 2)),
            policy: strict,
            by_level: BTreeMap::from([(1, loose)]),
            rows_max: None,
        };
        let levels = [0, 1, 3, 4].map(|number| queue.priority(number).level());
        assert_eq!(levels, [2, 1, 3, 2]);
        let (first, other) = (queue.priority(1), queue.priority(0));
        assert_eq!(queue.timeout(other, ms(1), None, None), ms(5));
        assert_eq!(queue.timeout(other, ms(1), ms(2), None), ms(2));
        assert_eq!(queue.timeout(first, ms(1), None, ms(9)), ms(1));
        assert_eq!(queue.timeout(first, ms(7), None, None), ms(5));
    }
}
