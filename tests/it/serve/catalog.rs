//! What is served: broken models, versions, layouts, and directories that change.

use super::ask::{Ask, Form, Got, fp32, grpc, singles};
use super::daemon::{Daemon, Setup, fixtures, needs_runtime};
use graftd::proto::{
    ModelConfigRequest, ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest,
};
use serde_json::Value;
use std::fs;

/// A row of four for the models that add something to it.
fn four(model: &str, first: f32) -> Ask {
    Ask::new(model, vec![fp32("x", &[1, 4], &[first; 4])])
}

async fn got(daemon: &Daemon, ask: Ask) -> Got {
    ask.of(daemon, Form::Binary).await.expect("an answer")
}

#[tokio::test]
async fn broken_models_are_listed_with_their_reason() {
    needs_runtime!();
    let setup = Setup::new(&["badfile", "truncated", "mlp", "external"]);
    // The same length, so that the file stays whole: its weights now lie outside of its folder.
    setup.add("external", "escaped");
    let folder = setup.models().join("escaped");
    let file = folder.join("1/model.onnx");
    let bytes = fs::read(&file).expect("the fixture");
    let place = bytes.windows(11).position(|name| name == b"weights.bin").expect("its name");
    let bytes = [&bytes[..place], b"../eigh.bin", &bytes[place + 11..]].concat();
    fs::write(&file, bytes).expect("a file of ours");
    fs::rename(folder.join("1/weights.bin"), folder.join("eigh.bin")).expect("a file of ours");
    let daemon = setup.start().await;
    let mut client = daemon.client().await;
    let mut rpc = grpc(&daemon.setup.socket()).await;
    for (name, reason) in [
        ("badfile", "not an ONNX model"),
        ("truncated", "not an ONNX model"),
        ("escaped", "../eigh.bin"),
    ] {
        let answer = client.get(&format!("/v2/models/{name}")).await.expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let error = body["error"].as_str().expect("an error");
        assert_eq!(answer.status, 503, "{name}");
        assert!(error.contains("unavailable") && error.contains(reason), "{error}");
        let ready = client.get(&format!("/v2/models/{name}/ready")).await.expect("an answer");
        assert_eq!(
            (ready.status, &ready.body[..]),
            (400, format!("{{\"name\":\"{name}\",\"ready\":false}}").as_bytes())
        );
        let request = ModelReadyRequest { name: name.to_owned(), version: String::new() };
        assert!(!rpc.model_ready(request).await.expect("an answer").into_inner().ready);
        let request = ModelMetadataRequest { name: name.to_owned(), version: String::new() };
        let status = rpc.model_metadata(request).await.expect_err("it is broken");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, error));
    }
    assert_eq!(client.get("/v2/health/ready").await.expect("an answer").status, 200);
    // Weights beside the model are as good as weights inside it.
    let x = fp32("x", &[2, 16], &[0.5; 32]);
    let inside = got(&daemon, Ask::new("mlp", vec![x.clone()])).await;
    assert_eq!(got(&daemon, Ask::new("external", vec![x])).await.outputs, inside.outputs);
}

#[tokio::test]
async fn versions_and_layouts() {
    needs_runtime!();
    let setup = Setup::new(&["versions"]);
    let flat = fixtures().join("flat/add_one.onnx");
    fs::copy(flat, setup.models().join("add_one.onnx")).expect("a copy");
    let daemon = setup.start().await;
    let answer = daemon.client().await.get("/v2/models/versions").await.expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["versions"], serde_json::json!(["1", "3"]));
    for form in Form::ALL {
        for (version, number, sum) in
            [(None, "3", 5.0), (Some("1"), "1", 3.0), (Some("3"), "3", 5.0)]
        {
            let ask = Ask { version: version.map(str::to_owned), ..four("versions", 2.0) };
            let got = ask.of(&daemon, form).await.expect("an answer");
            assert_eq!((&*got.version, singles(&got.outputs[0])), (number, vec![sum; 4]));
        }
        let refused = four("versions", 2.0).version("2").of(&daemon, form).await;
        let refused = refused.expect_err("there is none");
        assert!(refused.message.contains("no version '2'; its versions are 1, 3"), "{refused:?}");
        let got = four("add_one", 2.0).of(&daemon, form).await.expect("an answer");
        assert_eq!((&*got.version, singles(&got.outputs[0])), ("1", vec![3.0; 4]));
    }
}

