//! Builds everything, in order, and takes it down again.

use crate::driver::Driver;
use crate::driver::load::{LoadConfig, Loader};
use crate::driver::pool::{Health, Pools};
use crate::id::StageId;
use crate::metrics::Metrics;
use crate::model::scan::{self, Found};
use crate::model::stash::Stash;
use crate::model::{Catalog, ModelSpec, State};
use crate::sched::config::Config;
use crate::sched::event::Event;
use crate::server::service::Service;
use crate::server::socket::SocketFile;
use crate::server::{Front, Limits};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
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
    loader: Loader,
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
        let service = Arc::new(Service::new(driver.clone(), metrics.clone(), plan.timeout));
        let pools = Pools::new(driver.clone(), health(&service));
        let stash = Stash::create(&plan.work_dir).map_err(|error| {
            let shown = plan.work_dir.display();
            format!("--work-dir {shown}: {error}; name a folder that can be written")
        })?;
        tokio::spawn(driver.clone().timers());
        tokio::spawn(pools.clone().run(orders));
        let (closing, closed) = watch::channel(false);
        let front = Front::new(service.clone(), plan.limits, closed);
        tokio::spawn(front.clone().unix(listener));
        for address in &plan.listen {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| format!("--listen {address}: {error}"))?;
            tokio::spawn(front.clone().tcp(listener));
        }
        let loader = Loader::new(driver.clone(), pools, stash, plan.load.clone());
        Ok(Self { plan, service, driver, loader, front, closing, _socket: socket })
    }

    /// Looks at the model directory and makes what is served agree with it.
    ///
    /// # Errors
    /// When the directory cannot be read; what is served stays as it is.
    pub async fn scan(&self) -> Result<(), String> {
        let listing = scan::scan(&self.plan.models).map_err(|error| {
            format!("--models {} cannot be read: {error}", self.plan.models.display())
        })?;
        listing.refused.iter().for_each(|why| tracing::warn!("passed over {why}"));
        self.forget_missing(&listing.found);
        for found in &listing.found {
            self.service.change(|catalog| {
                let versions = catalog.models.entry(found.name.clone()).or_default();
                versions.entry(found.version).or_insert(State::Loading);
            });
        }
        for found in &listing.found {
            self.load(found).await;
        }
        self.service.set_started();
        Ok(())
    }

    async fn load(&self, found: &Found) {
        let Found { name, version, .. } = found;
        let current = ready(&self.service.catalog(), found).cloned();
        match self.loader.load(found, current.as_ref().map(|spec| spec.digest)).await {
            Ok(None) => {}
            Ok(Some(spec)) => {
                tracing::info!("model {name}:{version} is ready; {}", described(&spec));
                self.set(found, State::Ready(Arc::new(spec)));
                if let Some(old) = current {
                    self.driver.event(Event::StageRetired { stage: old.stage });
                }
            }
            Err(why) if current.is_some() => {
                tracing::error!(
                    "model {name}:{version} changed and cannot be loaded: {why}; the old one stays"
                );
            }
            Err(why) => {
                tracing::error!("model {name}:{version} is unavailable: {why}");
                self.set(found, State::Unavailable(why));
            }
        }
    }

    fn set(&self, found: &Found, state: State) {
        self.service.change(|catalog| {
            catalog.models.entry(found.name.clone()).or_default().insert(found.version, state);
        });
    }

    fn forget_missing(&self, found: &[Found]) {
        let there: BTreeSet<(&str, u64)> =
            found.iter().map(|found| (found.name.as_str(), found.version)).collect();
        let mut gone = Vec::new();
        self.service.change(|catalog| {
            for (name, versions) in &mut catalog.models {
                versions.retain(|&version, state| {
                    let stays = there.contains(&(name.as_str(), version));
                    if let (false, State::Ready(spec)) = (stays, state) {
                        gone.push(spec.stage);
                    }
                    stays
                });
            }
            catalog.models.retain(|_, versions| !versions.is_empty());
        });
        for stage in gone {
            self.driver.event(Event::StageRetired { stage });
        }
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
                    if let Err(why) = self.scan().await {
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
        if let Err(why) = self.scan().await {
            tracing::error!("{why}");
        }
        let catalog = self.service.catalog();
        let ready: Vec<&str> = catalog
            .iter()
            .filter(|(_, _, state)| matches!(state, State::Ready(_)))
            .map(|(name, ..)| name)
            .collect();
        let socket = self.plan.socket.display();
        let line = match ready.first() {
            Some(model) => format!(
                "graftd serves {} models; try: curl --unix-socket {socket} http://localhost/v2/models/{model}",
                ready.len()
            ),
            None => format!(
                "graftd serves no models yet; put some into {} and send SIGHUP",
                self.plan.models.display()
            ),
        };
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

#[expect(clippy::print_stdout, reason = "the one line that the user is to read")]
fn announce(line: &str) {
    println!("{line}");
}

fn ready<'a>(catalog: &'a Catalog, found: &Found) -> Option<&'a Arc<ModelSpec>> {
    match catalog.models.get(&found.name)?.get(&found.version)? {
        State::Ready(spec) => Some(spec),
        State::Loading | State::Unavailable(_) => None,
    }
}

fn described(spec: &ModelSpec) -> String {
    let keys = ["graftd.rows", "graftd.batch_rows", "graftd.sharing"];
    keys.iter().filter_map(|key| spec.findings.get(*key)).cloned().collect::<Vec<_>>().join("; ")
}

/// Marks a model whose worker cannot be started, and clears the mark when it can again.
fn health(service: &Arc<Service>) -> Health {
    let specs: OnceLock<parking_lot::Mutex<Vec<Arc<ModelSpec>>>> = OnceLock::new();
    let service = service.clone();
    Arc::new(move |stage: StageId, result| {
        let kept = specs.get_or_init(parking_lot::Mutex::default);
        service.change(|catalog| {
            for state in catalog.models.values_mut().flat_map(|versions| versions.values_mut()) {
                match (&*state, &result) {
                    (State::Ready(spec), Err(why)) if spec.stage == stage => {
                        kept.lock().push(spec.clone());
                        *state = State::Unavailable(why.clone());
                        return;
                    }
                    _ => {}
                }
            }
            if result.is_ok() {
                let mut kept = kept.lock();
                if let Some(place) = kept.iter().position(|spec| spec.stage == stage) {
                    let spec = kept.swap_remove(place);
                    let versions = catalog.models.entry(spec.name.clone()).or_default();
                    versions.insert(spec.version, State::Ready(spec));
                }
            }
        });
    })
}
