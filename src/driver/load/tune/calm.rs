//! Work that is done only while nobody asks for anything.

use crate::driver::load::Loader;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// For how long nobody must have asked.
const CALM: Duration = Duration::from_secs(1);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long calm is waited for at most, with what is tried in memory.
const PATIENCE: Duration = Duration::from_secs(20);

/// When something may be tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Calm<'a> {
    /// At any time: nobody is served.
    Always,
    /// While nobody asks and nothing loads.
    WhileIdle(&'a Loader),
}

/// The requests that had come when it was calm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

impl Calm<'_> {
    /// Waits until it is calm; none where that takes too long.
    pub(super) async fn comes(self) -> Option<Mark> {
        let Self::WhileIdle(loader) = self else { return Some(Mark(0)) };
        let (looks, enough) =
            (PATIENCE.div_duration_f32(LOOK) as u32, CALM.div_duration_f32(LOOK) as u32);
        let mut mark = now(loader);
        let mut calm = 0;
        for _ in 0..looks {
            if calm >= enough {
                return Some(mark);
            }
            tokio::time::sleep(LOOK).await;
            calm = if self.lasted(mark) { calm + 1 } else { 0 };
            mark = now(loader);
        }
        None
    }

    /// Whether it stayed so.
    pub(super) fn lasted(self, mark: Mark) -> bool {
        let Self::WhileIdle(loader) = self else { return true };
        let busy = loader.driver.load();
        let idle = busy.requests == 0 && busy.batches == 0;
        idle && now(loader).0 == mark.0 && loader.loading().is_empty()
    }
}

fn now(loader: &Loader) -> Mark {
    Mark(loader.driver.requests.load(Ordering::Relaxed))
}
