//! The binary tensor data extension: a body that is JSON first and the tensors' bytes after it.
//!
//! Separate from the JSON, which only says how many bytes each tensor has.
//!
//! # Invariants
//! - Tensors are slices of the body; nothing is copied.
//! - The tail is used up exactly: its tensors follow in the order of the inputs, without gaps.
//!
//! # Source
//! Triton's binary tensor data extension.

use crate::error::InferError;
use crate::oip::check;
use crate::request::{InferRequest, Input, TensorMetadata};
use crate::tensor::{DataType, Shape};
use bytes::Bytes;

use super::ReplyForm;

/// The part of the body behind the JSON.
pub(super) struct Tail {
    rest: Bytes,
    /// Whether the caller said where the JSON ends; without that there is no tail.
    announced: bool,
}

/// Cuts a body where its JSON ends.
pub(super) fn split(
    mut body: Bytes,
    header_length: Option<usize>,
) -> Result<(Bytes, Tail), InferError> {
    let Some(length) = header_length else {
        return Ok((body, Tail { rest: Bytes::new(), announced: false }));
    };
    if length > body.len() {
        return Err(InferError::bad_request(format!(
            "Inference-Header-Content-Length says that the JSON has {length} bytes, but the whole \
             body has {}",
            body.len()
        )));
    }
    let json = body.split_to(length);
    Ok((json, Tail { rest: body, announced: true }))
}

impl Tail {
    pub(super) fn announced(&self) -> bool {
        self.announced
    }

    /// Takes the next tensor.
    pub(super) fn take(&mut self, input: &str, size: usize) -> Result<Bytes, InferError> {
        if !self.announced && size > 0 {
            return Err(InferError::bad_request(format!(
                "input '{input}' has {size} bytes of binary data, but the request has no \
                 Inference-Header-Content-Length header to say where the JSON ends"
            )));
        }
        if size > self.rest.len() {
            return Err(InferError::bad_request(format!(
                "input '{input}': binary_data_size is {size}, but only {} bytes of binary data are \
                 left for it",
                self.rest.len()
            )));
        }
        Ok(self.rest.split_to(size))
    }

    /// Refuses bytes that belong to no tensor.
    pub(super) fn end(&self) -> Result<(), InferError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(InferError::bad_request(format!(
            "{} bytes follow the binary data of the last input; the sizes in binary_data_size must \
             add up to what comes after the JSON",
            self.rest.len()
        )))
    }
}

/// A request whose whole body is one tensor, which only the model can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRequest {
    body: Bytes,
}

impl RawRequest {
    pub(super) fn new(body: Bytes) -> Self {
        Self { body }
    }

    /// Completes the request from the inputs of its model; all outputs go binary.
    ///
    /// `batched` says that the first axis is a batch axis. One unknown size follows from the length
    /// of the body; where the batch axis and another are both unknown, the batch is 1. For `BYTES`,
    /// which takes only one element, the body is that element without a length prefix.
    ///
    /// # Errors
    /// `BadRequest` where the model has not one input, its shape leaves too much open, or the body
    /// does not fill it.
    pub fn complete(
        self,
        inputs: &[TensorMetadata],
        batched: bool,
    ) -> Result<(InferRequest<Input>, ReplyForm), InferError> {
        let [input] = inputs else {
            return Err(InferError::bad_request(format!(
                "a raw request (Inference-Header-Content-Length: 0) is one tensor, but the model \
                 has {} inputs; name them in a JSON request",
                inputs.len()
            )));
        };
        let (shape, data) = match input.datatype.element_bytes() {
            Some(element_bytes) => {
                (raw_shape(input, batched, element_bytes, self.body.len())?, self.body)
            }
            None => raw_element(input, &self.body)?,
        };
        let tensor = check::tensor(input.name.clone(), input.datatype, shape, data)?;
        let inputs = vec![Input::Sent(tensor)];
        let request = InferRequest { inputs, ..InferRequest::default() };
        Ok((request, ReplyForm::all(true)))
    }
}

