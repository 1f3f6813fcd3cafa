//! One worker process: started, listened to, ended.

use super::arena::Arena;
use super::chatter;
use super::child::INHERITED;
use super::control::{LINE_BYTES_MAX, Letter, LoadOrder, LoadReply, ModelNumber, Order, Word};
use super::lane::{LaneState, WorkerLane};
use crate::engine::{CompletionSink, Lane};
use crate::id::SessionId;
use crate::reactor;
use command_fds::{CommandFdExt, FdMapping};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};

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

/// Who is told of what a worker does, for as long as it lives.
#[derive(Default)]
struct Audience {
    events: Option<Arc<dyn WorkerEvents>>,
    ended: bool,
}

/// What the daemon knows of a worker; its watch knows the same.
struct Shared {
    models: Mutex<BTreeMap<ModelNumber, Vec<Arc<WorkerLane>>>>,
    audience: Mutex<Audience>,
    /// Loads that wait for the worker's word; none once it has ended.
    loads: Mutex<Option<BTreeMap<ModelNumber, oneshot::Sender<LoadReply>>>>,
    /// How the process ended.
    end: tokio::sync::OnceCell<String>,
    ended: Notify,
}

/// A running worker process.
pub struct Worker {
    shared: Arc<Shared>,
    letters: flume::Sender<Letter>,
    killer: Arc<Killer>,
    /// Models that were ever loaded into it.
    models: AtomicU32,
    /// The process's number.
    pub pid: u32,
}

/// A model that lives in a worker.
pub struct Housed {
    /// Its number there.
    pub model: ModelNumber,
    /// Its lanes, in the order of their sessions.
    pub lanes: Vec<Arc<dyn Lane>>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Housed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Housed").field("model", &self.model).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts a worker and waits until its first model is loaded.
    ///
    /// # Errors
    /// The runtime refused the model, the process died, or it took too long.
    pub async fn start(
        config: &WorkerConfig,
        sessions: &[SessionId],
        events: Arc<dyn WorkerEvents>,
    ) -> Result<(Self, Housed), StartError> {
        let (ours, theirs) = UnixStream::pair()?;
        let bell =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let their_bell = bell.try_clone()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut child = spawn(config, [theirs.into(), their_bell])?;
        if let Some(stderr) = child.stderr.take() {
            let label = config.label.clone();
            let tell = move |line: &str| tracing::warn!(model = label, "its worker says: {line}");
            tokio::spawn(chatter::relay(stderr, tell));
        }
        let pid = child.id().ok_or_else(|| StartError::Died("at once".into()))?;
        // Before anyone waits for its end: a process that was waited for has no number any more, or another one has it.
        let killer = Arc::new(Killer(open_pid(pid)?));
        let (letters, waiting) = flume::bounded(ORDERS_MAX);
        let shared = Arc::new(Shared {
            models: Mutex::default(),
            audience: Mutex::default(),
            loads: Mutex::new(Some(BTreeMap::new())),
            end: tokio::sync::OnceCell::new(),
            ended: Notify::new(),
        });
        let (reading, control) = ours.into_split();
        let watch = Watch { shared: shared.clone(), child: Reaper(child), control };
        tokio::spawn(watch.run(reactor::watch(bell)?, waiting, reading));
        let worker = Self { shared, letters, killer, models: AtomicU32::new(0), pid };
        let housed = worker.load(&config.order, sessions, config.load_timeout).await?;
        if !worker.set_events(events) {
            return Err(StartError::Died(worker.last_word().await));
        }
        Ok((worker, housed))
    }

