//! Verdicts over real models, where they have been fetched: they must agree with what was measured of each.
//!
//! Separate because it needs files that are not in the repository; without them it says so and passes.

use super::read::read;
use super::rules::{BatchVerdict, batch_axes, deterministic};
use std::path::{Path, PathBuf};

/// The folder that the fetch script fills, or another that the environment names.
fn folder() -> PathBuf {
    std::env::var_os("GRAFTD_REAL_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("models/real"), PathBuf::from)
}

#[test]
fn verdicts_agree_with_measurements() {
    let folder = folder();
    let Ok(index) = std::fs::read_to_string(folder.join("models.json")) else {
        println!("skipped: verdicts_agree_with_measurements: `make models` was not run");
        return;
    };
    let index: serde_json::Value = serde_json::from_str(&index).expect("models.json is JSON");
    let models = index["models"].as_object().expect("models.json lists models");
    for (name, about) in models {
        let path = folder.join(name).join("1/model.onnx");
        let bytes = std::fs::read(&path).expect("models.json names files that exist");
        let model = read(bytes.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let verdict = batch_axes(&model);
        let measured = about.get("batch").and_then(serde_json::Value::as_str);
        let agrees = match measured {
            Some("yes") => {
                !matches!(verdict, BatchVerdict::Mixes { .. } | BatchVerdict::None { .. })
            }
            Some("unsafe") => matches!(verdict, BatchVerdict::Mixes { .. }),
            _ => !matches!(verdict, BatchVerdict::Independent { .. }),
        };
        assert!(agrees, "{name}: measured {measured:?}, judged {verdict:?}");
        assert_eq!(deterministic(&model), Ok(()), "{name}");
    }
}
