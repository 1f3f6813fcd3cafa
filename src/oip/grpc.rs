//! The protocol over gRPC: protobuf messages and what they mean.
//!
//! Separate from [`crate::oip::rest`], with which it shares the checks and nothing else. Framing,
//! compression and message limits belong to the server.
//!
//! # Invariants
//! - Raw contents are taken and given without a copy.
//! - Answers always carry raw contents, whatever form the request had: clients read nothing else.
//!
//! # Source
//! The Open Inference Protocol's gRPC definition.

use crate::error::InferError;
use crate::oip::check;
use crate::oip::placement::{self, Placement, Wanted};
use crate::oip::status;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::model_metadata_response::TensorMetadata as TensorMetadataMessage;
use crate::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataResponse, ModelStreamInferResponse, ServerMetadataResponse,
};
use crate::request::{
    InferRequest, InferResponse, Input, ModelMetadata, Output, Parameter, Parameters, RegionSlice,
    RequestedOutput, ServerMetadata, SharedTensor, TensorMetadata,
};
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Says in an answer on a stream that no other follows.
const FINAL_RESPONSE: &str = "triton_final_response";

type ParameterMessages = BTreeMap<String, InferParameter>;

/// What a request message asks for.
///
/// # Errors
/// `BadRequest` for tensors whose contents are not what shape and datatype say, and for parameters
/// that hold nothing, are reserved or do not go together.
///
/// # Cost
/// Raw contents are not copied, typed contents once.
pub fn decode_infer(message: ModelInferRequest) -> Result<InferRequest<Input>, InferError> {
    let parameters = request_parameters(message.parameters)?;
    let mut places = Vec::with_capacity(message.inputs.len());
    for input in &message.inputs {
        places.push(input_placement(input)?);
    }
    let raw = message.raw_input_contents;
    let sent = places.iter().filter(|place| place.is_none()).count();
    if !raw.is_empty() && raw.len() != sent {
        let shared = message.inputs.len() - sent;
        let besides = if shared > 0 {
            format!(" that {} not in shared memory", if sent == 1 { "is" } else { "are" })
        } else {
            String::new()
        };
        return Err(InferError::bad_request(format!(
            "raw_input_contents has {} entries for {sent} inputs{besides}; expected one for each, \
             in their order",
            raw.len(),
        )));
    }
    let mut raw = raw.into_iter();
    let mut inputs = Vec::with_capacity(message.inputs.len());
    for (input, place) in message.inputs.into_iter().zip(places) {
        inputs.push(match place {
            None => Input::Sent(decode_input(input, raw.next())?),
            Some(slice) => Input::Shared(shared_input(input, slice)?),
        });
    }
    let outputs = message.outputs.into_iter().map(decode_output).collect::<Result<_, _>>()?;
    Ok(InferRequest {
        model: message.model_name,
        version: Some(message.model_version).filter(|version| !version.is_empty()),
        id: message.id,
        parameters,
        inputs,
        outputs,
    })
}

/// The message for an answer.
///
/// # Cost
/// Outputs of one piece are not copied, others once.
#[must_use]
pub fn encode_infer(response: InferResponse) -> ModelInferResponse {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        let (name, datatype, shape, parameters, raw) = match output {
            Output::Sent(output) => {
                let raw = output.contiguous();
                (output.name, output.datatype, output.shape, Parameters::new(), raw)
            }
            // Clients count on an entry for every output.
            Output::Shared(SharedTensor { name, datatype, shape, slice }) => {
                (name, datatype, shape, placement::parameters(slice), Bytes::new())
            }
        };
        outputs.push(InferOutputTensor {
            name,
            datatype: datatype.name().to_owned(),
            shape: shape.to_wire(),
            parameters: encode_parameters(parameters),
            contents: None,
        });
        raw_output_contents.push(raw);
    }
    ModelInferResponse {
        model_name: response.model,
        model_version: response.version,
        id: response.id,
        parameters: encode_parameters(response.parameters),
        outputs,
        raw_output_contents,
    }
}

/// Whether a request on a stream wants to be told that its answer is the last one.
#[must_use]
pub fn wants_final_response(message: &ModelInferRequest) -> bool {
    let parameter = message.parameters.get(check::EMPTY_FINAL_RESPONSE);
    let choice = parameter.and_then(|parameter| parameter.parameter_choice.as_ref());
    matches!(choice, Some(ParameterChoice::BoolParam(true)))
}

/// An answer on a stream; `last` says in it that no other follows for its request.
#[must_use]
pub fn stream_answer(response: InferResponse, last: bool) -> ModelStreamInferResponse {
    let mut response = encode_infer(response);
    if last {
        let choice = Some(ParameterChoice::BoolParam(true));
        let parameter = InferParameter { parameter_choice: choice };
        response.parameters.insert(FINAL_RESPONSE.to_owned(), parameter);
    }
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

/// What was wrong with a request on a stream; it carries the request's id, as answers come in any order.
#[must_use]
pub fn stream_error(error: &InferError, id: String) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: error.message.clone(),
        infer_response: Some(ModelInferResponse { id, ..ModelInferResponse::default() }),
    }
}

