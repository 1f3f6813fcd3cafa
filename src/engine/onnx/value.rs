//! ONNX Runtime's values over our bytes, through its C interface.
//!
//! The typed interface of the `ort` crate needs a Rust type per datatype and exclusive access to the
//! session; the C interface takes any datatype over borrowed memory and allows runs side by side, which is
//! what lets several lanes share one session's weights.
//!
//! All `unsafe` of the engine that concerns the runtime stands in this file.
#![expect(unsafe_code, reason = "calls of a C interface")]

use crate::engine::{EngineError, InputView, OutputSink};
use crate::tensor::{DataType, Shape, bytes_element_ends};
use ort::AsPointer;
use ort::session::RunOptions;
use ort::sys::{
    ONNXTensorElementDataType as Element, OrtAllocatorType, OrtMemType, OrtMemoryInfo, OrtSession,
    OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue,
};
use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;

/// An owned runtime value that may borrow the bytes of its tensor.
pub(super) struct Value<'a>(*mut OrtValue, PhantomData<&'a [u8]>);

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the runtime and is released once.
        unsafe { (ort::api().ReleaseValue)(self.0) };
    }
}

/// Turns a status into a result and releases it.
fn check(status: OrtStatusPtr) -> Result<(), EngineError> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null status is valid until it is released, and its message until then.
    let text = unsafe {
        let message = CStr::from_ptr((ort::api().GetErrorMessage)(status.0));
        let text = message.to_string_lossy().into_owned();
        (ort::api().ReleaseStatus)(status.0);
        text
    };
    Err(EngineError::Model(client_text(&text).into()))
}

/// What a client may read of the runtime's message: the kernel's own words, no paths of the build.
fn client_text(text: &str) -> String {
    tracing::debug!(target: "graftd::engine", "the runtime says: {text}");
    let node = text
        .split_once("while running ")
        .and_then(|(_, rest)| rest.split_once(" node."))
        .map(|(kind, _)| kind);
    let words = text.rsplit_once("Status Message: ").map_or(text, |(_, words)| words).trim();
    let words = without_source(words.lines().next().unwrap_or_default());
    match (node, words.contains('/')) {
        (Some(node), false) => format!("the model failed in a {node} node: {words}"),
        (None, false) => format!("the model failed: {words}"),
        (Some(node), true) => format!("the model failed in a {node} node on this input"),
        (None, true) => "the model failed on this input".to_owned(),
    }
}

/// Drops a leading `file.cc:line Function` from a kernel's words.
fn without_source(words: &str) -> &str {
    let Some((file, rest)) = words.split_once(' ') else { return words };
    if !file.contains(".cc:") || file.contains('/') {
        return words;
    }
    rest.split_once(' ').map_or(rest, |(_function, words)| words)
}

fn cpu_memory() -> Result<*const OrtMemoryInfo, EngineError> {
    struct Info(*const OrtMemoryInfo);
    // SAFETY: the runtime never changes a memory info after creation.
    unsafe impl Send for Info {}
    // SAFETY: as above.
    unsafe impl Sync for Info {}
    static INFO: OnceLock<Info> = OnceLock::new();
    if let Some(info) = INFO.get() {
        return Ok(info.0);
    }
    let mut info = ptr::null_mut();
    // SAFETY: `info` is a valid place for the result, which lives as long as the process.
    check(unsafe {
        (ort::api().CreateCpuMemoryInfo)(
            OrtAllocatorType::OrtDeviceAllocator,
            OrtMemType::OrtMemTypeDefault,
            &raw mut info,
        )
    })?;
    Ok(INFO.get_or_init(|| Info(info)).0)
}

