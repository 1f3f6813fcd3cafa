//! Tensors in `.npy` files: numpy's form of an array to the wire's, and back.
//!
//! # Source
//! NEP 1, read and written through `npyz`. Big-endian and Fortran-ordered arrays are turned round.

use crate::tensor::{DataType, Shape, Tensor, bytes_element_ends};
use bytes::Bytes;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar, TypeStr, WriteOptions, WriterBuilder};
use std::io::{Read, Write};

/// Bytes of a character of numpy's `U` strings.
const CHAR_BYTES: usize = 4;

/// Reads a file's array as the tensor that a model calls `name` and wants as `wanted`.
///
/// The wanted datatype matters only for `BF16`, which numpy does not have: it is taken from two raw
/// bytes (`V2`, as `ml_dtypes` writes them) or from `f4` that loses nothing.
///
/// # Errors
/// A sentence: what the file is that no tensor can be, and what to do.
pub fn read(name: &str, mut file: impl Read, wanted: DataType) -> Result<Tensor, String> {
    let header = header(&mut file)?;
    let DType::Plain(kind) = header.dtype() else {
        return Err("holds records; save each field as an array of its own".to_owned());
    };
    let element = element_bytes(&kind)?;
    let shape = header.shape().iter().map(|&dim| usize::try_from(dim).ok());
    let shape: Option<Vec<usize>> = shape.collect();
    let shape = Shape(shape.ok_or("has a shape that cannot be counted")?);
    let bytes = shape.elements().and_then(|count| count.checked_mul(element));
    let bytes = bytes.ok_or("has a shape that cannot be counted")?;
    let mut data = Vec::new();
    file.read_to_end(&mut data).map_err(|error| format!("cannot be read: {error}"))?;
    if data.len() != bytes {
        return Err(format!("is cut short: its header means {bytes} bytes, {} came", data.len()));
    }
    if header.order() == Order::Fortran {
        data = row_major(&data, &shape.0, element);
    }
    if kind.endianness() == Endianness::Big {
        let unit = if kind.type_char() == TypeChar::UnicodeStr { CHAR_BYTES } else { element };
        data.chunks_exact_mut(unit.max(1)).for_each(<[u8]>::reverse);
    }
    let (datatype, data) = on_the_wire(&kind, element, data, wanted, shape.elements())?;
    Ok(Tensor { name: name.to_owned(), datatype, shape, data: Bytes::from(data) })
}

fn header(file: &mut impl Read) -> Result<NpyHeader, String> {
    let wrong = |error: std::io::Error| format!("is no .npy file that can be read: {error}");
    // Magic, version, and the length of the text that follows.
    let mut head = vec![0; 10];
    file.read_exact(&mut head).map_err(wrong)?;
    let mut length = u64::from(u16::from_le_bytes([head[8], head[9]]));
    if head[6] > 1 {
        let mut more = [0; 2];
        file.read_exact(&mut more).map_err(wrong)?;
        head.extend(more);
        length |= u64::from(u16::from_le_bytes(more)) << 16;
    }
    let text = head.len();
    file.take(length).read_to_end(&mut head).map_err(wrong)?;
    // The crate multiplies dimensions without a look at the result.
    if !countable(&String::from_utf8_lossy(&head[text..])) {
        return Err("has a shape that cannot be counted".to_owned());
    }
    NpyHeader::from_reader(&head[..]).map_err(wrong)
}

/// Whether each list of numbers in a header, one of which is the shape, has a product of 64 bits.
fn countable(header: &str) -> bool {
    let lists = header.split('(').skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
    lists.into_iter().all(|list| {
        let numbers = list.split(',').map(|number| number.trim().trim_start_matches('+'));
        let mut numbers = numbers.filter(|number| number.starts_with(|c: char| c.is_ascii_digit()));
        let product = numbers.try_fold(1_u64, |product, number| {
            product.checked_mul(number.trim_end_matches('L').parse::<u64>().ok()?.max(1))
        });
        product.is_some()
    })
}