/// The message for what the server says of itself.
#[must_use]
pub fn server_metadata(server: &ServerMetadata) -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: server.name.clone(),
        version: server.version.clone(),
        extensions: server.extensions.clone(),
    }
}

/// The message for what a model says of itself.
#[must_use]
pub fn model_metadata(model: &ModelMetadata) -> ModelMetadataResponse {
    let tensors = |tensors: &[TensorMetadata]| {
        let message = |tensor: &TensorMetadata| TensorMetadataMessage {
            name: tensor.name.clone(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape.clone(),
        };
        tensors.iter().map(message).collect()
    };
    ModelMetadataResponse {
        name: model.name.clone(),
        versions: model.versions.clone(),
        platform: model.platform.clone(),
        inputs: tensors(&model.inputs),
        outputs: tensors(&model.outputs),
        properties: model.properties.clone(),
    }
}

/// The status for an error; `retry-after` in its metadata says what the header says over REST.
#[must_use]
pub fn error(error: &InferError) -> tonic::Status {
    let mut status = tonic::Status::new(status::grpc(error.kind), error.message.clone());
    if let Some(wait) = error.retry_after {
        let seconds = status::retry_after_secs(wait);
        status.metadata_mut().insert("retry-after", seconds.into());
    }
    status
}

fn request_parameters(messages: ParameterMessages) -> Result<Parameters, InferError> {
    let mut parameters = Parameters::new();
    for (key, message) in messages {
        let value = decode_parameter(|| "the request".to_owned(), &key, message)?;
        match check::request_parameter(&key, &value)? {
            check::Fate::Keep => parameters.insert(key, value),
            check::Fate::Encoding => None,
        };
    }
    Ok(parameters)
}

fn decode_parameter(
    owner: impl Fn() -> String,
    key: &str,
    message: InferParameter,
) -> Result<Parameter, InferError> {
    match message.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Parameter::Bool(value)),
        Some(ParameterChoice::Int64Param(value)) => Ok(Parameter::Int(value)),
        Some(ParameterChoice::Uint64Param(value)) => Ok(check::whole(value)),
        Some(ParameterChoice::DoubleParam(value)) => Ok(Parameter::Double(value)),
        Some(ParameterChoice::StringParam(value)) => Ok(Parameter::Text(value)),
        None => Err(InferError::bad_request(format!(
            "parameter '{key}' of {} holds nothing; set its bool_param, int64_param, uint64_param, \
             double_param or string_param",
            owner()
        ))),
    }
}

fn encode_parameters(parameters: Parameters) -> ParameterMessages {
    let message = |(key, value)| {
        let choice = match value {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::Int(value) => ParameterChoice::Int64Param(value),
            Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
            Parameter::Double(value) => ParameterChoice::DoubleParam(value),
            Parameter::Text(value) => ParameterChoice::StringParam(value),
        };
        (key, InferParameter { parameter_choice: Some(choice) })
    };
    parameters.into_iter().map(message).collect()
}

/// Where the bytes of an input are, when that is shared memory.
fn input_placement(input: &InferInputTensor) -> Result<Option<RegionSlice>, InferError> {
    let owner = || format!("input '{}'", input.name);
    let mut placement = Placement::default();
    for (key, value) in &input.parameters {
        let value = decode_parameter(owner, key, value.clone())?;
        placement.take(owner, key, &value)?;
    }
    placement.slice(owner)
}

fn decode_output(output: InferRequestedOutputTensor) -> Result<RequestedOutput, InferError> {
    let owner = || format!("output '{}'", output.name);
    let mut wanted = Wanted::default();
    for (key, value) in output.parameters {
        let value = decode_parameter(owner, &key, value)?;
        wanted.take(owner, &key, &value)?;
    }
    wanted.output(output.name, false)
}

/// The datatype and shape that an input claims.
fn header(name: &str, datatype: &str, shape: Vec<i64>) -> Result<(DataType, Shape), InferError> {
    let datatype = check::datatype(name, datatype)?;
    let sizes = shape.into_iter().enumerate();
    let sizes = sizes.map(|(axis, dim)| check::dimension(name, axis, dim));
    Ok((datatype, Shape(sizes.collect::<Result<_, _>>()?)))
}

fn shared_input(input: InferInputTensor, slice: RegionSlice) -> Result<SharedTensor, InferError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    if contents.is_some_and(|contents| lengths(&contents).iter().any(|(_, count)| *count > 0)) {
        return Err(InferError::bad_request(format!(
            "input '{name}' has both contents and 'shared_memory_region'; give it one of them"
        )));
    }
    let (datatype, shape) = header(&name, &datatype, shape)?;
    check::shared(name, datatype, shape, slice)
}

fn decode_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, InferError> {
    let name = input.name;
    let (datatype, shape) = header(&name, &input.datatype, input.shape)?;
    match (raw, input.contents) {
        (Some(data), None) => check::tensor(name, datatype, shape, data),
        (Some(_), Some(_)) => Err(InferError::bad_request(format!(
            "input '{name}' has contents although the request has raw_input_contents; send all \
             inputs in one of the two forms"
        ))),
        (None, contents) => typed(name, datatype, shape, contents.unwrap_or_default()),
    }
}

