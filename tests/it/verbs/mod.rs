//! The program as a user and a service manager meet it: what its verbs print, how they end, whom they tell.

mod bench;
mod check;
mod ends;
mod progress;
mod record;
mod said;
mod simulate;
mod stand_in;
mod supervisor;
mod terminal;
mod tune;

use crate::serve::daemon::{PROGRAM, soon};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// How a verb ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A command of the program that has no settings but these; the socket's is a variable.
fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut child = Command::new(PROGRAM);
    for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRAFTD_")) {
        child.env_remove(variable);
    }
    child.args(arguments).env("GRAFTD_SOCKET", socket).env("GRAFTD_CONFIG", "/dev/null");
    child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    child
}

/// Runs the program to its end.
async fn graftd(socket: &Path, arguments: &[&str]) -> Ended {
    ended(command(socket, arguments)).await
}

async fn ended(mut command: Command) -> Ended {
    let output = command.output();
    let output = soon("the verb's end", output).await.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// What a verb prints that ends well and says nothing else.
async fn good(socket: &Path, arguments: &[&str]) -> String {
    let Ended { code, out, err } = graftd(socket, arguments).await;
    assert_eq!((code, &*err), (Some(0), ""), "{arguments:?}: {out}");
    out
}
