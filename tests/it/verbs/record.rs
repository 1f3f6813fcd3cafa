//! `graftd serve --record`: what came is kept, and can be sent and simulated again.

use super::{Ended, good, graftd};
use crate::serve::daemon::{Setup, needs_runtime};
use crate::serve::samples::models;
use graftd::traffic::report::Report;
use graftd::traffic::trace::Trace;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

const BENCH: &[&str] = &["--warm-up", "0", "--repeats", "1", "--json", "-"];

async fn report(socket: &Path, arguments: &[&str]) -> Report {
    let text = good(socket, &[arguments, BENCH].concat()).await;
    serde_json::from_str(&text).expect("a report")
}

#[tokio::test]
async fn what_was_recorded_is_sent_and_simulated_again() {
    needs_runtime!();
    let setup = Setup::new(&[]).serving(&models());
    let file = setup.beside("monday.trace");
    let trace = file.to_str().expect("UTF-8").to_owned();
    let mut daemon = setup.flags(&["--record", &trace]).start().await;
    let socket = daemon.setup.socket();
    let asked =
        ["bench", "iris=3", "digits_digit", "digits_parity", "--rate", "300", "--duration", "1"];
    let more = ["--popularity", "zipf:1.0,20", "--deadline-ms", "60000"];
    let sent = report(&socket, &[&asked[..], &more].concat()).await.runs[0].sent;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());

    let read = Trace::read(&std::fs::read(&file).expect("a file")).expect("a trace");
    // One request of each model showed what it takes.
    assert_eq!((read.asks.len() as u64, read.cut_short), (sent + 3, false));
    assert!(read.asks.iter().all(|ask| ask.deadline == Some(Duration::from_secs(60))));
    let rows: std::collections::BTreeSet<u64> = read.asks.iter().map(|ask| ask.row).collect();
    assert!(rows.len() < 80, "rows that came again are known: {}", rows.len());

    let daemon = Setup::new(&[]).serving(&models()).start().await;
    let again = report(&daemon.setup.socket(), &["bench", "--trace", &trace]).await;
    assert_eq!(again.runs[0].answered, sent + 3, "{again:?}");
    let plan = daemon.setup.beside("plan.toml");
    let model = |name: &str| format!("[[model]]\nname = '{name}'\nfixed_ms = 0.1\nrow_ms = 0.1\n");
    let text = ["iris", "digits_digit", "digits_parity"].map(model).concat();
    std::fs::write(&plan, format!("runs = 2\n{text}")).expect("a file");
    let plan = plan.to_str().expect("UTF-8");
    let nowhere = Path::new("/nowhere");
    let simulated = report(nowhere, &["simulate", plan, "--trace", &trace]).await;
    assert_eq!(simulated.runs[0].answered, sent + 3, "{simulated:?}");
    let faster = ["simulate", plan, "--trace", &trace, "--rate", "3000"];
    let faster = report(nowhere, &faster).await;
    assert_eq!(faster.runs[0].answered, sent + 3);
    assert!(faster.runs[0].rate > 2_500.0, "{faster:?}");
}

#[tokio::test]
async fn recording_ends_with_its_budget_and_the_daemon_does_not() {
    needs_runtime!();
    let setup = Setup::new(&[]).serving(&models());
    let file = setup.beside("small.trace");
    let flags = ["--record", file.to_str().expect("UTF-8"), "--record-bytes", "500"];
    let daemon = setup.flags(&flags).start().await;
    let asked = ["bench", "iris", "--duration", "0.3", "--connections", "1"];
    let sent = report(&daemon.setup.socket(), &asked).await.runs[0].answered;
    daemon.logged("--record-bytes are used up", 0).await;
    let bytes = std::fs::read(&file).expect("a file");
    let read = Trace::read(&bytes).expect("a trace");
    assert!(bytes.len() <= 500 && !read.cut_short, "{} bytes", bytes.len());
    assert!(!read.asks.is_empty() && (read.asks.len() as u64) < sent, "{}", read.asks.len());
}

#[tokio::test]
async fn what_is_no_trace_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("other.trace");
    std::fs::write(&file, "hello").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (name, told) in [(file, "--record FILE"), ("/nowhere.trace", "No such file")] {
        let arguments = ["bench", "--trace", name];
        let Ended { code, out, err } = graftd(Path::new("/nowhere"), &arguments).await;
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        assert!(err.contains(told) && err.contains(name), "{err}");
    }
}
