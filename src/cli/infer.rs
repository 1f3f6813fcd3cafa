//! `graftd infer`: one request to a running daemon, from `.npy` files or from JSON.

use super::client::{Answer, Client, HEADER_LENGTH, model_path};
use super::exit::Failure;
use super::{npy, show, table};
use crate::progress::{Foot, LATE};
use crate::tensor::{DataType, Shape, Tensor};
use crate::text;
use bytes::{Bytes, BytesMut};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What `graftd infer` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  graftd infer wine --input x=rows.npy
  graftd infer iris --json request.json --raw
  graftd infer iris --input x=rows.npy --outputs label --param timeout=500000 --save answers")]
pub struct InferArgs {
    /// The model's name
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Version of the model [default: the newest that answers]
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,

    /// An input tensor from a file that numpy.save wrote; once for each input of the model
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = pair, help_heading = "Request")]
    pub input: Vec<(String, String)>,
    /// The whole request as JSON: a file, - for standard input, or the text itself
    #[arg(long, value_name = "FILE|-|{...}", conflicts_with = "input", help_heading = "Request")]
    pub json: Option<String>,
    /// Outputs to answer with [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "Request")]
    pub outputs: Vec<String>,
    /// A parameter of the request, such as timeout=500000 (microseconds), priority=1, no_cache=true,
    /// no_store=true, no_dedupe=true, graftd_rows=true or graftd_explain=true
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, help_heading = "Request")]
    pub param: Vec<(String, String)>,

    /// Write each output to NAME.npy in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "raw", help_heading = "Answer")]
    pub save: Option<PathBuf>,
    /// Print the answer's JSON as it came
    #[arg(long, help_heading = "Answer")]
    pub raw: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("expected a name, '=', and a value".to_owned()),
    }
}

/// A model's metadata, as far as a caller needs it.
#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
}

#[derive(Deserialize)]
struct Slot {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

impl Slot {
    fn shown(&self) -> String {
        format!("{} {}", self.datatype, format!("{:?}", self.shape).replace(' ', ""))
    }

