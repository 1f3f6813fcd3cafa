//! Load and unload by name, and what the index says of it.

use super::generation::{adds, publish};
use super::{asked, entry, load, reaches};
use crate::daemon::{Daemon, Settings, library};
use bytes::Bytes;
use graftd::error::ErrorKind;
use graftd::repository::Overrides;
use graftd::repository::control::{Control, Mode, Named};
use std::fs;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_loaded_changed_unloaded_and_loaded_again() {
    let Some(library) = library("a_model_is_loaded_changed_unloaded_and_loaded_again") else {
        return;
    };
    let daemon = Daemon::start("byname", Settings::new(library));
    let models = daemon.models();
    let unknown = load(&daemon, "m").await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound, "{unknown}");
    daemon.repository.unload("m").unwrap();
    publish(&models, "m", 1, &adds(7.0));
    load(&daemon, "m").await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 7.0);
    load(&daemon, "m").await.unwrap();
    let file = publish(&models, "m", 1, &adds(8.0));
    load(&daemon, "m").await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 8.0);
    daemon.repository.unload("m").unwrap();
    let gone = asked(&daemon, "m", 1.0).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound, "{gone}");
    assert_eq!(daemon.service.model_ready("m", None).unwrap_err().kind, ErrorKind::NotFound);
    reaches(&daemon, "m", "UNAVAILABLE").await;
    assert_eq!(entry(&daemon, "m").unwrap().reason, "unloaded");
    assert!(daemon.repository.index(true).is_empty());
    // Nobody asked for it since.
    publish(&models, "m", 1, &adds(9.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap_err().kind, ErrorKind::NotFound);
    load(&daemon, "m").await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 9.0);
    // Gone with its folder, and back with it.
    daemon.repository.unload("m").unwrap();
    fs::remove_dir_all(models.join("m")).unwrap();
    daemon.repository.scan().await.unwrap();
    assert_eq!(entry(&daemon, "m"), None);
    daemon.repository.unload("m").unwrap();
    assert!(!file.exists());
    publish(&models, "m", 1, &adds(10.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 10.0);
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_fail_leave_the_old_ones_serving_and_are_not_tried_again() {
    let Some(library) = library("files_that_fail_leave_the_old_ones_serving") else { return };
    let daemon = Daemon::start("broken", Settings::new(library));
    let models = daemon.models();
    publish(&models, "m", 1, b"no model");
    let why = load(&daemon, "m").await.unwrap_err();
    assert_eq!(why.kind, ErrorKind::BadRequest);
    assert!(
        why.message.contains("version 1") && why.message.contains("not an ONNX model"),
        "{why}"
    );
    assert_eq!(entry(&daemon, "m").unwrap().state, "UNAVAILABLE");
    publish(&models, "m", 1, &adds(1.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 5.0).await.unwrap(), 1.0);
    assert_eq!(entry(&daemon, "m").unwrap().reason, "");
    publish(&models, "m", 1, &adds(2.0)[..100]);
    daemon.repository.scan().await.unwrap();
    let index = entry(&daemon, "m").unwrap();
    assert_eq!((index.state, index.reason.contains("older ones answer")), ("READY", true));
    assert_eq!(asked(&daemon, "m", 6.0).await.unwrap(), 1.0);
    // A load says what is wrong even where nothing changed since, and the old content still answers.
    assert_eq!(load(&daemon, "m").await.unwrap_err().kind, ErrorKind::BadRequest);
    assert_eq!(asked(&daemon, "m", 7.0).await.unwrap(), 1.0);
    publish(&models, "m", 1, &adds(3.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 8.0).await.unwrap(), 3.0);
    assert_eq!(entry(&daemon, "m").unwrap().reason, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_answered_when_their_model_is_unloaded() {
    let Some(library) = library("requests_in_flight_are_answered_when_their_model") else { return };
    let daemon = Arc::new(Daemon::start("inflight", Settings::new(library)));
    let model = daemon.name("m");
    for round in 0..20_u8 {
        publish(&daemon.models(), &model, 1, &adds(f32::from(round)));
        load(&daemon, &model).await.unwrap();
        let asks: Vec<_> = (0..32_u8)
            .map(|number| {
                let (daemon, model) = (daemon.clone(), model.clone());
                tokio::spawn(async move { asked(&daemon, &model, f32::from(number)).await })
            })
            .collect();
        daemon.repository.unload(&model).unwrap();
        for ask in asks {
            match ask.await.unwrap() {
                Ok(added) => assert_eq!(added, f32::from(round)),
                Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error}"),
            }
        }
        reaches(&daemon, &model, "UNAVAILABLE").await;
    }
    daemon.assert_empty().await;
    // No stage is left behind: with the last one goes the last process.
    let left = || !daemon.workers("m").is_empty();
    let empty = async {
        while left() {
            tokio::task::yield_now().await;
        }
    };
    let wait = std::time::Duration::from_secs(60);
    tokio::time::timeout(wait, empty).await.expect("every worker is ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_may_come_in_the_request() {
    let Some(library) = library("a_model_may_come_in_the_request") else { return };
    let daemon = Daemon::start("carried", Settings::new(library));
    let files = |path: &str, number| Overrides {
        config: None,
        files: vec![(path.into(), Bytes::from(adds(number)))],
    };
    let outside = daemon.repository.load("m", files("../../1/model.onnx", 1.0)).await;
    assert_eq!(outside.unwrap_err().kind, ErrorKind::BadRequest);
    for name in ["..", "a/b", ""] {
        let refused = daemon.repository.load(name, files("1/model.onnx", 1.0)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::BadRequest, "{name}");
    }
    daemon.repository.load("m", files("1/model.onnx", 4.0)).await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 4.0);
    // It is not in the directory and stays all the same.
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 2.0).await.unwrap(), 4.0);
    daemon.repository.load("m", files("1/model.onnx", 5.0)).await.unwrap();
    assert_eq!(asked(&daemon, "m", 3.0).await.unwrap(), 5.0);
    // Settings may come alone, for files that are in the directory.
    let settings = |text: &str| Overrides { config: Some(text.into()), files: Vec::new() };
    let nowhere = daemon.repository.load("m", settings("{}")).await.unwrap_err();
    assert_eq!(nowhere.kind, ErrorKind::BadRequest, "{nowhere}");
    publish(&daemon.models(), "other", 1, &adds(8.0));
    daemon.repository.load("other", settings(r#"{"max_batch_size": 3}"#)).await.unwrap();
    assert_eq!(asked(&daemon, "other", 3.0).await.unwrap(), 8.0);
    assert_eq!(daemon.service.model_config("other", None).unwrap().max_batch_size, 3);
    let wrong = daemon.repository.load("other", settings(r#"{"nope": 3}"#)).await.unwrap_err();
    assert!(wrong.message.contains("nope"), "{wrong}");
    // The directory's files take over when they are asked for.
    assert_eq!(load(&daemon, "m").await.unwrap_err().kind, ErrorKind::NotFound);
    publish(&daemon.models(), "m", 1, &adds(6.0));
    load(&daemon, "m").await.unwrap();
    assert_eq!(asked(&daemon, "m", 4.0).await.unwrap(), 6.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modes_decide_what_is_loaded_and_who_may_change_it() {
    let Some(library) = library("modes_decide_what_is_loaded_and_who_may_change_it") else {
        return;
    };
    let names = ["one".to_owned()].into();
    let explicit = Control::Explicit(Named { all: false, names });
    let daemon = Daemon::controlled("modes", Settings::new(library.clone()), explicit);
    publish(&daemon.models(), "one", 1, &adds(1.0));
    publish(&daemon.models(), "two", 1, &adds(2.0));
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "one", 1.0).await.unwrap(), 1.0);
    assert_eq!(entry(&daemon, "two").unwrap().reason, "not loaded");
    assert_eq!(asked(&daemon, "two", 1.0).await.unwrap_err().kind, ErrorKind::NotFound);
    load(&daemon, "two").await.unwrap();
    assert_eq!(asked(&daemon, "two", 1.0).await.unwrap(), 2.0);
    for mode in [Mode::None, Mode::Poll] {
        let control = Control::new(Some(mode), &[]).unwrap();
        let daemon = Daemon::controlled("modes", Settings::new(library.clone()), control);
        publish(&daemon.models(), "one", 1, &adds(1.0));
        daemon.repository.scan().await.unwrap();
        assert_eq!(load(&daemon, "one").await.unwrap_err().kind, ErrorKind::Forbidden);
        assert_eq!(daemon.repository.unload("one").unwrap_err().kind, ErrorKind::Forbidden);
        assert_eq!(asked(&daemon, "one", 1.0).await.unwrap(), 1.0);
    }
}
