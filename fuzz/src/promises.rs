//! The promises of the codecs, of sentences and of tensors.

use graftd::error::{ErrorKind, InferError};
use graftd::request::{InferRequest, Input};
use graftd::tensor::{DataType, bytes_element_ends};
use graftd::text::SENTENCE_BYTES_MAX;

/// Says something, on one line, in few enough words for a header.
///
/// # Panics
/// When it does not.
pub fn sentence(text: &str) {
    assert!(!text.is_empty(), "a sentence that says nothing");
    assert!(!text.chars().any(char::is_control), "control characters in {text:?}");
    assert!(text.len() <= SENTENCE_BYTES_MAX, "a sentence of {} bytes", text.len());
}

/// Blames the request, in a sentence, and promises nothing of another try.
///
/// # Panics
/// When it does not.
pub fn error(error: &InferError) {
    sentence(&error.message);
    assert!(matches!(error.kind, ErrorKind::BadRequest | ErrorKind::Unsupported), "{error:?}");
    assert_eq!(error.retry_after, None, "{error:?}");
}

/// Every tensor holds exactly what its shape and datatype say, or claims as much of shared memory.
///
/// Gives the request with those inputs that came with it.
///
/// # Panics
/// When one does not.
#[must_use]
pub fn request(request: InferRequest<Input>) -> InferRequest {
    let (mut request, inputs) = request.with_inputs(Vec::new());
    for input in inputs {
        match input {
            Input::Sent(input) => {
                tensor(input.datatype, &input.shape.0, &input.data);
                if input.datatype == DataType::Bool {
                    assert!(input.data.iter().all(|&byte| byte < 2), "a BOOL that is neither");
                }
                request.inputs.push(input);
            }
            Input::Shared(input) => {
                if let Some(bytes) = input.datatype.element_bytes() {
                    let expected = elements(&input.shape.0).saturating_mul(bytes as u128);
                    assert_eq!(u128::from(input.slice.byte_size), expected, "{input:?}");
                }
            }
        }
    }
    request
}

/// The number of elements, counted in a way of its own, so that it can disagree with the code under test.
fn elements(shape: &[usize]) -> u128 {
    if shape.contains(&0) {
        return 0;
    }
    shape.iter().map(|&dim| dim as u128).fold(1, u128::saturating_mul)
}

/// The bytes are exactly what shape and datatype say.
///
/// # Panics
/// When they are not.
pub fn tensor(datatype: DataType, shape: &[usize], data: &[u8]) {
    let found = match datatype.element_bytes() {
        Some(bytes) => {
            assert_eq!(data.len() % bytes, 0, "{datatype} {shape:?} in {} bytes", data.len());
            data.len() / bytes
        }
        None => bytes_element_ends(data).expect("whole elements").len(),
    };
    assert_eq!(found as u128, elements(shape), "{datatype} {shape:?} in {} bytes", data.len());
}
