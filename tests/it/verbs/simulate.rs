//! `graftd simulate`: the shipped plans run, and figures are the same on every machine.

use super::{Ended, good, graftd};
use graftd::traffic::report::{Report, Run};
use std::path::{Path, PathBuf};

fn plan(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/simulate").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

async fn simulated(arguments: &[&str]) -> Report {
    let arguments = [&["simulate"], arguments, &["--json", "-"]].concat();
    let text = good(Path::new("/nowhere"), &arguments).await;
    serde_json::from_str(&text).expect("a report")
}

#[tokio::test]
async fn every_shipped_plan_runs() {
    let folder = PathBuf::from(plan(""));
    let mut plans = 0;
    for entry in std::fs::read_dir(folder).expect("the plans") {
        let path = entry.expect("a plan").path();
        let file = path.to_str().expect("UTF-8");
        let asked =
            [file, "--rate", "100", "--duration", "5", "--repeats", "1", "--scenario", "s7"];
        let found = simulated(&asked).await;
        let run = &found.runs[0];
        assert!(run.sent > 300 && run.answered == run.sent, "{file}: {run:?}");
        assert!(run.busy.is_some_and(|busy| busy > 0.0), "{file}: {run:?}");
        plans += 1;
    }
    assert!(plans >= 2, "{plans}");
}

#[tokio::test]
async fn policies_serve_the_same_requests_side_by_side() {
    let plan = plan("two-cores.toml");
    let compare = ["--compare", "learned,eager,timeout", "--repeats", "2", "--duration", "30"];
    let asked = [&[&*plan, "--rate", "170", "--target-ms", "150"], &compare[..]].concat();
    let found = simulated(&asked).await;
    assert_eq!(found.names(), ["learned", "eager", "timeout"]);
    assert_eq!(found.runs.len(), 6);
    let (learned, eager) = (&found.runs[..2], &found.runs[2..4]);
    let sent = |runs: &[Run]| runs.iter().map(|run| run.sent).collect::<Vec<_>>();
    assert_eq!(sent(learned), sent(eager));
    let on_time = |runs: &[Run]| runs.iter().map(|run| run.on_time).sum::<f64>();
    assert!(on_time(learned) > on_time(eager), "{found:?}");
    let again = simulated(&asked).await;
    assert_eq!(again.runs, found.runs, "to the bit");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "runs = 0\n[[model]]\nname = 'a'\nfixed_ms = 1\nrow_ms = 1")
        .expect("a file");
    let (good, wrong) = (plan("two-cores.toml"), wrong.to_str().expect("UTF-8").to_owned());
    for (arguments, code, told) in [
        (vec!["/nowhere.toml", "--rate", "1"], 78, "/nowhere.toml"),
        (vec![&*wrong, "--rate", "1"], 78, "runs = 0"),
        (vec![&good], 2, "--rate"),
        (vec![&good, "--search"], 2, "--target-ms"),
        (vec![&good, "--search", "--target-ms", "1"], 1, "no rate holds"),
    ] {
        let Ended { code: found, out, err } =
            graftd(Path::new("/nowhere"), &[&["simulate"], &arguments[..]].concat()).await;
        assert_eq!((found, &*out), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
}
