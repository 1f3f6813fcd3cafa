//! Compression of bodies: gzip and deflate, and what a client says about them.
//!
//! `flate2` does the work, driven in small steps: the caller decides between steps whether a body has become
//! too large and whether others should have the thread.

use crate::error::{ErrorKind, InferError};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};

/// What is offered, for clients that chose another.
pub(super) const OFFERED: HeaderValue = HeaderValue::from_static("gzip, deflate");
/// The most that one step writes.
pub(super) const STEP_BYTES: usize = 64 << 10;
/// Steps after which others have a turn: about a millisecond of work.
const STEPS_OF_TURN: usize = 8;
/// The logarithm of the window of deflate.
const WINDOW_BITS: u8 = 15;
/// Answers smaller than this go as they are.
const WORTHWHILE_BYTES: usize = 256;

/// A way to compress a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format; without its frame, as some send it, it is understood too.
    Deflate,
}

impl Coding {
    /// The name in headers.
    pub(super) const fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    fn of(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// How a request's body is compressed; none where it is not.
    ///
    /// # Errors
    /// `UnknownCoding` for any other coding, for more than one, and where compression is off.
    pub(super) fn of_request(headers: &HeaderMap, on: bool) -> Result<Option<Self>, InferError> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            let several = headers.contains_key(CONTENT_ENCODING);
            return if several { Err(unknown("more than one", on)) } else { Ok(None) };
        };
        let text = value.to_str().unwrap_or("no text").trim();
        if text.is_empty() || text.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        match Self::of(text) {
            Some(coding) if on => Ok(Some(coding)),
            _ => Err(unknown(text, on)),
        }
    }

    /// How the client wants its answer compressed; none where it does not say so clearly.
    ///
    /// A client that means it names one coding. Lists are what HTTP libraries send by themselves, and over
    /// a local socket compression costs more than it saves; an answer as it is suits everybody.
    pub(super) fn of_answer(headers: &HeaderMap, bytes: usize) -> Option<Self> {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let mut wanted = None;
        for entry in value.to_str().ok()?.split(',') {
            let (name, weight) = entry.split_once(';').unwrap_or((entry, ""));
            let quality = weight.trim().strip_prefix("q=").unwrap_or("1");
            let refused = quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0);
            if refused || name.trim().eq_ignore_ascii_case("identity") {
                continue;
            }
            if wanted.replace(Self::of(name)?).is_some() {
                return None;
            }
        }
        wanted.filter(|_| bytes >= WORTHWHILE_BYTES)
    }
}

fn unknown(came: &str, on: bool) -> InferError {
    let expected = if on {
        "gzip, deflate or none, and only one"
    } else {
        "none, since the daemon was started with --no-compression"
    };
    let came = came.escape_debug();
    let text = format!("the body's Content-Encoding is {came}; expected {expected}");
    InferError::new(ErrorKind::UnknownCoding, text)
}

/// A compressed body on its way to what it was.
#[derive(Debug)]
pub(super) struct Inflate {
    coding: Coding,
    state: Option<Decompress>,
    /// A body of one byte so far: the kind of deflate shows in the second.
    first: Option<u8>,
    out: Vec<u8>,
    /// The stream, or the last member of it, has come to its end.
    ended: bool,
    turn: usize,
}

impl Inflate {
    pub(super) fn new(coding: Coding) -> Self {
        Self { coding, state: None, first: None, out: Vec::new(), ended: false, turn: 0 }
    }

