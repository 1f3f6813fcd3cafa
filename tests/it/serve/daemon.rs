//! The real binary on a socket of its own, for as long as a test lives.
//!
//! Nothing here waits for a time: a start ends with the announced line, everything else with a line of
//! the log, an answer or an exit.

use crate::daemon::process::{self, Process};
use graftd::cli::client::Client;
use graftd::engine::runtime::PINNED_VERSION;
use rustix::process::Signal;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;

/// Longer than anything here takes on a busy machine: reached only where something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_graftd");

/// The folder of this file's fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Whether ONNX Runtime is there; says which test is skipped where it is not.
pub(crate) fn has_runtime(test: &str) -> bool {
    let target = Path::new(PROGRAM).ancestors().nth(2).expect("target/PROFILE/graftd");
    let library = target.join(format!("onnxruntime/libonnxruntime.so.{PINNED_VERSION}"));
    let there = library.is_file();
    if !there {
        let test = test.trim_end_matches("::here").trim_end_matches("::{{closure}}");
        let why = format!("no {}; type `make runtime`", library.display());
        // Past the test harness, which shows only what failing tests print.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
    }
    there
}

/// Returns from a test, with its name, where ONNX Runtime is not there.
macro_rules! needs_runtime {
    () => {
        fn here() {}
        if !$crate::serve::daemon::has_runtime(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}
pub(crate) use needs_runtime;

/// What the daemon wrote to its log.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grew: Notify,
}

/// A folder for one test: models, socket, private copies.
pub(crate) struct Setup {
    folder: TempDir,
    models: Option<PathBuf>,
    flags: Vec<String>,
    under: Vec<String>,
    variables: Vec<(String, String)>,
    terminal: Option<File>,
}

impl Setup {
    /// A model directory with these fixtures.
    pub(crate) fn new(fixtures: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("models")).expect("a new folder");
        let setup = Self {
            folder,
            models: None,
            flags: Vec::new(),
            under: Vec::new(),
            variables: Vec::new(),
            terminal: None,
        };
        fixtures.iter().for_each(|name| setup.add(name, name));
        setup
    }

    /// Serves this directory instead.
    pub(crate) fn serving(mut self, models: &Path) -> Self {
        self.models = Some(models.to_owned());
        self
    }

    /// More flags for `graftd serve`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// One more variable of the environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the daemon this terminal as its standard error; nothing is known of its log then.
    pub(crate) fn on_terminal(mut self, terminal: File) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// Starts the program by another, which gets it as its first argument.
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.under.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// The model directory.
    pub(crate) fn models(&self) -> PathBuf {
        self.models.clone().unwrap_or_else(|| self.folder.path().join("models"))
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("graftd.sock")
    }

    /// A path beside models and socket.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Copies a fixture into the model directory under a name.
    pub(crate) fn add(&self, fixture: &str, name: &str) {
        let source = fixtures().join("models").join(fixture);
        copy(&source, &self.models().join(name));
    }

    /// Starts the daemon without waiting for it.
    pub(crate) fn spawn(mut self) -> Starting {
        let words = self.under.iter().map(String::as_str).chain([PROGRAM]).collect::<Vec<_>>();
        let mut child = Command::new(words[0]);
        child.args(&words[1..]);
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRAFTD_")) {
            child.env_remove(variable);
        }
        child.env_remove("ORT_DYLIB_PATH").env_remove("NOTIFY_SOCKET").env("RUST_LOG", "info");
        // What is tried while nobody asks would come between the steps of a test.
        child.env("GRAFTD_NO_AUTOTUNE", "true");
        child.envs(self.variables.iter().cloned());
        // Nor must the settings that the tester keeps in a file.
        child.env("GRAFTD_CONFIG", "/dev/null");
        // No test here is about runs that hang, and on a busy machine a run may take any time.
        child.env("GRAFTD_WATCHDOG_MS", "3600000");
        child.arg("serve").arg("--models").arg(self.models()).arg("--socket").arg(self.socket());
        child.arg("--work-dir").arg(self.beside("work")).args(&self.flags);
        child.stdin(Stdio::null()).stdout(Stdio::piped());
        child.stderr(self.terminal.take().map_or_else(Stdio::piped, Stdio::from));
        let mut child = child.kill_on_drop(true).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let stderr = child.stderr.take();
        let log = Arc::new(Log::default());
        let writer = log.clone();
        tokio::spawn(async move {
            let Some(stderr) = stderr else { return };
            let mut stderr = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = stderr.next_line().await {
                writer.lines.lock().expect("no panic under it").push(line);
                writer.grew.notify_waiters();
            }
        });
        Starting { daemon: Daemon { child, log, said: String::new(), setup: self }, stdout }
    }

    /// Starts the daemon and waits until it has announced itself.
    pub(crate) async fn start(self) -> Daemon {
        self.spawn().announced().await
    }
}

