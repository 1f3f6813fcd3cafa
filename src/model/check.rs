//! From a request to rows: the one validation. What passes here is not looked at again.

use super::{ModelSpec, TensorSpec};
use crate::digest;
use crate::error::{ErrorKind, InferError};
use crate::graph::Dim;
use crate::id::{ClassKey, RowKey, Tenant};
use crate::model::padding::Cut;
use crate::model::way::{BaseUse, Way};
use crate::request::{InferRequest, Parameter, Parameters, RequestedOutput};
use crate::rows::{InputTensor, Inputs, Storage};
use crate::sched::event::{Leg, Path, Priority, Sharing};
use crate::tensor::{DataType, Tensor, bytes_element_ends};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A request that may run.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The inputs, in the model's order.
    pub inputs: Arc<Inputs>,
    /// The key of every row.
    pub keys: Vec<RowKey>,
    /// What its rows may share a batch with.
    pub class: ClassKey,
    /// The numbers of the outputs asked for, in the order asked.
    pub outputs: Vec<usize>,
    /// What the caller allows and wants.
    pub options: Options,
    /// It runs as it came, not cut into rows.
    pub whole: bool,
    /// The way through shared bases that its rows may take.
    pub way: Option<Arc<Way>>,
    /// The same with the rows as the bases see them.
    pub path: Option<Path>,
    /// Outputs that are cut back, as the inputs were padded.
    pub cuts: Vec<Cut>,
}

/// What a caller asks for beside outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What may be shared.
    pub sharing: Sharing,
    /// How urgent it is.
    pub priority: Priority,
    /// How long the answer is worth waiting for.
    pub timeout: Option<Duration>,
    /// Say in the answer how each row was answered.
    pub routes: bool,
    /// Say in the answer why, and what made it.
    pub explain: bool,
}

/// Checks a request against its model and cuts it into at most `rows_max` rows.
///
/// # Errors
/// `BadRequest`, naming the tensor, what was expected and what came; `TooLarge` for more rows.
///
/// # Cost
/// Hashes the input bytes once; copies nothing but what is padded.
pub fn check(
    request: &InferRequest,
    spec: &ModelSpec,
    tenant: Tenant,
    rows_max: usize,
) -> Result<Checked, InferError> {
    let options = options(&request.parameters, spec)?;
    let tensors = in_order(request, spec)?;
    let tensors: Vec<&Tensor> = tensors.iter().map(AsRef::as_ref).collect();
    for (tensor, input) in tensors.iter().zip(&spec.inputs) {
        check_tensor(tensor, input)?;
        check_size(tensor, spec)?;
    }
    let shapes: Vec<Cow<'_, [usize]>> =
        tensors.iter().zip(&spec.inputs).map(|(tensor, input)| seen(tensor, input)).collect();
    // Rows without bytes cost nothing to claim: there may be more of them than can be counted.
    let weighs =
        tensors.iter().zip(&spec.inputs).any(|(t, port)| port.axis.is_some() && !t.data.is_empty());
    let rows = if spec.cuts_rows() && weighs { rows(&shapes, spec)? } else { None };
    check_rows(rows, rows_max)?;
    let whole = rows.is_none();
    let tensors = tensors
        .into_iter()
        .zip(shapes)
        .zip(&spec.inputs)
        .map(|((tensor, shape), spec)| input(tensor, &shape, spec.axis.filter(|_| !whole)))
        .collect::<Result<_, _>>()?;
    let inputs = Inputs { tensors, rows: rows.unwrap_or(1) };
    let (keys, class) = digest::keys(&spec.digest, tenant, &inputs);
    let outputs = outputs(request, spec)?;
    let padded = match &spec.padding {
        Some(padding) if !whole => padding.pad(&inputs, &spec.inputs)?,
        _ => None,
    };
    let (inputs, class, cuts) = match padded {
        // The keys are of the rows as they came; what they may share a batch with is as they run.
        Some((padded, cuts)) => (Arc::new(padded), None, cuts),
        None => (Arc::new(inputs), Some(class), Vec::new()),
    };
    let class = class.unwrap_or_else(|| digest::class(&inputs));
    let way = spec.way.get().filter(|_| !whole && spec.padding.is_none());
    let path = way.as_ref().map(|way| path(way, tenant, &inputs));
    Ok(Checked { inputs, keys, class, outputs, options, whole, way, path, cuts })
}

/// The rows as the bases on their way see them.
///
/// # Cost
/// Hashes the bytes that the bases read once more for each of them.
pub(crate) fn path(way: &Way, tenant: Tenant, inputs: &Inputs) -> Path {
    let leg = |base: &BaseUse| {
        let read = |&number: &usize| inputs.tensors.get(number).cloned();
        let tensors = base.reads.iter().filter_map(read).collect();
        let (rows, class) =
            digest::keys(&base.keyed_by, tenant, &Inputs { tensors, rows: inputs.rows });
        Leg { stage: base.stage, class, rows }
    };
    Path { bases: way.bases.iter().map(leg).collect(), head: way.head, policy: way.policy }
}

