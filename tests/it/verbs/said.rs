//! What the verbs print that ask a daemon or look at files.

use super::{Ended, good, graftd};
use crate::serve::ask::{Ask, Form, fp32};
use crate::serve::daemon::{PROGRAM, Setup, fixtures, needs_runtime, soon};
use serde_json::Value;
use std::path::Path;
use tokio::process::Command;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn status_is_a_table_or_json() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp", "truncated"]).start().await;
    let ask = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]);
    ask.of(&daemon, Form::Json).await.expect("an answer");
    daemon.metric_is("graftd_requests_in_flight", 0.0).await;
    let socket = daemon.setup.socket();
    let text = good(&socket, &["status"]).await;
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no line {start} in\n{text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(text.starts_with("graftd ") && text.contains("  ready  up "), "{text}");
    assert_eq!(line("mlp  ")[..3], ["mlp", "1", "ready"]);
    assert_eq!(line("mlp  ")[4..6], ["1", "0"], "answered and failed");
    assert!(line("truncated:1 is unavailable: ").len() > 4);
    assert_eq!(line("requests "), ["requests", "0", "of", "16384"]);
    let json = json(&good(&socket, &["status", "--json"]).await);
    assert_eq!((&json["ready"], &json["models"][0]["answered"]), (&true.into(), &1.into()));
    assert_eq!(json["models"][1]["state"], "unavailable");
}

#[tokio::test]
async fn explain_lists_decisions_or_tells_one_in_full() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let socket = daemon.setup.socket();
    assert_eq!(good(&socket, &["explain"]).await, "no request was decided yet\n");
    let ask = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])]);
    for id in ["first", "evil\u{1b}[2J/\n", ""] {
        let ask = Ask { id: id.to_owned(), ..ask.clone() };
        ask.of(&daemon, Form::Json).await.expect("an answer");
    }
    let text = good(&socket, &["explain"]).await;
    let lines: Vec<&str> = text.lines().collect();
    let heading: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heading, ["ID", "MODEL", "ROWS", "AGE", "ROUTES", "REASON"]);
    assert!(lines[1].ends_with("  hit  the answer is kept"), "{text}");
    assert!(lines[2].starts_with("evil\\u{1b}[2J/\\n  mlp:1 "), "{text}");
    assert!(lines[3].ends_with("  whole  there is no shared base to go through"), "{text}");
    let told = good(&socket, &["explain", "evil\u{1b}[2J/\n"]).await;
    let row = "  row 0: hit, as the answer is kept\n    whole of mlp:1 ";
    assert!(told.contains(row) && told.contains(" 'first', "), "{told}");
    let number = lines[1].split_whitespace().next().expect("a number");
    let one = json(&good(&socket, &["explain", number, "--json"]).await);
    assert_eq!(one["decisions"][0]["why"][0]["lineage"][0]["id"], "first");
    let Ended { code, err, .. } = graftd(&socket, &["explain", "gone"]).await;
    assert!(code == Some(1) && err.contains("request 'gone' is not among those"), "{err}");
}

#[tokio::test]
async fn load_and_unload_say_what_became_of_the_model() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let socket = daemon.setup.socket();
    let said = good(&socket, &["unload", "mlp"]).await;
    // The last of its sessions may still be on its way out.
    assert!(
        ["mlp:1 is unavailable: unloaded\n", "mlp:1 is unloading\n"].contains(&&*said),
        "{said}"
    );
    assert_eq!(good(&socket, &["load", "mlp"]).await, "mlp:1 is ready\n");
    daemon.setup.add("fixed_batch", "new");
    assert_eq!(good(&socket, &["load", "new"]).await, "new:1 is ready\n");
    assert_eq!(good(&socket, &["unload", "nope"]).await, "nope is not served\n");
    daemon.setup.add("truncated", "bad");
    let loose = daemon.setup.models().join("loose");
    std::fs::create_dir(&loose).expect("a folder");
    std::fs::write(loose.join("model.onnx"), "a model").expect("a file");
    let table = [
        (["load", "nope"], "there is no model 'nope'"),
        (
            ["load", "loose"],
            "model 'loose' cannot be loaded: loose: 'model.onnx' lies in no version's folder",
        ),
        (["load", "bad"], "model 'bad' cannot be loaded: version 1: "),
    ];
    for (arguments, expected) in table {
        let Ended { code, out, err } = graftd(&socket, &arguments).await;
        assert_eq!((code, &*out), (Some(1), ""), "{arguments:?}: {err}");
        assert!(err.starts_with("graftd: the daemon answered ") && err.contains(expected), "{err}");
        assert!(err.ends_with('\n') && err.lines().count() == 1, "{err}");
    }
}

