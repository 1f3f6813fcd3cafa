//! How far the daemon's end has come.

use tokio::sync::watch;

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are taken.
    Serving,
    /// No more are taken; those that were are answered.
    Draining,
    /// Time is up: what is not answered yet is refused.
    Ending,
}

/// Tells the phase to everybody; dropped, it means the end.
#[derive(Debug)]
pub struct Phases(watch::Sender<Phase>);

/// Where the phase is waited for.
#[derive(Clone, Debug)]
pub(super) struct PhaseWatch(watch::Receiver<Phase>);

impl Default for Phases {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Phases {
    /// Goes on to a phase; there is no way back.
    pub fn reach(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = *now < phase;
            *now = phase.max(*now);
            later
        });
    }

    /// Somebody who waits for phases.
    pub(super) fn watch(&self) -> PhaseWatch {
        PhaseWatch(self.0.subscribe())
    }
}

impl PhaseWatch {
    /// Waits until no more requests are to be taken.
    pub(super) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until no more answers are to be waited for.
    pub(super) async fn ending(&self) {
        self.reached(Phase::Ending).await;
    }

    async fn reached(&self, phase: Phase) {
        // A sender that is gone means the daemon ends.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}
