//! What is refused, and in which words: every message says what was wrong, expected and came.

use super::{body, decode};
use bytes::Bytes;
use graftd::error::{ErrorKind, InferError};
use graftd::oip::grpc;
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graftd::proto::{InferParameter, InferTensorContents, ModelInferRequest};

fn rest(json: &str) -> InferError {
    decode(Bytes::from(json.to_owned()), None).expect_err(json)
}

#[test]
fn json_bodies() {
    let table = [
        ("", "the body is empty; expected the JSON of an inference request"),
        ("this is not JSON", "the request to be an object, but found 'this is not JSON'"),
        ("[1,2]", "the request must be an object, but it is an array (byte 0 of the JSON)"),
        ("\"hello\"", "the request must be an object, but it is a string"),
        ("{\"id\":\"x\"}", "the request has no 'inputs'; expected"),
        ("{\"id\":7,\"inputs\":[]}", "'id' of the request must be a string, but it is a number"),
        ("{\"inputs\":{\"name\":\"IN\"}}", "'inputs' must be an array, but it is an object"),
        ("{\"inputs\":null}", "'inputs' must be an array, but it is null"),
        ("{\"inputs\":[3]}", "each of 'inputs' must be an object, but it is a number"),
        ("{\"inputs\":[]} {}", "wrong at byte 14: expected nothing more, but found '{}'"),
        ("{\"inputs\":[],\"inputs\":[]}", "has a member 'inputs' twice in one object"),
        (
            "{\"inputs\":[{\"name\":\"IN\",\"shape\":[2],\"data",
            "expected the end of a string, but it ends",
        ),
        ("{\"inputs\":[],\"outputs\":[{}]}", "output '0' has no 'name'"),
        ("{\"inputs\":[],\"outputs\":\"all\"}", "'outputs' must be an array, but it is a string"),
        (
            "{\"inputs\":[],\"parameters\":{\"k\":[1]}}",
            "parameter 'k' of the request must be true, false, a number or a string, but it is an array",
        ),
        (
            "{\"inputs\":[],\"parameters\":{\"k\":1e999}}",
            "parameter 'k' of the request is 1e999, which is more than a double can hold",
        ),
        (
            "{\"inputs\":[],\"parameters\":{\"triton_x\":1}}",
            "parameter 'triton_x' of the request: names that start with 'triton_' are reserved",
        ),
        (
            "{\"inputs\":[],\"parameters\":{\"binary_data_output\":1}}",
            "parameter 'binary_data_output' of the request: expected true or false, but it is 1",
        ),
        (
            "{\"inputs\":[],\"outputs\":[{\"name\":\"O\",\"parameters\":{\"binary_data\":\"yes\"}}]}",
            "parameter 'binary_data' of output 'O': expected true or false, but it is a text",
        ),
        (
            "{\"inputs\":[],\"id\":\"\\ud800\"}",
            "\\ud800 is half of a surrogate pair and no character",
        ),
    ];
    for (json, words) in table {
        let error = rest(json);
        assert_eq!(error.kind, ErrorKind::BadRequest, "{json}");
        assert!(error.message.contains(words), "{json}\n{}", error.message);
    }
    let deep = rest(&"[".repeat(20_000));
    assert_eq!(deep.kind, ErrorKind::BadRequest);
    let deep = rest(&format!("{{\"x\":{}", "[".repeat(20_000)));
    assert!(deep.message.contains("nested more than 100 deep"), "{}", deep.message);
}

