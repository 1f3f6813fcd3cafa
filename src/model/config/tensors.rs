//! The tensors that a file declares, and whether the model has them.

use super::wire::Wire;
use crate::graph::{Dim, Port};
use crate::model::spec::Face;
use crate::proto::model_input::Format;
use crate::proto::{self, ModelInput, ModelOutput, ModelTensorReshape};
use crate::tensor::DataType;
use std::sync::Arc;

/// The tensors of a model as declared; empty lists declare nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Rows of one request, at most, where the first axis is the batch and left out of `dims`.
    pub batched: Option<usize>,
    /// The inputs.
    pub inputs: Vec<Declaration>,
    /// The outputs.
    pub outputs: Vec<Declaration>,
}

/// One declared tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The tensor's name.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The sizes that clients see, without the batch axis; -1 for any.
    pub dims: Vec<i64>,
    /// The sizes that the model sees, where they are others.
    pub reshape: Option<Vec<i64>>,
    /// The file of labels; empty for none.
    pub label_filename: String,
    /// The labels in that file.
    pub labels: Option<Arc<[String]>>,
}

/// The tensors of a model as declaration and model file have it together.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The inputs, in the model's order.
    pub inputs: Vec<Face>,
    /// The outputs, in the model's order.
    pub outputs: Vec<Face>,
}

impl Declared {
    pub(super) fn new(
        max_batch_size: i32,
        inputs: &[ModelInput],
        outputs: &[ModelOutput],
        notes: &mut Vec<String>,
    ) -> Result<Self, String> {
        let batched = usize::try_from(max_batch_size)
            .map_err(|_| format!("max_batch_size is {max_batch_size}; expected 0 or more"))?;
        let inputs = inputs.iter().map(|input| input_of(input, notes)).collect::<Result<_, _>>()?;
        let outputs = outputs.iter().map(output_of).collect::<Result<Vec<_>, _>>()?;
        let declared = Self { batched: (batched > 0).then_some(batched), inputs, outputs };
        for (kind, list) in [("input", &declared.inputs), ("output", &declared.outputs)] {
            for (place, one) in list.iter().enumerate() {
                if list[..place].iter().any(|earlier| earlier.name == one.name) {
                    return Err(format!("{kind} '{}' is declared twice", one.name));
                }
            }
        }
        Ok(declared)
    }

    /// Lays the declaration over what the model file says.
    ///
    /// # Errors
    /// A sentence that names the tensor, what is declared and what the model has.
    pub fn fit(&self, inputs: &[Port], outputs: &[Port]) -> Result<Fitted, String> {
        if let Some(missing) =
            inputs.iter().find(|port| !self.inputs.is_empty() && !named(&self.inputs, &port.name))
        {
            return Err(format!(
                "the model's input '{}' is not declared; declare it, or no input at all",
                missing.name
            ));
        }
        Ok(Fitted {
            inputs: self.faces("input", &self.inputs, inputs)?,
            outputs: self.faces("output", &self.outputs, outputs)?,
        })
    }

    fn faces(
        &self,
        kind: &str,
        declared: &[Declaration],
        ports: &[Port],
    ) -> Result<Vec<Face>, String> {
        if let Some(extra) = declared.iter().find(|one| !ports.iter().any(|p| p.name == one.name)) {
            let known: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            return Err(format!(
                "{kind} '{}' is declared, but the model has none of that name; its {kind}s are {}",
                extra.name,
                known.join(", ")
            ));
        }
        let face = |port: &Port| match declared.iter().find(|one| one.name == port.name) {
            Some(one) => self.face(one, port).map_err(|why| format!("{kind} '{}' {why}", one.name)),
            None => {
                self.batch_axis(port).map_err(|why| format!("{kind} '{}' {why}", port.name))?;
                // What a list of outputs leaves out is not offered.
                Ok(Face { hidden: !declared.is_empty(), ..Face::plain(port) })
            }
        };
        ports.iter().map(face).collect()
    }

    /// Checks that a batching model's tensor can be of any size along its first axis.
    fn batch_axis(&self, port: &Port) -> Result<(), String> {
        let Some(rows) = self.batched else { return Ok(()) };
        match port.dims.as_deref().map(<[Dim]>::first) {
            None | Some(Some(Dim::Named(_) | Dim::Unknown)) => Ok(()),
            Some(first) => Err(format!(
                "cannot be batched: max_batch_size is {rows}, but the model has {} along the first axis; \
                 expected one of any size, or max_batch_size 0 and all axes in dims",
                match first {
                    Some(Dim::Fixed(size)) => format!("size {size}"),
                    _ => "no size".to_owned(),
                }
            )),
        }
    }

