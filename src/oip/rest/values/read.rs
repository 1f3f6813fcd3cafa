//! Elements of a request: from JSON text to wire bytes, and how they were nested.

use crate::error::InferError;
use crate::oip::check::{self, excerpt};
use crate::oip::rest::json::Reader;
use crate::tensor::{DataType, Shape};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The elements of one input as they were written.
#[derive(Debug)]
pub(in crate::oip::rest) struct Elements {
    /// Their wire bytes.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub count: usize,
    /// The length of the arrays at each depth, outermost first; one alone is a flat list.
    nesting: Vec<usize>,
}

impl Elements {
    /// Refuses what does not fill a tensor of this shape, or is nested as another one.
    pub(in crate::oip::rest) fn fit(
        &self,
        input: &str,
        datatype: DataType,
        shape: &Shape,
    ) -> Result<(), InferError> {
        check::count_is(input, datatype, shape, self.count)?;
        let nesting = self.nesting.as_slice();
        // Below an empty array there is nothing left to nest.
        let cut_short = nesting.last() == Some(&0) && shape.0.starts_with(nesting);
        if nesting.len() < 2 || nesting == shape.0.as_slice() || cut_short {
            return Ok(());
        }
        Err(InferError::bad_request(format!(
            "data of input '{input}' is nested as {}, but the shape is {shape}; nest it as the \
             shape says, or send it flat",
            Shape(nesting.to_vec())
        )))
    }
}

/// Reads the `data` of an input, flat or nested.
///
/// `hint` is the number of elements that the shape claims; it saves growing the buffer, and is
/// believed only as far as the text left could hold so many.
pub(in crate::oip::rest) fn read(
    reader: &mut Reader<'_>,
    input: &str,
    datatype: DataType,
    hint: usize,
) -> Result<Elements, InferError> {
    // An element and its comma are at least two bytes of text.
    let elements = hint.min(reader.remaining() / 2 + 1);
    let bytes = datatype.element_bytes().unwrap_or(4).saturating_mul(elements);
    let bytes = Vec::with_capacity(bytes);
    let mut data = Data { reader, input, datatype, count: 0, bytes, nesting: Nesting::default() };
    match datatype {
        DataType::Bool => data.array(1, &mut Data::truth),
        DataType::Uint8 => {
            data.array(1, &mut |data| data.integer(u8::to_le_bytes, &(u8::MIN..=u8::MAX)))
        }
        DataType::Uint16 => {
            data.array(1, &mut |data| data.integer(u16::to_le_bytes, &(u16::MIN..=u16::MAX)))
        }
        DataType::Uint32 => {
            data.array(1, &mut |data| data.integer(u32::to_le_bytes, &(u32::MIN..=u32::MAX)))
        }
        DataType::Uint64 => {
            data.array(1, &mut |data| data.integer(u64::to_le_bytes, &(u64::MIN..=u64::MAX)))
        }
        DataType::Int8 => {
            data.array(1, &mut |data| data.integer(i8::to_le_bytes, &(i8::MIN..=i8::MAX)))
        }
        DataType::Int16 => {
            data.array(1, &mut |data| data.integer(i16::to_le_bytes, &(i16::MIN..=i16::MAX)))
        }
        DataType::Int32 => {
            data.array(1, &mut |data| data.integer(i32::to_le_bytes, &(i32::MIN..=i32::MAX)))
        }
        DataType::Int64 => {
            data.array(1, &mut |data| data.integer(i64::to_le_bytes, &(i64::MIN..=i64::MAX)))
        }
        DataType::Fp32 => data.array(1, &mut Data::single),
        DataType::Fp64 => data.array(1, &mut Data::double),
        DataType::Bytes => data.array(1, &mut Data::text),
        DataType::Fp16 | DataType::Bf16 => Err(InferError::bad_request(format!(
            "input '{input}': {datatype} has no form in JSON; send it as binary data \
             (parameters.binary_data_size)"
        ))),
    }?;
    let nesting = data.nesting.end(input)?;
    Ok(Elements { bytes: data.bytes, count: data.count, nesting })
}

/// How deep arrays go, and how long those of one depth are.
#[derive(Default)]
struct Nesting {
    /// By depth; none while the first array of that depth is still open.
    lengths: Vec<Option<usize>>,
    /// The depth of the arrays that hold elements.
    leaf: Option<usize>,
}

impl Nesting {
    /// An array of this depth starts.
    fn open(&mut self, depth: usize) {
        if self.lengths.len() < depth {
            self.lengths.push(None);
        }
    }

    /// An array of this depth ends, after so many arrays or elements.
    fn close(&mut self, depth: usize, arrays: usize, elements: usize) -> Result<(), String> {
        if arrays > 0 && elements > 0 {
            return Err(format!("at depth {depth}, elements stand beside arrays"));
        }
        if elements > 0 && self.leaf.replace(depth).is_some_and(|leaf| leaf != depth) {
            return Err(format!("elements stand at depth {depth} and elsewhere"));
        }
        let length = arrays + elements;
        match self.lengths.get_mut(depth - 1) {
            Some(Some(first)) if *first != length => {
                Err(format!("at depth {depth}, an array of length {length} follows one of {first}"))
            }
            Some(first) => {
                *first = Some(length);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The lengths by depth, once everything is closed.
    fn end(self, input: &str) -> Result<Vec<usize>, InferError> {
        let lengths: Vec<usize> = self.lengths.into_iter().flatten().collect();
        if self.leaf.is_some_and(|leaf| leaf != lengths.len()) {
            return Err(ragged(input, "empty arrays stand where others hold elements"));
        }
        Ok(lengths)
    }
}

#[cold]
fn ragged(input: &str, why: &str) -> InferError {
    InferError::bad_request(format!(
        "data of input '{input}' is ragged: {why}; nest it as the shape says, or send it flat"
    ))
}

/// The elements of one input as they are read.
struct Data<'r, 'a> {
    reader: &'r mut Reader<'a>,
    input: &'r str,
    datatype: DataType,
    count: usize,
    bytes: Vec<u8>,
    nesting: Nesting,
}

impl Data<'_, '_> {
    /// Reads one array with all that it holds.
    fn array(
        &mut self,
        depth: usize,
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
        self.nesting.open(depth);
        let (before, mut arrays, mut inner) = (self.count, 0, 0);
        while self.reader.item(&mut array)? {
            if self.reader.peek() == Some(b'[') {
                arrays += 1;
                // What an inner array holds is not counted here.
                let count = self.count;
                self.array(depth + 1, element)?;
                inner += self.count - count;
            } else {
                element(self)?;
                self.count += 1;
            }
        }
        let elements = self.count - before - inner;
        self.nesting.close(depth, arrays, elements).map_err(|why| ragged(self.input, &why))
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
