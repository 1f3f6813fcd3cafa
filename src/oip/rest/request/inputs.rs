//! The inputs of a request: what is known of each while its members come in any order.

use super::{Message, label, once};
use crate::error::InferError;
use crate::oip::check;
use crate::oip::placement::{self, Placement};
use crate::oip::rest::json::Reader;
use crate::oip::rest::values::{self, Elements};
use crate::request::{self, RegionSlice};
use crate::tensor::{DataType, Shape, Tensor};
use bytes::Bytes;
use std::borrow::Cow;

/// Where the data of an input is.
enum Data<'a> {
    /// Read already.
    Read(Elements),
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
    elsewhere: Option<Elsewhere>,
}

/// What the parameters of an input say of bytes that are not in the JSON.
#[derive(Default)]
struct Elsewhere {
    binary_size: Option<u64>,
    region: Option<RegionSlice>,
}

impl<'a> Message<'a> {
    pub(super) fn inputs(&mut self) -> Result<Option<Vec<request::Input>>, InferError> {
        let mut inputs = Vec::new();
        let mut array = self.reader.array("'inputs'")?;
        while self.reader.item(&mut array)? {
            let input = self.input(inputs.len())?;
            inputs.push(input);
        }
        Ok(Some(inputs))
    }

    fn input(&mut self, place: usize) -> Result<request::Input, InferError> {
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
                    let elsewhere = self.input_parameters(&input, place)?;
                    once(&mut input.elsewhere, &key, elsewhere)?;
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

    /// The `binary_data_size` or the shared memory of an input.
    fn input_parameters(
        &mut self,
        input: &Input<'_>,
        place: usize,
    ) -> Result<Option<Elsewhere>, InferError> {
        let owner = || format!("input '{}'", input.label(place));
        let mut placement = Placement::default();
        let mut binary_size = None;
        let came = self.parameters(owner, |key, value| {
            if key != "binary_data_size" {
                return placement.take(owner, &key, &value);
            }
            let wrong = || check::wrong_parameter(&owner(), &key, "a number of bytes", &value);
            binary_size = Some(placement::whole(&value).ok_or_else(wrong)?);
            Ok(())
        })?;
        let region = placement.slice(owner)?;
        Ok(came.then_some(Elsewhere { binary_size, region }))
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
        values::read(&mut self.reader, name, datatype, hint).map(|data| Some(Data::Read(data)))
    }

    /// The tensor, once the object of an input is closed.
    fn finish(&mut self, input: Input<'a>, place: usize) -> Result<request::Input, InferError> {
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
        let Elsewhere { binary_size, region } = input.elsewhere.unwrap_or_default();
        let data = match (input.data, binary_size, region) {
            (Some(Data::Read(data)), None, None) => data,
            (Some(Data::At(mut reader)), None, None) => {
                values::read(&mut reader, &name, datatype, hint)?
            }
            (None, Some(size), None) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let data = self.tail.take(&name, size)?;
                return check::tensor(name, datatype, shape, data).map(request::Input::Sent);
            }
            (None, None, Some(slice)) => {
                return check::shared(name, datatype, shape, slice).map(request::Input::Shared);
            }
            (data, binary_size, region) => {
                let came = [
                    data.map(|_| "'data'"),
                    binary_size.map(|_| "'binary_data_size'"),
                    region.map(|_| "'shared_memory_region'"),
                ];
                return Err(not_one_source(&name, &came.into_iter().flatten().collect::<Vec<_>>()));
            }
        };
        data.fit(&name, datatype, &shape)?;
        let data = Bytes::from(data.bytes);
        Ok(request::Input::Sent(Tensor { name, datatype, shape, data }))
    }
}

/// The error for an input whose bytes are nowhere, or in several places.
#[cold]
fn not_one_source(input: &str, came: &[&str]) -> InferError {
    let text = match came {
        [first, second] => format!("both {first} and {second}; give it one of them"),
        [] => "no data; give it 'data', or 'binary_data_size' in its 'parameters' and the bytes \
               after the JSON, or 'shared_memory_region'"
            .to_owned(),
        all => format!("{}; give it one of them", all.join(", ")),
    };
    InferError::bad_request(format!("input '{input}' has {text}"))
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
