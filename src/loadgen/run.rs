//! One run: requests go out at their times, or each after the answer before it, over so many connections.
//!
//! All of it is one thread's work: a client that shares the machine with the server should take little of it.

use super::door::{Door, Line};
use super::form::Form;
use crate::clock::Clock;
use crate::reactor::Alarm;
use crate::time::MonoTime;
use crate::traffic::measured::{End, Measured};
use crate::traffic::workload::Ask;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::LocalSet;

/// Requests whose time has come and that wait for a connection, at most; beyond, the client is behind.
const WAITING_MAX: usize = 1 << 16;
/// How long a client that hangs up waits first.
const HANG_UP_AFTER: Duration = Duration::from_millis(1);
/// How long nobody is bothered where nobody answered.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Requests in the order of their times.
pub type Asks = Box<dyn Iterator<Item = Ask>>;

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub struct Client {
    /// The server.
    pub door: Door,
    /// What each model's requests look like.
    pub forms: Arc<[Form]>,
    /// Connections.
    pub connections: usize,
    /// Requests under way on each; more than one over gRPC only.
    pub streams: usize,
    /// How long a request waits for its answer, and the run for the last ones after its end.
    pub patience: Duration,
}

/// When requests go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At their times, whatever comes back.
    Open,
    /// As soon as a connection has its answer.
    Closed,
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The time before anything counts.
    pub warm_up: Duration,
    /// The time that counts.
    pub counted: Duration,
    /// The time that answers are to be there in.
    pub target: Option<Duration>,
}

/// A run under way, as its tasks share it.
struct Run {
    client: Client,
    clock: Clock,
    end: Duration,
    measured: RefCell<Measured>,
    /// Answers so far, for whoever watches.
    answers: Arc<AtomicU64>,
}

/// Sends traffic and measures.
///
/// # Errors
/// A sentence, when nobody answers at the start.
pub async fn run(
    client: &Client,
    traffic: Asks,
    pace: Pace,
    span: Span,
    answers: Arc<AtomicU64>,
) -> Result<Measured, String> {
    let lines = lines(client).await?;
    let Span { warm_up, counted, target } = span;
    let run = Rc::new(Run {
        client: client.clone(),
        clock: Clock::start(),
        end: warm_up + counted,
        measured: RefCell::new(Measured::new(warm_up, counted, target)),
        answers,
    });
    let tasks = LocalSet::new();
    match pace {
        Pace::Open => {
            let (hand_over, due) = flume::bounded(WAITING_MAX);
            for line in lines {
                tasks.spawn_local(run.clone().take(line, due.clone()));
            }
            tasks.spawn_local(run.clone().dispatch(traffic, hand_over));
        }
        Pace::Closed => {
            let traffic = Rc::new(RefCell::new(traffic));
            for line in lines {
                tasks.spawn_local(run.clone().repeat(line, traffic.clone()));
            }
        }
    }
    tasks.await;
    let measured = run.measured.borrow().clone();
    Ok(measured)
}

/// One for every request that may be under way.
async fn lines(client: &Client) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for _ in 0..client.connections {
        let line = client.door.connect().await?;
        for _ in 1..client.streams {
            lines.extend(line.another());
        }
        lines.push(line);
    }
    Ok(lines)
}

impl Run {
    fn now(&self) -> Duration {
        self.clock.now().since(MonoTime::ZERO)
    }

    /// Hands requests over when their time has come, until the run is over.
    async fn dispatch(self: Rc<Self>, traffic: Asks, hand_over: flume::Sender<Ask>) {
        let Ok(alarm) = Alarm::new(self.clock) else { return };
        for ask in traffic.take_while(|ask| ask.at < self.end) {
            if self.now() < ask.at {
                // An alarm that cannot be set is late, which is measured.
                let _ = alarm.until(Some(MonoTime::ZERO.after(ask.at))).await;
            } else {
                // Those who send have their turn between two requests that are due.
                tokio::task::yield_now().await;
            }
            let behind = self.now().saturating_sub(ask.at);
            self.measured.borrow_mut().taken(ask.at, behind);
            if hand_over.send_async(ask).await.is_err() {
                return;
            }
        }
    }

    /// Sends what is due, one after the other.
    async fn take(self: Rc<Self>, line: Line, due: flume::Receiver<Ask>) {
        let mut line = Some(line);
        while let Ok(ask) = due.recv_async().await {
            let end = if self.now() > self.end + self.client.patience {
                End::Broken(format!(
                    "not sent {:?} after the end: the server is too slow for the rate",
                    self.client.patience
                ))
            } else {
                self.send(&mut line, &ask).await
            };
            self.ended(&ask, end);
        }
    }

    /// Sends one request after the other until the run is over.
    async fn repeat(self: Rc<Self>, line: Line, traffic: Rc<RefCell<Asks>>) {
        let mut line = Some(line);
        while self.now() < self.end {
            let next = traffic.borrow_mut().next();
            let Some(ask) = next else { return };
            let ask = Ask { at: self.now(), ..ask };
            let end = self.send(&mut line, &ask).await;
            self.ended(&ask, end);
        }
    }

    fn ended(&self, ask: &Ask, end: End) {
        let took = self.now().saturating_sub(ask.at);
        self.answers.fetch_add(u64::from(end == End::Answered), Ordering::Relaxed);
        self.measured.borrow_mut().ended(ask.at, ask.rows, took, end);
    }

