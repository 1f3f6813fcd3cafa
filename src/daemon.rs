//! Builds everything, in order, and takes it down again.

use crate::driver::Driver;
use crate::driver::load::{LoadConfig, Loader};
use crate::driver::pool::Pools;
use crate::metrics::Metrics;
use crate::model::shelf::Shelf;
use crate::model::stash::Stash;
use crate::model::{Catalog, State, settings};
use crate::progress::Foot;
use crate::repository::control::Control;
use crate::repository::{self, Repository, Served};
use crate::sched::config::Config;
use crate::server::phase::{Phase, Phases};
use crate::server::record::Recorder;
use crate::server::regions::{RegionLimits, Regions};
use crate::server::service::Service;
use crate::server::socket::{Access, SocketFile};
use crate::server::{Front, Policy};
use crate::text;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sd_notify::{NotifyState, notify};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long refusals may take to be sent once the time to drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Looks at the models that may go on at a time; a hangup signal that comes on top waits.
const SCANS_MAX: usize = 4;
/// Time between two words to the service manager on how far the models are.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Time between two looks at what was learned of costs; what was learned since is lost where the process is killed.
const REMEMBER_EVERY: Duration = Duration::from_mins(1);

/// A look at the models that is being taken.
type Scan<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Everything that was decided before the start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which models are served.
    pub repository: repository::Options,
    /// The Unix socket.
    pub socket: PathBuf,
    /// Who may connect to it.
    pub access: Access,
    /// TCP addresses beside it.
    pub listen: Vec<SocketAddr>,
    /// Where private copies of models go.
    pub work_dir: PathBuf,
    /// Where what was worked out of models is kept for the next start.
    pub splits_dir: PathBuf,
    /// How much of it; 0 for nothing.
    pub splits_bytes: u64,
    /// The scheduler's limits.
    pub sched: Config,
    /// How models are loaded.
    pub load: LoadConfig,
    /// Who may come in, and how much of each.
    pub policy: Policy,
    /// What callers may do with shared memory.
    pub regions: RegionLimits,
    /// How long a request waits that does not say.
    pub timeout: Option<Duration>,
    /// How long accepted requests may take once the daemon is told to stop.
    pub drain_timeout: Duration,
    /// Where what comes is recorded, and in how many bytes at most.
    pub record: Option<(PathBuf, u64)>,
}

/// The signals that the daemon acts on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on, so that one that comes during the start is not the process's end.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen to signals: {e}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    plan: Plan,
    service: Arc<Service>,
    driver: Arc<Driver>,
    repository: Arc<Repository>,
    front: Front,
    phases: Phases,
    loader: Arc<Loader>,
    _socket: SocketFile,
}

impl Daemon {
    /// Binds the sockets and starts everything but the models.
    ///
    /// # Errors
    /// A sentence that says what is in the way.
    pub async fn start(plan: Plan) -> Result<Self, String> {
        if !plan.repository.root.is_dir() {
            let shown = plan.repository.root.display();
            return Err(format!("--models {shown} is no directory; name one that holds models"));
        }
        let (socket, listener) = SocketFile::bind(&plan.socket, plan.access)?;
        let metrics = Arc::new(Metrics::new());
        let (driver, orders) = Driver::new(plan.sched.clone(), metrics.clone());
        let served = Arc::new(Served::default());
        let pools = Pools::new(driver.clone(), served.health());
        let kept = (stash(&plan)?, shelf(&plan));
        let loader = Loader::new(driver.clone(), pools.clone(), kept, plan.load.clone());
        let loader = Arc::new(loader);
        let (root, costs) = (plan.repository.clone(), loader.clone());
        let repository = Repository::new(root, driver.clone(), loader, served);
        tokio::spawn(remember(costs.clone()));
        tokio::spawn(costs.clone().tune_when_idle());
        let regions = Regions::new(plan.regions);
        let record = plan.record.as_ref();
        let recorder = record.map(|(file, bytes)| Recorder::start(file, *bytes)).transpose()?;
        let service =
            Service::new(driver.clone(), metrics, repository.clone(), regions, plan.timeout);
        let service = Arc::new(service.recording(recorder));
        let timers = driver.clone().timers();
        tokio::spawn(async {
            if let Err(error) = timers.await {
                tracing::error!("timers stopped: {error}");
            }
        });
        tokio::spawn(pools.run(orders));
        tokio::spawn(repository.clone().follow());
        tokio::spawn(repository.clone().follow_families());
        let phases = Phases::default();
        let policy = plan.policy.clone();
        let front = Front::new(service.clone(), policy, *driver.clock(), &phases);
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
        let loader = costs;
        Ok(Self { plan, service, driver, repository, front, phases, loader, _socket: socket })
    }

