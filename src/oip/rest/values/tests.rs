//! Both directions: exact edges, refusals with their words, and every bit pattern there and back.

use super::write::narrow;
use super::{read, string, write};
use crate::oip::rest::json::Reader;
use crate::tensor::{DataType, OutputTensor, Shape};
use bytes::Bytes;
use proptest::prelude::*;

fn read_text(datatype: DataType, text: &str) -> Result<(Vec<u8>, usize), String> {
    let mut reader = Reader::new(text);
    let read = read(&mut reader, "IN", datatype, 0).map_err(|error| error.message)?;
    Ok((read.bytes, read.count))
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
        (DataType::Uint8, "[1,300]", "element 1 of input 'IN' (UINT8) is 300, outside 0 to 255"),
        (DataType::Uint8, "[-1]", "element 0 of input 'IN' (UINT8) is -1, outside 0 to 255"),
        (DataType::Int8, "[[128]]", "element 0 of input 'IN' (INT8) is 128, outside -128 to 127"),
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

/// What is said of this text as the data of a tensor of this shape.
fn fits(text: &str, shape: &[usize]) -> Result<Vec<u8>, String> {
    let mut reader = Reader::new(text);
    let read = read(&mut reader, "IN", DataType::Uint8, 0);
    let read = read.and_then(|read| {
        read.fit("IN", DataType::Uint8, &Shape(shape.to_vec()))?;
        Ok(read.bytes)
    });
    read.map_err(|error| error.message)
}

#[test]
fn data_is_flat_or_nested_as_its_shape() {
    let table: [(&str, &[usize]); 11] = [
        ("[1,2,3,4]", &[4]),
        ("[1,2,3,4]", &[2, 2]),
        ("[[1,2],[3,4]]", &[2, 2]),
        ("[[[1],[2]],[[3],[4]]]", &[2, 2, 1]),
        ("[[1,2,3,4]]", &[1, 4]),
        ("[1]", &[]),
        ("[]", &[0, 3]),
        ("[]", &[2, 0]),
        ("[[],[]]", &[2, 0]),
        ("[[],[]]", &[2, 0, 3]),
        ("[[[],[],[]],[[],[],[]]]", &[2, 3, 0]),
    ];
    for (text, shape) in table {
        let bytes = fits(text, shape).expect(text);
        assert_eq!(bytes.len(), shape.iter().product::<usize>(), "{text}");
        assert!(bytes.iter().copied().eq((1..=4).take(bytes.len())), "{text}");
    }
}

#[test]
fn data_nested_otherwise_is_refused() {
    let table: [(&str, &[usize], &str); 9] = [
        ("[[1,2],[3,4]]", &[4], "is nested as [2,2], but the shape is [4]"),
        ("[[1,2,3],[4,5,6]]", &[3, 2], "is nested as [2,3], but the shape is [3,2]"),
        ("[[1],[2]]", &[2, 1, 1], "is nested as [2,1], but the shape is [2,1,1]"),
        ("[[]]", &[0, 3], "is nested as [1,0], but the shape is [0,3]"),
        ("[[1,2],[3]]", &[3], "at depth 2, an array of length 1 follows one of 2"),
        ("[[1,2],3,4]", &[2, 2], "at depth 1, elements stand beside arrays"),
        ("[[1],[[2]]]", &[2], "elements stand at depth 3 and elsewhere"),
        ("[[1],[[]]]", &[1], "empty arrays stand where others hold elements"),
        ("[[1,2],[3,4]]", &[5], "shape [5] of UINT8 needs 5 elements, but 4 came"),
    ];
    for (text, shape, words) in table {
        let error = fits(text, shape).expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_claimed_size_takes_no_memory() {
    let mut reader = Reader::new("[1]");
    let read = read(&mut reader, "IN", DataType::Fp64, usize::MAX).expect("one element");
    assert!(read.bytes.capacity() < 64);
}

#[test]
fn what_json_cannot_hold_asks_for_binary() {
    let error = write_text(DataType::Bytes, &[1, 0, 0, 0, 255]).expect_err("not UTF-8");
    assert!(error.starts_with("output 'OUT': element 0 is not UTF-8 text; ask for it as binary"));
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