    /// Loads one more model into the process.
    ///
    /// # Errors
    /// As for [`start`](Self::start). One that took too long may still come: the process is then better ended.
    pub async fn load(
        &self,
        order: &LoadOrder,
        sessions: &[SessionId],
        patience: Duration,
    ) -> Result<Housed, StartError> {
        let model = self.models.fetch_add(1, Ordering::Relaxed);
        let (arena, memory) = Arena::create(order.geometry.total_bytes())?;
        let (sender, word) = oneshot::channel();
        let known = self.shared.loads.lock().as_mut().map(|loads| loads.insert(model, sender));
        let letter =
            Letter { order: Order::Load { model, order: order.clone() }, memory: Some(memory) };
        if known.is_none() || self.letters.send_async(letter).await.is_err() {
            return Err(StartError::Died(self.last_word().await));
        }
        let warnings = match tokio::time::timeout(patience, word).await {
            Err(_) => return Err(StartError::Late(patience)),
            Ok(Ok(LoadReply::Ready { warnings })) => warnings,
            Ok(Ok(LoadReply::Refused { reason })) => return Err(StartError::Refused(reason)),
            Ok(Err(_)) => return Err(StartError::Died(self.last_word().await)),
        };
        let arena = Arc::new(arena);
        let lane = |(number, &session): (usize, &SessionId)| {
            Arc::new(WorkerLane {
                session,
                model,
                number,
                arena: arena.clone(),
                geometry: order.geometry,
                state: Mutex::new(LaneState::default()),
                orders: self.letters.clone(),
                killer: self.killer.clone(),
            })
        };
        let lanes: Vec<_> = sessions.iter().enumerate().map(lane).collect();
        self.shared.models.lock().insert(model, lanes.clone());
        if self.has_ended() {
            // Nobody else closes lanes that came after the end.
            lanes.iter().for_each(|lane| lane.close());
        }
        let lanes = lanes.into_iter().map(|lane| lane as Arc<dyn Lane>).collect();
        Ok(Housed { model, lanes, warnings })
    }

    /// Lets a model go that has nothing in hand; the process stays.
    pub fn unload(&self, model: ModelNumber) {
        self.shared.models.lock().remove(&model);
        // A worker that does not listen keeps it until it ends.
        let _ = self.letters.try_send(Letter { order: Order::Unload { model }, memory: None });
    }

    /// Has a model's batches run as urgently as any from now on.
    pub fn serves(&self, model: ModelNumber) {
        // A worker that does not listen is slower for it, and has worse to come.
        let _ = self.letters.try_send(Letter { order: Order::Serve { model }, memory: None });
    }

    /// Directs what happens from now on to someone else; says no where the process is gone already.
    #[must_use]
    pub fn set_events(&self, events: Arc<dyn WorkerEvents>) -> bool {
        let mut audience = self.shared.audience.lock();
        audience.events = Some(events).filter(|_| !audience.ended);
        !audience.ended
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.audience.lock().ended
    }

    /// Batches completed so far over all lanes; the count wraps.
    #[must_use]
    pub fn completed(&self) -> u32 {
        let models = self.shared.models.lock();
        models.values().flatten().fold(0, |sum, lane| sum.wrapping_add(lane.completed()))
    }

    /// Ends the process without telling anybody: its sessions have nothing in hand.
    pub fn stop(&self) {
        self.shared.audience.lock().events = None;
        self.killer.kill();
    }