    /// Says where to learn how many lines of the log were dropped.
    pub fn count_lost_lines(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        self.service.counts().set_lost_lines(lost);
    }

    /// Serves until told to stop; then answers what was accepted. What loads at the start is shown at the foot
    /// of a terminal.
    pub async fn run(&self, signals: Signals, foot: &Foot) {
        let Signals { mut terminate, mut interrupt, mut hangup } = signals;
        let first: Scan<'_> = Box::pin(self.scan_and_announce(foot));
        let mut scans = FuturesUnordered::from_iter([first]);
        let mut status = tokio::time::interval(STATUS_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(()) = scans.next(), if !scans.is_empty() => {
                    if scans.is_empty() {
                        tell_supervisor(&[NotifyState::Ready], &self.greeting());
                    }
                }
                // One that still loads a large model is no reason not to look at the others.
                _ = hangup.recv(), if scans.len() < SCANS_MAX => {
                    tell_of_reload();
                    scans.push(Box::pin(self.scan_again()));
                }
                _ = status.tick(), if !scans.is_empty() => {
                    tell_supervisor(&[], &so_far(&self.repository));
                }
            }
        }
        // What is still loading will not be needed.
        drop(scans);
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
        self.service.finish_record();
        self.loader.remember_costs();
    }

    async fn scan_again(&self) {
        tracing::info!("looking at the models again");
        self.scan().await;
    }

    async fn scan(&self) {
        if let Err(why) = self.repository.scan().await {
            tracing::error!("{why}");
        }
    }

    async fn scan_and_announce(&self, foot: &Foot) {
        let repository = self.repository.clone();
        let shown = foot.show(Duration::ZERO, move || so_far(&repository));
        self.scan().await;
        drop(shown);
        if self.repository.started() {
            self.warn_of_strangers();
        }
        announce(&self.greeting());
    }

    fn greeting(&self) -> String {
        let catalog = self.repository.served().catalog();
        let repository::Options { root, control, .. } = &self.plan.repository;
        greeting(&catalog, &self.plan.socket, root, control)
    }

    /// Says which models are named or have settings and are not there: most likely a slip of the finger.
    fn warn_of_strangers(&self) {
        let catalog = self.repository.served().catalog();
        let known = catalog.models.keys().map(String::as_str).collect();
        if let Control::Explicit(named) = &self.plan.repository.control {
            named.strangers(&known).iter().for_each(|why| tracing::error!("{why}"));
        }
        for why in settings::strangers(&self.plan.load.models, &known) {
            tracing::warn!("{why}");
        }
    }

    async fn drain(&self) {
        tracing::info!("stopping: finishing what was accepted");
        tell_supervisor(&[NotifyState::Stopping], "answers what was accepted");
        self.service.set_draining();
        self.repository.close();
        self.phases.reach(Phase::Draining);
        let finished = async {
            self.driver.drained().await;
            self.front.all_closed().await;
        };
        if tokio::time::timeout(self.plan.drain_timeout, finished).await.is_err() {
            tracing::warn!("some requests were not answered within {:?}", self.plan.drain_timeout);
            self.phases.reach(Phase::Ending);
            // They are told so; whoever does not take that in time is left.
            let _ = tokio::time::timeout(LAST_WORDS, self.front.all_closed()).await;
        }
    }
}

/// Loads models as a daemon does, for whoever serves nothing; to be called on a runtime.
///
/// # Errors
/// A sentence, when there is no place for private copies.
pub fn loader(plan: &Plan) -> Result<Arc<Loader>, String> {
    let (driver, orders) = Driver::new(plan.sched.clone(), Arc::new(Metrics::new()));
    let pools = Pools::new(driver.clone(), Arc::new(|_, _| {}));
    let kept = (stash(plan)?, shelf(plan));
    tokio::spawn(pools.clone().run(orders));
    Ok(Arc::new(Loader::new(driver, pools, kept, plan.load.clone())))
}

/// Where private copies of models go.
fn stash(plan: &Plan) -> Result<Stash, String> {
    Stash::create(&plan.work_dir).map_err(|error| {
        let shown = plan.work_dir.display();
        format!("--work-dir {shown}: {error}; name a folder that can be written")
    })
}