#[tokio::test]
async fn a_reload_follows_the_directory_and_never_serves_old_rows() {
    needs_runtime!();
    let version = |number: u8| fixtures().join(format!("models/versions/{number}/model.onnx"));
    let setup = Setup::new(&["mlp"]);
    let folder = setup.models().join("m/1");
    fs::create_dir_all(&folder).expect("a new folder");
    let file = folder.join("model.onnx");
    fs::copy(version(1), &file).expect("a copy");
    let daemon = setup.start().await;
    let first = got(&daemon, four("m", 2.0)).await;
    assert_eq!((&*first.route, singles(&first.outputs[0])), ("hit=0 join=0 run=1", vec![3.0; 4]));
    daemon.reload().await;
    let same = got(&daemon, four("m", 2.0)).await;
    assert_eq!((&*same.route, &same.outputs), ("hit=1 join=0 run=0", &first.outputs));
    // Other content under the same name and number, rewritten in place.
    fs::copy(version(3), &file).expect("a copy");
    let seen = daemon.lines().len();
    daemon.reload().await;
    daemon.logged("model m:1 is retired", seen).await;
    let changed = got(&daemon, four("m", 2.0)).await;
    assert_eq!(
        (&*changed.route, singles(&changed.outputs[0])),
        ("hit=0 join=0 run=1", vec![5.0; 4])
    );
    // And back: whatever was kept of it is right again.
    fs::copy(version(1), &file).expect("a copy");
    let seen = daemon.lines().len();
    daemon.reload().await;
    daemon.logged("model m:1 is retired", seen).await;
    assert_eq!(got(&daemon, four("m", 2.0)).await.outputs, first.outputs);
    let seen = daemon.lines().len();
    // One goes, one comes, the others stay.
    fs::remove_dir_all(daemon.setup.models().join("m")).expect("a folder of ours");
    daemon.setup.add("fixed_batch", "new");
    daemon.reload().await;
    let refused = four("m", 2.0).of(&daemon, Form::Binary).await.expect_err("it is gone");
    assert_eq!((refused.code, refused.message.contains("'m' is not known")), (404, true));
    assert_eq!(singles(&got(&daemon, four("new", 2.0)).await.outputs[0]), [3.0; 4]);
    got(&daemon, Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.5; 16])])).await;
    // Private copies go with what they were made for.
    daemon.logged("model m:1 is retired", seen).await;
    let stash = fs::read_dir(daemon.setup.beside("work")).expect("a folder").next();
    let stash = stash.expect("the stash").expect("an entry").path();
    let copies = fs::read_dir(stash).expect("a folder").map(|entry| entry.expect("an entry"));
    let copies = copies.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(copies, 2, "mlp and new");
}

#[tokio::test]
async fn a_file_that_changes_under_a_live_daemon_changes_nothing() {
    needs_runtime!();
    let daemon = Setup::new(&["versions", "external"]).start().await;
    let row = |value: f32| Ask::new("external", vec![fp32("x", &[1, 16], &[value; 16])]);
    let before = got(&daemon, row(0.5)).await;
    let models = daemon.setup.models();
    fs::write(models.join("external/1/weights.bin"), b"short").expect("a file of ours");
    fs::write(models.join("versions/3/model.onnx"), b"garbage").expect("a file of ours");
    assert_eq!(got(&daemon, row(0.5).parameter("no_cache", true)).await.outputs, before.outputs);
    assert_eq!(singles(&got(&daemon, four("versions", 4.0)).await.outputs[0]), [7.0; 4]);
    // Told to look, the daemon says what is wrong and keeps what works.
    let seen = daemon.lines().len();
    daemon.reload().await;
    daemon.logged("versions:3 changed and cannot be loaded", seen).await;
    daemon.logged("external:1 changed and cannot be loaded", seen).await;
    assert_eq!(singles(&got(&daemon, four("versions", 5.0)).await.outputs[0]), [8.0; 4]);
    assert_eq!(got(&daemon, row(0.5).parameter("no_cache", true)).await.outputs, before.outputs);
}

#[tokio::test]
async fn what_is_no_version_is_told_so_wherever_one_is_named() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut client = daemon.client().await;
    let mut rpc = grpc(&daemon.setup.socket()).await;
    for version in ["latest", "01", "0", "-1", "1.0", "18446744073709551616"] {
        let expected = format!("'{version}' is no version; expected a whole number from 1 on");
        for verb in ["", "/ready", "/config", "/stats"] {
            let path = format!("/v2/models/mlp/versions/{version}{verb}");
            let answer = client.get(&path).await.expect("an answer");
            let text = String::from_utf8_lossy(&answer.body);
            assert!(answer.status == 404 && text.contains(&expected), "{path}: {text}");
        }
        let (name, version) = ("mlp".to_owned(), version.to_owned());
        let refused = [
            rpc.model_ready(ModelReadyRequest { name: name.clone(), version: version.clone() })
                .await
                .err(),
            rpc.model_metadata(ModelMetadataRequest {
                name: name.clone(),
                version: version.clone(),
            })
            .await
            .err(),
            rpc.model_config(ModelConfigRequest { name: name.clone(), version: version.clone() })
                .await
                .err(),
            rpc.model_statistics(ModelStatisticsRequest { name, version: version.clone() })
                .await
                .err(),
            rpc.model_statistics(ModelStatisticsRequest { name: String::new(), version })
                .await
                .err(),
        ];
        for status in refused {
            let status = status.expect("a refusal");
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
            assert!(status.message().starts_with(&expected), "{status:?}");
        }
    }
}
