//! Builds everything, in order, and takes it down again.

use crate::driver::Driver;
use crate::driver::load::{LoadConfig, Loader};
use crate::driver::pool::Pools;
use crate::metrics::Metrics;
use crate::model::stash::Stash;
use crate::model::{Catalog, State};
use crate::repository::{Repository, Served};
use crate::sched::config::Config;
use crate::server::regions::{RegionLimits, Regions};
use crate::server::service::Service;
use crate::server::socket::SocketFile;
use crate::server::{Front, Limits};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Everything that was decided before the start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory of models.
    pub models: PathBuf,
    /// The Unix socket.
    pub socket: PathBuf,
    /// TCP addresses beside it.
    pub listen: Vec<SocketAddr>,
    /// Where private copies of models go.
    pub work_dir: PathBuf,
    /// The scheduler's limits.
    pub sched: Config,
    /// How models are loaded.
    pub load: LoadConfig,
    /// The front door's limits.
    pub limits: Limits,
    /// What callers may do with shared memory.
    pub regions: RegionLimits,
    /// How long a request waits that does not say.
    pub timeout: Option<Duration>,
    /// How long accepted requests may take once the daemon is told to stop.
    pub drain_timeout: Duration,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    plan: Plan,
    service: Arc<Service>,
    driver: Arc<Driver>,
    repository: Arc<Repository>,
    front: Front,
    closing: watch::Sender<bool>,
    _socket: SocketFile,
}

impl Daemon {
    /// Binds the sockets and starts everything but the models.
    ///
    /// # Errors
    /// A sentence that says what is in the way.
    pub async fn start(plan: Plan) -> Result<Self, String> {
        if !plan.models.is_dir() {
            let shown = plan.models.display();
            return Err(format!("--models {shown} is no directory; name one that holds models"));
        }
        let (socket, listener) = SocketFile::bind(&plan.socket)?;
        let metrics = Arc::new(Metrics::new());
        let (driver, orders) = Driver::new(plan.sched.clone(), metrics.clone());
        let served = Arc::new(Served::default());
        let pools = Pools::new(driver.clone(), served.health());
        let stash = Stash::create(&plan.work_dir).map_err(|error| {
            let shown = plan.work_dir.display();
            format!("--work-dir {shown}: {error}; name a folder that can be written")
        })?;
        let loader = Loader::new(driver.clone(), pools.clone(), stash, plan.load.clone());
        let loader = Arc::new(loader);
        let repository = Repository::new(plan.models.clone(), driver.clone(), loader, served);
        let regions = Regions::new(plan.regions);
        let service =
            Service::new(driver.clone(), metrics, repository.clone(), regions, plan.timeout);
        let service = Arc::new(service);
        let timers = driver.clone().timers();
        tokio::spawn(async {
            if let Err(error) = timers.await {
                tracing::error!("timers stopped: {error}");
            }
        });
        tokio::spawn(pools.run(orders));
        let (closing, closed) = watch::channel(false);
        let front = Front::new(service.clone(), plan.limits, closed);
        tokio::spawn(front.clone().unix(listener));
        for address in &plan.listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| format!("--listen {address}: {error}"))?;
            if let Ok(address) = listener.local_addr() {
                // Port 0 leaves the choice to the system.
                tracing::info!("listening on {address}");
            }
            tokio::spawn(front.clone().tcp(listener));
        }
        Ok(Self { plan, service, driver, repository, front, closing, _socket: socket })
    }

    /// Serves until told to stop; then answers what was accepted.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub async fn run(&self) -> Result<(), String> {
        let text = |error: std::io::Error| format!("cannot listen to signals: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(text)?;
        let first = self.scan_and_announce();
        tokio::pin!(first);
        let mut announced = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut first, if !announced => announced = true,
                _ = hangup.recv(), if announced => {
                    tracing::info!("looking at the models again");
                    if let Err(why) = self.repository.scan().await {
                        tracing::error!("{why}");
                    }
                }
            }
        }
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::select! {
            () = self.drain() => {}
            () = stop => tracing::warn!("told twice: stopping at once"),
        }
        Ok(())
    }

    async fn scan_and_announce(&self) {
        if let Err(why) = self.repository.scan().await {
            tracing::error!("{why}");
        }
        let catalog = self.repository.served().catalog();
        let line = greeting(&catalog, &self.plan.socket, &self.plan.models);
        announce(&line);
    }

    async fn drain(&self) {
        tracing::info!("stopping: finishing what was accepted");
        self.service.set_draining();
        self.closing.send_replace(true);
        let finished = async {
            self.driver.drained().await;
            self.front.all_closed().await;
        };
        if tokio::time::timeout(self.plan.drain_timeout, finished).await.is_err() {
            tracing::warn!("some requests were not answered within {:?}", self.plan.drain_timeout);
        }
    }
}

/// The line that says what is served, what is not, and how to go on.
fn greeting(catalog: &Catalog, socket: &Path, models: &Path) -> String {
    let (socket, models) = (socket.display(), models.display());
    let all = catalog.iter().count();
    let ready = catalog.iter().filter(|(.., state)| matches!(state, State::Ready(_)));
    let ready: Vec<&str> = ready.map(|(name, ..)| name).collect();
    let failed = catalog.iter().find_map(|(name, version, state)| match state {
        State::Unavailable(why) => Some(format!("{name}:{version} is unavailable: {why}")),
        State::Loading | State::Ready(_) => None,
    });
    let tried = ready.first().map(|model| {
        format!("; try: curl --unix-socket {socket} http://localhost/v2/models/{model}")
    });
    match (tried, failed) {
        (Some(tried), None) => format!("graftd serves {} models{tried}", ready.len()),
        (Some(tried), Some(failed)) => {
            format!("graftd serves {} of {all} models, {failed}{tried}", ready.len())
        }
        (None, Some(failed)) => format!("graftd serves none of {all} models: {failed}"),
        (None, None) => {
            format!("graftd serves no models yet; put some into {models} and send SIGHUP")
        }
    }
}

#[expect(clippy::print_stdout, reason = "the one line that the user is to read")]
fn announce(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_said_with_its_reason() {
        let mut catalog = Catalog::default();
        let greet = |catalog: &Catalog| greeting(catalog, Path::new("s.sock"), Path::new("dir"));
        assert!(greet(&catalog).contains("put some into dir"));
        let state = State::Unavailable("no provider 'cuda'".to_owned());
        catalog.models.entry("a".to_owned()).or_default().insert(1, state);
        let line = greet(&catalog);
        assert_eq!(line, "graftd serves none of 1 models: a:1 is unavailable: no provider 'cuda'");
    }
}
