//! Tensors in shared memory and outputs as classes: one meaning on both transports.

use super::{body, echo};
use bytes::Bytes;
use graftd::oip::rest::ReplyForm;
use graftd::oip::{grpc, rest};
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graftd::proto::{InferParameter, ModelInferRequest};
use graftd::request::{InferRequest, Output, RegionSlice, SharedTensor};
use graftd::tensor::{DataType, Shape};
use std::collections::BTreeMap;

const OVER_REST: &str = r#"{"inputs":[
    {"name":"A","shape":[2],"datatype":"FP32","parameters":{"shared_memory_byte_size":8,"shared_memory_region":"r","shared_memory_offset":4}},
    {"name":"B","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}},
    {"name":"C","shape":[3],"datatype":"BYTES","parameters":{"shared_memory_region":"s","shared_memory_byte_size":99}}
],"outputs":[
    {"name":"X","parameters":{"shared_memory_region":"r","shared_memory_byte_size":18446744073709551615,"binary_data":false}},
    {"name":"Y","parameters":{"classification":3}},
    {"name":"Z","parameters":{"classification":0}}
]}"#;

type Choices<'a> = &'a [(&'a str, ParameterChoice)];

fn text(text: &str) -> ParameterChoice {
    ParameterChoice::StringParam(text.to_owned())
}

fn parameters(choices: Choices<'_>) -> BTreeMap<String, InferParameter> {
    let message = |(key, choice): &(&str, ParameterChoice)| {
        ((*key).to_owned(), InferParameter { parameter_choice: Some(choice.clone()) })
    };
    choices.iter().map(message).collect()
}

fn input(name: &str, datatype: &str, size: i64, choices: Choices<'_>) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![size],
        parameters: parameters(choices),
        contents: None,
    }
}

fn output(name: &str, choices: Choices<'_>) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.to_owned(), parameters: parameters(choices) }
}

/// The message that means what `OVER_REST` and one byte behind it mean.
fn over_grpc() -> ModelInferRequest {
    let int = ParameterChoice::Int64Param;
    let uint = ParameterChoice::Uint64Param;
    let first = [
        ("shared_memory_region", text("r")),
        ("shared_memory_byte_size", uint(8)),
        ("shared_memory_offset", int(4)),
    ];
    let third = [("shared_memory_region", text("s")), ("shared_memory_byte_size", int(99))];
    let all = [("shared_memory_region", text("r")), ("shared_memory_byte_size", uint(u64::MAX))];
    ModelInferRequest {
        inputs: vec![
            input("A", "FP32", 2, &first),
            input("B", "UINT8", 1, &[]),
            input("C", "BYTES", 3, &third),
        ],
        outputs: vec![
            output("X", &all),
            output("Y", &[("classification", int(3))]),
            output("Z", &[("classification", uint(0))]),
        ],
        raw_input_contents: vec![Bytes::from_static(&[7])],
        ..ModelInferRequest::default()
    }
}

#[test]
fn places_and_classes_mean_the_same_on_both_transports() {
    let (whole, header_length) = body(OVER_REST, &[7]);
    let decoded = rest::decode_infer(whole, header_length).expect("a good request");
    let rest::Decoded::Request(over_rest, form) = decoded else { panic!("it has JSON") };
    assert!(!form.is_binary("X"));
    let over_grpc = grpc::decode_infer(over_grpc()).expect("a good request");
    assert_eq!(over_grpc, over_rest);
    assert_eq!(over_grpc.outputs.iter().filter(|output| output.region.is_some()).count(), 1);
    assert_eq!(over_grpc.outputs[1].classes.map(u32::from), Some(3));
    assert_eq!(over_grpc.outputs[2].classes, None);
}

#[test]
fn an_output_in_shared_memory_is_told_by_its_place() {
    let slice = RegionSlice { region: "r".to_owned(), offset: 8, byte_size: 12 };
    let output = SharedTensor {
        name: "OUT".to_owned(),
        datatype: DataType::Fp32,
        shape: Shape(vec![3]),
        slice,
    };
    let mut response = echo(&InferRequest::default());
    response.outputs.push(Output::Shared(output));
    for binary in [false, true] {
        let encoded = rest::encode_infer(&response, &ReplyForm::all(binary)).expect("an answer");
        assert_eq!(encoded.header_length, None);
        let text = String::from_utf8(encoded.chunks.concat()).expect("UTF-8");
        assert_eq!(
            text,
            r#"{"model_name":"echo","model_version":"1","outputs":[{"name":"OUT","datatype":"FP32","shape":[3],"parameters":{"shared_memory_byte_size":12,"shared_memory_offset":8,"shared_memory_region":"r"}}]}"#
        );
    }
    let message = grpc::encode_infer(response);
    assert_eq!(message.raw_output_contents, [Bytes::new()]);
    let keys: Vec<&String> = message.outputs[0].parameters.keys().collect();
    assert_eq!(keys, ["shared_memory_byte_size", "shared_memory_offset", "shared_memory_region"]);
}
