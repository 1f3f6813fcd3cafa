//! What a model's requests look like: rows made up from their numbers, equal for equal numbers.

use crate::graph::Dim;
use crate::model::TensorSpec;
use crate::model::probe::{self, Kind, Sample};
use crate::tensor::{DataType, Shape, Tensor};
use crate::traffic::workload::Ask;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;

/// Elements by which rows differ, at most: two rows of a model rarely have these in common.
const OWN_ELEMENTS: usize = 32;

/// An input as the model's metadata has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The protocol's name of the element type.
    pub datatype: String,
    /// The size along each axis, -1 where it varies.
    pub shape: Vec<i64>,
}

/// A value of a request's parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

/// The requests of a model.
#[derive(Clone, Debug)]
pub struct Form {
    /// The model's name.
    pub model: String,
    /// What is sent beside the tensors with every request.
    common: Vec<(String, Parameter)>,
    inputs: Vec<Input>,
}

#[derive(Clone, Debug)]
struct Input {
    name: String,
    datatype: DataType,
    /// The shape of a row, without its batch axis.
    shape: Vec<usize>,
    /// It has a batch axis, which comes first.
    by_row: bool,
    /// The elements of row 0.
    ordinary: Vec<u8>,
    /// The elements at the beginning that are a row's own; none where all rows are to be equal.
    own: usize,
    sample: Sample,
}

/// The inputs of a model, with their types known and shapes as asked for.
///
/// # Errors
/// A sentence, when a datatype is none of the protocol's or `shapes` names what is not there.
pub fn specs(
    model: &str,
    slots: &[Slot],
    shapes: &[(String, Vec<usize>)],
) -> Result<Vec<TensorSpec>, String> {
    if let Some((name, _)) = shapes.iter().find(|(name, _)| slots.iter().all(|s| s.name != *name)) {
        let known: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        return Err(format!(
            "--shape {name}: model '{model}' has no such input; its inputs: {}",
            known.join(", ")
        ));
    }
    slots.iter().map(|slot| spec(model, slot, shapes)).collect()
}

fn spec(model: &str, slot: &Slot, shapes: &[(String, Vec<usize>)]) -> Result<TensorSpec, String> {
    let datatype = DataType::from_name(&slot.datatype).ok_or_else(|| {
        format!("input '{}' of model '{model}' is of an unknown type, {}", slot.name, slot.datatype)
    })?;
    let size = |&dim: &i64| usize::try_from(dim).map_or(Dim::Unknown, Dim::Fixed);
    let mut dims: Vec<Dim> = slot.shape.iter().map(size).collect();
    // An axis of any size that comes first is where rows go.
    let axis = (dims.first() == Some(&Dim::Unknown)).then_some(0);
    if let Some((name, sizes)) = shapes.iter().find(|(name, _)| *name == slot.name) {
        let start = axis.map_or(0, |axis| axis + 1);
        if sizes.len() + start != dims.len() {
            let wanted = dims.len() - start;
            return Err(format!(
                "--shape {name}: {} sizes; expected {wanted}, those of a row",
                sizes.len()
            ));
        }
        dims.splice(start.., sizes.iter().map(|&size| Dim::Fixed(size)));
    }
    let (name, labels, wire) = (slot.name.clone(), None, None);
    Ok(TensorSpec { name, datatype, dims: Some(dims), axis, labels, wire, hidden: false })
}

impl Form {
    /// Requests of a model whose rows look like a sample.
    #[must_use]
    pub fn new(
        model: &str,
        specs: &[TensorSpec],
        sample: Sample,
        parameters: Vec<(String, Parameter)>,
    ) -> Self {
        let inputs = specs.iter().map(|spec| Input::new(spec, sample)).collect();
        Self { model: model.to_owned(), common: parameters, inputs }
    }

    /// Whether a request may have several rows.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.inputs.iter().any(|input| input.by_row)
            && self.inputs.iter().all(|input| input.by_row || input.own == 0)
    }

    /// What is sent beside the tensors of a request.
    pub fn parameters(&self, ask: &Ask) -> impl Iterator<Item = (String, Parameter)> {
        let deadline = ask.deadline.map(|deadline| {
            let us = i64::try_from(deadline.as_micros()).unwrap_or(i64::MAX);
            ("timeout".to_owned(), Parameter::Integer(us))
        });
        self.common.iter().cloned().chain(deadline)
    }

    /// The inputs of so many rows, one number after the other.
    #[must_use]
    pub fn tensors(&self, row: u64, rows: u32) -> Vec<Tensor> {
        self.inputs.iter().map(|input| input.tensor(row, rows)).collect()
    }
}

impl Input {
    fn new(spec: &TensorSpec, sample: Sample) -> Self {
        let dims = spec.dims.as_deref().unwrap_or_default();
        let by_row = spec.axis == Some(0);
        let size = |dim: &Dim| if let Dim::Fixed(size) = dim { *size } else { sample.fill };
        let shape: Vec<usize> = dims.iter().skip(usize::from(by_row)).map(size).collect();
        let count: usize = shape.iter().product();
        // One number that has a meaning, such as a sampling rate, is the same in all rows.
        let single = !by_row && dims.iter().all(|dim| *dim == Dim::Fixed(1));
        let (name, datatype) = (spec.name.clone(), spec.datatype);
        let ordinary = if single {
            let one = TensorSpec { dims: Some(vec![Dim::Fixed(1)]), axis: None, ..spec.clone() };
            elements(&one, sample, 0).to_vec()
        } else {
            elements(&flat(spec, count), sample, 0).to_vec()
        };
        let own = if single { 0 } else { count.min(OWN_ELEMENTS) };
        Self { name, datatype, shape, by_row, ordinary, own, sample }
    }