#[test]
fn json_inputs() {
    let table = [
        ("\"shape\":[2],\"datatype\":\"INT64\",\"data\":[1,2]", "input '0' has no 'name'"),
        ("\"name\":\"IN\",\"datatype\":\"INT64\",\"data\":[1,2]", "input 'IN' has no 'shape'"),
        ("\"name\":\"IN\",\"shape\":[2],\"data\":[1,2]", "input 'IN' has no 'datatype'"),
        (
            "\"name\":\"IN\",\"shape\":[2],\"datatype\":\"INT64\"",
            "input 'IN' has no data; give it 'data', or",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT64\",\"data\":null",
            "input 'IN' has no data; give it 'data', or",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT65\",\"data\":[1]",
            "input 'IN': there is no datatype 'INT65'; the datatypes are BOOL, UINT8,",
        ),
        (
            "\"name\":\"IN\",\"shape\":[3],\"datatype\":\"INT64\",\"data\":[1,2]",
            "input 'IN': shape [3] of INT64 needs 3 elements, but 2 came",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT64\",\"data\":[1,2]",
            "input 'IN': shape [1] of INT64 needs 1 elements, but 2 came",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1000000,1000000],\"datatype\":\"FP32\",\"data\":[1]",
            "input 'IN': shape [1000000,1000000] of FP32 needs 1000000000000 elements, but 1 came",
        ),
        (
            "\"name\":\"IN\",\"shape\":[9223372036854775807,9],\"datatype\":\"FP32\",\"data\":[1]",
            "input 'IN': shape [9223372036854775807,9] has more elements than can be counted",
        ),
        (
            "\"name\":\"IN\",\"shape\":[-1],\"datatype\":\"INT64\",\"data\":[1,2]",
            "input 'IN': axis 0 of the shape is -1; in a request every size must be given",
        ),
        (
            "\"name\":\"IN\",\"shape\":[2.0],\"datatype\":\"INT64\",\"data\":[1,2]",
            "axis 0 of the shape of input 'IN' is 2.0; expected a whole number of at most",
        ),
        (
            "\"name\":\"IN\",\"shape\":2,\"datatype\":\"INT64\",\"data\":[1,2]",
            "'shape' of input 'IN' must be an array, but it is a number",
        ),
        (
            "\"data\":[300],\"shape\":[1],\"datatype\":\"UINT8\",\"name\":\"IN\"",
            "element 0 of input 'IN' (UINT8) is 300, outside 0 to 255",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT64\",\"data\":[1],\"parameters\":{\"binary_data_size\":8}",
            "input 'IN' has both 'data' and 'binary_data_size'; give it one of them",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT64\",\"parameters\":{\"binary_data_size\":-8}",
            "parameter 'binary_data_size' of input 'IN': expected a number of bytes, but it is -8",
        ),
        (
            "\"name\":\"IN\",\"shape\":[1],\"datatype\":\"INT64\",\"parameters\":{\"binary_data_size\":8}",
            "no Inference-Header-Content-Length header to say where the JSON ends",
        ),
    ];
    for (input, words) in table {
        let error = rest(&format!("{{\"inputs\":[{{{input}}}]}}"));
        assert_eq!(error.kind, ErrorKind::BadRequest, "{input}");
        assert!(error.message.contains(words), "{input}\n{}", error.message);
    }
}

#[test]
fn tensors_have_one_place_and_one_form() {
    let input = |members: &str| {
        format!(
            "{{\"inputs\":[{{\"name\":\"IN\",\"shape\":[2],\"datatype\":\"INT16\",{members}}}]}}"
        )
    };
    let region = "\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":4";
    let table = [
        (
            input(&format!("\"data\":[1,2],\"parameters\":{{{region}}}")),
            "input 'IN' has both 'data' and 'shared_memory_region'; give it one of them",
        ),
        (
            input(&format!("\"parameters\":{{{region},\"binary_data_size\":4}}")),
            "input 'IN' has both 'binary_data_size' and 'shared_memory_region'; give it one",
        ),
        (
            input(&format!("\"data\":[1,2],\"parameters\":{{{region},\"binary_data_size\":4}}")),
            "input 'IN' has 'data', 'binary_data_size', 'shared_memory_region'; give it one",
        ),
        (
            input("\"parameters\":{\"shared_memory_region\":\"r\"}"),
            "input 'IN' has 'shared_memory_region' but no 'shared_memory_byte_size'",
        ),
        (
            input("\"parameters\":{\"shared_memory_region\":\"r\",\"shared_memory_byte_size\":5}"),
            "shape [2] of INT16 needs 4 bytes, but 'shared_memory_byte_size' is 5",
        ),
        (
            format!(
                "{{\"inputs\":[],\"outputs\":[{{\"name\":\"O\",\"parameters\":{{{region},\"classification\":1}}}}]}}"
            ),
            "output 'O' has 'shared_memory_region' and 'classification'",
        ),
        (
            "{\"inputs\":[],\"outputs\":[{\"name\":\"O\",\"parameters\":{\"classification\":-1}}]}"
                .to_owned(),
            "parameter 'classification' of output 'O': expected a number of classes, 0 for none, but it is -1",
        ),
        (
            input("\"data\":[[1],[2]]"),
            "data of input 'IN' is nested as [2,1], but the shape is [2]",
        ),
    ];
    for (json, words) in table {
        let error = rest(&json);
        assert_eq!(error.kind, ErrorKind::BadRequest, "{json}");
        assert!(error.message.contains(words), "{json}\n{}", error.message);
    }
}

