//! Small constant tensors as numbers.
//!
//! Separate because the values lie in one of several fields by type and writer, and every rule that asks for an
//! axis, a shape or a flag must read them alike.
//!
//! # Source
//! The TensorProto part of the ONNX schema: which field holds which type.

use super::proto::TensorProto;

/// The schema's number of a tensor type that rules ask for.
pub mod elem {
    #![expect(missing_docs, reason = "the names are the schema's own")]
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const STRING: i32 = 8;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const UINT64: i32 = 13;
    pub const BFLOAT16: i32 = 16;
}

/// Most elements a rule ever reads of a tensor.
pub const ELEMENTS_MAX: usize = 1024;

/// The number of elements that the dims claim; none if negative, overflowing or past [`ELEMENTS_MAX`].
fn elements(tensor: &TensorProto) -> Option<usize> {
    let count = tensor.dims.iter().try_fold(1_usize, |product, &dim| {
        usize::try_from(dim).ok().and_then(|dim| product.checked_mul(dim))
    })?;
    (count <= ELEMENTS_MAX).then_some(count)
}

fn raw<const N: usize, T>(tensor: &TensorProto, convert: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = tensor.raw_data.as_ref()?.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|&chunk| convert(chunk)).collect())
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location.unwrap_or(0) != 0
}

/// The elements of a small whole-number or boolean tensor held in the file.
///
/// None for another type, an external tensor, more than [`ELEMENTS_MAX`] elements, or a count that contradicts
/// the shape.
#[must_use]
pub fn ints(tensor: &TensorProto) -> Option<Vec<i64>> {
    let count = elements(tensor)?;
    if is_external(tensor) {
        return None;
    }
    let narrow = || tensor.int32_data.iter().map(|&v| i64::from(v)).collect();
    let values: Vec<i64> = if tensor.raw_data.is_some() {
        match tensor.data_type() {
            elem::INT64 => raw(tensor, i64::from_le_bytes)?,
            elem::INT32 => raw(tensor, |b| i64::from(i32::from_le_bytes(b)))?,
            elem::UINT32 => raw(tensor, |b| i64::from(u32::from_le_bytes(b)))?,
            elem::INT16 => raw(tensor, |b| i64::from(i16::from_le_bytes(b)))?,
            elem::UINT16 => raw(tensor, |b| i64::from(u16::from_le_bytes(b)))?,
            elem::INT8 => raw(tensor, |b| i64::from(i8::from_le_bytes(b)))?,
            elem::UINT8 => raw(tensor, |[b]: [u8; 1]| i64::from(b))?,
            elem::BOOL => raw(tensor, |[b]: [u8; 1]| i64::from(b != 0))?,
            _ => return None,
        }
    } else {
        match tensor.data_type() {
            elem::INT64 => tensor.int64_data.clone(),
            elem::BOOL => tensor.int32_data.iter().map(|&v| i64::from(v != 0)).collect(),
            elem::INT32 | elem::INT16 | elem::UINT16 | elem::INT8 | elem::UINT8 => narrow(),
            elem::UINT32 => {
                tensor.uint64_data.iter().map(|&v| i64::try_from(v).ok()).collect::<Option<_>>()?
            }
            _ => return None,
        }
    };
    (values.len() == count).then_some(values)
}

/// The elements of a small float tensor held in the file, under the same conditions as [`ints`].
#[must_use]
pub fn floats(tensor: &TensorProto) -> Option<Vec<f64>> {
    let count = elements(tensor)?;
    if is_external(tensor) {
        return None;
    }
    let values: Vec<f64> = match (tensor.data_type(), tensor.raw_data.is_some()) {
        (elem::FLOAT, true) => raw(tensor, |b| f64::from(f32::from_le_bytes(b)))?,
        (elem::FLOAT, false) => tensor.float_data.iter().map(|&v| f64::from(v)).collect(),
        (elem::DOUBLE, true) => raw(tensor, f64::from_le_bytes)?,
        (elem::DOUBLE, false) => tensor.double_data.clone(),
        (elem::FLOAT16, true) => raw(tensor, |b| half::f16::from_le_bytes(b).to_f64())?,
        _ => return None,
    };
    (values.len() == count).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: Some(data_type), dims: dims.to_vec(), ..TensorProto::default() }
    }

    #[test]
    fn whole_numbers() {
        let check = |tensor: TensorProto, expected: Option<&[i64]>| {
            assert_eq!(ints(&tensor).as_deref(), expected, "{tensor:?}");
        };
        let raw = |data_type, dims: &[i64], bytes: &'static [u8]| TensorProto {
            raw_data: Some(Bytes::from_static(bytes)),
            ..tensor(data_type, dims)
        };
        check(raw(elem::INT64, &[1], &[254, 255, 255, 255, 255, 255, 255, 255]), Some(&[-2]));
        check(raw(elem::INT32, &[2], &[1, 0, 0, 0, 255, 255, 255, 255]), Some(&[1, -1]));
        check(raw(elem::BOOL, &[], &[7]), Some(&[1]));
        check(raw(elem::INT64, &[2], &[0; 8]), None);
        check(raw(elem::INT64, &[1], &[0; 9]), None);
        check(raw(elem::INT64, &[-1], &[]), None);
        check(raw(elem::INT64, &[i64::MAX, i64::MAX], &[]), None);
        check(raw(elem::FLOAT, &[1], &[0; 4]), None);
        check(TensorProto { int64_data: vec![5], ..tensor(elem::INT64, &[]) }, Some(&[5]));
        check(TensorProto { int32_data: vec![5], ..tensor(elem::INT8, &[1]) }, Some(&[5]));
        check(TensorProto { data_location: Some(1), ..raw(elem::BOOL, &[], &[1]) }, None);
    }

    #[test]
    fn fractions() {
        let half = TensorProto {
            raw_data: Some(Bytes::from_static(&[0x00, 0x40])),
            ..tensor(elem::FLOAT16, &[1])
        };
        assert_eq!(floats(&half), Some(vec![2.0]));
        let single = TensorProto { float_data: vec![1.5], ..tensor(elem::FLOAT, &[]) };
        assert_eq!(floats(&single), Some(vec![1.5]));
        assert_eq!(floats(&tensor(elem::FLOAT, &[3])), None);
    }
}
