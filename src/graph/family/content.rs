//! The values of a constant tensor in one form, wherever its writer put them.
//!
//! Separate because raw, typed and external data of equal values must be equal here, byte for byte: digests and
//! written models both rest on it.
//!
//! # Source
//! The TensorProto part of the ONNX schema: which field holds which type, and how narrow types are packed.

use super::hash::{Digest, Fields};
use crate::graph::constant::elem;
use crate::graph::external::{ExternalData, external_data};
use crate::graph::proto::TensorProto;
use crate::graph::rules::Reason;
use bytes::Bytes;

/// Gives the bytes of an external tensor.
pub type Weights<'w> = dyn Fn(&ExternalData) -> Result<Bytes, String> + 'w;

/// A tensor's elements: little-endian bytes, or texts.
enum Elements<'a> {
    Raw(Bytes),
    Texts(&'a [Bytes]),
}

/// Bits of one element; none for a type that has no fixed size or that is not known.
pub(super) const fn bits(elem_type: i32) -> Option<u64> {
    Some(match elem_type {
        elem::UINT8 | elem::INT8 | elem::BOOL | 17..=20 | 24 => 8,
        elem::UINT16 | elem::INT16 | elem::FLOAT16 | elem::BFLOAT16 => 16,
        elem::FLOAT | elem::INT32 | elem::UINT32 => 32,
        elem::INT64 | elem::UINT64 | elem::DOUBLE | 14 => 64,
        15 => 128,
        21..=23 => 4,
        _ => return None,
    })
}

/// The number of elements that the dims claim.
pub(super) fn count(tensor: &TensorProto) -> Option<u64> {
    tensor
        .dims
        .iter()
        .try_fold(1_u64, |product, &dim| product.checked_mul(u64::try_from(dim).ok()?))
}

/// The digest of a constant: type, shape, values.
pub(super) fn digest(tensor: &TensorProto, weights: &Weights<'_>) -> Result<Digest, Reason> {
    let elements = elements(tensor, weights)?;
    let mut fields = Fields::new(b"constant");
    fields.number(i64::from(tensor.data_type())).numbers(&tensor.dims);
    match &elements {
        Elements::Raw(bytes) => fields.bytes(bytes),
        Elements::Texts(texts) => texts.iter().fold(&mut fields, |fields, text| fields.bytes(text)),
    };
    Ok(fields.finish())
}

/// The same constant under another name, its values in the file.
pub(super) fn written(
    tensor: &TensorProto,
    name: String,
    weights: &Weights<'_>,
) -> Result<TensorProto, Reason> {
    let mut made = TensorProto {
        name: Some(name),
        dims: tensor.dims.clone(),
        data_type: tensor.data_type,
        ..TensorProto::default()
    };
    match elements(tensor, weights)? {
        Elements::Raw(bytes) => made.raw_data = Some(bytes),
        Elements::Texts(texts) => made.string_data = texts.to_vec(),
    }
    Ok(made)
}

fn elements<'a>(tensor: &'a TensorProto, weights: &Weights<'_>) -> Result<Elements<'a>, Reason> {
    let refused = |why: String| Reason::new(format!("constant '{}' {why}", tensor.name()));
    let Some(count) = count(tensor) else {
        return Err(refused("has a shape that means nothing".to_owned()));
    };
    if tensor.data_type() == elem::STRING {
        let found = u64::try_from(tensor.string_data.len()).ok();
        let inside = tensor.data_location() == 0 && found == Some(count);
        return match inside {
            true => Ok(Elements::Texts(&tensor.string_data)),
            false => Err(refused(format!("does not hold the {count} texts of its shape"))),
        };
    }
    let Some(bits) = bits(tensor.data_type()) else {
        return Err(refused(format!("is of type {}, which is not known", tensor.data_type())));
    };
    let external = external_data(tensor).map_err(|error| refused(error.to_string()))?;
    let bytes = match (external, &tensor.raw_data) {
        (Some(place), _) => weights(&place).map_err(refused)?,
        (None, Some(raw)) => raw.clone(),
        (None, None) => typed(tensor),
    };
    let expected = count.checked_mul(bits).map(|bits| bits.div_ceil(8));
    if u64::try_from(bytes.len()).ok() != expected {
        let expected = expected.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string());
        let found = bytes.len();
        return Err(refused(format!("has {found} bytes of values, its shape needs {expected}")));
    }
    Ok(Elements::Raw(bytes))
}

/// What the typed fields hold, as raw data would hold it.
fn typed(tensor: &TensorProto) -> Bytes {
    let narrow = |width: usize| -> Vec<u8> {
        let values = tensor.int32_data.iter().map(|value| value.to_le_bytes());
        values.flat_map(|bytes| bytes.into_iter().take(width)).collect()
    };
    let wide = |width: usize| -> Vec<u8> {
        let values = tensor.uint64_data.iter().map(|value| value.to_le_bytes());
        values.flat_map(|bytes| bytes.into_iter().take(width)).collect()
    };
    let bytes: Vec<u8> = match tensor.data_type() {
        elem::FLOAT | 14 => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        elem::DOUBLE | 15 => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        elem::INT64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        elem::UINT64 => wide(8),
        elem::UINT32 => wide(4),
        elem::INT32 => narrow(4),
        elem::INT16 | elem::UINT16 | elem::FLOAT16 | elem::BFLOAT16 => narrow(2),
        _ => narrow(1),
    };
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{floats, int64s};

    fn none(_: &ExternalData) -> Result<Bytes, String> {
        Err("there is no such file".into())
    }

    #[test]
    fn one_digest_wherever_the_values_lie() {
        let typed = int64s("a", &[2], &[1, -2]);
        let bytes = Bytes::from([1_i64.to_le_bytes(), (-2_i64).to_le_bytes()].concat());
        let raw = TensorProto {
            int64_data: Vec::new(),
            raw_data: Some(bytes.clone()),
            name: Some("b".into()),
            ..typed.clone()
        };
        let mut external = TensorProto { raw_data: None, data_location: Some(1), ..raw.clone() };
        external.external_data.push(crate::graph::proto::StringStringEntryProto {
            key: Some("location".into()),
            value: Some("w.bin".into()),
        });
        let expected = digest(&typed, &none);
        assert!(expected.is_ok());
        assert_eq!(digest(&raw, &none), expected);
        assert_eq!(digest(&external, &|_| Ok(bytes.clone())), expected);
        let why = digest(&external, &none).map_err(|reason| reason.0);
        assert_eq!(why, Err("constant 'b' there is no such file".into()));
        assert_ne!(digest(&int64s("a", &[2, 1], &[1, -2]), &none), expected);
        assert_ne!(digest(&int64s("a", &[2], &[1, -3]), &none), expected);
    }

    #[test]
    fn a_count_that_contradicts_the_shape_is_refused() {
        let mut short = floats("w", &[4]);
        short.dims = vec![5];
        let why = digest(&short, &none).map_err(|reason| reason.0);
        assert_eq!(why, Err("constant 'w' has 16 bytes of values, its shape needs 20".into()));
        short.dims = vec![i64::MAX, i64::MAX];
        assert!(digest(&short, &none).is_err());
        short.dims = vec![-1];
        assert!(digest(&short, &none).is_err());
    }
}