    /// How the process ended, which it is about to.
    async fn last_word(&self) -> String {
        let over = async {
            loop {
                let ended = self.shared.ended.notified();
                if let Some(how) = self.shared.end.get() {
                    return how.clone();
                }
                ended.await;
            }
        };
        let over = tokio::time::timeout(2 * END_WAIT, over).await;
        over.unwrap_or_else(|_| "it broke off without a word".into())
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

fn spawn(config: &WorkerConfig, descriptors: [OwnedFd; 2]) -> io::Result<Child> {
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
    forked(command)
}

/// Starts a process from the one thread that does, and that lives as long as the daemon.
///
/// A worker asks to be killed when its parent dies, by which Linux means the thread that forked it; threads of the
/// runtime end once they were idle for a while.
fn forked(mut command: Command) -> io::Result<Child> {
    type Fork = Box<dyn FnOnce() + Send>;
    static FORKER: Mutex<Option<flume::Sender<Fork>>> = Mutex::new(None);
    let mut forker = FORKER.lock();
    let forks = match &*forker {
        Some(forks) => forks.clone(),
        None => {
            let (forks, queue) = flume::bounded::<Fork>(64);
            let run = move || queue.iter().for_each(|fork| fork());
            // Tried anew by the next worker where the system has no thread to give now.
            std::thread::Builder::new().name("graftd-fork".into()).spawn(run)?;
            forker.insert(forks).clone()
        }
    };
    drop(forker);
    let (told, child) = flume::bounded(1);
    let runtime = tokio::runtime::Handle::current();
    let fork = move || {
        let _inside = runtime.enter();
        // Whoever asked waits below.
        let _ = told.send(command.spawn());
    };
    let gone = || io::Error::other("the thread that starts processes is gone");
    forks.send(Box::new(fork)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Reads what a worker says until it says nothing more, or what makes no sense.
async fn listen(reading: OwnedReadHalf, words: flume::Sender<Word>) {
    let mut reading = BufReader::new(reading);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reading).take(LINE_BYTES_MAX as u64);
        if !matches!(bounded.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let Ok(word) = serde_json::from_slice(&line) else { return };
        if words.send_async(word).await.is_err() {
            return;
        }
    }
}

/// The task that listens to a worker for as long as it lives.
struct Watch {
    shared: Arc<Shared>,
    child: Reaper,
    control: OwnedWriteHalf,
}

impl Watch {
    async fn run(
        self,
        bell: AsyncFd<OwnedFd>,
        letters: flume::Receiver<Letter>,
        reading: OwnedReadHalf,
    ) {
        let (said, words) = flume::bounded(1);
        tokio::spawn(listen(reading, said));
        loop {
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
                letter = letters.recv_async() => {
                    let Ok(letter) = letter else { break };
                    // One that does not read its orders is no use; a terminate that is lost is followed by a kill.
                    let sent = letter.send(self.control.as_ref().as_fd());
                    if sent.is_err() && letter.memory.is_some() {
                        break;
                    }
                }
                word = words.recv_async() => {
                    // The worker says nothing but what came of loads: whatever else comes is its end.
                    let Ok(Word { model, reply }) = word else { break };
                    let waits = self.shared.loads.lock().as_mut().and_then(|l| l.remove(&model));
                    let Some(waits) = waits else { break };
                    // Whoever waited may have lost patience.
                    let _ = waits.send(reply);
                }
            }
        }
        self.over().await;
    }

    fn lanes(&self) -> Vec<Arc<WorkerLane>> {
        self.shared.models.lock().values().flatten().cloned().collect()
    }

    fn collect(&self) {
        let Some(events) = self.shared.audience.lock().events.clone() else { return };
        for lane in self.lanes() {
            lane.collect().into_iter().for_each(|completion| events.complete(completion));
        }
    }

    async fn over(mut self) {
        let waited = tokio::time::timeout(END_WAIT, self.child.0.wait()).await;
        if waited.is_err() {
            // A hung process may have closed its socket: it is ended either way.
            let _ = self.child.0.start_kill();
        }
        let status = self.child.0.wait().await;
        self.collect();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        // In this order: whoever asks how it ended is told, whoever is told that it ended finds no lane open.
        let _ = self.shared.end.set(how.clone());
        let events = {
            let mut audience = self.shared.audience.lock();
            audience.ended = true;
            audience.events.take()
        };
        let lanes = self.lanes();
        lanes.iter().for_each(|lane| lane.close());
        self.shared.loads.lock().take();
        self.shared.ended.notify_waiters();
        let Some(events) = events else { return };
        let sessions: Vec<SessionId> = lanes.iter().map(|lane| lane.session).collect();
        events.worker_died(&sessions, &how);
    }
}