/// A tensor from typed contents.
fn typed(
    name: String,
    datatype: DataType,
    shape: Shape,
    contents: InferTensorContents,
) -> Result<Tensor, InferError> {
    let Some(expected) = field_of(datatype) else {
        return Err(InferError::bad_request(format!(
            "input '{name}': {datatype} has no typed contents; send it in raw_input_contents"
        )));
    };
    let other =
        lengths(&contents).into_iter().find(|(field, count)| *field != expected && *count > 0);
    if let Some((field, count)) = other {
        return Err(InferError::bad_request(format!(
            "input '{name}': {datatype} belongs in {expected}, but {count} elements came in {field}"
        )));
    }
    let count = lengths(&contents).into_iter().map(|(_, count)| count).sum();
    check::count_is(&name, datatype, &shape, count)?;
    let data = wire_bytes(&name, datatype, contents)?;
    Ok(Tensor { name, datatype, shape, data: Bytes::from(data) })
}

/// The list of typed contents that holds this datatype.
const fn field_of(datatype: DataType) -> Option<&'static str> {
    match datatype {
        DataType::Bool => Some("bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => Some("int_contents"),
        DataType::Int64 => Some("int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => Some("uint_contents"),
        DataType::Uint64 => Some("uint64_contents"),
        DataType::Fp32 => Some("fp32_contents"),
        DataType::Fp64 => Some("fp64_contents"),
        DataType::Bytes => Some("bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => None,
    }
}

/// Every list of typed contents with its length.
fn lengths(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

fn wire_bytes(
    input: &str,
    datatype: DataType,
    contents: InferTensorContents,
) -> Result<Vec<u8>, InferError> {
    let narrow = Narrow { input, datatype };
    let signed = &contents.int_contents;
    let unsigned = &contents.uint_contents;
    match datatype {
        DataType::Bool => Ok(contents.bool_contents.into_iter().map(u8::from).collect()),
        DataType::Int8 => narrow.to(signed, i8::to_le_bytes, &(i8::MIN..=i8::MAX)),
        DataType::Int16 => narrow.to(signed, i16::to_le_bytes, &(i16::MIN..=i16::MAX)),
        DataType::Int32 => Ok(flat(signed, i32::to_le_bytes)),
        DataType::Int64 => Ok(flat(&contents.int64_contents, i64::to_le_bytes)),
        DataType::Uint8 => narrow.to(unsigned, u8::to_le_bytes, &(u8::MIN..=u8::MAX)),
        DataType::Uint16 => narrow.to(unsigned, u16::to_le_bytes, &(u16::MIN..=u16::MAX)),
        DataType::Uint32 => Ok(flat(unsigned, u32::to_le_bytes)),
        DataType::Uint64 => Ok(flat(&contents.uint64_contents, u64::to_le_bytes)),
        DataType::Fp32 => Ok(flat(&contents.fp32_contents, f32::to_le_bytes)),
        DataType::Fp64 => Ok(flat(&contents.fp64_contents, f64::to_le_bytes)),
        DataType::Bytes => prefixed(input, &contents.bytes_contents),
        // Refused before, by `field_of`; here they are no elements.
        DataType::Fp16 | DataType::Bf16 => Ok(Vec::new()),
    }
}

fn flat<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut data = Vec::with_capacity(values.len().saturating_mul(N));
    values.iter().for_each(|&value| data.extend_from_slice(&bytes(value)));
    data
}

/// Wide values on their way into a narrower datatype.
struct Narrow<'a> {
    input: &'a str,
    datatype: DataType,
}

impl Narrow<'_> {
    fn to<Wide, T, const N: usize>(
        &self,
        values: &[Wide],
        bytes: impl Fn(T) -> [u8; N],
        range: &RangeInclusive<T>,
    ) -> Result<Vec<u8>, InferError>
    where
        Wide: Copy + Display,
        T: TryFrom<Wide> + Display,
    {
        let mut data = Vec::with_capacity(values.len().saturating_mul(N));
        for (at, &value) in values.iter().enumerate() {
            let Ok(narrow) = T::try_from(value) else {
                return Err(InferError::bad_request(format!(
                    "element {at} of input '{}' ({}) is {value}, outside {} to {}",
                    self.input,
                    self.datatype,
                    range.start(),
                    range.end()
                )));
            };
            data.extend_from_slice(&bytes(narrow));
        }
        Ok(data)
    }
}

fn prefixed(input: &str, elements: &[Bytes]) -> Result<Vec<u8>, InferError> {
    let total = elements.iter().map(|element| element.len() + size_of::<u32>()).sum();
    let mut data = Vec::with_capacity(total);
    for (at, element) in elements.iter().enumerate() {
        let Ok(length) = u32::try_from(element.len()) else {
            return Err(InferError::bad_request(format!(
                "element {at} of input '{input}' (BYTES) has {} bytes, more than an element can \
                 have",
                element.len()
            )));
        };
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(element);
    }
    Ok(data)
}
