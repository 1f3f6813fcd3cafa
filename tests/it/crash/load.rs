//! Workers that die or hang while they start: a few tries, then a reason, and no model is lost for good.

use super::crowd::{Ask, all, int64};
use crate::daemon::{Daemon, Settings, fixture, library};
use graftd::error::ErrorKind;
use graftd::rows::Inputs;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Settings under which workers are started by a script, in whose `$1` stands the folder of the script.
fn scripted(library: PathBuf, script: &str) -> (Settings, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("worker");
    let dir = folder.path().display();
    let real = env!("CARGO_BIN_EXE_graftd");
    fs::write(&program, format!("#!/bin/sh\ndir={dir}\nreal={real}\n{script}\n")).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut settings = Settings::new(library);
    settings.load.program = program;
    (settings, folder)
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

pub(super) fn quotient(a: i64, b: i64, expected: Result<i64, ErrorKind>) -> Ask {
    let tensor = |value: i64| int64(&[1, 4], Some(0), &[value; 4]);
    let inputs = Inputs { tensors: vec![tensor(a), tensor(b)], rows: 1 };
    Ask { inputs, expected: expected.map(|y| [y.to_le_bytes(); 4].concat()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_kills_its_worker_at_load_is_refused_after_three_tries() {
    let Some(library) = library("a_model_that_kills_its_worker_at_load_is_refused") else { return };
    let (settings, folder) = scripted(library, "echo try >> $dir/tries; kill -FPE $$");
    let daemon = Daemon::start("atload", settings);
    let why = daemon.load("mlp", &fixture("mlp")).await.unwrap_err();
    assert!(why.contains("signal: 8") && why.contains("3 times"), "{why}");
    assert_eq!(lines(&folder.path().join("tries")), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_come_back_fails_its_requests_until_it_can() {
    let Some(library) = library("a_worker_that_cannot_come_back_fails_its_requests") else {
        return;
    };
    let script = "[ -e $dir/broken ] && kill -SEGV $$\nexec $real \"$@\"";
    let (settings, folder) = scripted(library, script);
    let daemon = Arc::new(Daemon::start("comeback", settings));
    let spec = daemon.load_fixture("div").await;
    all(&daemon, &spec, vec![quotient(12, 4, Ok(3))]).await;
    let flag = folder.path().join("broken");
    fs::write(&flag, "").unwrap();
    daemon.workers("div").iter().for_each(|worker| worker.signal(Signal::KILL));
    all(&daemon, &spec, vec![quotient(12, 3, Err(ErrorKind::ModelFailed))]).await;
    let (stage, health) = daemon.health.recv_async().await.unwrap();
    assert_eq!(stage, spec.stage);
    assert!(health.unwrap_err().contains("signal: 11"));
    fs::remove_file(&flag).unwrap();
    assert_eq!(daemon.health.recv_async().await.unwrap(), (stage, Ok(())));
    all(&daemon, &spec, vec![quotient(12, 2, Ok(6))]).await;
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_worker_that_nobody_waits_for_gives_way() {
    let Some(library) = library("only_a_worker_that_nobody_waits_for_gives_way") else { return };
    // A look at the order leaves it where it is.
    let look =
        "import socket; print(socket.socket(fileno=3).recv(65536, socket.MSG_PEEK).decode())";
    let script = format!("python3 -c '{look}' >> $dir/orders\nexec $real \"$@\"");
    let (settings, folder) = scripted(library, &script);
    let daemon = Arc::new(Daemon::start("courteous", settings));
    let spec = daemon.load_fixture("div").await;
    daemon.workers("div").iter().for_each(|worker| worker.signal(Signal::KILL));
    all(&daemon, &spec, vec![quotient(12, 4, Ok(3))]).await;
    let orders = fs::read_to_string(folder.path().join("orders")).unwrap();
    let mut orders = orders.lines().filter(|line| !line.is_empty());
    assert!(orders.next().unwrap().contains("\"gives_way\":true"));
    assert!(orders.next().unwrap().contains("\"gives_way\":false"));
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_of_the_worker_apart_is_not_its_suspects_fault() {
    let Some(library) = library("a_failed_start_of_the_worker_apart") else { return };
    let script = "case \"$2\" in *apart)\n\
        echo try >> $dir/tries; [ $(wc -l < $dir/tries) -lt 3 ] && kill -KILL $$\n\
        esac\nexec $real \"$@\"";
    let (settings, folder) = scripted(library, script);
    let daemon = Arc::new(Daemon::start("apart", settings));
    let spec = daemon.load_fixture("div").await;
    let mut crowd = vec![quotient(i64::MIN, -1, Err(ErrorKind::ModelCrashed))];
    crowd.extend((1..200).map(|number| quotient(12 * number, 12, Ok(number))));
    all(&daemon, &spec, crowd).await;
    assert!(lines(&folder.path().join("tries")) >= 3);
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_ups_that_the_model_refuses_do_not_keep_a_worker_from_coming_back() {
    let Some(library) = library("warm_ups_that_the_model_refuses") else { return };
    let mut settings = Settings::new(library);
    // The largest batch is more than a slot holds, so its warm-up fails at load and ever after.
    settings.load.batch_rows_max = Some(1000);
    settings.load.batch_bytes = 4096;
    let daemon = Arc::new(Daemon::start("warm", settings));
    let spec = daemon.load_fixture("div").await;
    daemon.workers("div").iter().for_each(|worker| worker.signal(Signal::KILL));
    all(&daemon, &spec, vec![quotient(12, 4, Ok(3))]).await;
    daemon.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_over_a_made_up_row_does_not_hold_up_loading() {
    let Some(library) = library("a_worker_that_hangs_over_a_made_up_row") else { return };
    // It says that it is ready and then does nothing until its daemon goes.
    let script = "read order <&3; echo '{\"model\":0,\"reply\":{\"Ready\":{\"warnings\":[]}}}' >&3; read never <&3";
    let (mut settings, _folder) = scripted(library, script);
    settings.load.load_timeout = Duration::from_secs(1);
    let daemon = Daemon::start("hangs", settings);
    let spec = daemon.load("mlp", &fixture("mlp")).await.unwrap();
    assert!(!spec.cuts_rows(), "rows could not be tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_writes_much_is_read_and_shares_no_pipe_with_us() {
    let Some(library) = library("a_worker_that_writes_much_is_read_and_shares_no_pipe") else {
        return;
    };
    // Far more than a pipe holds, some of it without any end of line.
    let script = r#"head -c 4000000 /dev/zero | tr '\\0' '\\n' >&2
head -c 4000000 /dev/zero >&2
exec "$real" "$@""#;
    let (settings, _folder) = scripted(library, script);
    let daemon = Arc::new(Daemon::start("chatty", settings));
    let spec = daemon.load_fixture("div").await;
    all(&daemon, &spec, vec![quotient(9, 3, Ok(3)), quotient(8, 2, Ok(4))]).await;
    let theirs = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    let workers = daemon.workers("div");
    assert!(!workers.is_empty());
    let ours = fs::read_link("/proc/self/fd/2").unwrap();
    assert!(workers.iter().all(|worker| theirs(worker.pid) != ours));
    daemon.assert_empty().await;
}