    /// Whether a tensor of this shape fits.
    fn takes(&self, shape: &Shape) -> bool {
        let fits = |(&dim, &size): (&i64, &usize)| usize::try_from(dim).is_ok_and(|d| d == size);
        let fits = |pair: (&i64, &usize)| *pair.0 < 0 || fits(pair);
        self.shape.len() == shape.0.len() && self.shape.iter().zip(&shape.0).all(fits)
    }
}

/// The JSON of an answer whose tensors follow as bytes.
#[derive(Deserialize)]
struct Head {
    model_name: String,
    model_version: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    outputs: Vec<HeadOutput>,
}

#[derive(Deserialize)]
struct HeadOutput {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    parameters: HeadSize,
}

#[derive(Deserialize)]
struct HeadSize {
    binary_data_size: usize,
}

/// Asks the daemon and writes what it answers to `out`.
///
/// # Errors
/// A sentence on what is wrong and what to type.
pub async fn infer(args: &InferArgs, out: &mut impl Write) -> Result<(), Failure> {
    // What is wrong with the files is said whether a daemon is there or not.
    let typed = args.json.as_deref().map(json_text).transpose()?;
    let mut client = Client::connect(&args.socket).await?;
    let path = |verb| model_path(&args.model, args.version.as_deref(), verb);
    let (mut request, tail) = match typed {
        Some(request) => (request, None),
        None => {
            let metadata = client.get(&path("")).await?.success()?;
            let metadata: Metadata = serde_json::from_slice(&metadata.body)
                .map_err(|error| format!("the model's metadata cannot be read: {error}"))?;
            let (request, tail) = from_files(args, &metadata)?;
            (request, Some(tail))
        }
    };
    ask_for(args, &mut request)?;
    let json = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    // With tensors as bytes the length is told even where these are none: an empty tensor.
    let length = tail.as_ref().map(|_| json.len());
    let body = match tail {
        Some(tail) => [&json[..], &tail].concat().into(),
        None => json.into(),
    };
    let waiting = format!("waiting for '{}' to answer", text::name(&args.model));
    let shown = Foot::of_stderr().show(LATE, move || waiting.clone());
    let answer = client.post(&path("/infer"), length, body).await?.success();
    drop(shown);
    let answer = answer?;
    let written = if args.raw {
        out.write_all(&answer.body).and_then(|()| writeln!(out))
    } else {
        let (head, tensors) = read_answer(&answer)?;
        if let Some(folder) = &args.save {
            save(folder, &tensors)?;
        }
        write_answer(out, &answer, &head, &tensors)
    };
    Ok(table::print(out, |_| written)?)
}

/// The request that `--json` means.
fn json_text(given: &str) -> Result<Value, String> {
    let named = |error: io::Error| format!("--json {given}: {error}");
    let text = match given {
        "-" => io::read_to_string(io::stdin().lock()).map_err(named)?,
        text if text.trim_start().starts_with('{') => text.to_owned(),
        file => fs::read_to_string(file).map_err(named)?,
    };
    let request: Value =
        serde_json::from_str(&text).map_err(|error| format!("--json is no JSON: {error}"))?;
    if request.is_object() {
        return Ok(request);
    }
    Err("--json is no object; expected {\"inputs\": [...]}".to_owned())
}

/// The request that `--input` means: its JSON, and the tensors' bytes.
fn from_files(args: &InferArgs, metadata: &Metadata) -> Result<(Value, Bytes), String> {
    let (model, mut tail) = (&args.model, BytesMut::new());
    let known = |slots: &[Slot]| {
        let shown = slots.iter().map(|slot| format!("{} ({})", slot.name, slot.shown()));
        shown.collect::<Vec<_>>().join(", ")
    };
    let inputs = &metadata.inputs;
    // A name that is mistyped is said as such, and not as one that is missing.
    let strange = |name: &String| inputs.iter().all(|slot| slot.name != *name);
    if let Some((name, file)) = args.input.iter().find(|(name, _)| strange(name)) {
        let known = known(inputs);
        return Err(format!(
            "--input {name}={file}: model '{model}' has no input '{name}'; its inputs are {known}"
        ));
    }
    if let Some(missing) = inputs.iter().find(|slot| !args.input.iter().any(|i| i.0 == slot.name)) {
        return Err(format!(
            "input '{0}' is missing; model '{model}' takes {1}; type --input {0}=FILE.npy, or give \
             the whole request with --json",
            missing.name,
            known(inputs)
        ));
    }
    if let Some(name) = args.outputs.iter().find(|n| metadata.outputs.iter().all(|o| o.name != **n))
    {
        let known = known(&metadata.outputs);
        return Err(format!(
            "--outputs {name}: model '{model}' has no output '{name}'; its outputs are {known}"
        ));
    }
    let mut listed = Vec::new();
    for (name, file) in &args.input {
        let Some(slot) = inputs.iter().find(|slot| slot.name == *name) else { continue };
        let tensor =
            read_input(slot, file).map_err(|why| format!("--input {name}={file} {why}"))?;
        listed.push(json!({
            "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.0,
            "parameters": { "binary_data_size": tensor.data.len() },
        }));
        tail.extend_from_slice(&tensor.data);
    }
    Ok((json!({ "inputs": listed }), tail.freeze()))
}

fn read_input(slot: &Slot, file: &str) -> Result<Tensor, String> {
    let wanted = DataType::from_name(&slot.datatype)
        .ok_or_else(|| format!("goes to a datatype that is not known here, {}", slot.datatype))?;
    let opened = File::open(file).map_err(|error| format!("cannot be opened: {error}"))?;
    let tensor = npy::read(&slot.name, BufReader::new(opened), wanted)?;
    if tensor.datatype != wanted || !slot.takes(&tensor.shape) {
        let hint = numpy_name(wanted).filter(|_| tensor.datatype != wanted);
        let hint = hint.map_or_else(String::new, |kind| format!("; convert it: .astype('{kind}')"));
        return Err(format!(
            "is {} {}; the model takes {}{hint}",
            tensor.datatype,
            tensor.shape,
            slot.shown()
        ));
    }
    Ok(tensor)
}

/// What numpy calls a datatype; none for those that it does not have.
fn numpy_name(datatype: DataType) -> Option<String> {
    match datatype {
        DataType::Bf16 => None,
        DataType::Bytes => Some("str".to_owned()),
        DataType::Fp16 => Some("float16".to_owned()),
        DataType::Fp32 => Some("float32".to_owned()),
        DataType::Fp64 => Some("float64".to_owned()),
        other => Some(other.name().to_ascii_lowercase()),
    }
}

/// Puts outputs, parameters and the form of the answer into a request.
fn ask_for(args: &InferArgs, request: &mut Value) -> Result<(), String> {
    if !args.outputs.is_empty() {
        let listed: Vec<Value> = args.outputs.iter().map(|name| json!({ "name": name })).collect();
        request["outputs"] = Value::Array(listed);
    }
    let parameters = &mut request["parameters"];
    if parameters.is_null() {
        *parameters = Value::Object(Map::new());
    }
    let wrong = "the request's \"parameters\" are no object; expected {\"name\": value, ...}";
    let parameters = parameters.as_object_mut().ok_or(wrong)?;
    for (key, text) in &args.param {
        // What reads as a truth value or a number is one; everything else is a text.
        let value = serde_json::from_str(text).ok();
        let value = value.filter(|value: &Value| value.is_boolean() || value.is_number());
        parameters.insert(key.clone(), value.unwrap_or_else(|| Value::from(text.as_str())));
    }
    if args.raw {
        return Ok(());
    }
    // Bytes hold every value exactly, half floats too; what single outputs say gives way.
    parameters.insert("binary_data_output".to_owned(), Value::Bool(true));
    let outputs = request.get_mut("outputs").and_then(Value::as_array_mut);
    for output in outputs.into_iter().flatten() {
        if let Some(own) = output.get_mut("parameters").and_then(Value::as_object_mut) {
            own.remove("binary_data");
        }
    }
    Ok(())
}

/// Cuts an answer into its JSON and its tensors.
fn read_answer(answer: &Answer) -> Result<(Head, Vec<Tensor>), String> {
    let wrong = |what: &str| format!("the daemon's answer cannot be read: {what}");
    let length = match answer.header(HEADER_LENGTH.as_str()) {
        None => answer.body.len(),
        Some(text) => text.parse().map_err(|_| wrong("no length of its JSON"))?,
    };
    let json = answer.body.get(..length).ok_or_else(|| wrong("it is shorter than its JSON"))?;
    let head: Head = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string()))?;
    let mut rest = answer.body.slice(length..);
    let mut tensors = Vec::new();
    for output in &head.outputs {
        let size = output.parameters.binary_data_size;
        let datatype =
            DataType::from_name(&output.datatype).ok_or_else(|| wrong(&output.datatype))?;
        if size > rest.len() {
            return Err(wrong(&format!("output '{}' is cut short", output.name)));
        }
        let (name, shape) = (output.name.clone(), Shape(output.shape.clone()));
        tensors.push(Tensor { name, datatype, shape, data: rest.split_to(size) });
    }
    Ok((head, tensors))
}

