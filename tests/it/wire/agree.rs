//! One meaning, however it travels: the four encodings of a request decode alike, and answers read
//! back as what was answered.

use super::{body, decode, echo, sent};
use bytes::Bytes;
use graftd::oip::rest::ReplyForm;
use graftd::oip::{grpc, rest};
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::InferInputTensor;
use graftd::proto::{InferParameter, InferTensorContents, ModelInferRequest};
use graftd::request::{InferRequest, Output};
use graftd::tensor::{DataType, OutputTensor, Shape, Tensor, bytes_element_ends};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A tensor of this datatype, of any shape up to three axes, with any elements that JSON can hold.
pub(super) fn tensors(datatype: DataType) -> impl Strategy<Value = Tensor> {
    prop::collection::vec(0..4_usize, 0..4).prop_flat_map(move |shape| {
        let elements = shape.iter().product::<usize>();
        let data = prop::collection::vec(element(datatype), elements);
        data.prop_map(move |elements| Tensor {
            name: "IN".to_owned(),
            datatype,
            shape: Shape(shape.clone()),
            data: Bytes::from(elements.concat()),
        })
    })
}

fn element(datatype: DataType) -> BoxedStrategy<Vec<u8>> {
    match datatype {
        DataType::Bool => any::<bool>().prop_map(|value| vec![u8::from(value)]).boxed(),
        DataType::Fp32 => any::<f32>().prop_map(|value| value.to_le_bytes().to_vec()).boxed(),
        DataType::Fp64 => any::<f64>().prop_map(|value| value.to_le_bytes().to_vec()).boxed(),
        DataType::Bytes => any::<String>()
            .prop_map(|text| {
                let length = u32::try_from(text.len()).expect("a short text");
                [&length.to_le_bytes(), text.as_bytes()].concat()
            })
            .boxed(),
        _ => {
            let bytes = datatype.element_bytes().expect("a fixed size");
            prop::collection::vec(any::<u8>(), bytes).boxed()
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("whole elements")
}

/// The elements as an outside client would write them: with `serde_json`, not with our own writer.
pub(crate) fn values(tensor: &Tensor) -> Vec<Value> {
    let data = &tensor.data;
    if tensor.datatype == DataType::Bytes {
        let ends = bytes_element_ends(data).expect("whole elements");
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let text = |(start, &end): (usize, &usize)| {
            json!(str::from_utf8(&data[start + 4..end]).expect("text"))
        };
        return starts.zip(&ends).map(text).collect();
    }
    let value = |bytes: &[u8]| match tensor.datatype {
        DataType::Bool => json!(bytes[0] == 1),
        DataType::Uint8 => json!(bytes[0]),
        DataType::Uint16 => json!(u16::from_le_bytes(array(bytes))),
        DataType::Uint32 => json!(u32::from_le_bytes(array(bytes))),
        DataType::Uint64 => json!(u64::from_le_bytes(array(bytes))),
        DataType::Int8 => json!(i8::from_le_bytes(array(bytes))),
        DataType::Int16 => json!(i16::from_le_bytes(array(bytes))),
        DataType::Int32 => json!(i32::from_le_bytes(array(bytes))),
        DataType::Int64 => json!(i64::from_le_bytes(array(bytes))),
        // As Python does it: the double that equals the single, in full.
        DataType::Fp32 => json!(f64::from(f32::from_le_bytes(array(bytes)))),
        DataType::Fp64 => json!(f64::from_le_bytes(array(bytes))),
        DataType::Fp16 | DataType::Bf16 | DataType::Bytes => unreachable!("not written as numbers"),
    };
    data.chunks(tensor.datatype.element_bytes().expect("a fixed size")).map(value).collect()
}

pub(crate) fn contents(tensor: &Tensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    let int = |value: &Value| value.as_i64().expect("an integer");
    let uint = |value: &Value| value.as_u64().expect("an unsigned integer");
    let narrow = |value: i64| i32::try_from(value).expect("32 bits");
    let unsigned = |value: u64| u32::try_from(value).expect("32 bits");
    for value in &values(tensor) {
        match tensor.datatype {
            DataType::Bool => contents.bool_contents.push(value == true),
            DataType::Int8 | DataType::Int16 | DataType::Int32 => {
                contents.int_contents.push(narrow(int(value)));
            }
            DataType::Int64 => contents.int64_contents.push(int(value)),
            DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => {
                contents.uint_contents.push(unsigned(uint(value)));
            }
            DataType::Uint64 => contents.uint64_contents.push(uint(value)),
            #[expect(clippy::cast_possible_truncation, reason = "it was a single before")]
            DataType::Fp32 => contents.fp32_contents.push(value.as_f64().expect("a number") as f32),
            DataType::Fp64 => contents.fp64_contents.push(value.as_f64().expect("a number")),
            DataType::Bytes => {
                let text = value.as_str().expect("a text").to_owned();
                contents.bytes_contents.push(Bytes::from(text));
            }
            DataType::Fp16 | DataType::Bf16 => unreachable!("no typed contents"),
        }
    }
    contents
}

/// Nests a flat list as the shape says.
fn nest(values: Vec<Value>, shape: &[usize]) -> Value {
    match shape {
        [_, inner @ ..] if !inner.is_empty() && !values.is_empty() => {
            let rows = values.chunks(inner.iter().product());
            Value::Array(rows.map(|row| nest(row.to_vec(), inner)).collect())
        }
        _ => Value::Array(values),
    }
}

fn over_json(tensor: &Tensor, nested: bool) -> InferRequest {
    let data = values(tensor);
    let data = if nested { nest(data, &tensor.shape.0) } else { Value::Array(data) };
    let input = json!({
        "name": tensor.name, "shape": tensor.shape.0, "datatype": tensor.datatype.name(), "data": data,
    });
    let text = json!({ "inputs": [input] }).to_string();
    decode(Bytes::from(text), None).expect("a good request").0
}

fn over_binary(tensor: &Tensor) -> InferRequest {
    let input = json!({
        "name": tensor.name, "shape": tensor.shape.0, "datatype": tensor.datatype.name(),
        "parameters": { "binary_data_size": tensor.data.len() },
    });
    let (body, header_length) = body(&json!({ "inputs": [input] }).to_string(), &tensor.data);
    decode(body, header_length).expect("a good request").0
}

fn over_grpc(tensor: &Tensor, raw: bool) -> InferRequest {
    let input = InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.to_wire(),
        contents: (!raw).then(|| contents(tensor)),
        ..InferInputTensor::default()
    };
    let message = ModelInferRequest {
        inputs: vec![input],
        raw_input_contents: raw.then(|| tensor.data.clone()).into_iter().collect(),
        ..ModelInferRequest::default()
    };
    sent(grpc::decode_infer(message).expect("a good request"))
}

/// Answers with the tensor in two pieces, and reads the answer back as if it were a request.
fn answered(tensor: &Tensor, binary: bool) -> InferRequest {
    let request = InferRequest { inputs: vec![tensor.clone()], ..InferRequest::default() };
    let mut response = echo(&request);
    // Cut between elements, as rows are.
    let cut = match tensor.datatype.element_bytes() {
        Some(bytes) => tensor.data.len() / bytes / 2 * bytes,
        None => 0,
    };
    for output in &mut response.outputs {
        let Output::Sent(output) = output else { panic!("an echo goes with the answer") };
        output.pieces = vec![tensor.data.slice(..cut), tensor.data.slice(cut..)];
    }
    let encoded = rest::encode_infer(&response, &ReplyForm::all(binary)).expect("an answer");
    assert_eq!(encoded.header_length.is_some(), binary);
    assert_eq!(encoded.byte_len(), encoded.chunks.concat().len());
    let whole = encoded.chunks.concat();
    let (json, tail) = whole.split_at(encoded.header_length.unwrap_or(whole.len()));
    let json = str::from_utf8(json).expect("UTF-8").replacen("\"outputs\"", "\"inputs\"", 1);
    let (body, header_length) = body(&json, tail);
    decode(body, header_length).expect("the answer reads back").0
}

fn check(tensor: &Tensor) -> Result<(), TestCaseError> {
    let expected = InferRequest { inputs: vec![tensor.clone()], ..InferRequest::default() };
    prop_assert_eq!(&over_binary(tensor), &expected);
    prop_assert_eq!(&over_grpc(tensor, true), &expected);
    prop_assert_eq!(&answered(tensor, true), &expected);
    if !matches!(tensor.datatype, DataType::Fp16 | DataType::Bf16) {
        prop_assert_eq!(&over_json(tensor, false), &expected);
        prop_assert_eq!(&over_json(tensor, true), &expected);
        prop_assert_eq!(&over_grpc(tensor, false), &expected);
        prop_assert_eq!(&answered(tensor, false), &expected);
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_datatype_means_the_same_in_every_encoding(
        tensor in prop::sample::select(DataType::ALL.to_vec()).prop_flat_map(tensors),
    ) {
        check(&tensor)?;
    }
}

#[test]
fn every_datatype_is_tried() {
    for datatype in DataType::ALL {
        let data = match datatype {
            DataType::Bytes => Bytes::from_static(b"\x02\0\0\0ab\0\0\0\0"),
            _ => Bytes::from(vec![1; 2 * datatype.element_bytes().expect("a fixed size")]),
        };
        let tensor = Tensor { name: "IN".to_owned(), datatype, shape: Shape(vec![2]), data };
        check(&tensor).unwrap_or_else(|error| panic!("{datatype}: {error}"));
    }
}

#[test]
fn parameters_mean_the_same_on_both_transports() {
    let choices = [
        ("a", ParameterChoice::BoolParam(true)),
        ("b", ParameterChoice::Int64Param(-7)),
        ("c", ParameterChoice::Uint64Param(7)),
        ("d", ParameterChoice::Uint64Param(u64::MAX)),
        ("e", ParameterChoice::DoubleParam(2.5)),
        ("f", ParameterChoice::StringParam("x".to_owned())),
        ("triton_enable_empty_final_response", ParameterChoice::BoolParam(true)),
    ];
    let message = |choice| InferParameter { parameter_choice: Some(choice) };
    let parameters = choices.map(|(key, choice)| (key.to_owned(), message(choice))).into();
    let over_grpc =
        grpc::decode_infer(ModelInferRequest { parameters, ..ModelInferRequest::default() });
    let json = r#"{"inputs":[],"parameters":{"a":true,"b":-7,"c":7,"d":18446744073709551615,"e":2.5,"f":"x","binary_data_output":true,"triton_enable_empty_final_response":false}}"#;
    let over_rest = decode(Bytes::from_static(json.as_bytes()), None).expect("a good request").0;
    assert_eq!(sent(over_grpc.expect("a good request")), over_rest);
}

#[test]
fn binary_data_is_never_copied() {
    let tensor = Tensor {
        name: "IN".to_owned(),
        datatype: DataType::Uint8,
        shape: Shape(vec![4096]),
        data: Bytes::from(vec![7; 4096]),
    };
    let (whole, header_length) = body(
        r#"{"inputs":[{"name":"IN","shape":[4096],"datatype":"UINT8","parameters":{"binary_data_size":4096}}]}"#,
        &tensor.data,
    );
    let came_at = whole[header_length.expect("a tail")..].as_ptr();
    let request = decode(whole.clone(), header_length).expect("a good request").0;
    assert_eq!(request.inputs[0].data.as_ptr(), came_at);
    let encoded = rest::encode_infer(&echo(&request), &ReplyForm::all(true)).expect("an answer");
    assert_eq!(encoded.chunks[1].as_ptr(), came_at);
    let message = grpc::encode_infer(echo(&request));
    assert_eq!(message.raw_output_contents[0].as_ptr(), came_at);
}

#[test]
fn an_output_that_is_not_its_shape_is_a_fault_of_ours() {
    let request = InferRequest::default();
    let mut response = echo(&request);
    response.outputs.push(Output::Sent(OutputTensor {
        name: "OUT".to_owned(),
        datatype: DataType::Fp32,
        shape: Shape(vec![2]),
        pieces: vec![Bytes::from_static(&[0; 4])],
    }));
    for binary in [false, true] {
        let error =
            rest::encode_infer(&response, &ReplyForm::all(binary)).expect_err("a short output");
        assert_eq!(error.kind, graftd::error::ErrorKind::Internal);
    }
}
