//! The JSON of an inference request.
//!
//! Separate from the reader, which knows JSON, and from the values, which know datatypes: here is
//! what the members mean and which may stand together.
//!
//! # Invariants
//! - Members may come in any order; unknown ones are ignored; known ones may come once. A `null`
//!   member is a member that did not come, since clients with typed messages write it so.
//! - Each input has exactly one of `data` and `binary_data_size`.
//! - The body is walked once, unless an input has `data` before its name or datatype.

use super::ReplyForm;
use super::binary::Tail;
use super::json::Reader;
use super::values;
use crate::error::InferError;
use crate::oip::check;
use crate::request::{InferRequest, Parameter, Parameters};
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;
use std::borrow::Cow;

/// Reads a whole request from its JSON, nested so deep at most, and the binary data behind it.
pub(super) fn read(
    text: &str,
    tail: Tail,
    depth_max: usize,
) -> Result<(InferRequest, ReplyForm), InferError> {
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
    let Outputs { names, binary } = outputs.unwrap_or_default();
    let form = ReplyForm::new(all_binary, &names, &binary);
    let id = id.unwrap_or_default();
    let request =
        InferRequest { id, parameters, inputs, outputs: names, ..InferRequest::default() };
    Ok((request, form))
}

/// The outputs asked for, and for each whether its own parameters say in which form.
#[derive(Default)]
struct Outputs {
    names: Vec<String>,
    binary: Vec<Option<bool>>,
}

/// Where the data of an input is.
enum Data<'a> {
    /// Read already: the wire bytes and the number of elements.
    Read(Vec<u8>, usize),
    /// In the JSON, before it was known how to read it.
    At(Reader<'a>),
}

