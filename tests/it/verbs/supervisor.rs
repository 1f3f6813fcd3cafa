//! What a service manager is told, as systemd is: on a socket of its own, in the words of `sd_notify`.

use crate::serve::daemon::{Setup, needs_runtime, soon};
use rustix::process::Signal;
use std::path::Path;
use tokio::net::UnixDatagram;

/// A manager that gave the daemon its socket.
struct Manager(UnixDatagram);

impl Manager {
    /// The first word that begins so; until then the daemon may tell how far it is.
    async fn told(&self, start: &str) -> String {
        let mut bytes = vec![0; 4096];
        loop {
            let size = soon(start, self.0.recv(&mut bytes)).await.expect("a datagram");
            let word = str::from_utf8(&bytes[..size]).expect("UTF-8");
            if word.starts_with(start) {
                return word.to_owned();
            }
            assert!(word.starts_with("STATUS="), "{word} before {start}");
        }
    }
}

#[tokio::test]
async fn it_is_told_of_start_reload_and_end() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let path = setup.beside("notify.sock");
    let manager = Manager(UnixDatagram::bind(&path).expect("a new socket"));
    let mut daemon = setup.variable("NOTIFY_SOCKET", path.to_str().expect("UTF-8")).start().await;
    let ready = manager.told("READY=1\n").await;
    assert!(ready.contains("\nSTATUS=graftd serves 1 model; try: "), "{ready}");
    daemon.setup.add("conv", "conv");
    daemon.signal(Signal::HUP);
    let reloading = manager.told("RELOADING=1\n").await;
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    let ready = manager.told("READY=1\n").await;
    assert!(ready.contains("\nSTATUS=graftd serves 2 models; try: "), "{ready}");
    daemon.signal(Signal::TERM);
    manager.told("STOPPING=1\nSTATUS=").await;
    assert!(daemon.ended().await.success());
}

#[tokio::test]
async fn one_that_does_not_listen_keeps_nobody_from_serving() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let path = setup.beside("nobody.sock");
    let daemon = setup.variable("NOTIFY_SOCKET", path.to_str().expect("UTF-8")).start().await;
    daemon.logged("service manager", 0).await;
    assert!(daemon.said.starts_with("graftd serves 1 model; "), "{}", daemon.said);
}

#[test]
fn the_example_for_systemd_asks_to_be_told() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/graftd.service");
    let text = std::fs::read_to_string(path).expect("the example");
    for line in ["Type=notify", "TimeoutStartSec=infinity", "RestartPreventExitStatus=78"] {
        assert!(text.lines().any(|found| found == line), "no {line}");
    }
}
