//! The house rules that a machine can check: layers, headers, lengths, example settings, the changelog.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const WORDS: &[&str] = &[
    "clock", "courtesy", "digest", "error", "id", "logging", "progress", "proto", "reactor",
    "reflect", "request", "rows", "tensor", "text", "time",
];

/// Which module may name which others; a module may always name itself and the words.
///
/// `sched` is stricter: its row lists even the words that it may use.
fn layers() -> BTreeMap<&'static str, Vec<&'static str>> {
    let with_words = |more: &[&'static str]| [WORDS, more].concat();
    BTreeMap::from([
        ("clock", vec!["time"]),
        ("courtesy", vec![]),
        ("digest", vec!["id", "rows", "tensor"]),
        ("error", vec!["text"]),
        ("id", vec![]),
        ("logging", vec!["progress"]),
        ("progress", vec![]),
        ("codec", vec![]),
        ("proto", vec!["codec"]),
        ("reactor", vec!["clock", "time"]),
        ("reflect", vec!["proto"]),
        ("request", vec!["tensor"]),
        ("rows", vec!["tensor"]),
        ("tensor", vec![]),
        ("text", vec![]),
        ("time", vec![]),
        ("sched", vec!["id", "time"]),
        ("engine", with_words(&[])),
        ("graph", vec!["tensor", "text"]),
        ("model", with_words(&["graph", "metrics", "sched"])),
        ("metrics", with_words(&["sched"])),
        ("driver", with_words(&["engine", "graph", "metrics", "model", "sched"])),
        ("oip", vec!["error", "proto", "reflect", "request", "tensor"]),
        ("repository", with_words(&["driver", "metrics", "model", "sched"])),
        (
            "server",
            with_words(&["driver", "metrics", "model", "oip", "repository", "sched", "traffic"]),
        ),
        ("traffic", vec![]),
        ("simulate", vec!["id", "sched", "time", "traffic"]),
        ("loadgen", with_words(&["graph", "model", "traffic"])),
        ("daemon", with_words(&["driver", "metrics", "model", "repository", "sched", "server"])),
        (
            "cli",
            with_words(&[
                "daemon",
                "driver",
                "engine",
                "graph",
                "loadgen",
                "model",
                "oip",
                "repository",
                "sched",
                "server",
                "simulate",
                "traffic",
            ]),
        ),
    ])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The module of the crate that a file of `src` belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a line of code names as `crate::name`, whether alone or in a list of imports.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("crate::")
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
        })
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn modules_name_only_what_stands_above_them() {
    let layers = layers();
    let mut faults = Vec::new();
    for path in files("src", "rs") {
        let module = module(&path);
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = layers.get(module.as_str());
        let allowed =
            allowed.unwrap_or_else(|| panic!("{module} is missing in the table of layers"));
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for name in named(line) {
                if name != module && !allowed.contains(&name.as_str()) {
                    faults.push(format!("{}:{}: {module} names {name}", shown(&path), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_scheduler_has_no_clock_no_lock_and_no_unordered_map() {
    const BANNED: [&str; 9] = [
        "HashMap",
        "HashSet",
        "Mutex",
        "RwLock",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "tokio",
    ];
    for path in files("src/sched", "rs") {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in BANNED {
                assert!(!code.contains(word), "{}:{}: {word}", shown(&path), number + 1);
            }
        }
    }
}

#[test]
fn files_open_with_what_they_hold_and_stay_short() {
    let mut faults = Vec::new();
    for path in ["src", "tests/it", "benches", "examples"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
    {
        let text = fs::read_to_string(&path).unwrap();
        let generated = text.starts_with("// @generated") || shown(&path).ends_with("proto.rs");
        if !text.starts_with("//!") && !generated {
            faults.push(format!("{} does not open with a //! sentence", shown(&path)));
        }
        let lines =
            text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
        if lines > 500 && !generated {
            faults.push(format!("{} has {lines} lines outside its tests; split it", shown(&path)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_architecture_names_every_module_and_stays_short() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() <= 200, "{} lines", text.lines().count());
    for module in layers().keys() {
        assert!(text.contains(&format!("`{module}")), "ARCHITECTURE.md does not name `{module}`");
    }
    for word in text.split('`').skip(1).step_by(2).filter(|word| word.starts_with("src/")) {
        assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}, which is not there");
    }
}

#[test]
fn the_changelog_has_an_unreleased_part() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.lines().any(|line| line == "## Unreleased"));
}

#[test]
fn example_settings_are_taken_by_the_daemon() {
    use clap::Parser;
    let examples = files("configs", "env");
    assert!(!examples.is_empty());
    for path in examples {
        let text = fs::read_to_string(&path).unwrap();
        // Commented settings are examples too: they show the default.
        let settings = text.lines().map(|line| line.trim_start_matches('#').trim());
        let settings = settings.filter(|line| line.starts_with("GRAFTD_"));
        let mut arguments = vec!["graftd".to_owned(), "serve".to_owned()];
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap();
            let flag = name.trim_start_matches("GRAFTD_").to_lowercase().replace('_', "-");
            match value {
                "true" => arguments.push(format!("--{flag}")),
                "" | "false" => {}
                value => arguments.push(format!("--{flag}={value}")),
            }
        }
        let parsed = graftd::cli::Cli::try_parse_from(&arguments);
        assert!(parsed.is_ok(), "{}: {}", shown(&path), parsed.unwrap_err());
    }
}
