//! Many daemons that want one socket.

use super::size;
use crate::serve::daemon::{PROGRAM, needs_runtime, soon};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Waits until a daemon has announced itself or ended; what it said last, where it ended.
async fn outcome(mut child: Child) -> Result<Child, (Option<i32>, String)> {
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    soon("a word or an end", stdout.read_line(&mut line)).await.expect("the pipe can be read");
    if !line.is_empty() {
        return Ok(child);
    }
    let output = soon("an end", child.wait_with_output()).await.expect("it can be waited for");
    Err((output.status.code(), String::from_utf8(output.stderr).expect("text")))
}

#[tokio::test]
async fn of_a_hundred_that_start_at_once_one_serves() {
    needs_runtime!();
    for _ in 0..size(1, 100) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("models")).expect("a new folder");
        let mut racers = JoinSet::new();
        for _ in 0..100 {
            let mut racer = Command::new(PROGRAM);
            racer.arg("serve").arg("--models").arg(folder.path().join("models"));
            racer.arg("--socket").arg(folder.path().join("graftd.sock"));
            racer.arg("--work-dir").arg(folder.path().join("work"));
            racer.env("RUST_LOG", "error").kill_on_drop(true);
            racer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            racers.spawn(outcome(racer.spawn().expect("the program starts")));
        }
        let mut serving = Vec::new();
        let mut others = 0;
        while let Some(outcome) = racers.join_next().await {
            match outcome.expect("no panic") {
                Ok(child) => serving.push(child),
                Err((code, said)) => {
                    assert_eq!((code, said.lines().count()), (Some(78), 1), "{said}");
                    assert!(said.contains("another graftd (process "), "{said}");
                    others += 1;
                }
            }
        }
        assert_eq!((serving.len(), others), (1, 99));
        let mut winner = serving.pop().expect("one");
        let pid = winner.id().expect("it runs");
        let socket = folder.path().join("graftd.sock");
        let connected = std::os::unix::net::UnixStream::connect(&socket).expect("it listens");
        let holder = rustix::net::sockopt::socket_peercred(&connected).expect("credentials");
        assert_eq!(u32::try_from(holder.pid.as_raw_nonzero().get()), Ok(pid));
        winner.kill().await.expect("it can be killed");
    }
}