impl<'a> Value<'a> {
    /// A tensor over borrowed bytes; strings are copied, as the runtime keeps them in a form of its own.
    pub(super) fn input(view: &InputView<'a>) -> Result<Self, EngineError> {
        let shape: Vec<i64> = Shape(view.shape.clone()).to_wire();
        if view.datatype == DataType::Bytes {
            return Self::strings(&shape, view.data);
        }
        let mut value = ptr::null_mut();
        // SAFETY: the bytes outlive the value by `'a`; the runtime only reads inputs; it checks that
        // their number fits shape and type.
        check(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                cpu_memory()?,
                view.data.as_ptr().cast_mut().cast::<c_void>(),
                view.data.len(),
                shape.as_ptr(),
                shape.len(),
                element(view.datatype),
                &raw mut value,
            )
        })?;
        Ok(Self(value, PhantomData))
    }

    fn strings(shape: &[i64], data: &[u8]) -> Result<Self, EngineError> {
        let api = ort::api();
        let (mut allocator, mut value) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both pointers are valid places for results; the default allocator is never released.
        unsafe {
            check((api.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            let kind = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
            let (dims, rank) = (shape.as_ptr(), shape.len());
            check((api.CreateTensorAsOrtValue)(allocator, dims, rank, kind, &raw mut value))?;
        }
        let value = Self(value, PhantomData);
        let ends = bytes_element_ends(data).map_err(EngineError::Protocol)?;
        let mut start = 0;
        for (index, &end) in ends.iter().enumerate() {
            // The length is passed beside the bytes, so a NUL inside does not cut the string.
            let bytes = data.get(start + 4..end).unwrap_or_default();
            let mut buffer: *mut c_char = ptr::null_mut();
            // SAFETY: the runtime checks the index and gives room for exactly so many bytes.
            unsafe {
                let room = (api.GetResizedStringTensorElementBuffer)(
                    value.0,
                    index,
                    bytes.len(),
                    &raw mut buffer,
                );
                check(room)?;
                ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>(), bytes.len());
            }
            start = end;
        }
        Ok(value)
    }

    /// Copies an output into the sink, in the wire layout.
    pub(super) fn write_to(&self, sink: &mut dyn OutputSink) -> Result<(), EngineError> {
        let (datatype, shape) = self.describe()?;
        let elements = Shape(shape.clone()).elements().unwrap_or(usize::MAX);
        let Some(size) = datatype.element_bytes() else {
            return self.write_strings(&shape, elements, sink);
        };
        let bytes = elements.saturating_mul(size);
        let room = sink.place(datatype, &shape, bytes)?;
        let mut data: *mut c_void = ptr::null_mut();
        // SAFETY: a CPU tensor of this type and shape holds exactly `bytes` bytes; `room` has as many.
        unsafe {
            check((ort::api().GetTensorMutableData)(self.0, &raw mut data))?;
            if bytes > 0 {
                ptr::copy_nonoverlapping(data.cast::<u8>(), room.as_mut_ptr(), bytes);
            }
        }
        Ok(())
    }

    fn write_strings(
        &self,
        shape: &[usize],
        elements: usize,
        sink: &mut dyn OutputSink,
    ) -> Result<(), EngineError> {
        let api = ort::api();
        let mut total = 0;
        // SAFETY: valid pointers; lengths are what the runtime said a line before.
        let (text, mut offsets) = unsafe {
            check((api.GetStringTensorDataLength)(self.0, &raw mut total))?;
            let mut text = vec![0_u8; total];
            let mut offsets = vec![0_usize; elements];
            let (chars, starts) = (text.as_mut_ptr().cast::<c_void>(), offsets.as_mut_ptr());
            check((api.GetStringTensorContent)(self.0, chars, total, starts, elements))?;
            (text, offsets)
        };
        offsets.push(total);
        let room = sink.place(DataType::Bytes, shape, total + 4 * elements)?;
        let mut rest = room;
        for window in offsets.windows(2) {
            let bytes = text.get(window[0]..window[1]).unwrap_or_default();
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
            let (head, tail) = rest.split_at_mut(4 + bytes.len());
            head[..4].copy_from_slice(&length);
            head[4..].copy_from_slice(bytes);
            rest = tail;
        }
        Ok(())
    }

    fn describe(&self) -> Result<(DataType, Vec<usize>), EngineError> {
        struct Info(*mut OrtTensorTypeAndShapeInfo);
        impl Drop for Info {
            fn drop(&mut self) {
                // SAFETY: came from the runtime and is released once.
                unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0) };
            }
        }
        let api = ort::api();
        let mut info = Info(ptr::null_mut());
        let (mut kind, mut rank) = (Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, 0);
        // SAFETY: valid pointers; the array of dimensions has as many places as the rank says.
        let dims = unsafe {
            check((api.GetTensorTypeAndShape)(self.0, &raw mut info.0))?;
            check((api.GetTensorElementType)(info.0, &raw mut kind))?;
            check((api.GetDimensionsCount)(info.0, &raw mut rank))?;
            let mut dims = vec![0_i64; rank];
            check((api.GetDimensions)(info.0, dims.as_mut_ptr(), rank))?;
            dims
        };
        let shape = dims.into_iter().map(|dim| usize::try_from(dim).unwrap_or(0)).collect();
        let unknown = || EngineError::model("an output has a datatype the protocol does not know");
        Ok((datatype(kind).ok_or_else(unknown)?, shape))
    }
}

