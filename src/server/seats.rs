//! Who may have how many connections: so many in all, and so many for each user.

use crate::error::{ErrorKind, InferError};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Duration;

/// The connections that are open; copies share them.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    taken: Arc<Mutex<Taken>>,
    max: usize,
    /// Whether the system's descriptors and not the flag set `max`.
    by_system: bool,
    per_user: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By uid; TCP peers together are none.
    users: FxHashMap<Option<u32>, usize>,
}

/// One connection's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<Mutex<Taken>>,
    user: Option<u32>,
}

impl Seats {
    /// Places for `wanted` connections, or as many as the system has descriptors for.
    pub(super) fn new(wanted: usize, descriptors: usize, per_user: usize) -> Self {
        let max = wanted.min(descriptors);
        Self { taken: Arc::default(), max, by_system: descriptors < wanted, per_user }
    }

    /// A place for a user's connection.
    ///
    /// # Errors
    /// `Overloaded`, naming the limit that is reached.
    pub(super) fn take(&self, user: Option<u32>) -> Result<Seat, InferError> {
        let mut taken = self.taken.lock();
        let own = taken.users.get(&user).copied().unwrap_or(0);
        let why = if taken.all >= self.max && self.by_system {
            Some(format!("the limit of descriptors leaves {}; raise RLIMIT_NOFILE", self.max))
        } else if taken.all >= self.max {
            Some(format!("the limit of --connections-max is {}", self.max))
        } else if own >= self.per_user {
            Some(format!("the limit of --connections-per-user is {}", self.per_user))
        } else {
            None
        };
        if let Some(why) = why {
            let text = format!("too many connections are open: {why}; close some or try again");
            let error = InferError::new(ErrorKind::Overloaded, text);
            return Err(error.retry_after(Duration::from_secs(1)));
        }
        taken.all += 1;
        taken.users.insert(user, own + 1);
        drop(taken);
        Ok(Seat { taken: self.taken.clone(), user })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.users.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                taken.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_passes_and_one_more_does_not() {
        let seats = Seats::new(3, 100, 2);
        let first = seats.take(Some(1)).unwrap();
        let _second = seats.take(Some(1)).unwrap();
        assert!(seats.take(Some(1)).unwrap_err().message.contains("--connections-per-user is 2"));
        let _third = seats.take(None).unwrap();
        let error = seats.take(Some(2)).unwrap_err();
        assert!(error.message.contains("--connections-max is 3"), "{error}");
        assert!(error.retry_after.is_some());
        drop(first);
        assert!(seats.take(Some(2)).is_ok());
        assert_eq!(seats.taken.lock().users.len(), 2, "users without connections are forgotten");
    }

    #[test]
    fn descriptors_may_be_the_shorter_limit() {
        let error = Seats::new(3, 0, 2).take(None).unwrap_err();
        assert!(error.message.contains("RLIMIT_NOFILE"), "{error}");
    }
}