    fn face(&self, one: &Declaration, port: &Port) -> Result<Face, String> {
        if one.datatype != port.datatype {
            return Err(format!(
                "is declared {}; the model has {}",
                super::datatype(one.datatype).as_str_name(),
                super::datatype(port.datatype).as_str_name()
            ));
        }
        self.batch_axis(port)?;
        let whole = |dims: &[i64]| {
            self.batched.map(|_| -1).into_iter().chain(dims.iter().copied()).collect()
        };
        let model: Vec<i64> = whole(one.reshape.as_ref().unwrap_or(&one.dims));
        let dims = narrowed(&model, port.dims.as_deref()).ok_or_else(|| {
            let batch = if self.batched.is_some() { ", the batch axis included" } else { "" };
            let own = port.dims.as_deref().unwrap_or_default();
            format!("is declared with shape {}{batch}; the model has {}", shown(&model), sizes(own))
        })?;
        let wire = match &one.reshape {
            None => None,
            Some(_) => {
                let client = narrowed(&whole(&one.dims), None).unwrap_or_default();
                Some(Wire::new(client, dims.clone())?)
            }
        };
        let port = Port { dims: Some(dims), ..port.clone() };
        Ok(Face { wire, labels: one.labels.clone(), ..Face::plain(&port) })
    }
}

fn named(list: &[Declaration], name: &str) -> bool {
    list.iter().any(|one| one.name == name)
}

/// What both allow; none where nothing fits both.
fn narrowed(declared: &[i64], model: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let free = vec![Dim::Unknown; declared.len()];
    let model = model.unwrap_or(&free);
    if model.len() != declared.len() {
        return None;
    }
    let both = |(&declared, own): (&i64, &Dim)| match (usize::try_from(declared), own) {
        (Err(_), own) => Some(own.clone()),
        (Ok(size), Dim::Fixed(own)) => (size == *own).then_some(Dim::Fixed(size)),
        (Ok(size), Dim::Named(_) | Dim::Unknown) => Some(Dim::Fixed(size)),
    };
    declared.iter().zip(model).map(both).collect()
}

fn shown(dims: &[i64]) -> String {
    format!("{dims:?}").replace(' ', "")
}

fn sizes(dims: &[Dim]) -> String {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Dim::Named(_) | Dim::Unknown => -1,
    };
    shown(&dims.iter().map(size).collect::<Vec<_>>())
}

fn input_of(input: &ModelInput, notes: &mut Vec<String>) -> Result<Declaration, String> {
    let ModelInput {
        name,
        data_type,
        format,
        dims,
        reshape,
        is_shape_tensor,
        allow_ragged_batch,
        optional,
        is_non_linear_format_io,
    } = input;
    let refused = [
        (*is_shape_tensor, "is_shape_tensor", "it belongs to TensorRT engines"),
        (*allow_ragged_batch, "allow_ragged_batch", "rows of one batch have one shape"),
        (*optional, "optional", "an ONNX model takes all of its inputs"),
        (*is_non_linear_format_io, "is_non_linear_format_io", "it belongs to TensorRT engines"),
    ];
    if let Some((_, field, why)) = refused.iter().find(|(set, ..)| *set) {
        return Err(format!("input '{name}': {field} is not served: {why}; remove it"));
    }
    if Format::try_from(*format) != Ok(Format::None) {
        notes.push(format!("input '{name}' format (tensors go to the model as they come)"));
    }
    declaration(&format!("input '{name}'"), name, *data_type, dims, reshape.as_ref())
}

fn output_of(output: &ModelOutput) -> Result<Declaration, String> {
    let ModelOutput {
        name,
        data_type,
        dims,
        reshape,
        label_filename,
        is_shape_tensor,
        is_non_linear_format_io,
    } = output;
    if *is_shape_tensor || *is_non_linear_format_io {
        return Err(format!(
            "output '{name}': is_shape_tensor and is_non_linear_format_io are not served: they belong \
             to TensorRT engines; remove them"
        ));
    }
    let one = declaration(&format!("output '{name}'"), name, *data_type, dims, reshape.as_ref())?;
    Ok(Declaration { label_filename: label_filename.clone(), ..one })
}

fn declaration(
    place: &str,
    name: &str,
    data_type: i32,
    dims: &[i64],
    reshape: Option<&ModelTensorReshape>,
) -> Result<Declaration, String> {
    if name.is_empty() {
        return Err(format!("{place}: name is missing"));
    }
    let datatype =
        DataType::ALL.into_iter().find(|&one| i32::from(super::datatype(one)) == data_type);
    let datatype = datatype.ok_or_else(|| {
        let found = proto::DataType::try_from(data_type).map(|found| found.as_str_name());
        let found = found.map_or_else(|_| data_type.to_string(), str::to_owned);
        format!("{place}: data_type is {found}; expected one such as TYPE_FP32")
    })?;
    if dims.is_empty() {
        return Err(format!(
            "{place}: dims is missing; a scalar has dims [ 1 ] and reshape {{ shape: [ ] }}"
        ));
    }
    let reshape = reshape.map(|ModelTensorReshape { shape }| shape.clone());
    for (field, sizes) in [("dims", Some(dims)), ("reshape.shape", reshape.as_deref())] {
        if let Some(size) = sizes.into_iter().flatten().find(|&&size| size < 1 && size != -1) {
            return Err(format!(
                "{place}: {field} holds {size}; expected 1 or more, or -1 for any"
            ));
        }
    }
    Ok(Declaration {
        name: name.to_owned(),
        datatype,
        dims: dims.to_vec(),
        reshape,
        label_filename: String::new(),
        labels: None,
    })
}
