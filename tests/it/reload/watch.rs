//! The directory followed: files that come in pieces, are replaced, go, and come back.

use super::generation::{adds, overwrite, publish};
use super::{added, asked, entry, reaches};
use crate::daemon::{Daemon, Settings, library};
use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;

fn following(test: &str, library: std::path::PathBuf) -> Arc<Daemon> {
    let daemon = Arc::new(Daemon::start(test, Settings::new(library)));
    tokio::spawn(daemon.repository.clone().follow());
    daemon
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_changes_and_goes_is_seen_without_being_told() {
    let Some(library) = library("what_comes_changes_and_goes_is_seen") else { return };
    let daemon = following("follow", library);
    let models = daemon.models();
    publish(&models, "stays", 1, &adds(0.5));
    let file = publish(&models, "m", 1, &adds(1.0));
    added(&daemon, "m", 1.0).await;
    added(&daemon, "stays", 0.5).await;
    publish(&models, "m", 1, &adds(2.0));
    added(&daemon, "m", 2.0).await;
    overwrite(&file, &adds(3.0));
    added(&daemon, "m", 3.0).await;
    // Weights that do not change are not loaded again: the stage stays.
    let stage = daemon.service.model("m", None).unwrap().properties["graftd.digest"].clone();
    fs::write(models.join("m/README"), "a file beside").unwrap();
    publish(&models, "marker", 1, &adds(9.0));
    added(&daemon, "marker", 9.0).await;
    assert_eq!(daemon.service.model("m", None).unwrap().properties["graftd.digest"], stage);
    fs::remove_dir_all(models.join("m")).unwrap();
    super::until(&daemon, "m is gone", || entry(&daemon, "m").is_none()).await;
    publish(&models, "m", 1, &adds(4.0));
    added(&daemon, "m", 4.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_comes_in_pieces_is_taken_up_when_it_is_whole() {
    let Some(library) = library("a_file_that_comes_in_pieces") else { return };
    let daemon = following("pieces", library);
    let models = daemon.models();
    publish(&models, "m", 1, &adds(1.0));
    added(&daemon, "m", 1.0).await;
    let bytes = adds(2.0);
    let mut file = File::create(models.join("m/1/model.onnx")).unwrap();
    for piece in bytes.chunks(40) {
        file.write_all(piece).unwrap();
        file.sync_all().unwrap();
        // Between the pieces others are loaded, and the old content answers.
        let other = format!("other{}", piece[0]);
        publish(&models, &other, 1, &adds(f32::from(piece[0])));
        added(&daemon, &other, f32::from(piece[0])).await;
        let now = asked(&daemon, "m", 4.0).await.unwrap();
        assert!([1.0, 2.0].contains(&now), "{now}");
    }
    drop(file);
    added(&daemon, "m", 2.0).await;
    assert_eq!(entry(&daemon, "m").unwrap().reason, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_cut_off_says_so_and_is_tried_again_when_it_changes() {
    let Some(library) = library("a_model_that_is_cut_off_says_so") else { return };
    let daemon = following("cutoff", library);
    let models = daemon.models();
    let file = publish(&models, "m", 1, &adds(1.0)[..70]);
    reaches(&daemon, "m", "UNAVAILABLE").await;
    let why = entry(&daemon, "m").unwrap().reason;
    assert!(why.contains("not an ONNX model"), "{why}");
    overwrite(&file, &adds(1.0));
    added(&daemon, "m", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_vanishes_takes_nothing_with_it_and_is_followed_when_it_is_back() {
    let Some(library) = library("a_directory_that_vanishes_takes_nothing") else { return };
    let mut settings = Settings::new(library);
    settings.watch.interval = std::time::Duration::from_millis(50);
    let daemon = Arc::new(Daemon::start("vanish", settings));
    tokio::spawn(daemon.repository.clone().follow());
    let models = daemon.models();
    for (name, number) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
        publish(&models, name, 1, &adds(number));
        added(&daemon, name, number).await;
    }
    let away = models.with_file_name("away");
    fs::rename(&models, &away).unwrap();
    assert!(daemon.repository.scan().await.unwrap_err().contains("cannot be read"));
    // An empty directory in its place, as where a mount failed.
    fs::create_dir(&models).unwrap();
    daemon.repository.scan().await.unwrap();
    for (name, number) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
        assert_eq!(asked(&daemon, name, 7.0).await.unwrap(), number);
    }
    fs::remove_dir(&models).unwrap();
    fs::rename(&away, &models).unwrap();
    publish(&models, "b", 1, &adds(5.0));
    added(&daemon, "b", 5.0).await;
    // One of three is no accident.
    fs::remove_dir_all(models.join("a")).unwrap();
    super::until(&daemon, "a is gone", || entry(&daemon, "a").is_none()).await;
    assert_eq!(asked(&daemon, "c", 8.0).await.unwrap(), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_stay_away_are_unloaded_in_the_end() {
    let Some(library) = library("models_that_stay_away_are_unloaded_in_the_end") else { return };
    let mut settings = Settings::new(library);
    settings.removal_grace = std::time::Duration::from_millis(300);
    let daemon = Arc::new(Daemon::start("away", settings));
    publish(&daemon.models(), "m", 1, &adds(1.0));
    daemon.repository.scan().await.unwrap();
    fs::remove_dir_all(daemon.models().join("m")).unwrap();
    daemon.repository.scan().await.unwrap();
    assert_eq!(asked(&daemon, "m", 1.0).await.unwrap(), 1.0, "held");
    tokio::spawn(daemon.repository.clone().follow());
    super::until(&daemon, "m is gone", || entry(&daemon, "m").is_none()).await;
    daemon.assert_empty().await;
}
