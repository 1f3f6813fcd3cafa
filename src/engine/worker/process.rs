//! One worker process: started, listened to, ended.

use super::arena::Arena;
use super::chatter;
use super::child::INHERITED;
use super::control::{LoadOrder, LoadReply, Order};
use super::lane::{LaneState, WorkerLane};
use crate::engine::{CompletionSink, Lane};
use crate::id::SessionId;
use crate::reactor;
use command_fds::{CommandFdExt, FdMapping};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// Terminate orders that may wait for a worker to listen.
const ORDERS_MAX: usize = 64;
/// How long a worker that broke off may take to end by itself, and so to show of what.
const END_WAIT: Duration = Duration::from_secs(2);

/// What is needed to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Our own binary.
    pub program: PathBuf,
    /// What it loads.
    pub order: LoadOrder,
    /// How long loading may take.
    pub load_timeout: Duration,
    /// The model's name and version, for messages.
    pub label: String,
}

/// Why a worker does not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The system gave no process or no memory.
    #[error("cannot start a worker process: {0}")]
    System(String),
    /// The runtime refused the model.
    #[error("{0}")]
    Refused(String),
    /// The process ended while it loaded the model.
    #[error("its worker process ended while loading it: {0}")]
    Died(String),
    /// Loading took too long.
    #[error("loading it took longer than {0:?}; raise --load-timeout-s")]
    Late(Duration),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}

/// Who learns what a worker does.
pub trait WorkerEvents: CompletionSink {
    /// The process is gone; what its sessions had in hand will not be completed.
    fn worker_died(&self, sessions: &[SessionId], how: &str);
}

/// Ends a process, whatever it does; safe to use after it has ended.
#[derive(Debug)]
pub(super) struct Killer(OwnedFd);

