//! The JSON of Triton's extensions: from their messages, and back.
//!
//! What gRPC carries as a message, REST carries as JSON that is nearly its image: the index and the regions
//! are arrays at the top, settings are flat objects. Only these differences are here.

use crate::error::InferError;
use crate::proto::log_settings_request::setting_value::ParameterChoice as LogChoice;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::{
    LogSettingsRequest, LogSettingsResponse, ModelConfig, ModelRepositoryParameter,
    ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusResponse, TraceSettingRequest,
    TraceSettingResponse, log_settings_request, log_settings_response, trace_setting_request,
};
use crate::reflect;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Prefix of the load parameters that carry a file.
const FILE_PREFIX: &str = "file:";

fn text(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn derived<M: prost::Message + prost::Name>(message: &M) -> Value {
    // A message of ours that is not in the definitions is found by the tests of this module.
    reflect::to_json(message).unwrap_or_default()
}

/// A body as a JSON object; an empty one is an object without members.
fn object(body: &[u8]) -> Result<Map<String, Value>, InferError> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(body)
        .map_err(|error| InferError::bad_request(format!("the body is no JSON object: {error}")))
}

fn wrong(key: &str, expected: &str, found: &Value) -> InferError {
    let found = crate::oip::check::excerpt(&found.to_string());
    InferError::bad_request(format!("'{key}' is {found}; expected {expected}"))
}

/// The configuration of a model.
#[must_use]
pub fn model_config(config: &ModelConfig) -> Bytes {
    text(&derived(config))
}

/// Counts and times.
#[must_use]
pub fn statistics(statistics: &ModelStatisticsResponse) -> Bytes {
    text(&derived(statistics))
}

/// What an index is to hold.
///
/// # Errors
/// `BadRequest` for a body that is no such object.
pub fn decode_index(body: &[u8]) -> Result<RepositoryIndexRequest, InferError> {
    let ready = match object(body)?.get("ready") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(ready)) => *ready,
        Some(other) => return Err(wrong("ready", "true or false", other)),
    };
    Ok(RepositoryIndexRequest { repository_name: String::new(), ready })
}

/// The models with their states.
#[must_use]
pub fn index(index: &RepositoryIndexResponse) -> Bytes {
    text(&derived(index)["models"])
}

/// The parameters of load and unload; files come as base64.
///
/// # Errors
/// `BadRequest`, naming the parameter.
pub fn decode_repository_parameters(
    body: &[u8],
) -> Result<BTreeMap<String, ModelRepositoryParameter>, InferError> {
    let parameters = match object(body)?.remove("parameters") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(parameters)) => parameters,
        Some(other) => return Err(wrong("parameters", "an object", &other)),
    };
    parameters.into_iter().map(repository_parameter).collect()
}

fn repository_parameter(
    (key, value): (String, Value),
) -> Result<(String, ModelRepositoryParameter), InferError> {
    let choice = match value {
        Value::String(text) if key.starts_with(FILE_PREFIX) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes.map_err(|error| {
                InferError::bad_request(format!("parameter '{key}' is no base64: {error}"))
            })?;
            ParameterChoice::BytesParam(bytes.into())
        }
        Value::String(text) => ParameterChoice::StringParam(text),
        Value::Bool(value) => ParameterChoice::BoolParam(value),
        Value::Number(number) if number.is_i64() => {
            ParameterChoice::Int64Param(number.as_i64().unwrap_or_default())
        }
        other => return Err(wrong(&key, "a text, a whole number, true or false", &other)),
    };
    Ok((key, ModelRepositoryParameter { parameter_choice: Some(choice) }))
}

/// Which log settings are to change, and to what.
///
/// # Errors
/// `BadRequest`, naming the setting.
pub fn decode_log_settings(body: &[u8]) -> Result<LogSettingsRequest, InferError> {
    let setting = |(key, value): (String, Value)| {
        let choice = match &value {
            Value::Bool(value) => LogChoice::BoolParam(*value),
            Value::String(text) => LogChoice::StringParam(text.clone()),
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                let expected = "a whole number of at most 4294967295";
                LogChoice::Uint32Param(number.ok_or_else(|| wrong(&key, expected, &value))?)
            }
            other => return Err(wrong(&key, "a text, a number, true or false", other)),
        };
        Ok((key, log_settings_request::SettingValue { parameter_choice: Some(choice) }))
    };
    let settings = object(body)?.into_iter().map(setting).collect::<Result<_, _>>()?;
    Ok(LogSettingsRequest { settings })
}

/// The log settings in force.
#[must_use]
pub fn log_settings(response: &LogSettingsResponse) -> Bytes {
    use log_settings_response::setting_value::ParameterChoice;
    let value = |setting: &log_settings_response::SettingValue| match &setting.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => json!(value),
        Some(ParameterChoice::Uint32Param(value)) => json!(value),
        Some(ParameterChoice::StringParam(value)) => json!(value),
        None => Value::Null,
    };
    let settings = response.settings.iter().map(|(key, setting)| (key.clone(), value(setting)));
    text(&Value::Object(settings.collect()))
}

