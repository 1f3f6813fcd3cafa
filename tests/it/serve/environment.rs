//! What comes from the environment of a shell or a service: settings, and whom to tell of the start and the end.

use super::daemon::{PROGRAM, soon};
use std::path::Path;
use tokio::process::Command;

/// Every variable that the example for services shows.
fn variables() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/graftd.env");
    let text = std::fs::read_to_string(path).expect("the example");
    let names = text.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
    names.map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("GRAFTD_")).collect()
}

/// What `graftd serve --print-config` says with these variables and no others of ours.
async fn printed(variables: &[String]) -> String {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--print-config"]).env_clear().env("XDG_CONFIG_HOME", home.path());
    command.envs(variables.iter().map(|name| (name, "")));
    let output = soon("--print-config", command.output()).await.expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn an_empty_variable_counts_as_unset() {
    let mut variables = variables();
    assert!(variables.len() > 40, "{variables:?}");
    variables.push("GRAFTD_CONFIG".to_owned());
    let [empty, unset] = [printed(&variables).await, printed(&[]).await];
    assert_eq!(empty, unset);
    assert!(unset.contains("\nsocket = \"graftd.sock\""), "{unset}");
}

#[tokio::test]
async fn a_wrong_variable_is_named_as_what_it_is() {
    let wrong =
        [("GRAFTD_ROWS_MAX", "abc", "a whole number"), ("GRAFTD_WATCH", "maybe", "true or false")];
    for (name, value, expected) in wrong {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--print-config"]).env(name, value);
        let output = soon("--print-config", command.output()).await.expect("the program starts");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains(&format!("the variable {name} is '{value}'")), "{told}");
        assert!(told.contains(expected) && !told.contains("--"), "{told}");
    }
}
