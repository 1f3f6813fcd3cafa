//! The directory followed while the daemon runs.
//!
//! Notifications of the system are hints: they may be lost, and they tell nothing where the directory is
//! replaced or lies on another machine. What decides is a look at all fingerprints, taken on a hint and every
//! so often. A model is taken up once two looks some time apart show the same files, so that one that is
//! being copied is left alone until it is whole.

use super::Repository;
use super::books::Sighting;
use crate::model::fingerprint::Fingerprint;
use crate::time::MonoTime;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How the directory is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Time between two looks where nothing hints at a change.
    pub interval: Duration,
    /// How long files must be unchanged before they are taken up.
    pub quiet: Duration,
}

impl Repository {
    /// Follows the directory, and sees to what was put off; runs for as long as the daemon.
    pub async fn follow(self: Arc<Self>) {
        let hint = Arc::new(Notify::new());
        let mut ears = Ears::new(self.options.root.clone(), hint.clone());
        let mut trouble = String::new();
        loop {
            let mut wait = self.put_off();
            if let Some(watch) = self.options.watch {
                ears.prick();
                wait = Some(wait.map_or(watch.interval, |wait| wait.min(watch.interval)));
            }
            tokio::select! {
                () = hint.notified() => {}
                () = self.agenda.notified() => continue,
                () = sleep(wait) => {}
            }
            let looked = match self.options.watch {
                Some(watch) => self.notice(watch.quiet).await,
                None => self.scan().await,
            };
            // A directory that stays away is told of once.
            match looked {
                Ok(()) => trouble.clear(),
                Err(why) if why == trouble => {}
                Err(why) => {
                    tracing::error!("{why}; what is served stays");
                    trouble = why;
                }
            }
            if let Some(watch) = self.options.watch {
                // A file that is written all the time is looked at only now and then.
                tokio::time::sleep(watch.quiet / 4).await;
            }
        }
    }

    /// When something that was put off is due.
    fn put_off(&self) -> Option<Duration> {
        let now = self.driver.clock().now();
        let held = self.held.lock().map(|since| since.after(self.options.removal_grace));
        let quiet = self.options.watch.map_or(Duration::ZERO, |watch| watch.quiet);
        let books = self.books.lock();
        let seen = books.values().filter_map(|record| record.sighting.as_ref());
        let due = seen.filter(|seen| !seen.taken_up).map(|seen| seen.since.after(quiet));
        due.chain(held).min().map(|at| at.since(now))
    }

    /// Looks for files that changed, and takes up those that have been quiet for long enough.
    async fn notice(self: &Arc<Self>, quiet: Duration) -> Result<(), String> {
        let sight = self.sight().await?;
        self.tell_refused(&sight.refused);
        let missing = self.missing(&sight);
        let now = self.driver.clock().now();
        let names: BTreeSet<&String> = sight.models.keys().chain(&missing).collect();
        for name in names {
            let seen = sight.models.get(name);
            if self.is_quiet(name, seen, now, quiet) {
                tokio::spawn(self.clone().settle(name.clone(), false));
            }
        }
        Ok(())
    }

    /// Whether a model's files differ from what was tried, and have been so for long enough; once for each
    /// change.
    fn is_quiet(
        &self,
        name: &str,
        seen: Option<&BTreeMap<u64, Fingerprint>>,
        now: MonoTime,
        quiet: Duration,
    ) -> bool {
        let none = BTreeMap::new();
        let seen = seen.unwrap_or(&none);
        if !self.wanted(name) {
            self.note_absent(name, seen);
            return false;
        }
        let served = self.served.versions(name);
        let mut books = self.books.lock();
        let record = books.entry(name.to_owned()).or_default();
        if record.carried.is_some() || (record.tried(seen) && served.iter().eq(seen.keys())) {
            record.sighting = None;
            return false;
        }
        match &mut record.sighting {
            Some(last) if same(&last.files, seen) => {
                let due = !last.taken_up && now.since(last.since) >= quiet;
                last.taken_up |= due;
                due
            }
            place => {
                let files = seen.clone();
                *place = Some(Sighting { files, since: now, taken_up: false });
                false
            }
        }
    }
}

fn same(a: &BTreeMap<u64, Fingerprint>, b: &BTreeMap<u64, Fingerprint>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && a.1.still(b.1))
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// The system's notifications about one directory, which may be replaced by another of the same name.
struct Ears {
    root: PathBuf,
    hint: Arc<Notify>,
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    deaf: bool,
}

impl Ears {
    fn new(root: PathBuf, hint: Arc<Notify>) -> Self {
        Self { root, hint, watcher: None, deaf: false }
    }

    /// Listens to the directory that is there now.
    fn prick(&mut self) {
        let identity = std::fs::metadata(&self.root).map(|data| (data.dev(), data.ino())).ok();
        if self.watcher.as_ref().map(|(_, watched)| *watched) == identity {
            return;
        }
        self.watcher = None;
        let Some(identity) = identity else { return };
        match listen(&self.root, self.hint.clone()) {
            Ok(watcher) => {
                self.watcher = Some((watcher, identity));
                // What changed before it was listened to is told by nobody.
                self.hint.notify_one();
            }
            Err(error) if !self.deaf => {
                self.deaf = true;
                tracing::warn!(
                    "{}: no notifications ({error}); changes are seen at the next regular look",
                    self.root.display()
                );
            }
            Err(_) => {}
        }
    }
}

fn listen(root: &Path, hint: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let heard = move |event: notify::Result<notify::Event>| {
        // Our own looks and copies open files too.
        if !event
            .is_ok_and(|event| matches!(event.kind, EventKind::Access(access) if !is_close(access)))
        {
            hint.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(heard)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn is_close(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    access == AccessKind::Close(AccessMode::Write)
}
