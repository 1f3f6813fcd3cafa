//! Classification: an output as its highest elements, in words.

use crate::request::RequestedOutput;
use crate::tensor::{DataType, OutputTensor, Shape};
use bytes::Bytes;
use half::{bf16, f16};
use std::cmp::Ordering;
use std::num::NonZeroU32;

/// An element as a number that keeps its order and all its digits.
#[derive(Clone, Copy, Debug)]
enum Score {
    Whole(i128),
    Real(f64),
}

impl Score {
    /// The element at this place.
    fn at(datatype: DataType, data: &[u8], place: usize) -> Self {
        fn element<const N: usize>(data: &[u8], place: usize) -> [u8; N] {
            data.as_chunks().0.get(place).copied().unwrap_or([0; N])
        }
        match datatype {
            DataType::Bool | DataType::Uint8 => {
                Self::Whole(u8::from_le_bytes(element(data, place)).into())
            }
            DataType::Uint16 => Self::Whole(u16::from_le_bytes(element(data, place)).into()),
            DataType::Uint32 => Self::Whole(u32::from_le_bytes(element(data, place)).into()),
            DataType::Uint64 => Self::Whole(u64::from_le_bytes(element(data, place)).into()),
            DataType::Int8 => Self::Whole(i8::from_le_bytes(element(data, place)).into()),
            DataType::Int16 => Self::Whole(i16::from_le_bytes(element(data, place)).into()),
            DataType::Int32 => Self::Whole(i32::from_le_bytes(element(data, place)).into()),
            DataType::Int64 => Self::Whole(i64::from_le_bytes(element(data, place)).into()),
            DataType::Fp16 => Self::Real(f16::from_le_bytes(element(data, place)).to_f64()),
            DataType::Bf16 => Self::Real(bf16::from_le_bytes(element(data, place)).to_f64()),
            DataType::Fp32 => Self::Real(f32::from_le_bytes(element(data, place)).into()),
            DataType::Fp64 => Self::Real(f64::from_le_bytes(element(data, place))),
            // Refused with the request: texts have no order that anybody asks for.
            DataType::Bytes => Self::Whole(0),
        }
    }

    /// Highest first; what is not a number is lower than all numbers.
    fn descending(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => b.cmp(&a),
            (Self::Real(a), Self::Real(b)) => {
                b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            (Self::Whole(_), Self::Real(_)) | (Self::Real(_), Self::Whole(_)) => Ordering::Equal,
        }
    }

    /// As Triton prints it, which is as C's `%f` and `%d` do.
    fn text(self) -> String {
        match self {
            Self::Whole(value) => value.to_string(),
            Self::Real(value) if value.is_nan() => "nan".to_owned(),
            Self::Real(value) => format!("{value:.6}"),
        }
    }
}

/// The output in the form that was asked for; `batched` says that its first axis counts rows.
///
/// # Cost
/// For a classification one copy of a tensor in pieces, and a number for each of its elements in one row.
pub(super) fn formed(
    output: OutputTensor,
    wanted: Option<&RequestedOutput>,
    labels: Option<&[String]>,
    batched: bool,
) -> OutputTensor {
    match wanted.and_then(|wanted| wanted.classes) {
        None => output,
        Some(classes) => classify(&output, classes, labels.unwrap_or_default(), batched),
    }
}

/// The `classes` highest elements of each row, or of the whole where there are no rows.
fn classify(
    output: &OutputTensor,
    classes: NonZeroU32,
    labels: &[String],
    batched: bool,
) -> OutputTensor {
    let data = output.contiguous();
    let elements = data.len() / output.datatype.element_bytes().unwrap_or(1);
    let rows = output.shape.0.first().copied().filter(|_| batched);
    let many = rows.unwrap_or(1);
    let each = elements.checked_div(many).unwrap_or(0);
    let shown = each.min(usize::try_from(classes.get()).unwrap_or(usize::MAX));
    let mut texts = Vec::new();
    for row in 0..many {
        let score = |index: usize| Score::at(output.datatype, &data, row * each + index);
        for index in highest(each, shown, score) {
            let mut text = format!("{}:{index}", score(index).text());
            if let Some(label) = labels.get(index) {
                text.push(':');
                text.push_str(label);
            }
            texts.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            texts.extend_from_slice(text.as_bytes());
        }
    }
    OutputTensor {
        name: output.name.clone(),
        datatype: DataType::Bytes,
        shape: Shape(rows.into_iter().chain([shown]).collect()),
        pieces: vec![Bytes::from(texts)],
    }
}