/// Which trace settings are to change, and to what; `null` takes a setting back to its default.
///
/// # Errors
/// `BadRequest`, naming the setting.
pub fn decode_trace_settings(
    model: Option<&str>,
    body: &[u8],
) -> Result<TraceSettingRequest, InferError> {
    let setting = |(key, value): (String, Value)| {
        let texts = match &value {
            Value::Null => Vec::new(),
            Value::String(text) => vec![text.clone()],
            Value::Number(number) => vec![number.to_string()],
            Value::Array(texts) => {
                let text = |text: &Value| text.as_str().map(str::to_owned);
                let texts: Option<Vec<String>> = texts.iter().map(text).collect();
                texts.ok_or_else(|| wrong(&key, "an array of texts", &value))?
            }
            other => return Err(wrong(&key, "a text, an array of texts or null", other)),
        };
        Ok((key, trace_setting_request::SettingValue { value: texts }))
    };
    let settings = object(body)?.into_iter().map(setting).collect::<Result<_, _>>()?;
    Ok(TraceSettingRequest { settings, model_name: model.unwrap_or_default().to_owned() })
}

/// The trace settings in force.
#[must_use]
pub fn trace_settings(response: &TraceSettingResponse) -> Bytes {
    let settings = response.settings.iter().map(|(key, setting)| {
        // The one setting that may have several values is always an array.
        let value = match setting.value.as_slice() {
            [only] if key != "trace_level" => json!(only),
            values => json!(values),
        };
        (key.clone(), value)
    });
    text(&Value::Object(settings.collect()))
}

/// A region to be registered under this name.
///
/// # Errors
/// `BadRequest`, naming the member.
pub fn decode_register(
    region: &str,
    body: &[u8],
) -> Result<SystemSharedMemoryRegisterRequest, InferError> {
    let body = object(body)?;
    let number = |key: &str, default: Option<u64>| match body.get(key) {
        None | Some(Value::Null) => default.ok_or_else(|| {
            InferError::bad_request(format!(
                "region '{region}' has no '{key}'; expected {{\"key\", \"offset\", \"byte_size\"}}"
            ))
        }),
        Some(value) => value.as_u64().ok_or_else(|| wrong(key, "a whole number of bytes", value)),
    };
    let key = match body.get("key") {
        Some(Value::String(key)) => key.clone(),
        Some(other) => return Err(wrong("key", "the name of a shared memory object", other)),
        None => {
            return Err(InferError::bad_request(format!(
                "region '{region}' has no 'key'; expected the name of a shared memory object"
            )));
        }
    };
    Ok(SystemSharedMemoryRegisterRequest {
        name: region.to_owned(),
        key,
        offset: number("offset", Some(0))?,
        byte_size: number("byte_size", None)?,
    })
}

/// The caller's regions.
#[must_use]
pub fn regions(response: &SystemSharedMemoryStatusResponse) -> Bytes {
    text(&Value::Array(response.regions.values().map(derived).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ModelStatistics, repository_index_response::ModelIndex};

    fn read(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn arrays_stand_at_the_top_where_clients_expect_them() {
        let entry = ModelIndex { name: "m".into(), version: "1".into(), ..ModelIndex::default() };
        let json = read(&index(&RepositoryIndexResponse { models: vec![entry] }));
        assert_eq!(json, json!([{"name": "m", "version": "1", "state": "", "reason": ""}]));
        assert_eq!(read(&regions(&SystemSharedMemoryStatusResponse::default())), json!([]));
        let stats = ModelStatistics { name: "m".into(), ..ModelStatistics::default() };
        let json = read(&statistics(&ModelStatisticsResponse { model_stats: vec![stats] }));
        assert_eq!(json["model_stats"][0]["execution_count"], json!(0));
        assert_eq!(read(&model_config(&ModelConfig::default()))["max_batch_size"], json!(0));
    }

    #[test]
    fn settings_are_read_and_wrong_ones_are_named() {
        let log = decode_log_settings(br#"{"log_info": false, "log_verbose_level": 1}"#).unwrap();
        assert_eq!(log.settings.len(), 2);
        let why = decode_log_settings(br#"{"log_info": [1]}"#).unwrap_err().message;
        assert!(why.contains("log_info") && why.contains("[1]"), "{why}");
        let trace =
            decode_trace_settings(Some("m"), br#"{"trace_level": ["OFF"], "trace_rate": null}"#);
        let trace = trace.unwrap();
        assert_eq!(trace.settings["trace_level"].value, ["OFF"]);
        assert!(trace.settings["trace_rate"].value.is_empty());
        assert!(decode_trace_settings(None, b"[]").is_err());
    }

    #[test]
    fn load_parameters_carry_files_as_base64() {
        let body = br#"{"parameters": {"config": "{}", "file:1/model.onnx": "AAEC"}}"#;
        let parameters = decode_repository_parameters(body).unwrap();
        let file = parameters["file:1/model.onnx"].parameter_choice.clone();
        assert_eq!(file, Some(ParameterChoice::BytesParam(Bytes::from_static(&[0, 1, 2]))));
        assert!(decode_repository_parameters(b"").unwrap().is_empty());
        let why = decode_repository_parameters(br#"{"parameters": {"file:x": "?"}}"#).unwrap_err();
        assert!(why.message.contains("file:x"), "{why}");
    }

    #[test]
    fn regions_need_a_key_and_a_size() {
        let good = decode_register("r", br#"{"key": "/k", "byte_size": 8}"#).unwrap();
        assert_eq!((good.name.as_str(), good.offset, good.byte_size), ("r", 0, 8));
        for bad in [r#"{"byte_size": 8}"#, r#"{"key": "/k"}"#, r#"{"key": "/k", "byte_size": -1}"#]
        {
            assert!(decode_register("r", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
