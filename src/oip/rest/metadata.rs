//! The small answers: health, metadata and errors.
//!
//! Separate from inference, with which they share only how strings and numbers are written. All of
//! them are whole JSON documents of content type `application/json`, also where Triton sends an
//! empty body: KServe's client reads them.

use super::values;
use crate::request::{ModelMetadata, ServerMetadata, TensorMetadata};
use bytes::Bytes;

/// The answer to "is the daemon alive".
#[must_use]
pub fn live(live: bool) -> Bytes {
    Bytes::from_static(if live { b"{\"live\":true}" } else { b"{\"live\":false}" })
}

/// The answer to "is the daemon ready".
#[must_use]
pub fn ready(ready: bool) -> Bytes {
    Bytes::from_static(if ready { b"{\"ready\":true}" } else { b"{\"ready\":false}" })
}

/// The answer to "is this model ready".
#[must_use]
pub fn model_ready(name: &str, ready: bool) -> Bytes {
    let mut json = Vec::with_capacity(32 + name.len());
    json.extend_from_slice(b"{\"name\":");
    values::string(&mut json, name);
    json.extend_from_slice(if ready { b",\"ready\":true}" } else { b",\"ready\":false}" });
    Bytes::from(json)
}

/// What the server says of itself.
#[must_use]
pub fn server_metadata(server: &ServerMetadata) -> Bytes {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"name\":");
    values::string(&mut json, &server.name);
    json.extend_from_slice(b",\"version\":");
    values::string(&mut json, &server.version);
    json.extend_from_slice(b",\"extensions\":");
    list(&mut json, &server.extensions, |json, name| values::string(json, name));
    json.push(b'}');
    Bytes::from(json)
}

/// What a model says of itself; `properties` only where there are any.
#[must_use]
pub fn model_metadata(model: &ModelMetadata) -> Bytes {
    let mut json = Vec::with_capacity(512);
    json.extend_from_slice(b"{\"name\":");
    values::string(&mut json, &model.name);
    json.extend_from_slice(b",\"versions\":");
    list(&mut json, &model.versions, |json, version| values::string(json, version));
    json.extend_from_slice(b",\"platform\":");
    values::string(&mut json, &model.platform);
    json.extend_from_slice(b",\"inputs\":");
    list(&mut json, &model.inputs, tensor);
    json.extend_from_slice(b",\"outputs\":");
    list(&mut json, &model.outputs, tensor);
    for (at, (key, value)) in model.properties.iter().enumerate() {
        json.extend_from_slice(if at == 0 { b",\"properties\":{" } else { b"," });
        values::string(&mut json, key);
        json.push(b':');
        values::string(&mut json, value);
    }
    json.extend_from_slice(if model.properties.is_empty() { b"}" } else { b"}}" });
    Bytes::from(json)
}

/// The body of every error answer.
#[must_use]
pub fn error(message: &str) -> Bytes {
    let mut json = Vec::with_capacity(16 + message.len());
    json.extend_from_slice(b"{\"error\":");
    values::string(&mut json, message);
    json.push(b'}');
    Bytes::from(json)
}

fn tensor(json: &mut Vec<u8>, tensor: &TensorMetadata) {
    json.extend_from_slice(b"{\"name\":");
    values::string(json, &tensor.name);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(tensor.datatype.name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":");
    list(json, &tensor.shape, |json, &dim| values::integer(json, dim));
    json.push(b'}');
}

fn list<T>(json: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    json.push(b'[');
    for (at, value) in items.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        item(json, value);
    }
    json.push(b']');
}