/// The places of the highest `shown` of `count` scores, highest first; of equal ones the first first.
fn highest(count: usize, shown: usize, score: impl Fn(usize) -> Score) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| score(a).descending(score(b)).then(a.cmp(&b));
    let mut places: Vec<usize> = (0..count).collect();
    if shown < count {
        places.select_nth_unstable_by(shown, order);
        places.truncate(shown);
    }
    places.sort_unstable_by(order);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::bytes_element_ends;

    fn classes(
        (datatype, shape, data): (DataType, &[usize], Vec<u8>),
        n: u32,
        batched: bool,
        labels: &[&str],
    ) -> (Vec<usize>, Vec<String>) {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let (name, shape) = ("OUT".to_owned(), Shape(shape.to_vec()));
        let output = OutputTensor { name, datatype, shape, pieces: vec![Bytes::from(data)] };
        let wanted = RequestedOutput { classes: NonZeroU32::new(n), ..RequestedOutput::default() };
        let got = formed(output, Some(&wanted), Some(&labels), batched);
        assert_eq!((got.name.as_str(), got.datatype), ("OUT", DataType::Bytes));
        let data = got.contiguous();
        let ends = bytes_element_ends(&data).expect("whole elements");
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let text = |(start, &end): (usize, &usize)| {
            String::from_utf8(data[start + 4..end].to_vec()).expect("text")
        };
        (got.shape.0.clone(), starts.zip(&ends).map(text).collect())
    }

    fn singles(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn highest_first_with_labels_and_all_where_more_are_asked_for() {
        let five = singles(&[0.1, 0.9, 0.3, 0.5, 0.2]);
        let labels = ["ash", "birch", "cedar", "dogwood"];
        let (shape, texts) = classes((DataType::Fp32, &[1, 5], five.clone()), 2, true, &labels);
        assert_eq!(shape, [1, 2]);
        assert_eq!(texts, ["0.900000:1:birch", "0.500000:3:dogwood"]);
        let (shape, texts) = classes((DataType::Fp32, &[5], five), 9, false, &[]);
        assert_eq!(shape, [5]);
        assert_eq!(texts, ["0.900000:1", "0.500000:3", "0.300000:2", "0.200000:4", "0.100000:0"]);
    }

    #[test]
    fn every_row_by_itself_where_there_are_rows() {
        let values = singles(&[5.0, 4.0, 3.0, 1.0, 2.0, 3.0]);
        let (shape, texts) = classes((DataType::Fp32, &[2, 3], values.clone()), 1, true, &[]);
        assert_eq!((shape, texts), (vec![2, 1], vec!["5.000000:0".into(), "3.000000:2".into()]));
        let (shape, texts) = classes((DataType::Fp32, &[2, 3], values), 2, false, &[]);
        assert_eq!((shape, texts), (vec![2], vec!["5.000000:0".into(), "4.000000:1".into()]));
        let (shape, texts) = classes((DataType::Fp32, &[0, 3], vec![]), 2, true, &[]);
        assert_eq!((shape, texts), (vec![0, 0], vec![]));
        let (shape, texts) = classes((DataType::Fp32, &[], singles(&[2.5])), 2, true, &[]);
        assert_eq!((shape, texts), (vec![1], vec!["2.500000:0".into()]));
    }

    #[test]
    fn ties_go_to_the_first_and_what_is_no_number_comes_last() {
        let values = singles(&[f32::NAN, 1.0, f32::INFINITY, 1.0, f32::NEG_INFINITY]);
        let (_, texts) = classes((DataType::Fp32, &[5], values), 5, false, &[]);
        assert_eq!(texts, ["inf:2", "1.000000:1", "1.000000:3", "-inf:4", "nan:0"]);
        let (_, texts) = classes((DataType::Bool, &[4], vec![0, 1, 0, 1]), 3, false, &[]);
        assert_eq!(texts, ["1:1", "1:3", "0:0"]);
    }

    #[test]
    fn every_datatype_keeps_its_digits() {
        let table: [(DataType, Vec<u8>, [&str; 2]); 8] = [
            (DataType::Int8, vec![0x80, 0x7f], ["127:1", "-128:0"]),
            (DataType::Uint8, vec![0x80, 0x7f], ["128:0", "127:1"]),
            (
                DataType::Int16,
                [(-2_i16).to_le_bytes(), 3_i16.to_le_bytes()].concat(),
                ["3:1", "-2:0"],
            ),
            (
                DataType::Uint64,
                [u64::MAX.to_le_bytes(), (u64::MAX - 1).to_le_bytes()].concat(),
                ["18446744073709551615:0", "18446744073709551614:1"],
            ),
            (
                DataType::Int64,
                [i64::MIN.to_le_bytes(), (i64::MIN + 1).to_le_bytes()].concat(),
                ["-9223372036854775807:1", "-9223372036854775808:0"],
            ),
            (
                DataType::Fp64,
                [0.5_f64.to_le_bytes(), (-0.25_f64).to_le_bytes()].concat(),
                ["0.500000:0", "-0.250000:1"],
            ),
            (
                DataType::Fp16,
                [f16::from_f32(1.5).to_le_bytes(), f16::from_f32(2.5).to_le_bytes()].concat(),
                ["2.500000:1", "1.500000:0"],
            ),
            (
                DataType::Bf16,
                [bf16::from_f32(1.5).to_le_bytes(), bf16::from_f32(2.5).to_le_bytes()].concat(),
                ["2.500000:1", "1.500000:0"],
            ),
        ];
        for (datatype, data, expected) in table {
            let (_, texts) = classes((datatype, &[2], data), 2, false, &[]);
            assert_eq!(texts, expected, "{datatype}");
        }
    }
}