#[tokio::test]
async fn inspect_asks_a_daemon_or_reads_a_file() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let socket = daemon.setup.socket();
    let text = good(&socket, &["inspect", "mlp"]).await;
    assert!(text.starts_with("mlp\n") && text.contains("graftd.rows: independent"), "{text}");
    let served = json(&good(&socket, &["inspect", "mlp", "--json"]).await);
    assert_eq!(served["metadata"]["inputs"][0]["name"], "x");
    assert_eq!(served["configuration"]["name"], "mlp");
    assert_eq!(served["sharing"]["left"][0]["members"][0], "mlp:1");
    let Ended { code, err, .. } = graftd(&socket, &["inspect", "mlp", "--version", "7"]).await;
    assert!(code == Some(1) && err.contains('7'), "{code:?}: {err}");
}

#[tokio::test]
async fn inspect_needs_no_daemon_for_a_file() {
    let nowhere = Path::new("/nowhere");
    let file = fixtures().join("models/mlp/1/model.onnx");
    let file = file.to_str().expect("UTF-8");
    let read = json(&good(nowhere, &["inspect", file, "--json"]).await);
    assert_eq!(read["deterministic"], "yes");
    let missing = graftd(nowhere, &["inspect", "gone.onnx"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.starts_with("graftd: gone.onnx: No such file"), "{}", missing.err);
}

#[tokio::test]
async fn completions_of_every_shell_know_every_verb() {
    let nowhere = Path::new("/nowhere");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = good(nowhere, &["completions", shell]).await;
        for verb in ["serve", "check", "infer", "status", "inspect", "explain", "load", "unload"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    let Ended { code, err, .. } = graftd(nowhere, &["completions", "tcsh"]).await;
    assert!(code == Some(2) && err.contains("possible values: bash, "), "{code:?}: {err}");
}

#[tokio::test]
async fn bash_completes_verbs_and_flags() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("graftd.bash");
    std::fs::write(&script, good(folder.path(), &["completions", "bash"]).await).expect("a file");
    let complete = "COMP_WORDS=(graftd \"$@\"); COMP_CWORD=$#; _graftd graftd \"${@: -1}\" x; \
                    echo \"${COMPREPLY[@]}\"";
    let typed = async |words: &[&str]| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &format!("source {}; {complete}", script.display()), "bash"]);
        let output = soon("bash", bash.args(words).output()).await.expect("bash starts");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(typed(&["ins"]).await, "inspect");
    assert_eq!(typed(&["serve", "--rows"]).await, "--rows-max");
}

#[tokio::test]
async fn every_verb_has_a_page_and_a_help_with_its_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("UTF-8");
    assert_eq!(good(folder.path(), &["man", path]).await, "");
    const VERBS: [&str; 9] = [
        "serve",
        "check",
        "infer",
        "status",
        "inspect",
        "explain",
        "load",
        "unload",
        "completions",
    ];
    for verb in VERBS {
        assert!(folder.path().join(format!("graftd-{verb}.1")).is_file(), "{verb}");
        let help = good(folder.path(), &[verb, "--help"]).await;
        assert!(help.contains(&format!("Usage: graftd {verb}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    assert!(good(folder.path(), &["--version"]).await.starts_with("graftd "));
    assert!(Path::new(PROGRAM).is_file());
}
