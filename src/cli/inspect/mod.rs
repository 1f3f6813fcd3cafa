//! `graftd inspect`: what is known of a model, asked of a daemon or read from a file.
//!
//! Of several files, and of what a daemon serves, it also says which models share a base.

mod files;
mod tree;

use super::client::{Client, model_path};
use super::exit::Failure;
use super::table;
use crate::graph::rules::{BatchVerdict, batch_axes, deterministic, safe_in_process};
use crate::graph::{Dim, Model, Port, read};
use crate::server::service::families::Families;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `graftd inspect` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  graftd inspect                       the families among a daemon's models
  graftd inspect iris
  graftd inspect models/iris/1/model.onnx --json
  graftd inspect models/               the families among all models below
  graftd inspect models/ --dot | dot -Tsvg > families.svg")]
pub struct InspectArgs {
    /// Models of a daemon, or .onnx files and folders of them (anything that ends in .onnx or holds a /)
    /// [default: what the daemon's models share]
    #[arg(value_name = "MODEL|FILE|DIR")]
    pub what: Vec<String>,
    /// Version of the model [default: the newest that answers]
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
    /// Print JSON: an object for each model, then one for the families among files, a line each
    #[arg(long)]
    pub json: bool,
    /// Print families as a graph for Graphviz, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub dot: bool,
}

/// Writes what is known of each model to `out`.
///
/// # Errors
/// The first that cannot be read, or that the daemon does not know.
pub async fn inspect(args: &InspectArgs, out: &mut impl Write) -> Result<(), Failure> {
    if args.what.is_empty() {
        let families = shared(&mut Client::connect(&args.socket).await?).await?;
        return print_families(&families, args, out);
    }
    let mut client = None;
    let mut models = Vec::new();
    for what in &args.what {
        if Path::new(what).is_dir() && is_file(what) {
            let below = files::below(Path::new(what));
            models.extend(below.map_err(|error| format!("{what}: {error}"))?);
            continue;
        }
        if is_file(what) {
            models.push(PathBuf::from(what));
            if !args.dot {
                let facts = file(Path::new(what)).map_err(|why| format!("{what}: {why}"))?;
                print_facts(what, &facts, args, out)?;
            }
            continue;
        }
        let client = match &mut client {
            Some(client) => client,
            place => place.insert(Client::connect(&args.socket).await?),
        };
        let mut facts = served(client, what, args.version.as_deref()).await?;
        let families = shared(client).await?.of(what, args.version.as_deref());
        if args.json {
            facts["sharing"] = json!(families);
        }
        if !args.dot {
            print_facts(what, &facts, args, out)?;
        }
        if !args.json {
            print_families(&families, args, out)?;
        }
    }
    if models.len() > 1 || (args.dot && !models.is_empty()) {
        print_families(&files::families(&models), args, out)?;
    }
    Ok(())
}

fn print_facts(
    what: &str,
    facts: &Value,
    args: &InspectArgs,
    out: &mut impl Write,
) -> Result<(), String> {
    table::print(
        out,
        |out| {
            if args.json { writeln!(out, "{facts}") } else { show(out, what, facts, 0) }
        },
    )
}

fn print_families(
    families: &Families,
    args: &InspectArgs,
    out: &mut impl Write,
) -> Result<(), Failure> {
    Ok(table::print(out, |out| match (args.dot, args.json) {
        (true, _) => tree::dot(families, out),
        (_, true) => writeln!(out, "{}", json!(families)),
        _ => tree::draw(families, out),
    })?)
}

/// What the models of a daemon share.
async fn shared(client: &mut Client) -> Result<Families, Failure> {
    let answer = client.get("/v2/graftd/families").await?.success()?;
    let families = serde_json::from_slice(&answer.body);
    Ok(families.map_err(|error| format!("the daemon's families cannot be read: {error}"))?)
}

/// Names of models hold no slash.
fn is_file(what: &str) -> bool {
    what.contains('/') || Path::new(what).extension().is_some_and(|end| end == "onnx")
}

async fn served(client: &mut Client, model: &str, version: Option<&str>) -> Result<Value, Failure> {
    let mut facts = json!({});
    for (key, verb) in [("metadata", ""), ("configuration", "/config")] {
        let answer = client.get(&model_path(model, version, verb)).await?.success()?;
        facts[key] = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("the model's {key} cannot be read: {error}"))?;
    }
    Ok(facts)
}

