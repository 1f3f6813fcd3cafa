//! Settings from everywhere: which wins, and what a wrong one is told.

use super::file::File;
use super::{Given, given};
use crate::cli::exit::Failure;
use crate::cli::{self, Cli};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

#[test]
fn a_wrong_value_is_named_with_its_flag_and_what_is_allowed() {
    let table = [
        ("--sessions=1025", "1 to 1024"),
        ("--watchdog-ms=0", "1 or more"),
        ("--preferred-batch-rows=4,0", "1 or more"),
        ("--requests-max=0", "1 or more"),
        ("--body-bytes-max=0", "at least one byte"),
        ("--batch-bytes=1", "4K or more"),
        ("--isolation=both", "worker, auto, none"),
        ("--listen=8000", "HOST:PORT"),
    ];
    for (argument, expected) in table {
        let why = Cli::try_parse_from(["graftd", "serve", argument]).unwrap_err().to_string();
        let (flag, value) = argument.split_once('=').unwrap();
        let value = value.rsplit(',').next().unwrap();
        for part in [flag, value, expected] {
            assert!(why.contains(part), "{argument}: {why}");
        }
    }
}

/// What `graftd serve` makes of a file and flags.
fn with_file(text: &str, flags: &[&str]) -> Result<Given, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graftd.toml");
    fs::write(&path, text).unwrap();
    let arguments = ["graftd", "serve", "--config"].map(OsString::from);
    let flags = flags.iter().map(OsString::from);
    let arguments: Vec<OsString> =
        arguments.into_iter().chain([path.into()]).chain(flags).collect();
    let typed = cli::command().try_get_matches_from(&arguments).unwrap();
    given(cli::command(), "serve", &arguments, typed.subcommand_matches("serve").unwrap())
}

#[test]
fn a_file_fills_in_what_was_not_typed() {
    let text = "rows_max = 1_000\nrequests_max = 7\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
                preferred_batch_rows = [4, 8]\ncache_bytes = \"1M\"\nfallback_cpu = true\n\
                no_dedupe = true\nsessions = 0x10\n[model.\"a.b\"]\ncache = false\ntimeout_ms = 5\n";
    let flags = ["--rows-max=9", "--no-dedupe=false", "--set=a.b.timeout_ms=6"];
    let given = with_file(text, &flags).unwrap();
    let args = &given.args;
    assert_eq!((args.bounds.rows_max, args.bounds.requests_max), (9, 7));
    assert_eq!((args.sharing.cache_bytes, args.running.sessions), (1 << 20, Some(16)));
    assert_eq!((args.running.fallback_cpu, args.sharing.no_dedupe), (true, false));
    assert_eq!(
        (args.places.listen.len(), &args.sharing.preferred_batch_rows[..]),
        (2, &[4, 8][..])
    );
    let model = &crate::model::settings::by_model(&args.sharing.set)["a.b"];
    assert_eq!(model.cache, Some(false));
    assert_eq!(model.timeout, Some(std::time::Duration::from_millis(6)));
}

#[test]
fn what_is_printed_names_sources_and_can_be_read_again() {
    let text = "requests_max = 7\n\nlisten = [\"127.0.0.1:1\"]\n[model.a]\ncache = false\n";
    let printed = with_file(text, &["--rows-max=9", "--set=b.dedupe=on"]).unwrap().shown;
    let source = |key: &str| {
        let line = printed.lines().find(|line| line.starts_with(key)).unwrap();
        line.split(" # ").nth(1).unwrap().to_owned()
    };
    assert!(source("requests_max").ends_with("graftd.toml:1"));
    assert!(source("listen").ends_with("graftd.toml:3"));
    assert!(source("cache = \"off\"").ends_with("graftd.toml:5"));
    assert_eq!(source("rows_max"), "--rows-max");
    assert_eq!(source("dedupe = \"on\""), "--set");
    assert_eq!(source("load_timeout_s"), "default");
    let again = with_file(&printed, &[]).unwrap();
    assert_eq!((again.args.bounds.rows_max, again.args.sharing.set.len()), (9, 2));
}