/// Keeps what is learned of costs for the next start, now and then.
async fn remember(loader: Arc<Loader>) {
    let mut due = tokio::time::interval(REMEMBER_EVERY);
    loop {
        due.tick().await;
        let loader = loader.clone();
        let kept = tokio::task::spawn_blocking(move || loader.remember_costs());
        // A disk that fails is told of where it does.
        let _ = kept.await;
    }
}

/// Where what is worked out of models is kept; nowhere, with a warning, where that is no place for it.
fn shelf(plan: &Plan) -> Shelf {
    if plan.splits_bytes == 0 {
        return Shelf::default();
    }
    Shelf::open(&plan.splits_dir, plan.splits_bytes).unwrap_or_else(|why| {
        tracing::warn!("--splits-dir {why}; until then every start splits models anew");
        Shelf::default()
    })
}

/// Tells systemd, or whoever else gave the process a `NOTIFY_SOCKET`, what changed and how the daemon is.
fn tell_supervisor(changes: &[NotifyState<'_>], status: &str) {
    static WARNED: Once = Once::new();
    // Set to nothing is how a manager's child is kept from inheriting it.
    if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
        return;
    }
    // A line break would begin a message of its own, and reasons quote models' files.
    let status = text::plain(status);
    let states: Vec<_> = changes.iter().cloned().chain([NotifyState::Status(&status)]).collect();
    if let Err(error) = notify(&states) {
        let warn = || {
            tracing::warn!("the service manager cannot be told how the daemon is: {error}");
        };
        WARNED.call_once(warn);
    }
}

/// systemd takes a reload for one only when it is told the time, too.
fn tell_of_reload() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell_supervisor(&[NotifyState::Reloading, now], "looks at the models again");
    }
}

/// How far a look at the models is.
fn so_far(repository: &Repository) -> String {
    let catalog = repository.served().catalog();
    let wanted = || catalog.iter().filter(|(.., state)| !matches!(state, State::Absent(_)));
    let done = wanted().filter(|(.., state)| !matches!(state, State::Loading)).count();
    let loading = repository.loading().into_iter();
    let loading: Vec<_> = loading.map(|((name, _), step)| format!("{name}: {step}")).collect();
    match wanted().count() {
        0 => "looking at the models".to_owned(),
        all => format!("{done} of {all} models loaded; {}", loading.join(", ")),
    }
}

/// The line that says what is served, what is not, and how to go on.
fn greeting(catalog: &Catalog, socket: &Path, models: &Path, control: &Control) -> String {
    let (socket, models) = (socket.display(), models.display());
    let all = catalog.iter().filter(|(.., state)| !matches!(state, State::Absent(_))).count();
    let ready = catalog.iter().filter(|(.., state)| matches!(state, State::Ready(_)));
    let ready: Vec<&str> = ready.map(|(name, ..)| name).collect();
    let failed = catalog.iter().find_map(|(name, version, state)| match state {
        State::Unavailable(why) => Some(format!("{name}:{version} is unavailable: {why}")),
        State::Loading | State::Ready(_) | State::Unloading | State::Absent(_) => None,
    });
    let tried = ready.first().map(|model| {
        format!("; try: curl --unix-socket {socket} http://localhost/v2/models/{model}")
    });
    match (tried, failed) {
        (Some(tried), None) => match ready.len() {
            1 => format!("graftd serves 1 model{tried}"),
            many => format!("graftd serves {many} models{tried}"),
        },
        (Some(tried), Some(failed)) => {
            format!("graftd serves {} of {all} models, {failed}{tried}", ready.len())
        }
        (None, Some(failed)) => format!("graftd serves none of {all} models: {failed}"),
        (None, None) => match control {
            Control::Open => {
                format!("graftd serves no models yet; put some into {models} and send SIGHUP")
            }
            Control::Poll => format!("graftd serves no models yet; put some into {models}"),
            Control::Fixed => {
                format!("graftd serves no models; put some into {models} and start it again")
            }
            Control::Explicit(_) => {
                "graftd serves no models yet; name one: graftd load MODEL".to_owned()
            }
        },
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
        let greet = |catalog: &Catalog| {
            greeting(catalog, Path::new("s.sock"), Path::new("dir"), &Control::Open)
        };
        assert!(greet(&catalog).contains("put some into dir"));
        let state = State::Unavailable("no provider 'cuda'".to_owned());
        catalog.models.entry("a".to_owned()).or_default().insert(1, state);
        let line = greet(&catalog);
        assert_eq!(line, "graftd serves none of 1 models: a:1 is unavailable: no provider 'cuda'");
    }
}