/// Checks a request's rows against what may wait or run, before anything is kept for each of them.
fn check_rows(rows: Option<usize>, limit: usize) -> Result<(), InferError> {
    match rows {
        Some(rows) if rows > limit => Err(InferError::new(
            ErrorKind::TooLarge,
            format!(
                "the request has {rows} rows; {limit} may wait or run, the limit of --rows-max; send it in parts"
            ),
        )),
        _ => Ok(()),
    }
}

fn options(parameters: &Parameters, spec: &ModelSpec) -> Result<Options, InferError> {
    let flag = |name: &str| match parameters.get(name) {
        None | Some(Parameter::Bool(false)) => Ok(false),
        Some(Parameter::Bool(true)) => Ok(true),
        Some(other) => Err(wrong_parameter(name, "true or false", other)),
    };
    let number = |name: &str| match parameters.get(name) {
        None => Ok(0),
        Some(Parameter::Uint(number)) => Ok(*number),
        Some(Parameter::Int(number)) if *number >= 0 => Ok(number.unsigned_abs()),
        Some(other) => Err(wrong_parameter(name, "a whole number, 0 or more", other)),
    };
    let shared = spec.unshared.is_none();
    let (no_dedupe, no_cache) = (flag("no_dedupe")?, flag("no_cache")?);
    let sharing = Sharing {
        join: shared && !no_dedupe,
        lookup: shared && !no_cache,
        store: shared && !no_cache && !flag("no_store")?,
    };
    let timeout = Some(number("timeout")?).filter(|&us| us > 0).map(Duration::from_micros);
    let priority = spec.queue.priority(number("priority")?);
    let (routes, explain) = (flag("graftd_rows")?, flag("graftd_explain")?);
    Ok(Options { sharing, priority, timeout, routes, explain })
}

fn wrong_parameter(name: &str, expected: &str, found: &Parameter) -> InferError {
    let found = match found {
        Parameter::Bool(value) => value.to_string(),
        Parameter::Int(value) => value.to_string(),
        Parameter::Uint(value) => value.to_string(),
        Parameter::Double(value) => value.to_string(),
        Parameter::Text(value) => format!("the text {value:?}"),
    };
    InferError::bad_request(format!("parameter '{name}' is {found}; expected {expected}"))
}

/// The request's tensors in the order of the model's inputs, each of them once.
fn in_order<'a>(
    request: &'a InferRequest,
    spec: &ModelSpec,
) -> Result<Vec<Cow<'a, Tensor>>, InferError> {
    for (place, tensor) in request.inputs.iter().enumerate() {
        let name = &tensor.name;
        if !spec.inputs.iter().any(|input| input.name == *name) {
            let known: Vec<&str> = spec.inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(InferError::bad_request(format!(
                "model '{}' has no input '{name}'; its inputs are {}",
                spec.name,
                known.join(", ")
            )));
        }
        if request.inputs[..place].iter().any(|earlier| earlier.name == *name) {
            return Err(InferError::bad_request(format!(
                "input '{name}' came twice; expected once"
            )));
        }
    }
    let find = |(number, input): (usize, &TensorSpec)| {
        if let Some(given) = request.inputs.iter().find(|tensor| tensor.name == input.name) {
            return Ok(Cow::Borrowed(given));
        }
        let made = spec.padding.as_ref();
        let made = made.and_then(|padding| padding.mask(number, &spec.inputs, &request.inputs));
        made.map(Cow::Owned).ok_or_else(|| {
            InferError::bad_request(format!(
                "input '{}' of model '{}' is missing; expected {} {}",
                input.name,
                spec.name,
                input.datatype,
                shown(input)
            ))
        })
    };
    spec.inputs.iter().enumerate().map(find).collect()
}

fn shown(spec: &TensorSpec) -> String {
    match spec.client_dims() {
        None => "of any shape".to_owned(),
        Some(_) => format!("{:?}", spec.wire_shape()).replace(' ', ""),
    }
}

fn check_tensor(tensor: &Tensor, spec: &TensorSpec) -> Result<(), InferError> {
    let name = &tensor.name;
    if tensor.datatype != spec.datatype {
        return Err(InferError::bad_request(format!(
            "input '{name}' has datatype {}; expected {}",
            tensor.datatype, spec.datatype
        )));
    }
    let Some(dims) = spec.client_dims() else { return Ok(()) };
    let shape = &tensor.shape.0;
    let fits = |(dim, &size): (&Dim, &usize)| match dim {
        Dim::Fixed(expected) => *expected == size,
        Dim::Named(_) | Dim::Unknown => true,
    };
    if dims.len() != shape.len() || !dims.iter().zip(shape).all(fits) {
        return Err(InferError::bad_request(format!(
            "input '{name}' has shape {}; expected {}, where -1 is any size",
            tensor.shape,
            shown(spec)
        )));
    }
    Ok(())
}

