//! Lets HTTP/2 clients in that send a socket's path as `:authority`, as stock gRPC clients do.
//!
//! gRPC's C core (and so its Python, Ruby and C++ clients) names the percent-encoded socket path, others the
//! path itself. Neither is an authority to the `h2` crate, which resets the stream with PROTOCOL_ERROR before
//! any code of ours sees the request. On a Unix socket the authority means nothing, so this reader rewrites
//! it on its way in: `%` and `/` become `-`. The three have codes of six bits in HPACK's Huffman code, so
//! neither the length of the frame nor that of the text changes, and the compression tables of both sides
//! stay in step.
//!
//! # Source
//! RFC 9113 section 4.1 (frames), RFC 7541 sections 5 and 6 (HPACK) and its appendix B (the code).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
/// Header frames larger than this pass as they are; the protocol's default limit of a frame.
const HEADERS_BYTES_MAX: usize = 16 << 10;
/// `:authority` in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;

/// What the bytes at the reader's place belong to.
#[derive(Debug)]
enum Place {
    /// The connection's first bytes, so many of which were seen.
    Preface(usize),
    /// A frame begins, or a header frame does: its bytes are held until it is whole.
    Head,
    /// So many bytes of a frame that is none of ours.
    Other(usize),
    /// No HTTP/2: everything passes.
    Through,
}

/// A stream whose incoming HTTP/2 requests have a harmless authority.
#[derive(Debug)]
pub struct Authority<S> {
    inner: S,
    place: Place,
    /// Bytes held back, at most one header frame.
    held: Vec<u8>,
    /// How many of the held bytes may go to the reader.
    ready: usize,
}

impl<S> Authority<S> {
    /// Reads from `inner`, which is at the beginning of a connection.
    pub fn new(inner: S) -> Self {
        Self { inner, place: Place::Preface(0), held: Vec::new(), ready: 0 }
    }

    /// The stream below.
    pub(super) fn inner(&self) -> &S {
        &self.inner
    }