fn element_bytes(kind: &TypeStr) -> Result<usize, String> {
    let size = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
    match (kind.type_char(), size) {
        (TypeChar::Bool, 1)
        | (TypeChar::Int | TypeChar::Uint, 1 | 2 | 4 | 8)
        | (TypeChar::Float, 2 | 4 | 8)
        | (TypeChar::RawData, 2)
        | (TypeChar::ByteStr, _) => Ok(size),
        (TypeChar::UnicodeStr, _) => {
            size.checked_mul(CHAR_BYTES).ok_or_else(|| format!("has elements of {size} characters"))
        }
        (TypeChar::Object, _) => Err("holds Python objects; for strings save an array of \
             dtype str (numpy.array(list) makes one)"
            .to_owned()),
        _ => Err(format!(
            "holds {kind}, which no tensor can; convert it with .astype(...) to bool, an integer, \
             float16, float32, float64 or str"
        )),
    }
}

/// The datatype and bytes of a tensor from little-endian elements in row-major order.
fn on_the_wire(
    kind: &TypeStr,
    element: usize,
    data: Vec<u8>,
    wanted: DataType,
    count: Option<usize>,
) -> Result<(DataType, Vec<u8>), String> {
    let datatype = match (kind.type_char(), element) {
        (TypeChar::Bool, _) => DataType::Bool,
        (TypeChar::Int, 1) => DataType::Int8,
        (TypeChar::Int, 2) => DataType::Int16,
        (TypeChar::Int, 4) => DataType::Int32,
        (TypeChar::Int, _) => DataType::Int64,
        (TypeChar::Uint, 1) => DataType::Uint8,
        (TypeChar::Uint, 2) => DataType::Uint16,
        (TypeChar::Uint, 4) => DataType::Uint32,
        (TypeChar::Uint, _) => DataType::Uint64,
        (TypeChar::Float, 2) => DataType::Fp16,
        (TypeChar::Float, 4) if wanted == DataType::Bf16 => {
            return Ok((DataType::Bf16, upper_halves(&data)?));
        }
        (TypeChar::Float, 4) => DataType::Fp32,
        (TypeChar::Float, _) => DataType::Fp64,
        (TypeChar::RawData, _) => DataType::Bf16,
        (kind, _) => {
            // Elements of no bytes leave no bytes to cut, so they are counted by the shape.
            let count = count.unwrap_or_default();
            let element = |number: usize| &data[number * element..(number + 1) * element];
            let texts = (0..count).map(element).map(|raw| match kind {
                TypeChar::UnicodeStr => unicode(raw),
                _ => Ok(without_padding(raw).to_vec()),
            });
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            return Ok((DataType::Bytes, prefixed(&texts)?));
        }
    };
    Ok((datatype, data))
}

/// Elements with their lengths in front, as `BYTES` travel.
fn prefixed(texts: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    for text in texts {
        let length = u32::try_from(text.len()).map_err(|_| "has a string of 4 GiB or more")?;
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(text);
    }
    Ok(data)
}

fn without_padding(raw: &[u8]) -> &[u8] {
    let end = raw.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &raw[..end]
}

fn unicode(raw: &[u8]) -> Result<Vec<u8>, String> {
    let points = raw.as_chunks::<CHAR_BYTES>().0.iter().map(|unit| u32::from_le_bytes(*unit));
    let points: Vec<u32> = points.collect();
    let end = points.iter().rposition(|&point| point != 0).map_or(0, |last| last + 1);
    let letter = |&point: &u32| {
        char::from_u32(point).ok_or_else(|| format!("has a string with {point:#x}, no character"))
    };
    let text = points[..end].iter().map(letter).collect::<Result<String, _>>()?;
    Ok(text.into_bytes())
}

