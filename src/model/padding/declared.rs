//! Padding as a model's files declare it, and what it comes to for the model's tensors.

use super::{Group, PaddedInput, Padding, Sizes};
use crate::graph::Dim;
use crate::model::TensorSpec;
use crate::tensor::DataType;
use half::{bf16, f16};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// The largest size to pad to.
const SIZE_MAX: usize = 1 << 20;

/// One size that varies and is padded: a `[[padding]]` table of `model.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The inputs that have this size, by name.
    pub inputs: BTreeMap<String, DeclaredInput>,
    /// Which of them is 1 where a row is real and 0 where it is padded; requests may leave it out.
    pub mask: Option<String>,
    /// The sizes to pad to.
    pub to: Option<Vec<NonZeroUsize>>,
    /// Pad to the next multiple of this instead.
    pub multiple: Option<NonZeroUsize>,
    /// The axis of each output that is as long as the inputs', by name.
    #[serde(default)]
    pub outputs: BTreeMap<String, Axis>,
}

/// How one input is padded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredInput {
    /// The axis.
    pub axis: Axis,
    /// The value that is put behind the row's own.
    #[serde(default)]
    pub value: f64,
}

/// An axis of a tensor as the model sees it, the batch axis counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "an axis by its number, or by the name that the model has for its size"
)]
pub enum Axis {
    /// By number, from 0.
    Number(usize),
    /// By the name of its size.
    Name(String),
}

