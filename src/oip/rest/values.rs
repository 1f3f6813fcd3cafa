//! Tensor elements as JSON values and as wire bytes, exactly, in both directions.
//!
//! Separate from the messages around them, since this is where a value could silently change.
//! Elements go straight between JSON text and the tensor's bytes; no tree and no list of numbers
//! lies between.
//!
//! # Invariants
//! - Integers are whole numbers in the datatype's range, read and written as integers of that
//!   width.
//! - `FP32` and `FP64` are read from their digits at their own precision and printed as the
//!   shortest text that reads back as the same bits, also for a reader that knows only doubles.
//! - What JSON has no number for is written as the bare words `NaN`, `Infinity` and `-Infinity`, as
//!   Python's `json` does and reads. Strict parsers refuse them: their users ask for binary data.
//!   The same words are accepted in requests. A finite number that the datatype cannot hold is
//!   refused rather than turned into an infinity.
//! - `BOOL` is `true` or `false`, never a number; `BYTES` elements are strings, as UTF-8.
//! - `FP16` and `BF16` are refused with the advice to use binary data, as Triton does.

use super::json::Reader;
use crate::error::{ErrorKind, InferError};
use crate::oip::check::excerpt;
use crate::tensor::{DataType, OutputTensor};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads the `data` of an input, flat or nested: its wire bytes and the number of elements.
///
/// `hint` is the number of elements that the shape claims; it saves growing the buffer, and is
/// believed only as far as the text left could hold so many.
pub(super) fn read(
    reader: &mut Reader<'_>,
    input: &str,
    datatype: DataType,
    hint: usize,
) -> Result<(Vec<u8>, usize), InferError> {
    // An element and its comma are at least two bytes of text.
    let elements = hint.min(reader.remaining() / 2 + 1);
    let bytes = datatype.element_bytes().unwrap_or(4).saturating_mul(elements);
    let mut data = Data { reader, input, datatype, count: 0, bytes: Vec::with_capacity(bytes) };
    match datatype {
        DataType::Bool => data.nested(&mut Data::truth),
        DataType::Uint8 => {
            data.nested(&mut |data| data.integer(u8::to_le_bytes, &(u8::MIN..=u8::MAX)))
        }
        DataType::Uint16 => {
            data.nested(&mut |data| data.integer(u16::to_le_bytes, &(u16::MIN..=u16::MAX)))
        }
        DataType::Uint32 => {
            data.nested(&mut |data| data.integer(u32::to_le_bytes, &(u32::MIN..=u32::MAX)))
        }
        DataType::Uint64 => {
            data.nested(&mut |data| data.integer(u64::to_le_bytes, &(u64::MIN..=u64::MAX)))
        }
        DataType::Int8 => {
            data.nested(&mut |data| data.integer(i8::to_le_bytes, &(i8::MIN..=i8::MAX)))
        }
        DataType::Int16 => {
            data.nested(&mut |data| data.integer(i16::to_le_bytes, &(i16::MIN..=i16::MAX)))
        }
        DataType::Int32 => {
            data.nested(&mut |data| data.integer(i32::to_le_bytes, &(i32::MIN..=i32::MAX)))
        }
        DataType::Int64 => {
            data.nested(&mut |data| data.integer(i64::to_le_bytes, &(i64::MIN..=i64::MAX)))
        }
        DataType::Fp32 => data.nested(&mut Data::single),
        DataType::Fp64 => data.nested(&mut Data::double),
        DataType::Bytes => data.nested(&mut Data::text),
        DataType::Fp16 | DataType::Bf16 => Err(InferError::bad_request(format!(
            "input '{input}': {datatype} has no form in JSON; send it as binary data \
             (parameters.binary_data_size)"
        ))),
    }?;
    Ok((data.bytes, data.count))
}

/// The elements of one input as they are read.
struct Data<'r, 'a> {
    reader: &'r mut Reader<'a>,
    input: &'r str,
    datatype: DataType,
    count: usize,
    bytes: Vec<u8>,
}

impl Data<'_, '_> {
    /// Reads arrays to any depth; how they nest is not compared with the shape.
    fn nested(
        &mut self,
        element: &mut impl FnMut(&mut Self) -> Result<(), InferError>,
    ) -> Result<(), InferError> {
        let mut array = match self.reader.peek() {
            Some(b'[') => self.reader.array("")?,
            _ => {
                return Err(self
                    .reader
                    .wrong_type(&format!("data of input '{}'", self.input), "an array"));
            }
        };
        while self.reader.item(&mut array)? {
            if self.reader.peek() == Some(b'[') {
                self.nested(element)?;
            } else {
                element(self)?;
                self.count += 1;
            }
        }
        Ok(())
    }

    fn truth(&mut self) -> Result<(), InferError> {
        match self.reader.truth() {
            Some(value) => self.bytes.push(u8::from(value)),
            None => return Err(self.wrong("true or false")),
        }
        Ok(())
    }