    fn tensor(&self, row: u64, rows: u32) -> Tensor {
        let rows = if self.by_row { rows } else { 1 };
        let mut data = BytesMut::with_capacity(self.ordinary.len() * rows as usize);
        (0..u64::from(rows)).for_each(|later| self.put(row + later, &mut data));
        let mut shape = self.shape.clone();
        if self.by_row {
            shape.insert(0, rows as usize);
        }
        let (name, datatype) = (self.name.clone(), self.datatype);
        Tensor { name, datatype, shape: Shape(shape), data: data.freeze() }
    }

    fn put(&self, row: u64, data: &mut BytesMut) {
        if self.own == 0 {
            data.extend_from_slice(&self.ordinary);
            return;
        }
        if self.datatype == DataType::Bytes {
            // Its first text is the row's own.
            let text = format!("row {row}");
            data.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
            data.extend_from_slice(text.as_bytes());
            data.extend_from_slice(after_first(&self.ordinary));
            return;
        }
        let spec = TensorSpec {
            name: String::new(),
            datatype: self.datatype,
            dims: Some(vec![Dim::Unknown, Dim::Fixed(self.own)]),
            axis: Some(0),
            labels: None,
            wire: None,
            hidden: false,
        };
        let own = elements(&spec, self.sample, row);
        data.extend_from_slice(&own);
        data.extend_from_slice(&self.ordinary[own.len()..]);
    }
}

/// A tensor of as many elements by row.
fn flat(spec: &TensorSpec, count: usize) -> TensorSpec {
    let dims = Some(vec![Dim::Unknown, Dim::Fixed(count)]);
    TensorSpec { dims, axis: Some(0), ..spec.clone() }
}

fn elements(spec: &TensorSpec, sample: Sample, row: u64) -> Bytes {
    let inputs = probe::row(std::slice::from_ref(spec), sample, Kind::Normal(row));
    inputs.tensors.into_iter().next().map(|tensor| tensor.data).unwrap_or_default()
}

/// What follows the first of texts that are led by their lengths.
fn after_first(texts: &[u8]) -> &[u8] {
    let length = texts.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    texts.get(4 + length..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SAMPLE: Sample = Sample { fill: 4, int_max: 7, scalar: 16_000 };

    fn slot(name: &str, datatype: &str, shape: &[i64]) -> Slot {
        Slot { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
    }

    fn form(slots: &[Slot]) -> Form {
        Form::new("m", &specs("m", slots, &[]).unwrap(), SAMPLE, Vec::new())
    }

    #[test]
    fn rows_are_their_numbers_wherever_they_stand() {
        for (datatype, shape) in [
            ("FP32", [-1, 8, 8]),
            ("INT64", [-1, -1, 12]),
            ("BYTES", [-1, 2, 1]),
            ("FP16", [-1, 40, 2]),
        ] {
            let form = form(&[slot("x", datatype, &shape)]);
            let several = form.tensors(10, 3).remove(0);
            let single: Vec<Bytes> =
                (10..13).map(|row| form.tensors(row, 1).remove(0).data).collect();
            assert_eq!(several.data, single.concat(), "{datatype}");
            assert_eq!(several.shape.0[0], 3);
            let elements = several.shape.elements().unwrap();
            if let Some(size) = several.datatype.element_bytes() {
                assert_eq!(several.data.len(), elements * size, "{datatype}");
            }
            let different: BTreeSet<Bytes> =
                (0..1_000).map(|row| form.tensors(row, 1).remove(0).data).collect();
            assert_eq!(different.len(), 1_000, "{datatype}");
        }
    }

    #[test]
    fn a_number_with_a_meaning_is_the_same_in_all_rows_and_a_fixed_tensor_is_not() {
        let form = form(&[slot("rate", "INT64", &[1]), slot("x", "FP32", &[1, 5])]);
        let [first, second] = [1, 2].map(|row| form.tensors(row, 1));
        assert_eq!(first[0].data[..], 16_000_i64.to_le_bytes());
        assert_eq!(first[0].data, second[0].data);
        assert_ne!(first[1].data, second[1].data);
        assert_eq!(first[1].shape.0, [1, 5]);
        assert!(!form.has_rows());
    }

    #[test]
    fn shapes_are_as_asked_for_and_what_does_not_fit_is_said() {
        let slots = [slot("x", "FP32", &[-1, -1, 3])];
        let shapes = |name: &str, sizes: &[usize]| vec![(name.to_owned(), sizes.to_vec())];
        let found = specs("m", &slots, &shapes("x", &[9, 3])).unwrap();
        let tensor = Form::new("m", &found, SAMPLE, Vec::new()).tensors(0, 2).remove(0);
        assert_eq!(tensor.shape.0, [2, 9, 3]);
        let why = specs("m", &slots, &shapes("y", &[1])).unwrap_err();
        assert!(why.contains("--shape y") && why.contains("inputs: x"), "{why}");
        let why = specs("m", &slots, &shapes("x", &[1])).unwrap_err();
        assert!(why.contains("expected 2"), "{why}");
        let why = specs("m", &[slot("x", "FP99", &[1])], &[]).unwrap_err();
        assert!(why.contains("FP99"), "{why}");
    }
}