#[test]
fn binary_bodies() {
    let input = |size: u64| {
        format!(
            "{{\"inputs\":[{{\"name\":\"IN\",\"shape\":[2],\"datatype\":\"INT16\",\
             \"parameters\":{{\"binary_data_size\":{size}}}}}]}}"
        )
    };
    let table: [(u64, &[u8], &str); 5] = [
        (4, &[0; 3], "input 'IN': binary_data_size is 4, but only 3 bytes of binary data are left"),
        (
            4,
            &[0; 6],
            "2 bytes follow the binary data of the last input; the sizes in binary_data_size",
        ),
        (3, &[0; 3], "input 'IN': shape [2] of INT16 needs 4 bytes, but 3 came"),
        (
            u64::MAX,
            &[0; 4],
            "input 'IN': binary_data_size is 18446744073709551615, but only 4 bytes",
        ),
        (0, &[], "input 'IN': shape [2] of INT16 needs 4 bytes, but 0 came"),
    ];
    for (size, tail, words) in table {
        let (body, header_length) = body(&input(size), tail);
        let error = decode(body, header_length).expect_err(words);
        assert!(error.message.contains(words), "{}", error.message);
    }
    let (whole, _) = body(&input(4), &[1, 0, 255, 255]);
    let past_end = decode(whole.clone(), Some(100_000)).expect_err("the header is too long");
    assert_eq!(
        past_end.message,
        format!(
            "Inference-Header-Content-Length says that the JSON has 100000 bytes, but the whole body \
             has {}",
            whole.len()
        )
    );
    let no_header = decode(whole, None).expect_err("the header is missing");
    assert!(no_header.message.contains("say where with Inference-Header-Content-Length"));
}