    fn integer<T: FromStr + Display, const N: usize>(
        &mut self,
        bytes: impl Fn(T) -> [u8; N],
        range: &RangeInclusive<T>,
    ) -> Result<(), InferError> {
        let Some(text) = self.reader.number()? else {
            return Err(self.wrong("a whole number"));
        };
        // Unsigned types do not parse the sign of a negative zero.
        let digits = if text == "-0" { "0" } else { text };
        match digits.parse::<T>() {
            Ok(value) => self.bytes.extend_from_slice(&bytes(value)),
            Err(_) if text.contains(['.', 'e', 'E']) => return Err(self.not_whole(text)),
            Err(_) => return Err(self.out_of_range(text, range.start(), range.end())),
        }
        Ok(())
    }

    fn single(&mut self) -> Result<(), InferError> {
        let value = match self.reader.number()? {
            Some(text) => match text.parse::<f32>() {
                Ok(value) if value.is_finite() => value,
                _ => return Err(self.out_of_range(text, &"-3.4028235e38", &"3.4028235e38")),
            },
            None => self.reader.non_finite().ok_or_else(|| self.wrong("a number"))?,
        };
        self.bytes.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn double(&mut self) -> Result<(), InferError> {
        let value = match self.reader.number()? {
            Some(text) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => value,
                _ => {
                    let (min, max) = ("-1.7976931348623157e308", "1.7976931348623157e308");
                    return Err(self.out_of_range(text, &min, &max));
                }
            },
            None => self.reader.non_finite().ok_or_else(|| self.wrong("a number"))?.into(),
        };
        self.bytes.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn text(&mut self) -> Result<(), InferError> {
        if self.reader.peek() != Some(b'"') {
            return Err(self.wrong("a string"));
        }
        let text = self.reader.string("")?;
        let Ok(length) = u32::try_from(text.len()) else {
            return Err(self.element_error("is longer than a BYTES element can be"));
        };
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[cold]
    fn wrong(&mut self, expected: &str) -> InferError {
        let what = format!("element {} of input '{}' ({})", self.count, self.input, self.datatype);
        self.reader.wrong_type(&what, expected)
    }

    #[cold]
    fn not_whole(&self, text: &str) -> InferError {
        self.element_error(&format!(
            "is {}; expected a whole number without '.' or exponent",
            excerpt(text)
        ))
    }

    #[cold]
    fn out_of_range(&self, text: &str, min: &dyn Display, max: &dyn Display) -> InferError {
        self.element_error(&format!("is {}, outside {min} to {max}", excerpt(text)))
    }

    #[cold]
    fn element_error(&self, wrong: &str) -> InferError {
        InferError::bad_request(format!(
            "element {} of input '{}' ({}) {wrong}",
            self.count, self.input, self.datatype
        ))
    }
}

/// Writes an output's elements as one flat JSON array.
///
/// # Errors
/// `BadRequest` for elements that JSON cannot hold, with the advice to ask for binary data.
pub(super) fn write(out: &mut Vec<u8>, output: &OutputTensor) -> Result<(), InferError> {
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
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a double: the shortest text that reads back as the same bits, or a bare word.
pub(super) fn double(out: &mut Vec<u8>, value: f64) {
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
const fn narrow(double: f64) -> u32 {
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
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn read_text(datatype: DataType, text: &str) -> Result<(Vec<u8>, usize), String> {
        let mut reader = Reader::new(text);
        read(&mut reader, "IN", datatype, 0).map_err(|error| error.message)
    }

    fn write_text(datatype: DataType, data: &[u8]) -> Result<String, String> {
        let output = OutputTensor {
            name: "OUT".to_owned(),
            datatype,
            shape: Shape(vec![]),
            pieces: vec![Bytes::copy_from_slice(data)],
        };
        let mut out = Vec::new();
        write(&mut out, &output).map_err(|error| error.message)?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    #[test]
    fn edges_of_every_datatype_are_exact() {
        let table: [(DataType, &str); 11] = [
            (DataType::Bool, "[true,false]"),
            (DataType::Uint8, "[0,255]"),
            (DataType::Uint16, "[0,65535]"),
            (DataType::Uint32, "[0,4294967295]"),
            (DataType::Uint64, "[0,9007199254740993,18446744073709551615]"),
            (DataType::Int8, "[-128,127]"),
            (DataType::Int16, "[-32768,32767]"),
            (DataType::Int32, "[-2147483648,2147483647]"),
            (DataType::Int64, "[-9223372036854775808,9007199254740993,9223372036854775807]"),
            (
                DataType::Fp32,
                "[0.1,-0.0,16777216.0,3.4028235e+38,1e-45,7.038530691851209e-26,NaN,Infinity,-Infinity]",
            ),
            (DataType::Fp64, "[0.1,-0.0,1.7976931348623157e+308,5e-324,NaN,Infinity,-Infinity]"),
        ];
        for (datatype, text) in table {
            let (bytes, count) = read_text(datatype, text).expect(text);
            assert_eq!(count, text.split(',').count(), "{text}");
            assert_eq!(write_text(datatype, &bytes).as_deref(), Ok(text), "{datatype}");
        }
        let texts = "[\"\",\"a\",\"日本\",\"\\\"\\\\\\n\\u0000\\u001f\"]";
        let (bytes, count) = read_text(DataType::Bytes, texts).expect("strings");
        assert_eq!(count, 4);
        assert_eq!(write_text(DataType::Bytes, &bytes).as_deref(), Ok(texts));
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_index_value_and_range() {
        let table: [(DataType, &str, &str); 12] = [
            (
                DataType::Uint8,
                "[1,300]",
                "element 1 of input 'IN' (UINT8) is 300, outside 0 to 255",
            ),
            (DataType::Uint8, "[-1]", "element 0 of input 'IN' (UINT8) is -1, outside 0 to 255"),
            (
                DataType::Int8,
                "[[128]]",
                "element 0 of input 'IN' (INT8) is 128, outside -128 to 127",
            ),
            (
                DataType::Uint64,
                "[18446744073709551616]",
                "element 0 of input 'IN' (UINT64) is 18446744073709551616, outside 0 to 18446744073709551615",
            ),
            (
                DataType::Int64,
                "[1.5]",
                "element 0 of input 'IN' (INT64) is 1.5; expected a whole number without '.' or exponent",
            ),
            (
                DataType::Int64,
                "[\"1\"]",
                "element 0 of input 'IN' (INT64) must be a whole number, but it is a string (byte 1 of the JSON)",
            ),
            (
                DataType::Fp32,
                "[1e39]",
                "element 0 of input 'IN' (FP32) is 1e39, outside -3.4028235e38 to 3.4028235e38",
            ),
            (
                DataType::Fp64,
                "[0,-1e309]",
                "element 1 of input 'IN' (FP64) is -1e309, outside -1.7976931348623157e308 to 1.7976931348623157e308",
            ),
            (
                DataType::Bool,
                "[1]",
                "element 0 of input 'IN' (BOOL) must be true or false, but it is a number (byte 1 of the JSON)",
            ),
            (
                DataType::Bytes,
                "[null]",
                "element 0 of input 'IN' (BYTES) must be a string, but it is null (byte 1 of the JSON)",
            ),
            (
                DataType::Fp16,
                "[1]",
                "input 'IN': FP16 has no form in JSON; send it as binary data (parameters.binary_data_size)",
            ),
            (
                DataType::Fp32,
                "3",
                "data of input 'IN' must be an array, but it is a number (byte 0 of the JSON)",
            ),
        ];
        for (datatype, text, message) in table {
            assert_eq!(read_text(datatype, text), Err(message.to_owned()));
        }
    }

    #[test]
    fn nesting_is_followed_and_not_judged() {
        for text in ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[]],[2,[3,4]]]"] {
            assert_eq!(read_text(DataType::Uint8, text), Ok((vec![1, 2, 3, 4], 4)), "{text}");
        }
        assert_eq!(read_text(DataType::Uint8, "[[],[]]"), Ok((vec![], 0)));
    }

    #[test]
    fn a_claimed_size_takes_no_memory() {
        let mut reader = Reader::new("[1]");
        let (bytes, _) = read(&mut reader, "IN", DataType::Fp64, usize::MAX).expect("one element");
        assert!(bytes.capacity() < 64);
    }

    #[test]
    fn what_json_cannot_hold_asks_for_binary() {
        let error = write_text(DataType::Bytes, &[1, 0, 0, 0, 255]).expect_err("not UTF-8");
        assert!(
            error.starts_with("output 'OUT': element 0 is not UTF-8 text; ask for it as binary")
        );
        let error = write_text(DataType::Bf16, &[0, 0]).expect_err("no form in JSON");
        assert!(error.starts_with("output 'OUT': BF16 has no form in JSON; ask for it as binary"));
    }

    proptest! {
        #[test]
        fn every_single_comes_back_with_its_bits(bits in any::<u32>()) {
            let bytes = bits.to_le_bytes();
            let text = write_text(DataType::Fp32, &bytes).expect("a float has a form");
            let (read, _) = read_text(DataType::Fp32, &text).expect("it reads back");
            let value = f32::from_bits(bits);
            prop_assert!(value.is_nan() || read == bytes, "{}", text);
            let as_double: f64 = text.trim_matches(['[', ']']).parse().expect("a number");
            prop_assert!(value.is_nan() || narrow(as_double) == bits, "{}", text);
        }

        #[test]
        fn every_double_comes_back_with_its_bits(bits in any::<u64>()) {
            let bytes = bits.to_le_bytes();
            let text = write_text(DataType::Fp64, &bytes).expect("a float has a form");
            let (read, _) = read_text(DataType::Fp64, &text).expect("it reads back");
            prop_assert!(f64::from_bits(bits).is_nan() || read == bytes, "{}", text);
        }

        #[test]
        fn strings_are_quoted_as_serde_json_reads_them(text in any::<String>()) {
            let mut out = Vec::new();
            string(&mut out, &text);
            let read: String = serde_json::from_slice(&out).expect("a JSON string");
            prop_assert_eq!(read, text);
        }
    }
}
