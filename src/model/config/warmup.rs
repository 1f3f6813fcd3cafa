//! Requests that a file wants run before its model serves.

use crate::graph::{Dim, Port};
use crate::model::probe::{self, Kind, Sample};
use crate::model::{TensorSpec, beneath};
use crate::proto::ModelWarmup;
use crate::proto::model_warmup::{Input, input::InputDataType};
use crate::request::InferRequest;
use crate::tensor::{DataType, Shape, Tensor};
use blake3::Hasher;
use bytes::Bytes;
use std::path::Path;

/// Bytes of one input, at most.
const INPUT_BYTES_MAX: usize = 1 << 30;
/// Where data files lie, below the model's folder.
const FOLDER: &str = "warmup";

/// A request to be run before the model serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// What errors call it.
    pub name: String,
    /// How often each session runs it.
    pub count: u32,
    inputs: Vec<Filled>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Filled {
    name: String,
    datatype: DataType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    Zero,
    Random,
    File(String),
    Given(Bytes),
}

/// The warm-up requests that a file declares.
///
/// # Errors
/// A sentence that names the request and its field.
pub(super) fn parse(
    declared: &[ModelWarmup],
    batched: Option<usize>,
) -> Result<Vec<Warmup>, String> {
    let one = |declared: &ModelWarmup| {
        let ModelWarmup { name, batch_size, inputs, count } = declared;
        let place = format!("model_warmup '{name}'");
        let rows = usize::try_from(*batch_size).unwrap_or(usize::MAX).max(1);
        if rows > batched.unwrap_or(1) {
            return Err(format!(
                "{place}: batch_size is {rows}; expected at most max_batch_size, {}",
                batched.unwrap_or(0)
            ));
        }
        let inputs = inputs
            .iter()
            .map(|(name, input)| filled(name, input, batched.map(|_| rows)))
            .collect::<Result<_, _>>()
            .map_err(|why| format!("{place}: {why}"))?;
        Ok(Warmup { name: name.clone(), count: (*count).max(1), inputs })
    };
    declared.iter().map(one).collect()
}

fn filled(name: &str, input: &Input, rows: Option<usize>) -> Result<Filled, String> {
    let Input { data_type, dims, input_data_type } = input;
    let datatype = DataType::ALL.into_iter().find(|&t| i32::from(super::datatype(t)) == *data_type);
    let datatype = datatype.ok_or_else(|| {
        format!("input '{name}' data_type is {data_type}; expected one such as TYPE_FP32")
    })?;
    let size = |&dim: &i64| {
        let size = usize::try_from(dim).ok().filter(|&size| size > 0);
        size.ok_or_else(|| format!("input '{name}' dims holds {dim}; expected 1 or more"))
    };
    let sizes = dims.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let shape: Vec<usize> = rows.into_iter().chain(sizes).collect();
    let data = match input_data_type {
        Some(InputDataType::ZeroData(true)) => Data::Zero,
        Some(InputDataType::RandomData(true)) => Data::Random,
        Some(InputDataType::InputDataFile(file)) => Data::File(file.clone()),
        _ => {
            return Err(format!(
                "input '{name}' has no data; expected zero_data: true, random_data: true or input_data_file"
            ));
        }
    };
    let filled = Filled { name: name.to_owned(), datatype, shape, data };
    filled.bytes().map(|_| filled)
}

impl Filled {
    /// Bytes of the tensor, where strings are empty.
    fn bytes(&self) -> Result<usize, String> {
        let each = self.datatype.element_bytes().unwrap_or(size_of::<u32>());
        let elements = Shape(self.shape.clone()).elements();
        let bytes = elements.and_then(|count| count.checked_mul(each));
        bytes
            .filter(|&bytes| bytes <= INPUT_BYTES_MAX)
            .ok_or_else(|| format!("input '{}' takes more than {INPUT_BYTES_MAX} bytes", self.name))
    }

    fn tensor(&self) -> Result<Tensor, String> {
        let data = match &self.data {
            Data::Zero => vec![0; self.bytes()?].into(),
            Data::Random => self.random(),
            Data::Given(bytes) => bytes.clone(),
            Data::File(file) => return Err(format!("'{file}' was not read")),
        };
        let (name, shape) = (self.name.clone(), Shape(self.shape.clone()));
        Ok(Tensor { name, datatype: self.datatype, shape, data })
    }

    fn random(&self) -> Bytes {
        let dims = Some(self.shape.iter().map(|&size| Dim::Fixed(size)).collect());
        let port = Port { name: self.name.clone(), datatype: self.datatype, dims };
        let sample = Sample { fill: 1, int_max: 7, scalar: 1 };
        let row = probe::row(&[TensorSpec::new(&port, None)], sample, Kind::Normal(0));
        row.tensors.into_iter().next().map(|tensor| tensor.data).unwrap_or_default()
    }
}

/// Reads the data files of all warm-up requests from the model's folder.
pub(super) fn read(
    warmups: &mut [Warmup],
    folder: &Path,
    hasher: &mut Hasher,
) -> Result<(), String> {
    for Warmup { name: request, inputs, .. } in warmups {
        for input in inputs {
            let Data::File(file) = &input.data else { continue };
            let place = |why: String| {
                format!(
                    "model_warmup '{request}' input '{}' input_data_file '{file}': {why}",
                    input.name
                )
            };
            let location = format!("{FOLDER}/{file}");
            let bytes = beneath::read(folder, &location, INPUT_BYTES_MAX as u64).map_err(place)?;
            let expected = input.bytes()?;
            if input.datatype != DataType::Bytes && bytes.len() != expected {
                return Err(place(format!("holds {} bytes; expected {expected}", bytes.len())));
            }
            hasher.update(blake3::hash(&bytes).as_bytes());
            input.data = Data::Given(bytes.into());
        }
    }
    Ok(())
}

impl Warmup {
    /// The request itself.
    ///
    /// # Errors
    /// A sentence, when its data were never read.
    pub fn request(&self, model: &str) -> Result<InferRequest, String> {
        let inputs = self.inputs.iter().map(Filled::tensor).collect::<Result<_, _>>()?;
        Ok(InferRequest { model: model.to_owned(), inputs, ..InferRequest::default() })
    }
}
