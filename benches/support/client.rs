//! The cheapest client there is, the same for every server: requests encoded beforehand, answers not parsed
//! beyond status and length.

use graftd::clock::Clock;
use graftd::time::MonoTime;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One connection that waits for each answer.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    answer: Vec<u8>,
}

impl Client {
    /// Connects to a server.
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a connection to the server");
        Self { stream, answer: Vec::new() }
    }

    /// Sends a request and reads its answer; returns the answer's head and body.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> (&[u8], &[u8]) {
        self.stream.write_all(request).expect("the server reads");
        self.answer.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            let read = self.stream.read(&mut chunk).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            self.answer.extend_from_slice(&chunk[..read]);
            if let Some((head, whole)) = measure(&self.answer)
                && self.answer.len() >= whole
            {
                return self.answer.split_at(head);
            }
        }
    }

    /// Sends a request and returns a copy of the answer's body.
    pub(crate) fn call(&mut self, request: &[u8]) -> Vec<u8> {
        self.exchange(request).1.to_vec()
    }
}

/// The length of an answer's head and of all of it, once its head is there.
fn measure(answer: &[u8]) -> Option<(usize, usize)> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let ok = answer.get(9..12) == Some(b"200".as_slice());
    assert!(ok, "the server refused: {}", String::from_utf8_lossy(answer));
    // With the line's end before it: inference-header-content-length ends alike.
    let name = b"\r\ncontent-length: ";
    let at = answer[..head].windows(name.len()).position(|window| window == name)? + name.len();
    let digits = answer[at..head].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |number, byte| number * 10 + usize::from(byte - b'0'));
    Some((head, head + length))
}

/// One of many connections.
struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    /// How much of the request is written.
    written: usize,
    /// The answer so far; empty between answers.
    answer: Vec<u8>,
    /// The bytes of the whole answer, once its head is there.
    whole: Option<usize>,
}

/// Many connections, served by one thread; each sends its next request as soon as it has its answer.
pub(crate) struct Load<'a> {
    /// The server.
    pub socket: &'a Path,
    /// How many connections.
    pub connections: usize,
    /// The request that all start from.
    pub request: &'a [u8],
}

impl Load<'_> {
    /// Answers a second over a span, and over two answers a connection at least, after every connection
    /// had its first.
    ///
    /// `prepare` changes a request before it is sent.
    pub(crate) fn rate(&self, span: Duration, mut prepare: impl FnMut(&mut [u8])) -> f64 {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let mut all: Vec<Connection> =
            (0..self.connections).map(|at| self.open(&poll, at)).collect();
        let clock = Clock::start();
        let mut chunk = vec![0; 64 << 10];
        let mut events = Vec::with_capacity(self.connections);
        for (at, connection) in all.iter_mut().enumerate() {
            prepare(&mut connection.request);
            connection.begin(&poll, at);
        }
        // Connections' first answers, then the span, then what is still under way.
        let (mut answers, mut open) = (0_usize, self.connections);
        let mut window: Option<(MonoTime, usize)> = None;
        let mut result = None;
        while open > 0 {
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&patience))
                .expect("events");
            assert!(!events.is_empty(), "the server fell silent");
            for event in events.drain(..) {
                let at = event.data.u64() as usize;
                let connection = &mut all[at];
                if connection.written < connection.request.len() {
                    connection.proceed(&poll, at);
                }
                if !connection.read(&mut chunk) {
                    continue;
                }
                answers += 1;
                if result.is_some() {
                    open -= 1;
                    continue;
                }
                prepare(&mut connection.request);
                connection.begin(&poll, at);
            }
            let now = clock.now();
            match window {
                None if answers >= self.connections => window = Some((now, answers)),
                Some((start, before))
                    if result.is_none()
                        && now.since(start) >= span
                        && answers >= before + 2 * self.connections =>
                {
                    let seconds = now.since(start).as_secs_f64();
                    result = Some((answers - before) as f64 / seconds);
                }
                _ => {}
            }
        }
        result.unwrap_or(f64::NAN)
    }

    fn open(&self, poll: &OwnedFd, at: usize) -> Connection {
        let stream = UnixStream::connect(self.socket).expect("a connection to the server");
        stream.set_nonblocking(true).expect("a stream that does not block");
        epoll::add(poll, &stream, EventData::new_u64(at as u64), EventFlags::IN).expect("a watch");
        let (request, answer) = (self.request.to_vec(), Vec::new());
        Connection { stream, request, written: 0, answer, whole: None }
    }
}

impl Connection {
    fn begin(&mut self, poll: &OwnedFd, at: usize) {
        self.written = 0;
        self.proceed(poll, at);
    }

    /// Writes what can be written, and has the poll say when more can.
    fn proceed(&mut self, poll: &OwnedFd, at: usize) {
        let resumed = self.written > 0;
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server does not read: {error}"),
            }
        }
        let done = self.written == self.request.len();
        if resumed || !done {
            let flags = if done { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
            epoll::modify(poll, &self.stream, EventData::new_u64(at as u64), flags)
                .expect("a watch");
        }
    }

    /// Reads what is there and says whether the answer is whole.
    fn read(&mut self, chunk: &mut [u8]) -> bool {
        let count = match self.stream.read(chunk) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("the server does not answer: {error}"),
        };
        if self.answer.is_empty() {
            // Nearly always the whole answer comes at once and needs no copy.
            if let Some((_, whole)) = measure(&chunk[..count]) {
                if count >= whole {
                    return true;
                }
                self.whole = Some(whole);
            }
        }
        self.answer.extend_from_slice(&chunk[..count]);
        self.whole = self.whole.or_else(|| measure(&self.answer).map(|(_, whole)| whole));
        let done = self.whole.is_some_and(|whole| self.answer.len() >= whole);
        if done {
            self.answer.clear();
            self.whole = None;
        }
        done
    }
}
