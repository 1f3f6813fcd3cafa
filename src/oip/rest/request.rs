//! The JSON of an inference request.
//!
//! Separate from the reader, which knows JSON, and from the values, which know datatypes: here is
//! what the members mean and which may stand together.
//!
//! # Invariants
//! - Members may come in any order; unknown ones are ignored; known ones may come once. A `null`
//!   member is a member that did not come, since clients with typed messages write it so.
//! - Each input has exactly one of `data`, `binary_data_size` and `shared_memory_region`.
//! - The body is walked once, unless an input has `data` before its name or datatype.

mod inputs;
mod outputs;

use super::ReplyForm;
use super::binary::Tail;
use super::json::Reader;
use crate::error::InferError;
use crate::oip::check;
use crate::request::{InferRequest, Input, Parameter, Parameters};
use outputs::Outputs;
use std::borrow::Cow;

/// Reads a whole request from its JSON, nested so deep at most, and the binary data behind it.
pub(super) fn read(
    text: &str,
    tail: Tail,
    depth_max: usize,
) -> Result<(InferRequest<Input>, ReplyForm), InferError> {
    let mut message = Message { reader: Reader::within(text, depth_max), tail };
    let mut id = None;
    let mut parameters = None;
    let mut inputs = None;
    let mut outputs = None;
    let mut object = message.reader.object("the request")?;
    while let Some(key) = message.reader.key(&mut object)? {
        match key.as_ref() {
            "id" => once(&mut id, &key, message.id()?)?,
            "parameters" => once(&mut parameters, &key, message.request_parameters()?)?,
            "inputs" => once(&mut inputs, &key, message.inputs()?)?,
            "outputs" => once(&mut outputs, &key, message.outputs()?)?,
            _ => message.reader.skip()?,
        }
    }
    message.reader.end()?;
    let Some(inputs) = inputs else {
        return Err(InferError::bad_request(
            "the request has no 'inputs'; expected {\"inputs\": [{\"name\", \"shape\", \
             \"datatype\", \"data\"}, ...]}",
        ));
    };
    message.tail.end()?;
    let (parameters, all_binary) = parameters.unwrap_or_default();
    let Outputs { outputs, binary } = outputs.unwrap_or_default();
    let form = ReplyForm::new(all_binary, &outputs, &binary);
    let id = id.unwrap_or_default();
    let request = InferRequest { id, parameters, inputs, outputs, ..InferRequest::default() };
    Ok((request, form))
}

struct Message<'a> {
    reader: Reader<'a>,
    tail: Tail,
}

impl<'a> Message<'a> {
    fn id(&mut self) -> Result<Option<String>, InferError> {
        if self.reader.null() {
            return Ok(None);
        }
        self.reader.string("'id' of the request").map(|id| Some(id.into_owned()))
    }

    /// The parameters that stay with the request, and whether all outputs are to go binary.
    fn request_parameters(&mut self) -> Result<Option<(Parameters, bool)>, InferError> {
        let mut kept = Parameters::new();
        let mut all_binary = false;
        self.parameters(
            || "the request".to_owned(),
            |key, value| {
                match (check::request_parameter(&key, &value)?, value) {
                    (check::Fate::Keep, value) => {
                        kept.insert(key.into_owned(), value);
                    }
                    (check::Fate::Encoding, Parameter::Bool(yes))
                        if key == check::BINARY_DATA_OUTPUT =>
                    {
                        all_binary = yes;
                    }
                    (check::Fate::Encoding, _) => {}
                }
                Ok(())
            },
        )?;
        Ok(Some((kept, all_binary)))
    }

    /// Reads a `parameters` object, or `null`, and hands on each entry; whether there was an object.
    fn parameters(
        &mut self,
        owner: impl Fn() -> String,
        mut each: impl FnMut(Cow<'a, str>, Parameter) -> Result<(), InferError>,
    ) -> Result<bool, InferError> {
        if self.reader.null() {
            return Ok(false);
        }
        if self.reader.peek() != Some(b'{') {
            return Err(self
                .reader
                .wrong_type(&format!("'parameters' of {}", owner()), "an object"));
        }
        let mut object = self.reader.object("'parameters'")?;
        while let Some(key) = self.reader.key(&mut object)? {
            let value = self.parameter(&key, &owner)?;
            each(key, value)?;
        }
        Ok(true)
    }

    fn parameter(
        &mut self,
        key: &str,
        owner: &impl Fn() -> String,
    ) -> Result<Parameter, InferError> {
        if self.reader.peek() == Some(b'"') {
            return self.reader.string(key).map(|text| Parameter::Text(text.into_owned()));
        }
        if let Some(value) = self.reader.truth() {
            return Ok(Parameter::Bool(value));
        }
        let what = || format!("parameter '{key}' of {}", owner());
        let Some(text) = self.reader.number()? else {
            return Err(self.reader.wrong_type(&what(), "true, false, a number or a string"));
        };
        if let Ok(value) = text.parse() {
            return Ok(Parameter::Int(value));
        }
        if let Ok(value) = text.parse() {
            return Ok(check::whole(value));
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Parameter::Double(value)),
            _ => Err(InferError::bad_request(format!(
                "{} is {}, which is more than a double can hold",
                what(),
                check::excerpt(text)
            ))),
        }
    }
}

fn label(name: Option<&str>, place: usize) -> Cow<'_, str> {
    name.map_or_else(|| Cow::Owned(place.to_string()), Cow::Borrowed)
}

/// Puts a member's value in its place, unless the member came before.
fn once<T>(place: &mut Option<T>, key: &str, value: Option<T>) -> Result<(), InferError> {
    let Some(value) = value else { return Ok(()) };
    if place.replace(value).is_some() {
        return Err(InferError::bad_request(format!(
            "the JSON of the request has a member '{key}' twice in one object"
        )));
    }
    Ok(())
}