    /// Takes a piece of the body and gives others a turn now and then.
    ///
    /// # Errors
    /// `BadRequest` for bytes that are not of this coding; `TooLarge` at the first byte past `max`.
    pub(super) async fn push(&mut self, piece: &[u8], max: usize) -> Result<(), InferError> {
        let joined;
        let mut rest = piece;
        if self.state.is_none() {
            joined = [self.first.as_slice(), piece].concat();
            rest = &joined;
            if let ([_], Coding::Deflate) | ([], _) = (rest, self.coding) {
                self.first = rest.first().copied();
                return Ok(());
            }
        }
        // A step that fills its room may have more to give without any more input.
        let mut full = false;
        while !rest.is_empty() || full {
            let (taken, wrote) = self.step(rest, max)?;
            rest = rest.get(taken..).unwrap_or_default();
            full = wrote == STEP_BYTES;
            self.turn += 1;
            if self.turn >= STEPS_OF_TURN {
                self.turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// `BadRequest` where it broke off.
    pub(super) fn finish(self) -> Result<Bytes, InferError> {
        if self.ended || (self.state.is_none() && self.first.is_none()) {
            return Ok(Bytes::from(self.out));
        }
        Err(self.fault("it ends in the middle"))
    }

    /// One step: how many bytes were taken and how many written.
    fn step(&mut self, input: &[u8], max: usize) -> Result<(usize, usize), InferError> {
        if self.ended && input.is_empty() {
            return Ok((0, 0));
        }
        if self.ended && self.coding == Coding::Deflate {
            return Err(self.fault("something follows its end"));
        }
        if self.ended {
            // Members one after the other are one body; the limit is for all of them.
            (self.state, self.ended) = (None, false);
        }
        let state = self.state.get_or_insert_with(|| match self.coding {
            Coding::Gzip => Decompress::new_gzip(WINDOW_BITS),
            Coding::Deflate => Decompress::new(has_zlib_header(input)),
        });
        let (before, taken) = (self.out.len(), state.total_in());
        self.out.resize(before + STEP_BYTES, 0);
        let room = self.out.get_mut(before..).unwrap_or_default();
        let wrote = state.total_out();
        let status = state.decompress(input, room, FlushDecompress::None);
        let count = |now: u64, then: u64| usize::try_from(now - then).unwrap_or(usize::MAX);
        let taken = count(state.total_in(), taken);
        let wrote = count(state.total_out(), wrote);
        self.out.truncate(before + wrote);
        match status {
            Ok(Status::StreamEnd) => self.ended = true,
            Ok(_) if taken == 0 && wrote == 0 && !input.is_empty() => {
                return Err(self.fault("it cannot be read on"));
            }
            Ok(_) => {}
            Err(error) => return Err(self.fault(error.message().unwrap_or("it is damaged"))),
        }
        if self.out.len() > max {
            // Not kept until the answer is sent.
            self.out = Vec::new();
            let text = format!(
                "the body is larger than {max} bytes when inflated, the limit of --body-bytes-max"
            );
            return Err(InferError::new(ErrorKind::TooLarge, text));
        }
        Ok((taken, wrote))
    }

    fn fault(&self, why: &str) -> InferError {
        let name = self.coding.name();
        let name = name.to_str().unwrap_or_default();
        InferError::bad_request(format!(
            "the body is not the {name} that Content-Encoding says it is: {why}; compress it so, or \
             leave the header out"
        ))
    }
}

/// Whether deflated bytes are in zlib's frame: method 8, and a check over both bytes.
fn has_zlib_header(input: &[u8]) -> bool {
    let &[method, flags, ..] = input else { return false };
    method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31)
}

/// Compresses an answer and gives others a turn now and then.
///
/// The quickest level: what it costs is paid by every other request on this machine.
pub(super) async fn compress(pieces: &[Bytes], coding: Coding) -> Option<Bytes> {
    let mut state = match coding {
        Coding::Gzip => Compress::new_gzip(Compression::fast(), WINDOW_BITS),
        Coding::Deflate => Compress::new(Compression::fast(), true),
    };
    let mut out = Vec::with_capacity(STEP_BYTES);
    let steps = pieces.iter().flat_map(|piece| piece.chunks(STEP_BYTES));
    for (number, chunk) in steps.enumerate() {
        let mut rest = chunk;
        while !rest.is_empty() {
            let before = state.total_in();
            out.reserve(STEP_BYTES);
            state.compress_vec(rest, &mut out, FlushCompress::None).ok()?;
            let taken = usize::try_from(state.total_in() - before).ok()?;
            rest = rest.get(taken..)?;
        }
        if number % STEPS_OF_TURN == STEPS_OF_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    loop {
        out.reserve(STEP_BYTES);
        if state.compress_vec(&[], &mut out, FlushCompress::Finish).ok()? == Status::StreamEnd {
            return Some(Bytes::from(out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn inflate(
        coding: Coding,
        bytes: &[u8],
        step: usize,
        max: usize,
    ) -> Result<Bytes, InferError> {
        let mut inflate = Inflate::new(coding);
        for piece in bytes.chunks(step) {
            inflate.push(piece, max).await?;
        }
        inflate.finish()
    }

    fn headers(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[tokio::test]
    async fn every_form_comes_back_in_pieces_of_any_size() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let members = [gzip(&text[..1000]), gzip(&[]), gzip(&text[1000..])].concat();
        let table = [
            (Coding::Gzip, gzip(&text)),
            (Coding::Gzip, members),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, raw(&text)),
        ];
        for (coding, sent) in table {
            for step in [1, 2, 3, 1000, usize::MAX] {
                let got = inflate(coding, &sent, step, text.len()).await;
                assert!(got.is_ok_and(|got| got == text), "{coding:?} in steps of {step}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_stops_at_the_first_byte_over() {
        let zeros = vec![0; 8 << 20];
        let small = gzip(&zeros);
        let many = gzip(&zeros[..1 << 20]).repeat(8);
        for (coding, bomb) in [
            (Coding::Gzip, small.clone()),
            (Coding::Gzip, many),
            (Coding::Deflate, zlib(&zeros)),
            (Coding::Deflate, raw(&zeros)),
        ] {
            let mut inflate = Inflate::new(coding);
            let error = inflate.push(&bomb, 1 << 20).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::TooLarge);
            assert!(error.message.contains("--body-bytes-max"));
            assert_eq!(inflate.out.capacity(), 0, "what was inflated is kept");
        }
        // One layer only: what is inside stays as it is.
        let nested = gzip(&small);
        assert_eq!(inflate(Coding::Gzip, &nested, 100, 1 << 20).await.unwrap(), small);
        let exact = gzip(&zeros[..1 << 20]);
        assert!(inflate(Coding::Gzip, &exact, 100, 1 << 20).await.is_ok());
        assert!(inflate(Coding::Gzip, &exact, 100, (1 << 20) - 1).await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_what_it_says_is_refused() {
        let good = gzip(b"some text that is long enough to be cut");
        let mut flipped = good.clone();
        let place = flipped.len() - 6;
        flipped[place] ^= 1;
        let table = [
            (Coding::Gzip, b"not gzip at all".to_vec()),
            (Coding::Gzip, good[..good.len() - 1].to_vec()),
            (Coding::Gzip, good[..5].to_vec()),
            (Coding::Gzip, flipped),
            (Coding::Gzip, [&good[..], b"rest"].concat()),
            (Coding::Gzip, zlib(b"text")),
            (Coding::Deflate, vec![0x78]),
            (Coding::Deflate, zlib(b"text")[..6].to_vec()),
            (Coding::Deflate, raw(b"text text text")[..4].to_vec()),
            (Coding::Deflate, [zlib(b"text"), zlib(b"text")].concat()),
            (Coding::Deflate, b"\xff\xff\xff\xff".to_vec()),
        ];
        for (coding, sent) in table {
            for step in [1, 4, usize::MAX] {
                let error = inflate(coding, &sent, step, 1000).await.expect_err("a refusal");
                assert_eq!(error.kind, ErrorKind::BadRequest, "{sent:?}: {error}");
            }
        }
        assert_eq!(inflate(Coding::Gzip, b"", 1, 10).await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_is_compressed_comes_back() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let pieces = [Bytes::from(text[..70_000].to_vec()), Bytes::from(text[70_000..].to_vec())];
        for coding in [Coding::Gzip, Coding::Deflate] {
            let sent = compress(&pieces, coding).await.unwrap();
            assert_eq!(inflate(coding, &sent, 999, text.len()).await.unwrap(), text);
        }
    }

    #[test]
    fn codings_of_requests() {
        let of = |values, on| Coding::of_request(&headers(CONTENT_ENCODING, values), on);
        assert_eq!(of(&[], true), Ok(None));
        assert_eq!(of(&["identity"], false), Ok(None));
        assert_eq!(of(&["GZIP"], true), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["deflate"], true), Ok(Some(Coding::Deflate)));
        let refusals = [
            (&["br"][..], true),
            (&["gzip, gzip"], true),
            (&["gzip", "gzip"], true),
            (&["gzip"], false),
        ];
        for (values, on) in refusals {
            let error = of(values, on).unwrap_err();
            assert_eq!(error.kind, ErrorKind::UnknownCoding, "{values:?}");
        }
    }

    #[test]
    fn answers_are_compressed_for_those_who_name_one_coding() {
        let of = |values, bytes| Coding::of_answer(&headers(ACCEPT_ENCODING, values), bytes);
        assert_eq!(of(&["gzip"], 1000), Some(Coding::Gzip));
        assert_eq!(of(&["deflate;q=0.5, identity;q=0.1"], 1000), Some(Coding::Deflate));
        for values in [&[][..], &["gzip, deflate, br"], &["gzip, deflate"], &["identity"], &["*"]] {
            assert_eq!(of(values, 1000), None, "{values:?}");
        }
        assert_eq!(of(&["gzip;q=0"], 1000), None);
        assert_eq!(of(&["gzip"], 10), None);
    }
}