impl Padding {
    /// What declarations come to for a model's tensors.
    ///
    /// # Errors
    /// A sentence that names the input or output, and what is expected.
    pub fn new(
        declared: &[Declared],
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Result<Self, String> {
        let groups = declared.iter().map(|one| group(one, inputs, outputs));
        let groups: Vec<Group> = groups.collect::<Result<_, _>>()?;
        let mut seen = Vec::new();
        for one in groups.iter().flat_map(|group| &group.inputs) {
            if seen.contains(&(one.input, one.axis)) {
                let name = &inputs[one.input].name;
                return Err(format!("input '{name}' axis {} is padded twice", one.axis));
            }
            seen.push((one.input, one.axis));
        }
        Ok(Self { groups })
    }
}

fn group(
    declared: &Declared,
    specs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<Group, String> {
    let Declared { inputs, mask, to, multiple, outputs: cuts } = declared;
    let sizes = sizes(to.as_deref(), *multiple)?;
    let inputs =
        inputs.iter().map(|(name, one)| padded(name, one, specs)).collect::<Result<Vec<_>, _>>()?;
    if inputs.is_empty() {
        return Err("inputs names none; expected one or more".into());
    }
    let outputs = cuts
        .iter()
        .map(|(name, axis)| {
            let (output, axis) = place("output", name, axis, outputs)?;
            Ok((output, axis))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let mask = match mask {
        None => None,
        Some(name) => Some(mask_of(name, &inputs, specs)?),
    };
    Ok(Group { inputs, mask, sizes, outputs })
}

fn sizes(to: Option<&[NonZeroUsize]>, multiple: Option<NonZeroUsize>) -> Result<Sizes, String> {
    let sizes = match (to, multiple) {
        (Some(to), None) => {
            let mut sizes: Vec<usize> = to.iter().map(|size| size.get()).collect();
            sizes.sort_unstable();
            sizes.dedup();
            Sizes::To(sizes)
        }
        (None, Some(of)) => Sizes::Multiple(of.get()),
        _ => return Err("expected either to = [SIZES] or multiple = N".into()),
    };
    let largest = match &sizes {
        Sizes::To(sizes) => sizes.last().copied().unwrap_or(0),
        Sizes::Multiple(of) => *of,
    };
    if !(2..=SIZE_MAX).contains(&largest) {
        return Err(format!("pads to {largest}; expected sizes of 2 to {SIZE_MAX}"));
    }
    Ok(sizes)
}

fn padded(name: &str, one: &DeclaredInput, specs: &[TensorSpec]) -> Result<PaddedInput, String> {
    let (input, axis) = place("input", name, &one.axis, specs)?;
    let datatype = specs[input].datatype;
    let element = element(datatype, one.value).ok_or_else(|| {
        format!("input '{name}' value {} is no {datatype}; expected one that is", one.value)
    })?;
    Ok(PaddedInput { input, axis, element })
}

/// Where a declared axis is, which must be one that varies and is no batch axis.
fn place(
    kind: &str,
    name: &str,
    axis: &Axis,
    specs: &[TensorSpec],
) -> Result<(usize, usize), String> {
    let Some(number) = specs.iter().position(|spec| spec.name == name) else {
        let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(format!(
            "the model has no {kind} '{name}'; its {kind}s are {}",
            known.join(", ")
        ));
    };
    let spec = &specs[number];
    let dims = spec.dims.as_deref().unwrap_or_default();
    let found = match axis {
        Axis::Number(axis) => Some(*axis),
        Axis::Name(name) => dims.iter().position(|dim| *dim == Dim::Named(name.clone())),
    };
    let shown = match axis {
        Axis::Number(axis) => axis.to_string(),
        Axis::Name(name) => format!("'{name}'"),
    };
    let varies = |axis: &usize| {
        Some(*axis) != spec.axis && matches!(dims.get(*axis), Some(Dim::Named(_) | Dim::Unknown))
    };
    let axis = found.filter(varies).ok_or_else(|| {
        format!(
            "{kind} '{name}' axis {shown} cannot be padded; expected one of {:?} that varies and is not \
             the batch axis",
            spec.wire_shape()
        )
    })?;
    if spec.datatype == DataType::Bytes {
        return Err(format!("{kind} '{name}' holds strings, which are not padded"));
    }
    Ok((number, axis))
}

/// The mask, which must be such that it can be made from the others.
fn mask_of(
    name: &str,
    inputs: &[PaddedInput],
    specs: &[TensorSpec],
) -> Result<PaddedInput, String> {
    let mask = inputs.iter().find(|one| specs[one.input].name == name);
    let mask =
        mask.ok_or_else(|| format!("mask '{name}' is not among inputs; name its axis there"))?;
    let spec = &specs[mask.input];
    let known = |(axis, dim): (usize, &Dim)| {
        axis == mask.axis || Some(axis) == spec.axis || matches!(dim, Dim::Fixed(_))
    };
    if inputs.len() < 2 || spec.wire.is_some() {
        return Err(format!(
            "mask '{name}' stands alone or is reshaped; expected another input to be padded with it"
        ));
    }
    if !spec.dims.iter().flatten().enumerate().all(known) {
        return Err(format!("mask '{name}' has more sizes that vary than rows and the padded one"));
    }
    if Some(mask.element.as_slice()) != element(spec.datatype, 0.0).as_deref() {
        return Err(format!("mask '{name}' is padded with another value than 0"));
    }
    Ok(mask.clone())
}

/// One element of this value in the wire layout; none where the datatype has no such value.
pub(super) fn element(datatype: DataType, value: f64) -> Option<Vec<u8>> {
    let whole = |least: f64, most: f64| {
        (value.fract() == 0.0 && (least..=most).contains(&value)).then_some(value)
    };
    Some(match datatype {
        DataType::Bool => vec![whole(0.0, 1.0)? as u8],
        DataType::Uint8 => vec![whole(0.0, u8::MAX.into())? as u8],
        DataType::Int8 => (whole(i8::MIN.into(), i8::MAX.into())? as i8).to_le_bytes().to_vec(),
        DataType::Uint16 => (whole(0.0, u16::MAX.into())? as u16).to_le_bytes().to_vec(),
        DataType::Int16 => (whole(i16::MIN.into(), i16::MAX.into())? as i16).to_le_bytes().to_vec(),
        DataType::Uint32 => (whole(0.0, u32::MAX.into())? as u32).to_le_bytes().to_vec(),
        DataType::Int32 => (whole(i32::MIN.into(), i32::MAX.into())? as i32).to_le_bytes().to_vec(),
        DataType::Uint64 => (whole(0.0, u64::MAX as f64)? as u64).to_le_bytes().to_vec(),
        DataType::Int64 => (whole(i64::MIN as f64, i64::MAX as f64)? as i64).to_le_bytes().to_vec(),
        DataType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Fp32 => (value as f32).to_le_bytes().to_vec(),
        DataType::Fp64 => value.to_le_bytes().to_vec(),
        DataType::Bytes => return None,
    })
}
