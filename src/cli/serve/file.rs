//! The configuration file: TOML whose keys are the flags of `graftd serve`.
//!
//! A value of the file becomes the default of its flag, so it is parsed by the same parser and loses against the
//! command line and the environment.

use crate::model::settings::Setting;
use crate::text;
use clap::{Arg, ArgAction, Command, Error, error::ContextKind, error::ContextValue};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file that was read and found right.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// Settings of single models, as `--set` takes them, each with its line.
    pub(super) models: Vec<(String, Setting, usize)>,
}

/// One setting of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) values: Vec<String>,
}

/// Flags that say what to do with the file, or that one model's tables hold.
const NOT_IN_FILE: [&str; 3] = ["config", "print_config", "set"];

impl File {
    /// Reads a file for the flags of `serve`.
    ///
    /// # Errors
    /// File, line, key, value, and what is allowed.
    pub(super) fn read(path: &Path, serve: &Command) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("--config {}: {error}", path.display()))?;
        Self::parse(path, &text, serve)
    }

    pub(super) fn parse(path: &Path, text: &str, serve: &Command) -> Result<Self, String> {
        let shown = path.display();
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| {
            let line = line(error.span().map_or(0, |span| span.start));
            format!("{shown}:{line}: {}", error.message())
        })?;
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        // Tables are ordered by name; errors are wanted in the order of lines.
        let mut keys: Vec<_> = table.get_ref().iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            let at = line(key.span().start);
            let key = key.get_ref().as_ref();
            let taken = if key == "model" {
                models(value, &mut file.models, &line)
            } else {
                values(key, value.get_ref(), serve).map_err(|why| (at, why))
            };
            let values = taken.map_err(|(line, why)| format!("{shown}:{line}: {why}"))?;
            if !values.is_empty() {
                file.entries.push(Entry { key: key.to_owned(), line: at, values });
            }
        }
        Ok(file)
    }

    /// The flags with the file's values as their defaults.
    pub(super) fn apply(&self, serve: Command) -> Command {
        self.entries.iter().fold(serve, |serve, Entry { key, values, .. }| {
            serve.mut_arg(key, |arg| arg.default_values(values.clone()))
        })
    }

    /// Where a setting stands in the file.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.line)
    }
}

/// The settings of `[model.NAME]` tables.
fn models(
    value: &Spanned<DeValue<'_>>,
    found: &mut Vec<(String, Setting, usize)>,
    line: &impl Fn(usize) -> usize,
) -> Result<Vec<String>, (usize, String)> {
    let form = "settings of one model stand in a table [model.NAME]; quote names that hold dots, as in \
                [model.\"a.b\"]";
    let here = line(value.span().start);
    let tables = value.get_ref().as_table().ok_or_else(|| (here, form.to_owned()))?;
    for (model, table) in tables {
        let at = line(model.span().start);
        let model = model.get_ref();
        let table = table.get_ref().as_table().ok_or_else(|| (at, form.to_owned()))?;
        for (key, value) in table {
            let at = line(key.span().start);
            let key = key.get_ref();
            let value = match value.get_ref() {
                DeValue::Boolean(true) => "on".to_owned(),
                DeValue::Boolean(false) => "off".to_owned(),
                DeValue::Table(_) => return Err((at, form.to_owned())),
                other => scalar(other).map_err(|why| (at, format!("{model}.{key} {why}")))?,
            };
            let text = format!("{model}.{key}={value}");
            let setting = text.parse().map_err(|why| (at, why))?;
            found.push((text, setting, at));
        }
    }
    found.sort_by_key(|(_, _, line)| *line);
    Ok(Vec::new())
}

/// The values of one key, checked by the flag's own parser.
fn values(key: &str, value: &DeValue<'_>, serve: &Command) -> Result<Vec<String>, String> {
    let arg = serve.get_arguments().find(|arg| arg.get_id() == key && in_file(arg));
    let arg = arg.ok_or_else(|| unknown(key, value, serve))?;
    let named = |why: String| format!("{key} {why}");
    let values = match value {
        DeValue::Table(_) if key == "models" => {
            return Err(
                "models names the directory; settings of one model stand in [model.NAME]".into()
            );
        }
        DeValue::Array(list) if matches!(arg.get_action(), ArgAction::Append) => {
            let items = list.iter().map(|item| scalar(item.get_ref()));
            items.collect::<Result<Vec<_>, _>>().map_err(named)?
        }
        DeValue::Array(_) => return Err(format!("{key} takes one value, not a list")),
        value => vec![scalar(value).map_err(named)?],
    };
    let defaults = values.clone();
    // The flags of the environment are not in question here.
    let alone = serve.clone().no_binary_name(true).mut_args(|arg| arg.env(None::<&str>));
    let alone = alone.mut_arg(key, |arg| arg.default_values(defaults));
    match alone.try_get_matches_from([""; 0]) {
        Ok(_) => Ok(values),
        Err(error) => Err(format!("{key} = {}: {}", values.join(","), allowed(&error))),
    }
}

/// Whether a flag is a setting that a file may hold.
pub(super) fn in_file(arg: &Arg) -> bool {
    arg.get_long().is_some() && !NOT_IN_FILE.contains(&arg.get_id().as_str())
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(on) => Ok(on.to_string()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "is more than can be counted".to_owned()),
        DeValue::Datetime(_) => Err("is a date; expected a text or a number".to_owned()),
        DeValue::Array(_) => Err("is a list; expected a text or a number".to_owned()),
        DeValue::Table(_) => Err("is a table; expected a text or a number".to_owned()),
    }
}

/// What clap's error says is allowed.
pub(super) fn allowed(error: &Error) -> String {
    if let Some(ContextValue::Strings(allowed)) = error.get(ContextKind::ValidValue) {
        return format!("expected {}", allowed.join(" or "));
    }
    // The parser of switches says only that it wants something else.
    if error.source().is_some_and(|why| why.to_string() == "value was not a boolean") {
        return "expected true or false".to_owned();
    }
    error.source().map_or_else(|| error.kind().to_string(), ToString::to_string)
}

fn unknown(key: &str, value: &DeValue<'_>, serve: &Command) -> String {
    if key == "set" {
        return "set stands on the command line; here write a table [model.NAME]".to_owned();
    }
    let keys = serve.get_arguments().filter(|arg| in_file(arg)).map(|arg| arg.get_id().as_str());
    let typed = key.replace('-', "_").to_lowercase();
    let hint = match text::meant(&typed, keys) {
        Some(near) => format!("did you mean {near}?"),
        None if value.is_table() => {
            "settings stand at the top of the file, outside tables; only [model.NAME] is one".into()
        }
        None => "graftd serve --print-config prints them all".to_owned(),
    };
    format!("{key} is no setting; {hint}")
}
