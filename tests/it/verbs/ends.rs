//! How verbs end that cannot do what they were asked: the codes of `graftd --help`, each with a sentence.

use super::stand_in::{Said, StandIn, stale};
use super::{Ended, graftd};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What asks a daemon.
const ASKING: &[&[&str]] = &[
    &["status"],
    &["status", "--json"],
    &["inspect", "m"],
    &["load", "m"],
    &["unload", "m"],
    &["infer", "m", "--json", "{}"],
    &["infer", "m"],
];

/// The sentence of a verb that ends so, which is all that it says.
async fn ends(socket: &Path, arguments: &[&str], expected: i32) -> String {
    let Ended { code, out, err } = graftd(socket, arguments).await;
    assert_eq!((code, &*out), (Some(expected), ""), "{arguments:?}: {err}");
    let sentence = err.strip_prefix("graftd: ").unwrap_or_else(|| panic!("{arguments:?}: {err}"));
    assert_eq!(sentence.lines().count(), 1, "{arguments:?}: {err}");
    sentence.to_owned()
}

#[tokio::test]
async fn a_daemon_that_is_not_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (missing, stale) = (folder.path().join("none.sock"), stale(folder.path()));
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no socket").expect("a new file");
    for arguments in ASKING {
        for (socket, why) in [
            (&missing, "there is no socket"),
            (&stale, "nobody listens on"),
            (&plain, "nobody listens on"),
        ] {
            let sentence = ends(socket, arguments, 69).await;
            let start = format!("graftd serve --socket {}", socket.display());
            assert!(sentence.contains(why) && sentence.contains(&start), "{sentence}");
        }
        // A folder, or a path that no socket can have, is told as what it is.
        let long = folder.path().join("x".repeat(200));
        let sentence = ends(&long, arguments, 69).await;
        assert!(sentence.contains("cannot connect to "), "{sentence}");
    }
}

#[tokio::test]
async fn the_flag_counts_over_the_variable() {
    let arguments = ["status", "--socket", "/nowhere/flag.sock"];
    let sentence = ends(Path::new("/nowhere/variable.sock"), &arguments, 69).await;
    assert!(sentence.contains("/nowhere/flag.sock"), "{sentence}");
}

#[tokio::test]
async fn a_socket_of_somebody_who_speaks_otherwise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("other.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a new socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whatever comes, the answer is not HTTP.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"SSH-2.0-x\r\n\r\n").await;
            // Until the other side has had enough.
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    for arguments in ASKING {
        let sentence = ends(&socket, arguments, 69).await;
        assert!(sentence.contains("does not speak HTTP"), "{arguments:?}: {sentence}");
    }
}

#[tokio::test]
async fn a_daemon_of_another_kind() {
    let daemon = StandIn::new("", |_: &str| -> Said { (404, "not here") });
    for arguments in ASKING {
        let sentence = ends(&daemon.socket(), arguments, 1).await;
        assert!(sentence.starts_with("the daemon answered 404: "), "{arguments:?}: {sentence}");
    }
}

#[tokio::test]
async fn not_now_but_perhaps_later() {
    let busy = |_: &str| -> Said { (503, r#"{"error": "the queue is full"}"#) };
    let daemon = StandIn::new("", busy);
    for arguments in ASKING {
        let sentence = ends(&daemon.socket(), arguments, 75).await;
        let expected = "the daemon answered 503: the queue is full (try again in 2 s)\n";
        assert_eq!(sentence, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn wrong_usage() {
    let nowhere = Path::new("/nowhere");
    let table: &[(&[&str], &str)] = &[
        (&[], "Usage: graftd <COMMAND>"),
        (&["stats"], "'status'"),
        (&["status", "--jsn"], "'--json'"),
        (&["infer"], "<MODEL>"),
        (&["serve", "--rows-max", "0"], "1 or more"),
        (&["check", "--isolation", "both"], "worker, auto, none"),
    ];
    for (arguments, expected) in table {
        let Ended { code, out, err } = graftd(nowhere, arguments).await;
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn a_wrong_setting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("graftd.toml");
    std::fs::write(&file, "rows_mx = 5\n").expect("a new file");
    let file = file.to_str().expect("UTF-8");
    for verb in ["serve", "check"] {
        let Ended { code, err, .. } = graftd(Path::new("s.sock"), &[verb, "--config", file]).await;
        assert_eq!(code, Some(78), "{verb}: {err}");
        assert!(err.contains("rows_mx") && err.contains("rows_max"), "{err}");
    }
    let gone = ["serve", "--models", "/nowhere", "--socket", "s.sock"];
    let Ended { code, err, .. } = graftd(Path::new("s.sock"), &gone).await;
    assert!(matches!(code, Some(78)), "{code:?}: {err}");
}

#[tokio::test]
async fn a_library_that_is_no_onnx_runtime_ends_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("graftd.sock");
    // A folder of models that would be told of, were it looked at.
    let models = crate::serve::daemon::fixtures().join("models");
    let models = models.to_str().expect("UTF-8");
    let ours = crate::serve::daemon::PROGRAM;
    for (library, why) in [("/etc/passwd", "dlopen failed"), (ours, "")] {
        let arguments = ["serve", "--models", models, "--onnxruntime", library];
        let Ended { code, out, err } = graftd(&socket, &arguments).await;
        assert_eq!((code, &*out), (Some(78), ""), "{err}");
        let last = err.lines().last().expect("a sentence");
        let expected = format!("graftd: {library} is no usable ONNX Runtime library: ");
        assert!(last.starts_with(&expected) && last.contains(why), "{err}");
        assert!(last.contains("expected a libonnxruntime.so of version 1.24 or newer"), "{err}");
        assert!(!err.contains("model ") && !socket.exists(), "{err}");
    }
}
