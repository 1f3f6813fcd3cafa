//! Tensors for people to read: name, datatype and shape, then the values, shortened where they are many.

use super::npy;
use crate::tensor::{DataType, Shape, Tensor};
use ndarray::{ArrayD, IxDyn};
use std::fmt;
use std::io::{self, Write};

/// One element of `BYTES`, in quotes.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match str::from_utf8(self.0) {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

/// Writes a tensor.
///
/// # Errors
/// When it cannot be written, or its bytes are not what its shape says.
pub fn tensor(out: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    let Tensor { name, datatype, shape, data } = tensor;
    writeln!(out, "{name} {datatype} {shape}")?;
    match datatype {
        DataType::Bool => values(out, shape, data, |&[byte]: &[u8; 1]| byte != 0),
        DataType::Uint8 => values(out, shape, data, |&[byte]: &[u8; 1]| byte),
        DataType::Uint16 => values(out, shape, data, |&raw| u16::from_le_bytes(raw)),
        DataType::Uint32 => values(out, shape, data, |&raw| u32::from_le_bytes(raw)),
        DataType::Uint64 => values(out, shape, data, |&raw| u64::from_le_bytes(raw)),
        DataType::Int8 => values(out, shape, data, |&raw| i8::from_le_bytes(raw)),
        DataType::Int16 => values(out, shape, data, |&raw| i16::from_le_bytes(raw)),
        DataType::Int32 => values(out, shape, data, |&raw| i32::from_le_bytes(raw)),
        DataType::Int64 => values(out, shape, data, |&raw| i64::from_le_bytes(raw)),
        DataType::Fp16 => values(out, shape, data, |&raw| half::f16::from_le_bytes(raw)),
        DataType::Bf16 => values(out, shape, data, |&raw| half::bf16::from_le_bytes(raw)),
        DataType::Fp32 => values(out, shape, data, |&raw| f32::from_le_bytes(raw)),
        DataType::Fp64 => values(out, shape, data, |&raw| f64::from_le_bytes(raw)),
        DataType::Bytes => {
            let elements = npy::elements(data).map_err(io::Error::other)?;
            array(out, shape, elements.into_iter().map(Quoted).collect())
        }
    }
}

fn values<T: fmt::Display, const N: usize>(
    out: &mut impl Write,
    shape: &Shape,
    data: &[u8],
    value: impl Fn(&[u8; N]) -> T,
) -> io::Result<()> {
    array(out, shape, data.as_chunks::<N>().0.iter().map(value).collect())
}

fn array<T: fmt::Display>(out: &mut impl Write, shape: &Shape, values: Vec<T>) -> io::Result<()> {
    let array = ArrayD::from_shape_vec(IxDyn(&shape.0), values).map_err(io::Error::other)?;
    writeln!(out, "{array}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn shown(datatype: DataType, shape: &[usize], data: &'static [u8]) -> String {
        let (name, data) = ("y".to_owned(), Bytes::from_static(data));
        let mut out = Vec::new();
        tensor(&mut out, &Tensor { name, datatype, shape: Shape(shape.to_vec()), data }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_laid_out_by_shape() {
        assert_eq!(shown(DataType::Bool, &[2], &[1, 0]), "y BOOL [2]\n[true, false]\n");
        assert_eq!(shown(DataType::Uint16, &[1, 2], &[1, 0, 2, 0]), "y UINT16 [1,2]\n[[1, 2]]\n");
        assert_eq!(shown(DataType::Bf16, &[], &[0xc0, 0x3f]), "y BF16 []\n1.5\n");
        assert_eq!(shown(DataType::Fp32, &[0, 3], &[]), "y FP32 [0,3]\n[[]]\n");
        let text = shown(DataType::Bytes, &[2], b"\x02\0\0\0a\"\x01\0\0\0\xff");
        assert_eq!(text, "y BYTES [2]\n[\"a\\\"\", b\"\\xff\"]\n");
        assert!(shown(DataType::Uint8, &[2000], &[0; 2000]).contains("..."));
    }
}