fn write_answer(
    out: &mut impl Write,
    answer: &Answer,
    head: &Head,
    tensors: &[Tensor],
) -> io::Result<()> {
    write!(out, "{} version {}", head.model_name, head.model_version)?;
    if !head.id.is_empty() {
        write!(out, ", id {}", head.id)?;
    }
    writeln!(out)?;
    if let Some(route) = answer.header("graftd-route") {
        writeln!(out, "route {route}")?;
    }
    for (key, value) in &head.parameters {
        writeln!(out, "{key} {value}")?;
    }
    tensors.iter().try_for_each(|tensor| {
        writeln!(out)?;
        show::tensor(out, tensor)
    })
}

/// Writes every output to a file of its name.
fn save(folder: &Path, tensors: &[Tensor]) -> Result<(), String> {
    let named = |path: &Path, why: &str| format!("--save {}: {why}", path.display());
    fs::create_dir_all(folder).map_err(|error| named(folder, &error.to_string()))?;
    for tensor in tensors {
        // A name may hold what would lead out of the folder.
        let name = tensor.name.replace(['/', '\0'], "_");
        let path = folder.join(format!("{name}.npy"));
        let file = File::create(&path).map_err(|error| named(&path, &error.to_string()))?;
        npy::write(tensor, BufWriter::new(file)).map_err(|why| named(&path, &why))?;
    }
    Ok(())
}
