//! Ten times more requests than can be answered, for a while: what is too much is told so, and then all is as before.

use super::crowd::resident_kib;
use super::size;
use crate::serve::ask::{Ask, Form, Refused, fp32, grpc, read_grpc};
use crate::serve::daemon::{Daemon, Setup, needs_runtime, soon};
use graftd::cli::client::Client;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Requests that the daemon takes at a time.
const ROOM: &str = "64";
/// How many times more is sent than can be answered.
const TIMES: f64 = 10.0;

/// Those who ask, each time for what was not asked before.
struct Clients {
    daemon: Daemon,
    number: AtomicU32,
    rest: Mutex<Vec<Client>>,
    grpc: Vec<Grpc>,
}

type Grpc = graftd::proto::grpc_inference_service_client::GrpcInferenceServiceClient<
    crate::serve::ask::Http2,
>;

impl Clients {
    async fn new(daemon: Daemon) -> Arc<Self> {
        let socket = daemon.setup.socket();
        let grpc = vec![grpc(&socket).await, grpc(&socket).await];
        Arc::new(Self { daemon, number: AtomicU32::new(0), rest: Mutex::default(), grpc })
    }

    /// Asks once, by turns over REST and gRPC; whether it was answered.
    async fn ask(&self) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let value = f32::from_bits(0x3f00_0000 + number);
        let ask = Ask::new("slow", vec![fp32("x", &[1, 256], &[value; 256])]);
        let (answer, busy) = if number.is_multiple_of(2) {
            let free = self.rest.lock().expect("no panic under it").pop();
            let mut client = match free {
                Some(client) => client,
                None => self.daemon.client().await,
            };
            let answer = ask.over(&mut client, Form::Binary).await;
            self.rest.lock().expect("no panic under it").push(client);
            (answer, 503)
        } else {
            let mut client = self.grpc[number as usize / 2 % self.grpc.len()].clone();
            let answer = client.model_infer(ask.message(Form::GrpcRaw));
            (read_grpc(soon("an answer", answer).await), tonic::Code::Unavailable as u32)
        };
        let Err(Refused { code, message, retry_after }) = answer else { return true };
        assert_eq!(code, busy, "{message}");
        assert!(retry_after.is_some() && message.contains("--requests-max"), "{message}");
        false
    }

    /// Gets this many answers, asking again for each that is refused; how many there are a second.
    #[expect(clippy::disallowed_methods, reason = "a figure, by which load is scaled")]
    async fn rate(self: &Arc<Self>, answers: u32) -> f64 {
        const LANES: u32 = 16;
        let start = Instant::now();
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let this = self.clone();
            lanes.spawn(async move {
                let mut got = 0;
                while got < answers / LANES {
                    got += u32::from(this.ask().await);
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.expect("every refusal is a good one");
        }
        f64::from(answers) / start.elapsed().as_secs_f64()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_and_then_all_is_as_before() {
    needs_runtime!();
    let flags = ["--sessions", "1", "--requests-max", ROOM];
    let clients = Clients::new(Setup::new(&["slow"]).flags(&flags).start().await).await;
    clients.rate(32).await;
    let before = clients.rate(u32::try_from(size(64, 320)).expect("few")).await;
    let memory = resident_kib(&clients.daemon);
    let seconds = size(2, 60);
    let count = (TIMES * before * f64::from(u32::try_from(seconds).expect("few"))) as u64;
    let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / (TIMES * before)));
    let (mut flood, mut peak, mut answered, mut refused) = (JoinSet::new(), memory, 0_u64, 0_u64);
    let mut sent = 0;
    while sent < count {
        tokio::select! {
            _ = beat.tick() => {
                let client = clients.clone();
                flood.spawn(async move { client.ask().await });
                sent += 1;
                if sent % 64 == 0 {
                    peak = peak.max(resident_kib(&clients.daemon));
                }
            }
            Some(end) = flood.join_next() => match end.expect("every refusal is a good one") {
                true => answered += 1,
                false => refused += 1,
            },
        }
    }
    // At once, while the last of the flood is still there.
    let after = clients.rate(u32::try_from(size(64, 320)).expect("few")).await;
    while let Some(end) = flood.join_next().await {
        match end.expect("every refusal is a good one") {
            true => answered += 1,
            false => refused += 1,
        }
    }
    clients.daemon.metric_is("graftd_requests_in_flight", 0.0).await;
    clients.daemon.metric_is("graftd_queued_rows", 0.0).await;
    let later = clients.rate(u32::try_from(size(64, 320)).expect("few")).await;
    let grown = peak - memory;
    println!(
        "{count} requests in {seconds} s: {answered} answered, {refused} refused; answers a second: {before:.0} \
         before, {after:.0} behind the last of them, {later:.0} \
         once those are answered; memory {memory} KiB before, {peak} KiB at most"
    );
    assert!(refused > 0, "it was not too much");
    assert!(answered > 0, "nobody was served");
    assert!(grown < 64 << 10, "the daemon grew by {grown} KiB");
    // Nobody is refused who comes when there is room.
    assert!(clients.ask().await && clients.ask().await);
}