/// `BF16` from singles that hold nothing beyond it.
fn upper_halves(data: &[u8]) -> Result<Vec<u8>, String> {
    let mut halves = Vec::with_capacity(data.len() / 2);
    for &[a, b, c, d] in data.as_chunks::<4>().0 {
        if (a, b) != (0, 0) {
            let value = f32::from_le_bytes([a, b, c, d]);
            return Err(format!(
                "holds {value}, which BF16 cannot; round it first, or save ml_dtypes.bfloat16"
            ));
        }
        halves.extend_from_slice(&[c, d]);
    }
    Ok(halves)
}

/// Fortran-ordered elements in row-major order.
fn row_major(data: &[u8], shape: &[usize], element: usize) -> Vec<u8> {
    let count = data.len().checked_div(element).unwrap_or(0);
    let mut strides = Vec::with_capacity(shape.len());
    shape.iter().fold(1, |stride, &dim| {
        strides.push(stride);
        stride * dim
    });
    let mut turned = Vec::with_capacity(data.len());
    for number in 0..count {
        // The last axis turns fastest.
        let (mut rest, mut at) = (number, 0);
        for (&dim, &stride) in shape.iter().zip(&strides).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        turned.extend_from_slice(&data[at * element..(at + 1) * element]);
    }
    turned
}

/// Writes a tensor as a `.npy` file.
///
/// `BF16` becomes `f4`, which holds all its values; `BYTES` become `U` strings, or `S` where one is not
/// UTF-8.
///
/// # Errors
/// What cannot be written, or a string whose end numpy would lose.
pub fn write(tensor: &Tensor, mut file: impl Write) -> Result<(), String> {
    let plain = |kind: &str| kind.parse::<TypeStr>().map_err(|error| error.to_string());
    let mut data = tensor.data.clone();
    let kind = match tensor.datatype {
        DataType::Bool => "|b1".to_owned(),
        DataType::Uint8 => "|u1".to_owned(),
        DataType::Int8 => "|i1".to_owned(),
        DataType::Uint16 => "<u2".to_owned(),
        DataType::Uint32 => "<u4".to_owned(),
        DataType::Uint64 => "<u8".to_owned(),
        DataType::Int16 => "<i2".to_owned(),
        DataType::Int32 => "<i4".to_owned(),
        DataType::Int64 => "<i8".to_owned(),
        DataType::Fp16 => "<f2".to_owned(),
        DataType::Fp32 => "<f4".to_owned(),
        DataType::Fp64 => "<f8".to_owned(),
        DataType::Bf16 => {
            let wide = data.as_chunks::<2>().0.iter().flat_map(|&[c, d]| [0, 0, c, d]);
            data = wide.collect();
            "<f4".to_owned()
        }
        DataType::Bytes => {
            let (kind, strings) = padded(&elements(&tensor.data)?)?;
            data = Bytes::from(strings);
            kind
        }
    };
    let shape: Vec<u64> = tensor.shape.0.iter().map(|&dim| dim as u64).collect();
    let options = WriteOptions::new_header_only().dtype(DType::Plain(plain(&kind)?)).shape(&shape);
    let text = |error: std::io::Error| error.to_string();
    options.writer(&mut file).write_header_only().map_err(text)?;
    file.write_all(&data).and_then(|()| file.flush()).map_err(text)
}

/// The elements of `BYTES` data.
///
/// # Errors
/// When a length does not fit.
pub fn elements(data: &[u8]) -> Result<Vec<&[u8]>, String> {
    let ends = bytes_element_ends(data)?;
    let starts = std::iter::once(0).chain(ends.iter().copied());
    Ok(starts.zip(&ends).map(|(start, &end)| &data[start + 4..end]).collect())
}