/// Checks a batching model's rows against its limit.
fn check_size(tensor: &Tensor, spec: &ModelSpec) -> Result<(), InferError> {
    let (Some(limit), Some(&rows)) = (spec.request_rows_max, tensor.shape.0.first()) else {
        return Ok(());
    };
    if rows <= limit {
        return Ok(());
    }
    Err(InferError::bad_request(format!(
        "input '{}' has a batch of {rows}; expected at most {limit}, the max_batch_size of model '{}'; \
         send it in parts",
        tensor.name, spec.name
    )))
}

/// The shape as the model sees it.
fn seen<'a>(tensor: &'a Tensor, spec: &TensorSpec) -> Cow<'a, [usize]> {
    let shape = &tensor.shape.0;
    let model = spec.wire.as_ref().and_then(|wire| wire.to_model(shape));
    model.map_or(Cow::Borrowed(shape.as_slice()), Cow::Owned)
}

/// The number of rows; none for a request that must run as it came.
fn rows(shapes: &[Cow<'_, [usize]>], spec: &ModelSpec) -> Result<Option<usize>, InferError> {
    let batch = |(shape, input): (&Cow<'_, [usize]>, &TensorSpec)| shape.get(input.axis?).copied();
    let counts = || shapes.iter().zip(&spec.inputs).filter_map(|pair| Some((pair.1, batch(pair)?)));
    let Some((first, rows)) = counts().max_by_key(|&(_, rows)| rows) else { return Ok(None) };
    // What has size 1 may broadcast, and sizes that the model calls by different names, or none, may have
    // nothing to do with each other: only the model can tell.
    let batching = spec.config.max_batch_size > 0;
    let wrong = |(input, size)| {
        let bound =
            batching || (axis_name(input).is_some() && axis_name(input) == axis_name(first));
        bound && size != rows && size != 1 && rows != 1
    };
    if let Some((other, size)) = counts().find(|&pair| wrong(pair)) {
        return Err(InferError::bad_request(format!(
            "input '{}' has {rows} rows and input '{}' has {size}; expected the same of both, or 1",
            first.name, other.name
        )));
    }
    // An empty batch has no row to share or keep, but its answer still has a shape: the model gives it.
    Ok((rows > 0 && counts().all(|(_, size)| size == rows)).then_some(rows))
}

/// What the model calls the size of an input's batch axis.
fn axis_name(input: &TensorSpec) -> Option<&str> {
    match input.dims.as_ref()?.get(input.axis?)? {
        Dim::Named(name) => Some(name),
        Dim::Fixed(_) | Dim::Unknown => None,
    }
}

fn input(tensor: &Tensor, shape: &[usize], axis: Option<usize>) -> Result<InputTensor, InferError> {
    let Tensor { name, datatype, shape: _, data } = tensor;
    let mut row_ends = Vec::new();
    if let (DataType::Bytes, Some(axis)) = (datatype, axis) {
        let wrong = |why: String| InferError::bad_request(format!("input '{name}': {why}"));
        let ends = bytes_element_ends(data).map_err(wrong)?;
        let rows = shape.get(axis).copied().unwrap_or(1);
        let each = ends.len() / rows.max(1);
        let end = |row: usize| (row * each).checked_sub(1).map_or(0, |last| ends[last]);
        row_ends = (1..=rows).map(end).collect();
    }
    let (shape, data) = (shape.to_vec(), data.clone());
    Ok(InputTensor { datatype: *datatype, shape, axis, data, row_ends, storage: Storage::Exact })
}

fn outputs(request: &InferRequest, spec: &ModelSpec) -> Result<Vec<usize>, InferError> {
    if request.outputs.is_empty() {
        let offered = spec.outputs.iter().enumerate().filter(|(_, output)| !output.hidden);
        return Ok(offered.map(|(index, _)| index).collect());
    }
    let find = |RequestedOutput { name, .. }: &RequestedOutput| {
        spec.outputs.iter().position(|output| output.name == *name && !output.hidden).ok_or_else(
            || {
                let known: Vec<&str> = spec.offered().map(|output| output.name.as_str()).collect();
                InferError::bad_request(format!(
                    "model '{}' has no output '{name}'; its outputs are {}",
                    spec.name,
                    known.join(", ")
                ))
            },
        )
    };
    let wanted: Vec<usize> = request.outputs.iter().map(find).collect::<Result<_, _>>()?;
    for (place, output) in wanted.iter().enumerate() {
        if wanted[..place].contains(output) {
            let name = &spec.outputs[*output].name;
            return Err(InferError::bad_request(format!("output '{name}' was asked for twice")));
        }
        let port = &spec.outputs[*output];
        if port.datatype == DataType::Bytes && request.outputs[place].classes.is_some() {
            return Err(InferError::bad_request(format!(
                "output '{}' is {}, which cannot be classified: texts are not higher or lower; ask for the tensor",
                port.name, port.datatype
            )));
        }
    }
    Ok(wanted)
}
