//! What takes long is shown at the foot of a terminal, and nowhere else.

use super::command;
use super::stand_in::{Said, StandIn};
use super::terminal::Terminal;
use crate::serve::daemon::{Setup, needs_runtime, soon};
use rustix::process::Signal;

/// What takes the last line back.
const WIPED: &str = "\x1b[2K";

fn says(path: &str) -> Said {
    match path {
        "/v2/repository/index" => {
            (200, r#"[{"name": "m", "version": "1", "state": "LOADING", "reason": "warming up"}]"#)
        }
        _ => (200, "{}"),
    }
}

/// What a verb prints while its terminal shows `line`, which is wiped at the end.
async fn shows(late: &'static str, arguments: &[&str], line: &str) -> String {
    let daemon = StandIn::new(late, says);
    let (terminal, theirs) = Terminal::new();
    let mut verb = command(&daemon.socket(), arguments);
    let child = verb.env("TERM", "xterm").stderr(theirs).spawn().expect("the program starts");
    // It holds the terminal open.
    drop(verb);
    terminal.shows(line).await;
    daemon.let_go();
    let output = soon("the verb's end", child.wait_with_output()).await.expect("it ends");
    let text = terminal.ended().await;
    assert!(output.status.success(), "{text}");
    let after = text.rsplit(line).next().expect("one part at least");
    assert!(after.contains(WIPED), "{text:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn an_answer_that_is_waited_for() {
    let arguments = ["infer", "m", "--json", "{}", "--raw"];
    assert_eq!(shows("/infer", &arguments, "waiting for 'm' to answer").await, "{}\n");
}

#[tokio::test]
async fn a_load_with_how_far_it_is() {
    let printed = shows("/load", &["load", "m"], "loading m  1: warming up").await;
    assert_eq!(printed, "m:1 is loading: warming up\n");
}

#[tokio::test]
async fn nothing_where_standard_error_is_no_terminal() {
    let daemon = StandIn::new("", says);
    for arguments in [&["infer", "m", "--json", "{}", "--raw"][..], &["load", "m"]] {
        super::good(&daemon.socket(), arguments).await;
    }
}

#[tokio::test]
async fn the_models_of_a_start_with_the_log_above_them() {
    needs_runtime!();
    let (terminal, theirs) = Terminal::new();
    let setup = Setup::new(&["mlp", "conv"]).variable("TERM", "xterm").on_terminal(theirs);
    let mut daemon = setup.start().await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    drop(daemon);
    let text = terminal.ended().await;
    let at_foot = |text: &str| text.contains("looking at the models") || text.contains("loaded; ");
    assert!(at_foot(&text), "{text}");
    let lines: Vec<&str> = text.split('\n').filter(|line| line.contains("INFO")).collect();
    assert!(lines.len() > 3, "{text}");
    for line in lines {
        // What was at the foot is wiped before a line of the log takes its place.
        let line = line.trim_end().rsplit(WIPED).next().expect("one part at least");
        assert!(!at_foot(line), "{line:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_a_file_has_lines_alone() {
    needs_runtime!();
    let mut daemon = Setup::new(&["mlp"]).variable("TERM", "xterm").start().await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let strange = |line: &&String| line.contains('\x1b') || line.contains("loaded; ");
    assert_eq!(daemon.lines().iter().find(strange), None);
}