impl Killer {
    pub(super) fn kill(&self) {
        // A process that has ended already is no error.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// A running worker with its model loaded.
pub struct Worker {
    lanes: Vec<Arc<WorkerLane>>,
    events: Arc<Mutex<Option<Arc<dyn WorkerEvents>>>>,
    killer: Arc<Killer>,
    /// The process's number.
    pub pid: u32,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a worker and waits until its model is loaded.
    ///
    /// # Errors
    /// The runtime refused the model, the process died, or it took too long.
    pub async fn start(
        config: &WorkerConfig,
        sessions: &[SessionId],
        events: Arc<dyn WorkerEvents>,
    ) -> Result<Self, StartError> {
        let geometry = config.order.geometry;
        let (arena, memory) = Arena::create(geometry.total_bytes())?;
        let (ours, theirs) = UnixStream::pair()?;
        let bell =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let their_bell = bell.try_clone()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut child = spawn(config, [theirs.into(), memory, their_bell])?;
        if let Some(stderr) = child.stderr.take() {
            let label = config.label.clone();
            let tell = move |line: &str| tracing::warn!(model = label, "its worker says: {line}");
            tokio::spawn(chatter::relay(stderr, tell));
        }
        let pid = child.id().ok_or_else(|| StartError::Died("at once".into()))?;
        let killer = Arc::new(Killer(open_pid(pid)?));
        let mut control = BufReader::new(ours);
        let mut child = Reaper(child);
        let warnings = load(config, &mut control, &mut child).await?;
        let (orders, order_queue) = flume::bounded(ORDERS_MAX);
        let arena = Arc::new(arena);
        let lane = |(number, &session): (usize, &SessionId)| {
            Arc::new(WorkerLane {
                session,
                number,
                arena: arena.clone(),
                geometry,
                state: Mutex::new(LaneState::default()),
                orders: orders.clone(),
                killer: killer.clone(),
            })
        };
        let lanes: Vec<_> = sessions.iter().enumerate().map(lane).collect();
        let events = Arc::new(Mutex::new(Some(events)));
        let watch = Watch { lanes: lanes.clone(), events: events.clone(), child, control };
        tokio::spawn(watch.run(reactor::watch(bell)?, order_queue));
        Ok(Self { lanes, events, killer, pid, warnings })
    }

    /// The lanes, in the order of their sessions.
    #[must_use]
    pub fn lanes(&self) -> Vec<Arc<dyn Lane>> {
        self.lanes.iter().map(|lane| lane.clone() as Arc<dyn Lane>).collect()
    }

    /// Directs what happens from now on to someone else; says no where the process is gone already.
    #[must_use]
    pub fn set_events(&self, events: Arc<dyn WorkerEvents>) -> bool {
        self.events.lock().as_mut().map(|place| *place = events).is_some()
    }

    /// Whether the process has ended and somebody was told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.events.lock().is_none()
    }

    /// Batches completed so far over all lanes; the count wraps.
    #[must_use]
    pub fn completed(&self) -> u32 {
        self.lanes.iter().fold(0, |sum, lane| sum.wrapping_add(lane.completed()))
    }

    /// Ends the process without telling anybody: its sessions have nothing in hand.
    pub fn stop(&self) {
        *self.events.lock() = None;
        self.killer.kill();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends and reaps its child when dropped.
struct Reaper(Child);

fn open_pid(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn spawn(config: &WorkerConfig, descriptors: [OwnedFd; 3]) -> io::Result<Child> {
    let mappings = descriptors.into_iter().zip(INHERITED);
    let mappings =
        mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    let mut command = Command::new(&config.program);
    command
        .arg("worker")
        .arg(&config.label)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        // A worker obeys its daemon, not the terminal: an interrupt is the daemon's to handle.
        .process_group(0);
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    command.spawn()
}

/// Tells the worker what to load and waits for its word.
async fn load(
    config: &WorkerConfig,
    control: &mut BufReader<UnixStream>,
    child: &mut Reaper,
) -> Result<Vec<String>, StartError> {
    let mut line = serde_json::to_vec(&config.order).map_err(io::Error::from)?;
    line.push(b'\n');
    let talk = async {
        control.write_all(&line).await?;
        let mut reply = String::new();
        control.read_line(&mut reply).await?;
        io::Result::Ok(reply)
    };
    let reply = match tokio::time::timeout(config.load_timeout, talk).await {
        Err(_) => return Err(StartError::Late(config.load_timeout)),
        // A process that dies before it has read its order resets the connection.
        Ok(reply) => reply.unwrap_or_default(),
    };
    match serde_json::from_str(&reply) {
        Ok(LoadReply::Ready { warnings }) => Ok(warnings),
        Ok(LoadReply::Refused { reason }) => Err(StartError::Refused(reason)),
        Err(_) => Err(StartError::Died(last_word(child).await)),
    }
}

/// How a process ended that is about to; one that does not after all is ended.
async fn last_word(child: &mut Reaper) -> String {
    if tokio::time::timeout(END_WAIT, child.0.wait()).await.is_err() {
        // One that has just ended is no error.
        let _ = child.0.start_kill();
    }
    let how = child.0.wait().await.map(|status| status.to_string());
    how.unwrap_or_else(|error| error.to_string())
}

/// The task that listens to a worker for as long as it lives.
struct Watch {
    lanes: Vec<Arc<WorkerLane>>,
    events: Arc<Mutex<Option<Arc<dyn WorkerEvents>>>>,
    child: Reaper,
    control: BufReader<UnixStream>,
}

impl Watch {
    async fn run(mut self, bell: AsyncFd<OwnedFd>, orders: flume::Receiver<Order>) {
        loop {
            let mut byte = [0];
            tokio::select! {
                // Completions first: those that came before a death are answers like any other.
                biased;
                guard = bell.readable() => {
                    let Ok(mut guard) = guard else { break };
                    // The reactor watches for edges and every ring is one, so the bell's count need not
                    // be read. Cleared first: what is completed while we collect rings again.
                    guard.clear_ready();
                    self.collect();
                }
                order = orders.recv_async() => {
                    let Ok(order) = order else { break };
                    let mut line = serde_json::to_vec(&order).unwrap_or_default();
                    line.push(b'\n');
                    // A worker that does not read is killed after its grace.
                    let _ = self.control.get_mut().try_write(&line);
                }
                // The worker says nothing after loading: whatever comes is its end.
                _ = tokio::io::AsyncReadExt::read(&mut self.control, &mut byte) => break,
            }
        }
        self.over().await;
    }

    fn collect(&self) {
        let Some(events) = self.events.lock().clone() else { return };
        for lane in &self.lanes {
            lane.collect().into_iter().for_each(|completion| events.complete(completion));
        }
    }

    async fn over(mut self) {
        // A hung process may have closed its socket: it is ended either way.
        let _ = self.child.0.start_kill();
        let status = self.child.0.wait().await;
        self.collect();
        self.lanes.iter().for_each(|lane| lane.close());
        let Some(events) = self.events.lock().take() else { return };
        let sessions: Vec<SessionId> = self.lanes.iter().map(|lane| lane.session).collect();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        events.worker_died(&sessions, &how);
    }
}
