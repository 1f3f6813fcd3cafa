//! Checks of a tensor's encoding that do not depend on how it travelled.
//!
//! Separate from the codecs, so that REST and gRPC refuse the same things in the same words. Only
//! the encoding is judged: the tensor against its own shape and datatype, never against a model.

use crate::error::InferError;
use crate::request::{Parameter, RegionSlice, SharedTensor};
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;

/// Parameters with this prefix are the protocol's own; one that is not known may not be ignored.
const RESERVED_PREFIX: &str = "triton_";

/// perf_analyzer puts this on every request. It asks for an empty last message on a stream.
pub(super) const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// Asks for all outputs in binary; REST only, and of no meaning to a model.
pub(super) const BINARY_DATA_OUTPUT: &str = "binary_data_output";

/// What becomes of a request parameter.
pub(super) enum Fate {
    /// It may change the result or the scheduling: it stays with the request.
    Keep,
    /// It only concerns how the answer travels.
    Encoding,
}

/// Decides whether a request parameter is kept, or refuses it.
pub(super) fn request_parameter(key: &str, value: &Parameter) -> Result<Fate, InferError> {
    if key == BINARY_DATA_OUTPUT || key == EMPTY_FINAL_RESPONSE {
        return match value {
            Parameter::Bool(_) => Ok(Fate::Encoding),
            other => Err(wrong_parameter("the request", key, "true or false", other)),
        };
    }
    if key.starts_with(RESERVED_PREFIX) {
        return Err(InferError::bad_request(format!(
            "parameter '{key}' of the request: names that start with '{RESERVED_PREFIX}' are \
             reserved, and this one has no meaning here; leave it out or rename it"
        )));
    }
    Ok(Fate::Keep)
}

/// The error for a parameter that has the wrong type.
pub(super) fn wrong_parameter(
    owner: &str,
    key: &str,
    expected: &str,
    came: &Parameter,
) -> InferError {
    let came = match came {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::Text(_) => "a text".to_owned(),
    };
    InferError::bad_request(format!(
        "parameter '{key}' of {owner}: expected {expected}, but it is {came}"
    ))
}

/// A whole number as a parameter: the signed form wherever it fits, so that one value has one form.
pub(super) fn whole(value: u64) -> Parameter {
    i64::try_from(value).map_or(Parameter::Uint(value), Parameter::Int)
}

/// The datatype with this name.
pub(super) fn datatype(input: &str, name: &str) -> Result<DataType, InferError> {
    DataType::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.iter().map(|datatype| datatype.name()).collect();
        InferError::bad_request(format!(
            "input '{input}': there is no datatype '{}'; the datatypes are {}",
            excerpt(name),
            known.join(", ")
        ))
    })
}

/// One axis of a shape.
pub(super) fn dimension(input: &str, axis: usize, dim: i64) -> Result<usize, InferError> {
    usize::try_from(dim).map_err(|_| {
        InferError::bad_request(format!(
            "input '{input}': axis {axis} of the shape is {dim}; in a request every size must be \
             given, as 0 or more"
        ))
    })
}

/// The number of elements of a shape.
pub(super) fn elements(input: &str, shape: &Shape) -> Result<usize, InferError> {
    shape.elements().ok_or_else(|| {
        InferError::bad_request(format!(
            "input '{input}': shape {shape} has more elements than can be counted"
        ))
    })
}

/// A tensor whose data came as bytes, once these are known to be what shape and datatype say.
///
/// # Errors
/// `BadRequest`, naming the input, for too few or too many bytes, for elements that do not fill
/// their tensor, and for a `BOOL` that is neither 0 nor 1.
///
/// # Cost
/// Looks at every byte of `BOOL` and every length of `BYTES`; at no element of the others.
pub fn tensor(
    name: String,
    datatype: DataType,
    shape: Shape,
    data: Bytes,
) -> Result<Tensor, InferError> {
    let elements = elements(&name, &shape)?;
    let Some(element_bytes) = datatype.element_bytes() else {
        let count = bytes_elements(&data)
            .map_err(|wrong| InferError::bad_request(format!("input '{name}': {wrong}")))?;
        count_is(&name, datatype, &shape, count)?;
        return Ok(Tensor { name, datatype, shape, data });
    };
    if elements.checked_mul(element_bytes) != Some(data.len()) {
        let expected = elements
            .checked_mul(element_bytes)
            .map_or_else(|| "more bytes than can be counted".to_owned(), |n| format!("{n} bytes"));
        return Err(InferError::bad_request(format!(
            "input '{name}': shape {shape} of {datatype} needs {expected}, but {} came",
            data.len()
        )));
    }
    if datatype == DataType::Bool
        && let Some(at) = data.iter().position(|&byte| byte > 1)
    {
        let byte = data.get(at).copied().unwrap_or_default();
        return Err(InferError::bad_request(format!(
            "input '{name}': element {at} is the byte {byte}; a BOOL is the byte 0 or 1"
        )));
    }
    Ok(Tensor { name, datatype, shape, data })
}

/// Refuses a number of elements that is not the shape's.
pub(super) fn count_is(
    input: &str,
    datatype: DataType,
    shape: &Shape,
    count: usize,
) -> Result<(), InferError> {
    let expected = elements(input, shape)?;
    if count == expected {
        return Ok(());
    }
    Err(InferError::bad_request(format!(
        "input '{input}': shape {shape} of {datatype} needs {expected} elements, but {count} came"
    )))
}

