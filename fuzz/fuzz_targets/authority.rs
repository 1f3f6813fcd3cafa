//! Any bytes of a connection on their way to HTTP, in pieces of any size.
//!
//! The first byte says how large the pieces are that arrive, the second how much is read at once.
#![no_main]

use graftd::server::authority::Authority;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;

/// A connection whose bytes arrive in pieces of one size.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.size.min(buffer.remaining()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(count);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

fn through(bytes: &[u8], arriving: usize, reading: usize) -> Vec<u8> {
    let mut reader = Authority::new(Pieces { rest: bytes, size: arriving });
    let mut context = Context::from_waker(Waker::noop());
    let mut whole = Vec::new();
    let mut room = vec![0; reading];
    loop {
        let mut buffer = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut reader).poll_read(&mut context, &mut buffer);
        assert!(matches!(polled, Poll::Ready(Ok(()))), "bytes that are there are not handed on");
        if buffer.filled().is_empty() {
            return whole;
        }
        whole.extend_from_slice(buffer.filled());
        assert!(whole.len() <= bytes.len(), "more bytes than came");
    }
}

/// Which bytes belong to the payload of a header frame.
fn of_headers(bytes: &[u8]) -> Vec<bool> {
    let mut inside = vec![false; bytes.len()];
    let mut at = PREFACE.len();
    while let Some(&[a, b, c, kind, ..]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<9>())
    {
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        at += 9;
        let end = (at + length).min(bytes.len());
        inside[at.min(end)..end].fill(kind == HEADERS);
        at += length;
    }
    inside
}

fn check(bytes: &[u8], arriving: usize, reading: usize) {
    let found = through(bytes, arriving, reading);
    assert_eq!(found.len(), bytes.len(), "bytes were lost");
    assert_eq!(
        found,
        through(bytes, usize::MAX, 1 << 16),
        "how bytes arrive changed what they say"
    );
    assert_eq!(found, through(&found, arriving, reading), "a harmless authority was changed");
    if !bytes.starts_with(PREFACE) {
        assert_eq!(found, bytes, "this is no HTTP/2");
        return;
    }
    let outside = of_headers(bytes).into_iter().zip(bytes.iter().zip(&found));
    for (place, (inside, (came, went))) in outside.enumerate() {
        assert!(inside || came == went, "byte {place} is no header's");
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&[arriving, reading], rest)) = data.split_first_chunk::<2>() else { return };
    let (arriving, reading) = (usize::from(arriving) + 1, usize::from(reading) + 1);
    check(rest, arriving, reading);
    check(&[PREFACE, rest].concat(), arriving, reading);
});