/// Runs a session; safe to call from several threads with different run options.
pub(super) fn run(
    session: *mut OrtSession,
    options: &RunOptions,
    (input_names, inputs): (&[CString], &[Value<'_>]),
    output_names: &[CString],
) -> Result<Vec<Value<'static>>, EngineError> {
    let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
    let (input_names, output_names) = (pointers(input_names), pointers(output_names));
    let values: Vec<*const OrtValue> = inputs.iter().map(|value| value.0.cast_const()).collect();
    let mut results = vec![ptr::null_mut(); output_names.len()];
    // SAFETY: names and values are valid for the call and as many as said; the runtime allows
    // concurrent runs of one session; results are owned by us from here on.
    let status = unsafe {
        (ort::api().Run)(
            session,
            options.ptr(),
            input_names.as_ptr(),
            values.as_ptr(),
            values.len(),
            output_names.as_ptr(),
            output_names.len(),
            results.as_mut_ptr(),
        )
    };
    let results = results.into_iter().filter(|value: &*mut OrtValue| !value.is_null());
    let results = results.map(|value| Value(value, PhantomData)).collect();
    check(status)?;
    Ok(results)
}

const TYPES: [(DataType, Element); 14] = [
    (DataType::Bool, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL),
    (DataType::Uint8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
    (DataType::Uint16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16),
    (DataType::Uint32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32),
    (DataType::Uint64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64),
    (DataType::Int8, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8),
    (DataType::Int16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16),
    (DataType::Int32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32),
    (DataType::Int64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
    (DataType::Fp16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16),
    (DataType::Bf16, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16),
    (DataType::Fp32, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT),
    (DataType::Fp64, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
    (DataType::Bytes, Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING),
];

fn element(datatype: DataType) -> Element {
    let found = TYPES.iter().find(|(ours, _)| *ours == datatype);
    found.map_or(Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, |&(_, theirs)| theirs)
}

fn datatype(element: Element) -> Option<DataType> {
    TYPES.iter().find(|(_, theirs)| *theirs == element).map(|&(ours, _)| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_read_the_kernels_words_and_no_paths() {
        let gather = "Non-zero status code returned while running Gather node. Name:'' \
                      Status Message: indices element out of data bounds, idx=99";
        let words = "the model failed in a Gather node: indices element out of data bounds, idx=99";
        assert_eq!(client_text(gather), words);
        let source = "Non-zero status code returned while running Div node. Name:'' \
                      Status Message: element_wise_ops.cc:692 Compute Integer division by zero";
        let words = "the model failed in a Div node: Integer division by zero";
        assert_eq!(client_text(source), words);
        let path = "Non-zero status code returned while running Conv node. Name:'c' \
                    Status Message: /onnxruntime_src/core/x.cc:1 false";
        assert_eq!(client_text(path), "the model failed in a Conv node on this input");
    }
}
