//! gRPC messages as protobuf, weighed before anything is built from them.
//!
//! Separate from the methods because two bytes on the wire can become hundreds of bytes of memory: an empty
//! input costs that. A walk over the raw message, in constant memory, bounds what decoding may allocate.

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a message of its own costs at most in memory, in the message that holds it.
pub const MESSAGE_BYTES: usize = 320;
/// The same for a text, a parameter or a piece of bytes, beside its content.
pub const ITEM_BYTES: usize = 96;
/// What a message's parts may cost beside their content.
const PARTS_BYTES_MAX: usize = 256 << 20;
/// Inputs in a request and contents in an input have the same number.
const INNER_FIELD: u32 = 5;
/// A request holds inputs, and those hold contents.
const LEVELS: u32 = 2;

/// The protobuf codec with a bound on what a request's parts cost.
#[derive(Clone, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// Decodes messages whose parts cost no more than they may.
#[derive(Clone, Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The frame's bytes lie in one piece; a piece of them costs no more than they do.
        let cost = parts_bytes(buf.chunk());
        if cost > PARTS_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the message has so many inputs, texts or parameters that they would take {} MiB beside their \
                 content; expected at most {} MiB; send it in parts",
                cost >> 20,
                PARTS_BYTES_MAX >> 20
            )));
        }
        self.0.decode(buf)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Bytes that the parts of a message take in memory beside their content, as far as it is well-formed.
#[must_use]
pub fn parts_bytes(message: &[u8]) -> usize {
    cost(message, LEVELS)
}

fn cost(mut rest: &[u8], levels: u32) -> usize {
    let mut sum = 0_usize;
    while let Some((number, payload)) = field(&mut rest) {
        let Some(payload) = payload else { continue };
        let inner = if number == INNER_FIELD && levels > 0 { cost(payload, levels - 1) } else { 0 };
        let own = if levels == LEVELS { MESSAGE_BYTES } else { ITEM_BYTES };
        sum = sum.saturating_add(own).saturating_add(inner);
    }
    sum
}

/// The next field's number, and its bytes where it has some; none at the end or where decoding will fail.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    if rest.is_empty() {
        return None;
    }
    let (number, kind) = decode_key(rest).ok()?;
    let skipped = match kind {
        WireType::Varint => decode_varint(rest).ok().map(|_| 0)?,
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (payload, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            return Some((number, Some(payload)));
        }
        // Groups: no field of ours is one, and an unknown one costs no memory.
        WireType::StartGroup | WireType::EndGroup => 0,
    };
    *rest = rest.get(skipped..)?;
    Some((number, None))
}