#[test]
fn a_wrong_file_is_told_with_its_line_and_what_is_allowed() {
    let table = [
        ("\nrows_max = 0", ":2: rows_max = 0: expected a whole number, 1 or more"),
        ("rows_max = [1]", ":1: rows_max takes one value"),
        ("rows_max = -1", "1 or more"),
        ("rows_max = 1979-05-27", "is a date"),
        ("preferred_batch_rows = [1, [2]]", "is a list"),
        ("fallback_cpu = 3", "fallback_cpu = 3: expected true or false"),
        ("isolation = \"both\"", "expected one of worker, auto, none"),
        ("row_max = 1", ":1: row_max is no setting; did you mean rows_max?"),
        ("Rows-Max = 1", "did you mean rows_max?"),
        ("zzz = 1", "--print-config"),
        ("[limits]\nrows_max = 1", "outside tables"),
        ("config = \"x\"", "config is no setting"),
        ("set = [\"a.cache=off\"]", "[model.NAME]"),
        ("[model.a]\ncahce = true", ":2: 'cahce' is no key; expected one of dedupe"),
        ("[model.a]\n\ncache = 3", ":3: a.cache is '3'; expected on or off"),
        ("[model.a.b]\ncache = true", "quote names"),
        ("model = 1", "[model.NAME]"),
        ("rows_max = ", ":1: "),
        ("a = 1\n\na = 2", ":3: duplicate key"),
    ];
    let serve = cli::command();
    let serve = serve.find_subcommand("serve").unwrap();
    for (text, expected) in table {
        let why = File::parse(Path::new("graftd.toml"), text, serve).unwrap_err();
        assert!(why.starts_with("graftd.toml:") && why.contains(expected), "{text}: {why}");
    }
    let why = with_file("rows_max = 0", &[]).unwrap_err();
    assert_eq!(why.code(), 78);
}

#[test]
fn every_flag_is_a_variable_and_help_fits_the_screen() {
    let mut command = cli::command();
    command.build();
    for arg in Cli::command().find_subcommand("serve").unwrap().get_arguments() {
        let id = arg.get_id().as_str();
        if !["help", "print_config"].contains(&id) {
            let expected = format!("GRAFTD_{}", id.to_uppercase());
            assert_eq!(arg.get_env().unwrap().to_str(), Some(expected.as_str()));
            assert_eq!(arg.get_long(), Some(id.replace('_', "-").as_str()));
        }
    }
    for verb in command.get_subcommands_mut() {
        let help = verb.render_long_help().to_string();
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{}", verb.get_name());
    }
}

#[test]
fn example_files_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(files.len() >= 5);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let given = with_file(&text, &[]).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert!(given.shown.contains("graftd.toml:"), "{} sets nothing", path.display());
    }
}

/// The table of settings in the README, from the flags.
fn settings_table() -> String {
    let command = cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut text = String::new();
    let mut heading = None;
    for arg in serve.get_arguments().filter(|arg| arg.get_id() != "help") {
        if heading != Some(arg.get_help_heading()) {
            heading = Some(arg.get_help_heading());
            let heading = arg.get_help_heading().unwrap_or("Models and addresses");
            text += &format!("\n| {heading} | default | |\n|---|---|---|\n");
        }
        let name = match arg.get_value_names() {
            Some([name, ..]) if name != "BOOL" => format!(" {}", name.replace('|', "\\|")),
            _ => String::new(),
        };
        let defaults = arg.get_default_values();
        let defaults: Vec<_> = defaults.iter().map(|text| text.to_string_lossy()).collect();
        let help = arg.get_help().unwrap().to_string();
        let (help, default) = match help.split_once(" [default: ") {
            Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
            None => (help, defaults.iter().map(|text| format!("`{text}`")).collect()),
        };
        let (help, flag) = (help.replace('|', "\\|"), arg.get_long().unwrap());
        text += &format!("| `--{flag}{name}` | {default} | {help} |\n");
    }
    text
}

#[test]
fn the_readme_lists_every_setting() {
    const MARKS: [&str; 2] = ["<!-- settings: from the flags -->\n", "\n<!-- end -->"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MARKS[0]).expect("a mark before the table");
    let (there, after) = rest.split_once(MARKS[1]).expect("a mark behind the table");
    let expected = settings_table();
    if std::env::var_os("GRAFTD_REGENERATE").is_some() {
        fs::write(&path, [before, MARKS[0], &expected, MARKS[1], after].concat()).unwrap();
        return;
    }
    let advice =
        "README.md is behind the flags; run GRAFTD_REGENERATE=1 cargo test --lib the_readme";
    assert!(there == expected, "{advice}");
}