/// What is known of an input so far.
#[derive(Default)]
struct Input<'a> {
    name: Option<String>,
    datatype: Option<DataType>,
    shape: Option<Vec<i64>>,
    data: Option<Data<'a>>,
    binary_size: Option<u64>,
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

    /// Reads a `parameters` object, or `null`, and hands on each entry.
    fn parameters(
        &mut self,
        owner: impl Fn() -> String,
        mut each: impl FnMut(Cow<'a, str>, Parameter) -> Result<(), InferError>,
    ) -> Result<(), InferError> {
        if self.reader.null() {
            return Ok(());
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
        Ok(())
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

    fn inputs(&mut self) -> Result<Option<Vec<Tensor>>, InferError> {
        let mut inputs = Vec::new();
        let mut array = self.reader.array("'inputs'")?;
        while self.reader.item(&mut array)? {
            let input = self.input(inputs.len())?;
            inputs.push(input);
        }
        Ok(Some(inputs))
    }

    fn input(&mut self, place: usize) -> Result<Tensor, InferError> {
        let mut input = Input::default();
        let mut object = self.reader.object("each of 'inputs'")?;
        while let Some(key) = self.reader.key(&mut object)? {
            match key.as_ref() {
                "name" => {
                    let name = self.reader.string("'name' of an input")?.into_owned();
                    once(&mut input.name, &key, Some(name))?;
                }
                "datatype" => {
                    let name = self.reader.string("'datatype' of an input")?;
                    let datatype = check::datatype(&input.label(place), &name)?;
                    once(&mut input.datatype, &key, Some(datatype))?;
                }
                "shape" => {
                    let shape = self.shape(&input, place)?;
                    once(&mut input.shape, &key, Some(shape))?;
                }
                "parameters" => {
                    let size = self.input_parameters(&input, place)?;
                    once(&mut input.binary_size, &key, size)?;
                }
                "data" => {
                    let data = self.data(&input)?;
                    once(&mut input.data, &key, data)?;
                }
                _ => self.reader.skip()?,
            }
        }
        self.finish(input, place)
    }

    fn shape(&mut self, input: &Input<'_>, place: usize) -> Result<Vec<i64>, InferError> {
        if self.reader.peek() != Some(b'[') {
            let what = format!("'shape' of input '{}'", input.label(place));
            return Err(self.reader.wrong_type(&what, "an array"));
        }
        let mut shape = Vec::with_capacity(4);
        let mut array = self.reader.array("'shape'")?;
        while self.reader.item(&mut array)? {
            let what =
                || format!("axis {} of the shape of input '{}'", shape.len(), input.label(place));
            let Some(text) = self.reader.number()? else {
                return Err(self.reader.wrong_type(&what(), "a whole number"));
            };
            let size = text.parse::<i64>().map_err(|_| {
                InferError::bad_request(format!(
                    "{} is {}; expected a whole number of at most {}",
                    what(),
                    check::excerpt(text),
                    i64::MAX
                ))
            })?;
            shape.push(size);
        }
        Ok(shape)
    }

    /// The `binary_data_size` of an input.
    fn input_parameters(
        &mut self,
        input: &Input<'_>,
        place: usize,
    ) -> Result<Option<u64>, InferError> {
        let owner = || format!("input '{}'", input.label(place));
        let mut size = None;
        self.parameters(owner, |key, value| {
            check::tensor_parameter(owner, &key)?;
            if key == "binary_data_size" {
                let bytes = match value {
                    Parameter::Int(bytes) => u64::try_from(bytes).ok(),
                    Parameter::Uint(bytes) => Some(bytes),
                    _ => None,
                };
                let wrong = || check::wrong_parameter(&owner(), &key, "a number of bytes", &value);
                size = Some(bytes.ok_or_else(wrong)?);
            }
            Ok(())
        })?;
        Ok(size)
    }

    /// Reads data where it is known how, or else remembers where it is.
    fn data(&mut self, input: &Input<'_>) -> Result<Option<Data<'a>>, InferError> {
        if self.reader.null() {
            return Ok(None);
        }
        let (Some(name), Some(datatype)) = (&input.name, input.datatype) else {
            let at = self.reader.clone();
            self.reader.skip()?;
            return Ok(Some(Data::At(at)));
        };
        let hint = input.elements_claimed();
        let (bytes, count) = values::read(&mut self.reader, name, datatype, hint)?;
        Ok(Some(Data::Read(bytes, count)))
    }

    /// The tensor, once the object of an input is closed.
    fn finish(&mut self, input: Input<'a>, place: usize) -> Result<Tensor, InferError> {
        let hint = input.elements_claimed();
        let missing = |input: &str, member: &str| {
            InferError::bad_request(format!("input '{input}' has no '{member}'"))
        };
        let name = input.name.ok_or_else(|| missing(&place.to_string(), "name"))?;
        let datatype = input.datatype.ok_or_else(|| missing(&name, "datatype"))?;
        let sizes = input.shape.ok_or_else(|| missing(&name, "shape"))?;
        let sizes = sizes.into_iter().enumerate();
        let sizes = sizes.map(|(axis, dim)| check::dimension(&name, axis, dim));
        let shape = Shape(sizes.collect::<Result<_, _>>()?);
        let (bytes, count) = match (input.data, input.binary_size) {
            (Some(Data::Read(bytes, count)), None) => (bytes, count),
            (Some(Data::At(mut reader)), None) => values::read(&mut reader, &name, datatype, hint)?,
            (None, Some(size)) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let data = self.tail.take(&name, size)?;
                return check::tensor(name, datatype, shape, data);
            }
            (None, None) => {
                return Err(InferError::bad_request(format!(
                    "input '{name}' has no data; give it 'data', or 'binary_data_size' in its \
                     'parameters' and the bytes after the JSON"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(InferError::bad_request(format!(
                    "input '{name}' has both 'data' and 'binary_data_size'; give it one of them"
                )));
            }
        };
        check::count_is(&name, datatype, &shape, count)?;
        Ok(Tensor { name, datatype, shape, data: Bytes::from(bytes) })
    }

    fn outputs(&mut self) -> Result<Option<Outputs>, InferError> {
        if self.reader.null() {
            return Ok(None);
        }
        let mut outputs = Outputs::default();
        let mut array = self.reader.array("'outputs'")?;
        while self.reader.item(&mut array)? {
            let (name, binary) = self.output(outputs.names.len())?;
            outputs.names.push(name);
            outputs.binary.push(binary);
        }
        Ok(Some(outputs))
    }

    fn output(&mut self, place: usize) -> Result<(String, Option<bool>), InferError> {
        let mut name: Option<String> = None;
        let mut binary = None;
        let mut object = self.reader.object("each of 'outputs'")?;
        while let Some(key) = self.reader.key(&mut object)? {
            match key.as_ref() {
                "name" => {
                    let value = self.reader.string("'name' of an output")?.into_owned();
                    once(&mut name, &key, Some(value))?;
                }
                "parameters" => {
                    let owner = || format!("output '{}'", label(name.as_deref(), place));
                    self.parameters(owner, |key, value| {
                        check::tensor_parameter(owner, &key)?;
                        match (key.as_ref(), value) {
                            ("binary_data", Parameter::Bool(yes)) => binary = Some(yes),
                            ("binary_data", other) => {
                                let expected = "true or false";
                                return Err(check::wrong_parameter(
                                    &owner(),
                                    &key,
                                    expected,
                                    &other,
                                ));
                            }
                            _ => {}
                        }
                        Ok(())
                    })?;
                }
                _ => self.reader.skip()?,
            }
        }
        let missing = || InferError::bad_request(format!("output '{place}' has no 'name'"));
        Ok((name.ok_or_else(missing)?, binary))
    }
}

impl Input<'_> {
    /// What errors call this input: its name, or its place while that is not known.
    fn label(&self, place: usize) -> Cow<'_, str> {
        label(self.name.as_deref(), place)
    }

    /// The number of elements that the shape claims; only a hint.
    fn elements_claimed(&self) -> usize {
        let sizes = self.shape.as_deref().unwrap_or_default();
        let sizes = sizes.iter().map(|&dim| usize::try_from(dim).unwrap_or(0));
        sizes.fold(1, usize::saturating_mul)
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