/// A daemon that has not announced itself yet.
pub(crate) struct Starting {
    pub(crate) daemon: Daemon,
    stdout: BufReader<ChildStdout>,
}

impl Starting {
    /// Waits for the announced line.
    pub(crate) async fn announced(mut self) -> Daemon {
        let read = self.stdout.read_line(&mut self.daemon.said);
        soon("the announced line", read).await.expect("the pipe can be read");
        let log = self.daemon.log.lines.lock().expect("no panic under it").join("\n");
        assert!(!self.daemon.said.is_empty(), "the daemon ended before it served:\n{log}");
        self.daemon
    }
}

/// A running daemon; it is killed when the test is over.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    log: Arc<Log>,
    /// The announced line.
    pub(crate) said: String,
    pub(crate) setup: Setup,
}

impl Daemon {
    /// A new connection for REST.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.setup.socket()).await.expect("the daemon listens")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("the daemon runs");
        let id = rustix::process::Pid::from_raw(i32::try_from(id).expect("small")).expect("not 0");
        rustix::process::kill_process(id, signal).expect("it is our child");
    }

    /// Its worker processes.
    pub(crate) fn workers(&self) -> Vec<Process> {
        let id = self.child.id().expect("the daemon runs");
        process::children(i32::try_from(id).expect("small"))
    }

    /// Makes all workers stand still, so that what runs takes as long as a test wants.
    pub(crate) fn hold(&self) -> Held {
        let workers = self.workers();
        workers.iter().for_each(Process::stop);
        Held(workers)
    }

    /// Looks at the models again and waits until that is over.
    pub(crate) async fn reload(&self) {
        const OVER: &str = "looked at the models";
        // The line of the start may come after the announcement: the log is written behind it.
        self.logged(OVER, 0).await;
        let seen = self.lines().len();
        self.signal(Signal::HUP);
        self.logged(OVER, seen).await;
    }

    /// The log so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lines.lock().expect("no panic under it").clone()
    }

    /// Waits for a line of the log that holds `text`, from line number `from` on.
    pub(crate) async fn logged(&self, text: &str, from: usize) -> String {
        let found = async {
            loop {
                let grew = self.log.grew.notified();
                if let Some(line) = self.lines().into_iter().skip(from).find(|l| l.contains(text)) {
                    return line;
                }
                grew.await;
            }
        };
        soon(&format!("'{text}' in the log"), found).await
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("the daemon's end", self.child.wait()).await.expect("a child can be waited for")
    }

    /// One number of `/metrics`: the sum over all series of that name that have the labels given with it.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.client().await.get("/metrics").await.expect("an answer");
        number(str::from_utf8(&answer.body).expect("text"), name)
    }

    /// Asks for a metric until it has this value.
    pub(crate) async fn metric_is(&self, name: &str, value: f64) {
        let reached = async {
            let mut client = self.client().await;
            loop {
                let answer = client.get("/metrics").await.expect("an answer");
                let found = number(str::from_utf8(&answer.body).expect("text"), name);
                if (found - value).abs() < f64::EPSILON {
                    return;
                }
            }
        };
        soon(&format!("{name} to be {value}"), reached).await;
    }
}

/// Workers that stand still until this is dropped.
pub(crate) struct Held(Vec<Process>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(|worker| worker.signal(Signal::CONT));
    }
}

fn number(text: &str, name: &str) -> f64 {
    let (family, wanted) = name.split_once('{').unwrap_or((name, ""));
    let wanted: Vec<&str> = wanted.trim_end_matches('}').split_terminator(',').collect();
    let series = |line: &str| {
        let (labels, value) = line.strip_prefix(family)?.rsplit_once(' ')?;
        // Else it is another family, whose name is longer.
        let bounded = labels.is_empty() || labels.starts_with('{');
        let value: f64 = value.parse().expect("a number");
        (bounded && wanted.iter().all(|label| labels.contains(label))).then_some(value)
    };
    let found: Vec<f64> = text.lines().filter_map(series).collect();
    assert!(!found.is_empty(), "no {name} in\n{text}");
    found.iter().sum()
}

/// Copies a file or a folder with all it holds.
pub(crate) fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::copy(from, to).expect("a file can be copied");
        return;
    }
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