    /// Sends a request over a line, which is opened anew where it broke.
    async fn send(&self, line: &mut Option<Line>, ask: &Ask) -> End {
        let form = &self.client.forms[ask.model];
        let request = self.client.door.request(form, ask);
        let open = match line.take() {
            Some(open) => Ok(open),
            None => self.client.door.connect().await,
        };
        let mut open = match open {
            Ok(open) => open,
            Err(why) => {
                tokio::time::sleep(BACK_OFF).await;
                return End::Broken(why);
            }
        };
        let patience = if ask.hangs_up { HANG_UP_AFTER } else { self.client.patience };
        let end = tokio::time::timeout(patience, open.infer(request)).await;
        match end {
            // A line whose answer nobody waits for is closed, which is what hanging up is.
            Err(_) if ask.hangs_up => End::HungUp,
            Err(_) => End::Broken(format!("no answer within {patience:?}")),
            Ok(end @ End::Broken(_)) => end,
            Ok(end) => {
                *line = Some(open);
                if ask.hangs_up { End::HungUp } else { end }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::door::{Place, Protocol};
    use super::super::form::{Slot, specs};
    use super::*;
    use crate::model::probe::Sample;
    use crate::traffic::arrivals::Process;
    use crate::traffic::workload::{Source, Workload};
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use std::path::Path;
    use tokio::net::UnixListener;

    const MS: Duration = Duration::from_millis(1);

    /// Answers everything at once but what comes before a time has passed, which waits for that time.
    fn server(socket: &Path, silent: Duration) {
        let listener = UnixListener::bind(socket).unwrap();
        let clock = Clock::start();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = move |_: Request<Incoming>| async move {
                    let alarm = Alarm::new(clock).unwrap();
                    alarm.until(Some(MonoTime::ZERO.after(silent))).await.unwrap();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                };
                let stream = TokioIo::new(stream);
                let connection = http1::Builder::new().serve_connection(stream, service_fn(answer));
                tokio::spawn(connection);
            }
        });
    }

    fn client(socket: &Path, connections: usize) -> Client {
        let slot = Slot { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 4] };
        let sample = Sample { fill: 1, int_max: 1, scalar: 1 };
        let form = Form::new("m", &specs("m", &[slot], &[]).unwrap(), sample, Vec::new());
        Client {
            door: Door { place: Place::Unix(socket.to_owned()), protocol: Protocol::Http },
            forms: Arc::new([form]),
            connections,
            streams: 1,
            patience: Duration::from_secs(60),
        }
    }

    async fn measured(
        workload: Workload,
        pace: Pace,
        silent: Duration,
        patience: Duration,
    ) -> Measured {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        server(&socket, silent);
        let client = Client { patience, ..client(&socket, 2) };
        let traffic = Source::Made(workload).traffic(Some(500.0), 1, 0).unwrap();
        let span = Span { warm_up: Duration::ZERO, counted: 300 * MS, target: Some(150 * MS) };
        run(&client, traffic, pace, span, Arc::default()).await.unwrap()
    }

    #[tokio::test]
    async fn what_waits_for_a_server_that_is_silent_has_waited_from_when_it_was_to_be_sent() {
        let workload = Workload { process: Process::Even, ..Workload::plain(1) };
        let found = measured(workload, Pace::Open, 200 * MS, Duration::from_secs(60)).await;
        assert_eq!((found.sent, found.answered), (149, 149), "{:?}", found.errors);
        // Two connections: a client that waited for answers before it sent would have told of two slow ones.
        assert!(found.times.quantile_ms(0.5) >= 50.0, "{} ms", found.times.quantile_ms(0.5));
        assert!(found.on_time <= found.sent - 20, "{} in time", found.on_time);
    }

    #[tokio::test]
    async fn a_closed_loop_waits_for_its_answers() {
        let found =
            measured(Workload::plain(1), Pace::Closed, 200 * MS, Duration::from_secs(60)).await;
        assert!(found.answered > 2 && found.errors.is_empty(), "{found:?}");
        let late = found.answered - found.on_time;
        assert!(late <= 2, "one a connection: {late}");
    }

    #[tokio::test]
    async fn clients_that_hang_up_and_answers_that_never_come_are_told_apart() {
        let workload = Workload { hang_up: 0.5, ..Workload::plain(1) };
        let never = Duration::from_hours(1);
        let found = measured(workload, Pace::Open, never, 2 * MS).await;
        assert_eq!(found.answered, 0);
        assert!(found.hung_up > 0, "{found:?}");
        let told: Vec<&String> = found.errors.keys().collect();
        assert!(told.iter().any(|why| why.contains("no answer within 2ms")), "{told:?}");
        let errors: u64 = found.errors.values().sum();
        assert_eq!(found.hung_up + errors, found.sent);
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let client = client(&folder.path().join("none.sock"), 1);
        let traffic = Source::Made(Workload::plain(1)).traffic(None, 1, 0).unwrap();
        let span = Span { warm_up: MS, counted: MS, target: None };
        let why = run(&client, traffic, Pace::Closed, span, Arc::default()).await.unwrap_err();
        assert!(why.contains("nobody answers at") && why.contains("none.sock"), "{why}");
    }
}
