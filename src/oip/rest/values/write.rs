//! Elements of an answer: from wire bytes to JSON text.

use crate::error::{ErrorKind, InferError};
use crate::tensor::{DataType, OutputTensor};

/// Writes an output's elements as one flat JSON array.
///
/// # Errors
/// `BadRequest` for elements that JSON cannot hold, with the advice to ask for binary data.
pub(in crate::oip::rest) fn write(
    out: &mut Vec<u8>,
    output: &OutputTensor,
) -> Result<(), InferError> {
    let data = output.contiguous();
    out.reserve(data.len().saturating_mul(2));
    out.push(b'[');
    match output.datatype {
        DataType::Bool => list(out, &data, |out, [byte]: [u8; 1]| {
            out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 => list(out, &data, |out, bytes| integer(out, u8::from_le_bytes(bytes))),
        DataType::Uint16 => list(out, &data, |out, bytes| integer(out, u16::from_le_bytes(bytes))),
        DataType::Uint32 => list(out, &data, |out, bytes| integer(out, u32::from_le_bytes(bytes))),
        DataType::Uint64 => list(out, &data, |out, bytes| integer(out, u64::from_le_bytes(bytes))),
        DataType::Int8 => list(out, &data, |out, bytes| integer(out, i8::from_le_bytes(bytes))),
        DataType::Int16 => list(out, &data, |out, bytes| integer(out, i16::from_le_bytes(bytes))),
        DataType::Int32 => list(out, &data, |out, bytes| integer(out, i32::from_le_bytes(bytes))),
        DataType::Int64 => list(out, &data, |out, bytes| integer(out, i64::from_le_bytes(bytes))),
        DataType::Fp32 => list(out, &data, |out, bytes| single(out, f32::from_le_bytes(bytes))),
        DataType::Fp64 => list(out, &data, |out, bytes| double(out, f64::from_le_bytes(bytes))),
        DataType::Bytes => texts(out, &output.name, &data)?,
        DataType::Fp16 | DataType::Bf16 => {
            return Err(ask_for_binary(
                &output.name,
                &format!("{} has no form in JSON", output.datatype),
            ));
        }
    }
    out.push(b']');
    Ok(())
}

fn list<const N: usize>(
    out: &mut Vec<u8>,
    data: &[u8],
    mut element: impl FnMut(&mut Vec<u8>, [u8; N]),
) {
    let (elements, _) = data.as_chunks::<N>();
    for (at, bytes) in elements.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        element(out, *bytes);
    }
}

/// Appends an integer.
pub(in crate::oip::rest) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double: the shortest text that reads back as the same bits, or a bare word.
pub(in crate::oip::rest) fn double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(bare_word(zmij::Buffer::new().format(value)).as_bytes());
}

/// Appends a single: the shortest text that reads back as the same bits, or a bare word.
///
/// Most clients read every number as a double and narrow it. About one single in a billion has a
/// shortest text that is then rounded twice, to its neighbour (`7.038531e-26` is one); these are
/// written as the double that equals them.
fn single(out: &mut Vec<u8>, value: f32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    if value.is_finite() && !text.parse().is_ok_and(|read| narrow(read) == value.to_bits()) {
        return double(out, value.into());
    }
    out.extend_from_slice(bare_word(text).as_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "it rounds, which is what is asked")]
pub(super) const fn narrow(double: f64) -> u32 {
    (double as f32).to_bits()
}

fn bare_word(text: &str) -> &str {
    match text {
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        text => text,
    }
}

fn texts(out: &mut Vec<u8>, output: &str, data: &[u8]) -> Result<(), InferError> {
    let mut rest = data;
    let mut at = 0;
    while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let Some((element, after)) = tail.split_at_checked(length) else {
            let message = format!("output '{output}' holds BYTES that end within element {at}");
            return Err(InferError::new(ErrorKind::Internal, message));
        };
        let Ok(text) = str::from_utf8(element) else {
            return Err(ask_for_binary(output, &format!("element {at} is not UTF-8 text")));
        };
        if at > 0 {
            out.push(b',');
        }
        string(out, text);
        rest = after;
        at += 1;
    }
    Ok(())
}

/// Appends a string in quotes, with the escapes that JSON demands and no others.
pub(in crate::oip::rest) fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let low = HEX.get(usize::from(control & 0xF)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (control >> 4), low]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cold]
fn ask_for_binary(output: &str, wrong: &str) -> InferError {
    InferError::bad_request(format!(
        "output '{output}': {wrong}; ask for it as binary data: \"parameters\": {{\"binary_data\": \
         true}} with this output, or {{\"binary_data_output\": true}} with the request"
    ))
}
