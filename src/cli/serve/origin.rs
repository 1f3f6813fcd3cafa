//! Every setting with where it came from: the configuration as it is, in the form of a configuration file.

use super::file::{File, in_file};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::fmt::Write;

/// The configuration as TOML; a comment behind each value names its source.
pub(super) fn shown(serve: &Command, matches: &ArgMatches, file: &File) -> String {
    let mut text = String::new();
    let mut heading = None;
    for arg in serve.get_arguments().filter(|arg| in_file(arg)) {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            let _ = writeln!(text, "\n# {}", heading.unwrap_or_default());
        }
        let key = arg.get_id().as_str();
        let setting = match value(arg, matches) {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} ="),
        };
        let source = source(arg, matches, file);
        let _ = writeln!(text, "{setting:<40} # {source}");
    }
    models(&mut text, matches, file);
    text
}

fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let raw = matches.get_raw(arg.get_id().as_str())?;
    let texts: Vec<String> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    if matches!(arg.get_action(), ArgAction::Append) {
        let texts = texts.iter().flat_map(|text| match arg.get_value_delimiter() {
            Some(delimiter) => text.split(delimiter).collect(),
            None => vec![text.as_str()],
        });
        let texts: Vec<String> = texts.map(scalar).collect();
        return Some(format!("[{}]", texts.join(", ")));
    }
    texts.last().map(|text| scalar(text))
}

/// Numbers and switches as they are, everything else as a quoted text.
fn scalar(text: &str) -> String {
    // A number in another form, such as 0600, would not be read back as it was.
    let number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    if number || text.parse::<bool>().is_ok() {
        return text.to_owned();
    }
    toml::Value::from(text).to_string()
}

fn source(arg: &Arg, matches: &ArgMatches, file: &File) -> String {
    let key = arg.get_id().as_str();
    match matches.value_source(key) {
        Some(ValueSource::CommandLine) => format!("--{}", arg.get_long().unwrap_or(key)),
        Some(ValueSource::EnvVariable) => {
            format!("${}", arg.get_env().unwrap_or_default().to_string_lossy())
        }
        _ => match file.line(key) {
            Some(line) => format!("{}:{line}", file.path.display()),
            None => "default".to_owned(),
        },
    }
}

fn models(text: &mut String, matches: &ArgMatches, file: &File) {
    let from_file = file
        .models
        .iter()
        .map(|(setting, _, line)| (setting.clone(), format!("{}:{line}", file.path.display())));
    let source = match matches.value_source("set") {
        Some(ValueSource::EnvVariable) => "$GRAFTD_SET",
        _ => "--set",
    };
    let typed = matches.get_raw("set").into_iter().flatten();
    let typed = typed.flat_map(|given| {
        let given = given.to_string_lossy().into_owned();
        given.split(',').map(|one| (one.to_owned(), source.to_owned())).collect::<Vec<_>>()
    });
    // The later of two counts, and TOML takes a key once.
    let mut last = std::collections::BTreeMap::new();
    for (setting, source) in from_file.chain(typed) {
        if let Some((path, value)) = setting.split_once('=')
            && let Some((model, key)) = path.rsplit_once('.')
        {
            last.insert((model.to_owned(), key.to_owned()), (value.to_owned(), source));
        }
    }
    let mut current = None;
    for ((model, key), (value, source)) in last {
        if current.as_ref() != Some(&model) {
            let _ = writeln!(text, "\n[model.{}]", toml::Value::from(model.as_str()));
            current = Some(model);
        }
        let setting = format!("{key} = {}", scalar(&value));
        let _ = writeln!(text, "{setting:<40} # {source}");
    }
}