/// Strings of one size, as numpy keeps them.
fn padded(texts: &[&[u8]]) -> Result<(String, Vec<u8>), String> {
    if texts.iter().any(|text| text.last() == Some(&0)) {
        return Err("a string ends in NUL, which a .npy file cannot hold".to_owned());
    }
    let mut data = Vec::new();
    if let Ok(texts) = texts.iter().map(|text| str::from_utf8(text)).collect::<Result<Vec<_>, _>>()
    {
        let size = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        for text in texts {
            let points = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(size);
            points.for_each(|point| data.extend_from_slice(&point.to_le_bytes()));
        }
        return Ok((format!("<U{size}"), data));
    }
    let size = texts.iter().map(|text| text.len()).max().unwrap_or(0).max(1);
    for text in texts {
        data.extend_from_slice(text);
        data.resize(data.len() + size - text.len(), 0);
    }
    Ok((format!("|S{size}"), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(kind: &str, order: Order, shape: &[u64], data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let options = WriteOptions::new_header_only().dtype(DType::Plain(kind.parse().unwrap()));
        let options = options.order(order).shape(shape);
        options.writer(&mut file).write_header_only().unwrap();
        file.extend_from_slice(data);
        file
    }

    /// A header that numpy would not write.
    fn vast(shape: &str) -> Vec<u8> {
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [&b"\x93NUMPY\x01\x00"[..], &length, text.as_bytes()].concat()
    }

    fn check(file: &[u8], datatype: DataType, data: &[u8]) {
        let tensor = read("x", file, datatype).unwrap();
        assert_eq!((tensor.datatype, &tensor.data[..]), (datatype, data));
    }

    #[test]
    fn every_datatype_survives_the_way_through_a_file() {
        for datatype in DataType::ALL {
            let data = match datatype {
                DataType::Bytes => Bytes::from_static(b"\x03\0\0\0a\xc3\xa9\0\0\0\0"),
                _ => Bytes::from(vec![1; 2 * datatype.element_bytes().unwrap()]),
            };
            let name = "x".to_owned();
            let tensor = Tensor { name, datatype, shape: Shape(vec![2, 1]), data };
            let mut file = Vec::new();
            write(&tensor, &mut file).unwrap();
            assert_eq!(read("x", &file[..], datatype).unwrap(), tensor, "{datatype}");
        }
        let data = Bytes::from_static(b"\x01\0\0\0\xff");
        let (name, shape) = ("x".to_owned(), Shape(Vec::new()));
        let bytes = Tensor { name, datatype: DataType::Bytes, shape, data };
        let mut file = Vec::new();
        write(&bytes, &mut file).unwrap();
        assert_eq!(read("x", &file[..], DataType::Bytes).unwrap(), bytes);
    }

    #[test]
    fn other_orders_are_turned_round() {
        let big = npy(">i2", Order::C, &[2], &[0, 1, 0, 2]);
        check(&big, DataType::Int16, &[1, 0, 2, 0]);
        let text = npy(">U2", Order::C, &[1], &[0, 0, 0, b'a', 0, 0, 0, b'b']);
        check(&text, DataType::Bytes, b"\x02\0\0\0ab");
        // [[0, 1, 2], [3, 4, 5]] by columns.
        let columns = npy("|u1", Order::Fortran, &[2, 3], &[0, 3, 1, 4, 2, 5]);
        check(&columns, DataType::Uint8, &[0, 1, 2, 3, 4, 5]);
        check(&npy("<f4", Order::Fortran, &[0, 3], &[]), DataType::Fp32, &[]);
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        let table = [
            (npy("<c8", Order::C, &[1], &[0; 8]), "astype"),
            (npy("|O", Order::C, &[1], b"pickle"), "Python objects"),
            (npy("<f4", Order::C, &[2], &[0; 4]), "cut short"),
            (npy("<f4", Order::C, &[u64::MAX], &[]), "counted"),
            (vast("(4294967296, 4294967296, 0)"), "counted"),
            (vast("(0, 4294967296, 4294967296)"), "counted"),
            (vast("(99999999999999999999,)"), "counted"),
            (vast("(2,"), "no .npy file"),
            (npy("<U1", Order::C, &[1], &[0xff; 4]), "no character"),
            (b"PK\x03\x04".to_vec(), "no .npy file"),
        ];
        for (file, expected) in table {
            let why = read("x", &file[..], DataType::Fp32).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let why =
            read("x", &npy("<f4", Order::C, &[1], &1.01_f32.to_le_bytes())[..], DataType::Bf16);
        assert!(why.unwrap_err().contains("1.01"));
    }
}