/// The shape of a raw tensor of `body_bytes` bytes.
fn raw_shape(
    input: &TensorMetadata,
    batched: bool,
    element_bytes: usize,
    body_bytes: usize,
) -> Result<Shape, InferError> {
    let mut shape = input.shape.clone();
    if batched
        && shape.iter().filter(|&&dim| dim < 0).count() > 1
        && let Some(batch) = shape.first_mut()
        && *batch < 0
    {
        *batch = 1;
    }
    let unknown: Vec<usize> =
        (0..).zip(&shape).filter(|(_, dim)| **dim < 0).map(|(axis, _)| axis).collect();
    if unknown.len() > 1 {
        return Err(InferError::bad_request(format!(
            "input '{}' has {} axes of unknown size; a raw request can leave one open, so give the \
             shape in a JSON request",
            input.name,
            unknown.len()
        )));
    }
    let known = shape.iter().filter_map(|&dim| usize::try_from(dim).ok());
    let per_unknown = known
        .clone()
        .try_fold(element_bytes, usize::checked_mul)
        .filter(|&bytes| bytes > 0)
        // What is no whole row is told as too few bytes for one more.
        .map(|bytes| body_bytes.div_ceil(bytes))
        .unwrap_or(0);
    let sizes = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(per_unknown));
    Ok(Shape(sizes.collect()))
}

/// The one `BYTES` element of a raw request, in the wire layout.
fn raw_element(input: &TensorMetadata, body: &Bytes) -> Result<(Shape, Bytes), InferError> {
    let one = input.shape.iter().all(|&dim| dim == 1 || dim < 0);
    let length = u32::try_from(body.len()).ok().filter(|_| one);
    let Some(length) = length else {
        return Err(InferError::bad_request(format!(
            "input '{}' ({}) takes more than one element, or one longer than {} bytes; a raw \
             request is one element, so use a JSON request",
            input.name,
            DataType::Bytes,
            u32::MAX
        )));
    };
    let mut element = Vec::with_capacity(body.len() + size_of::<u32>());
    element.extend_from_slice(&length.to_le_bytes());
    element.extend_from_slice(body);
    Ok((Shape(vec![1; input.shape.len()]), Bytes::from(element)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(
        datatype: DataType,
        shape: &[i64],
        batched: bool,
        body: &'static [u8],
    ) -> Result<(Vec<usize>, Bytes), String> {
        let input = TensorMetadata { name: "IN".to_owned(), datatype, shape: shape.to_vec() };
        let (request, form) = RawRequest::new(Bytes::from_static(body))
            .complete(&[input], batched)
            .map_err(|error| error.message)?;
        assert!(form.is_binary("OUT"));
        let Some(Input::Sent(tensor)) = request.inputs.into_iter().next() else {
            panic!("one input with its bytes");
        };
        Ok((tensor.shape.0, tensor.data))
    }

    #[test]
    fn one_open_axis_follows_from_the_length() {
        let check = |shape: &[i64], batched, body, expected: &[usize]| {
            let (found, _) = raw(DataType::Fp32, shape, batched, body).expect("it fits");
            assert_eq!(found, expected, "{shape:?}");
        };
        check(&[-1], false, &[0; 24], &[6]);
        check(&[2, 3], false, &[0; 24], &[2, 3]);
        check(&[-1, 3], true, &[0; 24], &[2, 3]);
        check(&[-1, -1], true, &[0; 24], &[1, 6]);
        check(&[], false, &[0; 4], &[]);
        check(&[-1], false, &[], &[0]);
    }

    #[test]
    fn what_stays_open_is_refused() {
        assert!(raw(DataType::Fp32, &[-1, -1], false, &[0; 24]).is_err());
        assert!(raw(DataType::Fp32, &[-1, -1, -1], true, &[0; 24]).is_err());
        assert!(raw(DataType::Fp32, &[-1, 0], true, &[0; 24]).is_err());
        assert_eq!(
            raw(DataType::Fp32, &[-1, 4], false, &[0; 24]),
            Err("input 'IN': shape [2,4] of FP32 needs 32 bytes, but 24 came".to_owned())
        );
        assert_eq!(
            RawRequest::new(Bytes::new()).complete(&[], false).map_err(|error| error.message),
            Err("a raw request (Inference-Header-Content-Length: 0) is one tensor, but the model \
                 has 0 inputs; name them in a JSON request"
                .to_owned())
        );
    }

    #[test]
    fn a_text_is_the_body_without_a_prefix() {
        let (shape, data) = raw(DataType::Bytes, &[-1], false, b"ab\0c").expect("one element");
        assert_eq!((shape, data.as_ref()), (vec![1], b"\x04\0\0\0ab\0c".as_ref()));
        assert!(raw(DataType::Bytes, &[2], false, b"ab").is_err());
    }
}