/// A tensor whose bytes are still in shared memory, once so many bytes can be what shape and
/// datatype say.
pub(super) fn shared(
    name: String,
    datatype: DataType,
    shape: Shape,
    slice: RegionSlice,
) -> Result<SharedTensor, InferError> {
    let elements = elements(&name, &shape)?;
    let expected = datatype.element_bytes().map(|bytes| elements.checked_mul(bytes));
    let given = usize::try_from(slice.byte_size).ok();
    if let Some(expected) = expected
        && (expected.is_none() || expected != given)
    {
        let expected = expected.map_or_else(
            || "more bytes than can be counted".to_owned(),
            |expected| format!("{expected} bytes"),
        );
        return Err(InferError::bad_request(format!(
            "input '{name}': shape {shape} of {datatype} needs {expected}, but \
             'shared_memory_byte_size' is {}",
            slice.byte_size
        )));
    }
    Ok(SharedTensor { name, datatype, shape, slice })
}

/// Counts the elements of `BYTES` data.
///
/// # Cost
/// No allocation, unlike [`crate::tensor::bytes_element_ends`]: this runs before any limit on the
/// number of elements is known to hold.
fn bytes_elements(data: &[u8]) -> Result<usize, String> {
    let mut rest = data;
    let mut count = 0;
    while !rest.is_empty() {
        let Some((prefix, tail)) = rest.split_first_chunk::<4>() else {
            return Err(format!(
                "element {count} has {} bytes of its length prefix, which has 4",
                rest.len()
            ));
        };
        // A length that does not fit into memory is past the end anyway.
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let Some(after) = tail.get(length..) else {
            return Err(format!(
                "element {count} claims {length} bytes, but only {} are left",
                tail.len()
            ));
        };
        rest = after;
        count += 1;
    }
    Ok(count)
}

/// At most the first forty characters, for quoting what a peer sent.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(datatype: DataType, shape: &[usize], data: &'static [u8]) -> Result<(), String> {
        tensor("IN".to_owned(), datatype, Shape(shape.to_vec()), Bytes::from_static(data))
            .map(|_| ())
            .map_err(|error| error.message)
    }

    #[test]
    fn bytes_are_held_against_shape_and_datatype() {
        let good: [(DataType, &[usize], &[u8]); 7] = [
            (DataType::Fp16, &[2], &[0; 4]),
            (DataType::Int64, &[], &[0; 8]),
            (DataType::Fp32, &[0, 3], &[]),
            (DataType::Fp32, &[1 << 40, 1 << 40, 0], &[]),
            (DataType::Bool, &[2], &[0, 1]),
            (DataType::Bytes, &[2], &[1, 0, 0, 0, 7, 0, 0, 0, 0]),
            (DataType::Bytes, &[0], &[]),
        ];
        for (datatype, shape, data) in good {
            assert_eq!(check(datatype, shape, data), Ok(()), "{datatype} {shape:?}");
        }
    }

    #[test]
    fn errors_name_tensor_expected_and_came() {
        let bad: [(DataType, &[usize], &[u8], &str); 7] = [
            (
                DataType::Fp32,
                &[2, 3],
                &[0; 20],
                "input 'IN': shape [2,3] of FP32 needs 24 bytes, but 20 came",
            ),
            (
                DataType::Fp64,
                &[usize::MAX],
                &[],
                "input 'IN': shape [18446744073709551615] of FP64 needs more bytes than can be \
                 counted, but 0 came",
            ),
            (
                DataType::Uint8,
                &[usize::MAX, 2],
                &[],
                "input 'IN': shape [18446744073709551615,2] has more elements than can be counted",
            ),
            (
                DataType::Bool,
                &[2],
                &[1, 2],
                "input 'IN': element 1 is the byte 2; a BOOL is the byte 0 or 1",
            ),
            (
                DataType::Bytes,
                &[1],
                &[0, 0],
                "input 'IN': element 0 has 2 bytes of its length prefix, which has 4",
            ),
            (
                DataType::Bytes,
                &[1],
                &[255, 255, 255, 255, 1],
                "input 'IN': element 0 claims 4294967295 bytes, but only 1 are left",
            ),
            (
                DataType::Bytes,
                &[3],
                &[0; 8],
                "input 'IN': shape [3] of BYTES needs 3 elements, but 2 came",
            ),
        ];
        for (datatype, shape, data, message) in bad {
            assert_eq!(check(datatype, shape, data), Err(message.to_owned()));
        }
    }

    #[test]
    fn reserved_parameters_are_refused_and_encoding_ones_are_set_apart() {
        let yes = Parameter::Bool(true);
        assert!(matches!(request_parameter("priority", &yes), Ok(Fate::Keep)));
        assert!(matches!(request_parameter(BINARY_DATA_OUTPUT, &yes), Ok(Fate::Encoding)));
        assert!(matches!(request_parameter(EMPTY_FINAL_RESPONSE, &yes), Ok(Fate::Encoding)));
        assert!(request_parameter(EMPTY_FINAL_RESPONSE, &Parameter::Int(1)).is_err());
        assert!(request_parameter("triton_other", &yes).is_err());
        assert_eq!(whole(7), Parameter::Int(7));
        assert_eq!(whole(u64::MAX), Parameter::Uint(u64::MAX));
    }
}
