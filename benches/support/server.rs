//! Servers in processes of their own: the daemon, and an echo on the same HTTP stack to hold it against.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A server; ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
}

impl Server {
    /// The daemon, serving copies of these models and no others.
    ///
    /// It has its usual settings, but for `flags`.
    pub(crate) fn daemon(models: &[&str], flags: &[&str]) -> Self {
        let file = |name: &&str| {
            let file = super::model_file(name).unwrap_or_else(|| panic!("no model {name}"));
            ((*name).to_owned(), file)
        };
        Self::of(&models.iter().map(file).collect::<Vec<_>>(), flags)
    }

    /// The daemon, serving copies of these files under these names.
    pub(crate) fn of(models: &[(String, PathBuf)], flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let served = dir.path().join("models");
        std::fs::create_dir(&served).expect("a folder for the models");
        for (name, file) in models {
            let version = served.join(name).join("1");
            std::fs::create_dir_all(&version).expect("a folder for a model");
            std::fs::copy(file, version.join("model.onnx")).expect("a copy of a model");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_graftd"));
        // What is measured must not change its sessions between two turns.
        command.arg("serve").arg("--no-autotune").arg("--models").arg(&served);
        command.arg("--work-dir").arg(dir.path().join("work"));
        command.arg("--onnxruntime").arg(super::library()).args(flags);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        Self::start(command, dir)
    }

    /// An echo whose answers have bodies of so many bytes.
    pub(crate) fn echo(answer_bytes: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = std::env::current_exe().expect("our own program");
        let mut command = Command::new(program);
        command.arg("echo").arg(answer_bytes.to_string());
        Self::start(command, dir)
    }

    fn start(mut command: Command, dir: TempDir) -> Self {
        command.arg("--socket").arg(dir.path().join("socket")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a server process");
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a word from the server");
        assert!(line.contains("serves"), "the server did not start: {line}");
        Self { child, dir }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The processes that it started.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").expect("the processes");
        let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.filter(|&pid| parent(pid) == Some(self.child.id())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything; state and parent follow it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of a process in bytes, what it shares counted in proportion.
pub(crate) fn pss_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The echo's main: reads each request whole and answers with a body of the given size.
///
/// The runtime and the connections are set up as the daemon sets up its own.
pub(crate) fn echo_main(answer_bytes: usize, socket: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads").block_on(async {
        let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
        http.http1().pipeline_flush(true).keep_alive(true);
        let answer = Bytes::from(vec![b'x'; answer_bytes]);
        println!("the echo serves {answer_bytes} bytes");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (http, answer) = (http.clone(), answer.clone());
            tokio::spawn(async move {
                let service =
                    hyper::service::service_fn(move |request| echo(request, answer.clone()));
                // A client that goes away ends its connection, and nothing else.
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn echo(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let whole = request.into_body().collect().await;
    drop(whole);
    Ok(Response::new(Full::new(answer)))
}