fn raw_input(datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: "IN".to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn grpc_error(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> String {
    let message =
        ModelInferRequest { inputs, raw_input_contents: raw, ..ModelInferRequest::default() };
    let error = grpc::decode_infer(message).expect_err("a refusal");
    assert_eq!(grpc::error(&error).code(), tonic::Code::InvalidArgument);
    error.message
}

#[test]
fn grpc_inputs() {
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    let with = |datatype, contents| {
        vec![InferInputTensor { contents: Some(contents), ..raw_input(datatype, &[2]) }]
    };
    let table = [
        (
            grpc_error(vec![raw_input("FP32", &[2, 3])], vec![Bytes::from_static(&[0; 20])]),
            "input 'IN': shape [2,3] of FP32 needs 24 bytes, but 20 came",
        ),
        (
            grpc_error(vec![raw_input("INT8", &[1]); 2], vec![Bytes::from_static(&[0])]),
            "raw_input_contents has 1 entries for 2 inputs; expected one for each, in their order",
        ),
        (
            grpc_error(with("INT8", ints(&[1, 2])), vec![Bytes::from_static(&[1, 2])]),
            "input 'IN' has contents although the request has raw_input_contents; send all inputs in \
             one of the two forms",
        ),
        (
            grpc_error(with("INT64", ints(&[1, 2])), vec![]),
            "input 'IN': INT64 belongs in int64_contents, but 2 elements came in int_contents",
        ),
        (
            grpc_error(with("INT8", ints(&[1, 128])), vec![]),
            "element 1 of input 'IN' (INT8) is 128, outside -128 to 127",
        ),
        (
            grpc_error(with("INT8", ints(&[1])), vec![]),
            "input 'IN': shape [2] of INT8 needs 2 elements, but 1 came",
        ),
        (
            grpc_error(with("FP16", ints(&[])), vec![]),
            "input 'IN': FP16 has no typed contents; send it in raw_input_contents",
        ),
        (
            grpc_error(vec![raw_input("FP32", &[1 << 40, 1 << 40])], vec![]),
            "input 'IN': shape [1099511627776,1099511627776] has more elements than can be counted",
        ),
        (
            grpc_error(vec![raw_input("FP32", &[1 << 40])], vec![]),
            "input 'IN': shape [1099511627776] of FP32 needs 1099511627776 elements, but 0 came",
        ),
    ];
    for (message, expected) in table {
        assert_eq!(message, expected);
    }
}

#[test]
fn grpc_parameters() {
    let refused = |key: &str, choice| {
        let value = InferParameter { parameter_choice: choice };
        let parameters = [(key.to_owned(), value)].into();
        let message = ModelInferRequest { parameters, ..ModelInferRequest::default() };
        grpc::decode_infer(message).expect_err(key)
    };
    let nothing = refused("k", None);
    assert!(nothing.message.starts_with("parameter 'k' of the request holds nothing; set its"));
    let reserved = refused("triton_x", Some(ParameterChoice::BoolParam(true)));
    assert!(reserved.message.contains("are reserved"));
    let of_output = |key: &str, choice| {
        let value = InferParameter { parameter_choice: choice };
        let parameters = [(key.to_owned(), value)].into();
        let output = InferRequestedOutputTensor { name: "O".to_owned(), parameters };
        let message = ModelInferRequest { outputs: vec![output], ..ModelInferRequest::default() };
        grpc::decode_infer(message).expect_err(key).message
    };
    assert!(of_output("classification", None).contains("holds nothing"));
    let negative = of_output("classification", Some(ParameterChoice::Int64Param(-3)));
    assert!(negative.contains("expected a number of classes, 0 for none, but it is -3"));
    let alone = of_output("shared_memory_byte_size", Some(ParameterChoice::Int64Param(4)));
    assert!(alone.contains("no 'shared_memory_region'"), "{alone}");
}

#[test]
fn grpc_inputs_in_shared_memory() {
    let shared = || InferInputTensor {
        parameters: [
            ("shared_memory_region", ParameterChoice::StringParam("r".to_owned())),
            ("shared_memory_byte_size", ParameterChoice::Int64Param(4)),
        ]
        .map(|(key, choice)| (key.to_owned(), InferParameter { parameter_choice: Some(choice) }))
        .into(),
        ..raw_input("INT16", &[2])
    };
    let contents =
        InferTensorContents { int_contents: vec![1, 2], ..InferTensorContents::default() };
    let both = InferInputTensor { contents: Some(contents), ..shared() };
    assert_eq!(
        grpc_error(vec![both], vec![]),
        "input 'IN' has both contents and 'shared_memory_region'; give it one of them"
    );
    assert_eq!(
        grpc_error(vec![shared(), raw_input("INT8", &[1])], vec![Bytes::from_static(&[0]); 2]),
        "raw_input_contents has 2 entries for 1 inputs that is not in shared memory; expected one for \
         each, in their order"
    );
    assert_eq!(
        grpc_error(vec![InferInputTensor { shape: vec![3], ..shared() }], vec![]),
        "input 'IN': shape [3] of INT16 needs 6 bytes, but 'shared_memory_byte_size' is 4"
    );
}