    /// Takes bytes that arrived; those that may go on at once are counted in `ready`.
    fn absorb(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while self.ready < self.held.len() {
            let open = self.held.len() - self.ready;
            match &mut self.place {
                Place::Through => self.ready += open,
                Place::Other(left) => {
                    let take = open.min(*left);
                    self.ready += take;
                    *left -= take;
                    if *left == 0 {
                        self.place = Place::Head;
                    }
                }
                Place::Preface(seen) => {
                    let at = self.ready;
                    let take = open.min(PREFACE.len() - *seen);
                    let same = self.held[at..at + take] == PREFACE[*seen..*seen + take];
                    self.ready += take;
                    *seen += take;
                    let whole = *seen == PREFACE.len();
                    if !same {
                        self.place = Place::Through;
                    } else if whole {
                        self.place = Place::Head;
                    }
                }
                Place::Head => {
                    if !self.frame() {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at the frame that begins at `ready`; false while more of it must come.
    fn frame(&mut self) -> bool {
        let frame = &mut self.held[self.ready..];
        let Some((head, rest)) = frame.split_at_mut_checked(FRAME_HEAD_BYTES) else { return false };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] == HEADERS && length <= HEADERS_BYTES_MAX {
            let Some(payload) = rest.get_mut(..length) else { return false };
            if let Some(block) = block(payload, head[4]) {
                rewrite(block);
            }
        }
        self.ready += FRAME_HEAD_BYTES;
        self.place = if length == 0 { Place::Head } else { Place::Other(length) };
        true
    }

    /// Whether what was read may be handed on without a copy.
    fn passes(&self) -> bool {
        self.held.is_empty() && matches!(self.place, Place::Through)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Authority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.passes() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        loop {
            if this.ready > 0 {
                let take = this.ready.min(buffer.remaining());
                buffer.put_slice(&this.held[..take]);
                this.held.drain(..take);
                this.ready -= take;
                return Poll::Ready(Ok(()));
            }
            // A frame that is none of ours goes straight to its reader; only counted.
            let straight = match this.place {
                Place::Other(left) if this.held.is_empty() => left.min(buffer.remaining()),
                _ => 0,
            };
            if straight > 0 {
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(straight));
                ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
                let count = part.filled().len();
                buffer.advance(count);
                this.counted(count);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; 4096];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
            if part.filled().is_empty() {
                // The end of the stream: what is held was no whole frame, and is handed on as it is.
                this.ready = this.held.len();
                if this.ready == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            this.absorb(part.filled());
        }
    }
}

impl<S> Authority<S> {
    fn counted(&mut self, count: usize) {
        if let Place::Other(left) = &mut self.place {
            *left -= count;
            if *left == 0 {
                self.place = Place::Head;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Authority<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// The header block in a HEADERS frame's payload: without padding and priority.
fn block(payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let mut start = 0;
    let mut end = payload.len();
    if flags & FLAG_PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        start = 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        start += 5;
    }
    payload.get_mut(start..end)
}

/// Rewrites the authority in a header block; what cannot be understood is left as it is.
fn rewrite(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(block, &mut at, prefix)?;
        if !literal {
            continue;
        }
        let mut is_authority = index == AUTHORITY_INDEX;
        if index == 0 {
            // The C core spells the name out; whoever compresses it uses the static table.
            let (_, name) = string(block, &mut at)?;
            is_authority = block.get(name)? == b":authority";
        }
        let (huffman, value) = string(block, &mut at)?;
        if is_authority {
            let value = block.get_mut(value)?;
            if huffman { plain_huffman(value) } else { plain(value) }
        }
    }
    Some(())
}

/// Reads an integer whose first byte has a prefix of so many bits.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let limit = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & limit;
    *at += 1;
    if value < limit {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads a string's place, and whether it is Huffman-coded.
fn string(block: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(length).filter(|end| *end <= block.len())?;
    Some((huffman, start..*at))
}

fn plain(value: &mut [u8]) {
    value.iter_mut().filter(|byte| matches!(byte, b'%' | b'/')).for_each(|byte| *byte = b'-');
}

/// The same in Huffman code: walks from symbol to symbol and changes those that are `%` or `/`.
///
/// The code is canonical, so a symbol's length follows from the range its bits are in. Symbols of more
/// than eight bits are not in any path that a client would send; the walk ends there.
fn plain_huffman(value: &mut [u8]) {
    const PERCENT: u8 = 0b01_0101;
    const SLASH: u8 = 0b01_1000;
    const MINUS: u8 = 0b01_0110;
    let bits = value.len() * 8;
    let mut at = 0;
    loop {
        let length = match peek(value, at, 8) {
            0..0x50 => 5,
            0x50..0xb8 => 6,
            0xb8..0xf8 => 7,
            0xf8..0xfe => 8,
            _ => return,
        };
        if at + length > bits {
            return;
        }
        if length == 6 && matches!(peek(value, at, 6), PERCENT | SLASH) {
            for bit in 0..6 {
                let (byte, mask) = ((at + bit) / 8, 0x80 >> ((at + bit) % 8));
                let set = MINUS & (0x20 >> bit) != 0;
                value[byte] = if set { value[byte] | mask } else { value[byte] & !mask };
            }
        }
        at += length;
    }
}

/// The `count` bits from bit number `at`; ones past the end, which is how the code is padded.
fn peek(value: &[u8], at: usize, count: usize) -> u8 {
    let byte = |index: usize| u16::from(value.get(index).copied().unwrap_or(0xff));
    let two = byte(at / 8) << 8 | byte(at / 8 + 1);
    let shifted = (two >> (16 - count - at % 8)) & ((1 << count) - 1);
    u8::try_from(shifted).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 4, 0, 0, 0, 1], payload].concat()
    }

    async fn through(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        let mut reader = Authority::new(theirs);
        for chunk in bytes.chunks(step) {
            ours.write_all(chunk).await.unwrap();
        }
        drop(ours);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).await.unwrap();
        out
    }

    #[test]
    fn plain_text_and_huffman_code_keep_their_length() {
        let mut text = *b"%2Ftmp%2Fg.sock";
        plain(&mut text);
        assert_eq!(&text, b"-2Ftmp-2Fg.sock");
        // Code of "%/a-": 010101 011000 00011 010110, padded with ones.
        let mut code = [0b0101_0101, 0b1000_0001, 0b1010_1101];
        plain_huffman(&mut code);
        // "--a-".
        assert_eq!(code, [0b0101_1001, 0b0110_0001, 0b1010_1101]);
    }

    #[tokio::test]
    async fn only_the_authority_of_header_frames_is_rewritten() {
        let fields: &[u8] = b"\x83\x41\x04%2Fx\x04\x04/v2/\x40\x0a:authority\x01%\x7f\x03/%/";
        let data = frame(0, b"%/ stays");
        let headers = frame(1, fields);
        let bytes = [PREFACE, &frame(4, &[]), &headers, &data, &headers].concat();
        let fixed = frame(1, b"\x83\x41\x04-2Fx\x04\x04/v2/\x40\x0a:authority\x01-\x7f\x03/%/");
        let expected = [PREFACE, &frame(4, &[]), &fixed, &data, &fixed].concat();
        for step in [1, 2, 7, 64, 4096] {
            assert_eq!(through(&bytes, step).await, expected, "in steps of {step}");
        }
    }

    #[tokio::test]
    async fn other_protocols_pass() {
        for bytes in [&b"GET /%2F HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1", b"P", b""] {
            assert_eq!(through(bytes, 3).await, bytes);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_number_and_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            step in 1..50_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let bytes = [PREFACE, &frame(1, &bytes), &bytes].concat();
            prop_assert_eq!(runtime.block_on(through(&bytes, step)).len(), bytes.len());
        }
    }
}
