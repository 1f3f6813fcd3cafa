//! How far each load is, for people who wait for it.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a version is at that loads, by its name and number.
pub type Loading = BTreeMap<(String, u64), &'static str>;

/// The loads that are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(Arc<Mutex<Loading>>);

/// One load; it is forgotten when it is dropped, however the load ends.
#[derive(Debug)]
pub(super) struct Step {
    steps: Steps,
    version: (String, u64),
}

impl Steps {
    pub(super) fn begin(&self, name: &str, version: u64) -> Step {
        let step = Step { steps: self.clone(), version: (name.to_owned(), version) };
        step.at("copying its files");
        step
    }

    pub(super) fn now(&self) -> Loading {
        self.0.lock().clone()
    }
}

impl Step {
    pub(super) fn at(&self, what: &'static str) {
        self.steps.0.lock().insert(self.version.clone(), what);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.steps.0.lock().remove(&self.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_shown_until_it_ends() {
        let steps = Steps::default();
        let step = steps.begin("m", 1);
        step.at("warming up");
        assert_eq!(steps.now(), Loading::from([(("m".to_owned(), 1), "warming up")]));
        drop(step);
        assert_eq!(steps.now(), Loading::new());
    }
}