/// The facts of a file and what the rules make of them.
fn file(path: &Path) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let size = bytes.len();
    let model = read(bytes.into()).map_err(|error| error.to_string())?;
    let graph = model.graph();
    let parameters = graph.initializer.iter().map(|tensor| {
        let dims = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
        dims.fold(1, u64::saturating_mul)
    });
    let verdict = |verdict: Result<(), _>| match verdict {
        Ok(()) => json!("yes"),
        Err(why) => json!(format!("no: {why}")),
    };
    let ports = |ports: &[Port]| -> Value {
        let ports = ports.iter().map(|port| (port.name.clone(), json!(port_shown(port))));
        Value::Object(ports.collect())
    };
    let operators = model.operators().iter().map(|operator| match operator.domain.as_str() {
        "" => operator.op_type.clone(),
        domain => format!("{domain}.{}", operator.op_type),
    });
    let opsets = model.opsets().iter().map(|(domain, version)| {
        (if domain.is_empty() { "ai.onnx".to_owned() } else { domain.clone() }, json!(version))
    });
    Ok(json!({
        "bytes": size,
        "inputs": ports(model.inputs()),
        "outputs": ports(model.outputs()),
        "opsets": Value::Object(opsets.collect()),
        "nodes": graph.node.len(),
        "parameters": parameters.fold(0, u64::saturating_add),
        "external_files": model.external_files(),
        "operators": operators.collect::<Vec<_>>().join(" "),
        "rows": rows(&model),
        "deterministic": verdict(deterministic(&model)),
        "safe_in_the_daemon": verdict(safe_in_process(&model)),
    }))
}

fn rows(model: &Model) -> String {
    match batch_axes(model) {
        BatchVerdict::Independent { .. } => "independent, as the graph shows".to_owned(),
        BatchVerdict::Undecided { why, .. } => format!("to be tried at load: {why}"),
        BatchVerdict::Mixes { why } => format!("influence each other: {why}"),
        BatchVerdict::None { why } => format!("no batches: {why}"),
    }
}

fn port_shown(port: &Port) -> String {
    let Some(dims) = &port.dims else { return format!("{} of any shape", port.datatype) };
    let dims = dims.iter().map(|dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    });
    format!("{} [{}]", port.datatype, dims.collect::<Vec<_>>().join(", "))
}

/// Writes JSON as an indented outline, without what is empty.
fn show(out: &mut impl Write, name: &str, value: &Value, depth: usize) -> std::io::Result<()> {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            if entries.values().any(|value| !is_empty(value)) {
                writeln!(out, "{indent}{name}")?;
            }
            entries.iter().try_for_each(|(name, value)| show(out, name, value, depth + 1))
        }
        value if is_empty(value) => Ok(()),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().try_for_each(|item| show(out, name, item, depth))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            writeln!(out, "{indent}{name}: {}", items.join(", "))
        }
        value => writeln!(out, "{indent}{name}: {}", plain(value)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.values().all(is_empty),
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

fn plain(value: &Value) -> String {
    let Some(text) = value.as_str() else { return value.to_string() };
    // Names come from model files, and a terminal obeys control characters.
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_judged_without_a_daemon() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/iris/1/model.onnx");
        let (what, socket) = (vec![path.to_owned()], PathBuf::from("/nowhere"));
        let mut args = InspectArgs { what, version: None, socket, json: true, dot: false };
        let mut out = Vec::new();
        inspect(&args, &mut out).await.unwrap();
        let facts: Value = serde_json::from_slice(&out).unwrap();
        assert!(facts["inputs"]["x"].as_str().unwrap().starts_with("FP32 ["), "{facts}");
        assert_eq!(facts["deterministic"], "yes");
        args.json = false;
        out.clear();
        inspect(&args, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\n  nodes: ") && !text.contains("external_files"), "{text}");
        args.what = vec!["./no.onnx".to_owned()];
        let why = inspect(&args, &mut Vec::new()).await.unwrap_err();
        assert!(why.message.starts_with("./no.onnx: "), "{why}");
    }
}
