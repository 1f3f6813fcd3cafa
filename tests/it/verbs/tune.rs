//! `graftd tune`: what is best is shown, and written where the next start reads it.

use super::{Ended, command, ended};
use crate::serve::daemon::{Setup, needs_runtime};
use serde_json::Value;

async fn tune(setup: &Setup, more: &[&str]) -> Ended {
    let mut verb = command(&setup.socket(), &[&["tune", "--rounds", "1"], more].concat());
    verb.env("GRAFTD_MODELS", setup.models()).env("GRAFTD_WORK_DIR", setup.beside("work"));
    ended(verb).await
}

#[tokio::test]
async fn what_is_best_is_written_beside_what_was_there() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let own = setup.models().join("mlp/model.toml");
    std::fs::write(&own, "# ours\ncache = false # no\n").expect("a new file");
    let dry = tune(&setup, &["--dry-run", "--json"]).await;
    assert_eq!((dry.code, &*dry.err), (Some(0), ""), "{}", dry.out);
    let report: Value = serde_json::from_str(dry.out.trim()).expect("one object");
    let spreads = report["spreads"].as_array().expect("what was tried");
    let marked = |mark: &str| spreads.iter().filter(|spread| spread[mark] == true).count();
    assert_eq!((marked("now"), marked("best"), &report["written"]), (1, 1, &Value::Null));
    assert!(spreads.iter().all(|spread| spread["rows_per_s"].as_f64().unwrap() > 0.0), "{report}");
    let text = || std::fs::read_to_string(&own).expect("the file");
    assert_eq!(text(), "# ours\ncache = false # no\n");

    let Ended { code, out, err } = tune(&setup, &["mlp"]).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("best") && out.contains("written to ") && out.contains("ALONE"), "{out}");
    let written = text();
    assert!(written.starts_with("# ours\ncache = false # no\n"), "{written}");
    for key in ["sessions = ", "threads = ", "max_batch_rows = "] {
        assert!(written.contains(key), "{written}");
    }
    let daemon = setup.start().await;
    let status = daemon.client().await.get("/v2/graftd/status").await.expect("an answer");
    assert!(String::from_utf8_lossy(&status.body).contains(", as set"), "what was written holds");
}

#[tokio::test]
async fn what_cannot_be_tuned_is_named() {
    needs_runtime!();
    let setup = Setup::new(&["mlp", "truncated"]);
    let Ended { code, err, .. } = tune(&setup, &["nope"]).await;
    assert_eq!(code, Some(78));
    assert!(err.contains("no model 'nope'") && err.contains("there are: mlp, truncated"), "{err}");
    let Ended { code, out, err } = tune(&setup, &["--dry-run", "truncated"]).await;
    assert_eq!((code, &*err), (Some(1), "graftd: a model could not be tuned\n"), "{out}");
    assert!(out.starts_with("problem: truncated: "), "{out}");
}
