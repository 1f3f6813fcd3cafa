//! Names of models that no model has and nobody should have, in every place where a client names one.

use super::raw::{Raw, get};
use crate::serve::ask::{Ask, Form, Refused, fp32, grpc, read_grpc};
use crate::serve::daemon::{Daemon, Setup, copy, fixtures, needs_runtime, soon};
use bytes::Bytes;
use graftd::cli::client::Client;
use graftd::proto;
use graftd::text;
use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::model_repository_parameter::ParameterChoice;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Names as somebody means them; the folder of the test stands for `{}`.
const NAMES: [&str; 92] = [
    // Ways out of the directory.
    "..",
    "../..",
    "../secret",
    "../secret.onnx",
    "{}/secret",
    "{}/secret.onnx",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    "//",
    "///",
    ".",
    "./mlp",
    "mlp/",
    "/mlp",
    "mlp/.",
    "mlp/1",
    "mlp/1/model.onnx",
    "mlp/../mlp",
    "a/../../secret",
    "..\\secret",
    "..%2fsecret",
    "%2e%2e",
    "....//secret",
    ".hidden",
    "..mlp",
    "~",
    "~root",
    "mlp.onnx",
    "model.onnx",
    "mlp/config.pbtxt",
    "file:///etc/passwd",
    "/proc/self/mem",
    "/dev/zero",
    // Words that mean something elsewhere in a path.
    "versions",
    "ready",
    "config",
    "infer",
    "load",
    "unload",
    "index",
    "models",
    "v2",
    "metrics",
    "trace",
    "setting",
    "logging",
    "region",
    "status",
    "register",
    "repository",
    "CON",
    "nul",
    "aux.onnx",
    // Numbers and colons.
    "0",
    "01",
    "-1",
    "1e9",
    "0x10",
    "18446744073709551616",
    "mlp:1",
    "mlp:",
    ":",
    "a:b:c",
    "http://localhost/",
    // Text that is something else for somebody else.
    "'",
    "\"",
    "<script>alert(1)</script>",
    "$(id)",
    "`id`",
    "${HOME}",
    "{}",
    "%s%n",
    "a b",
    " mlp",
    "mlp ",
    "a?b=c",
    "a#b",
    "a&b;c",
    "*",
    "mlp*",
    "[m]lp",
    "\\",
    "|",
    "MLP",
    // Beyond ASCII, and beyond what is printed.
    "模型",
    "mlp\u{301}",
    "ｍｌｐ",
    "🦀",
    "\u{feff}mlp",
    "\u{202e}plm",
    "\u{85}",
];

/// Characters that end, hide or fake something.
const CONTROLS: [&str; 10] = [
    "\0",
    "mlp\0",
    "mlp\0.onnx",
    "\n",
    "a\r\nHost: b",
    "\u{1b}[31mred",
    "\t",
    "\u{7f}",
    "a\u{8}",
    "\r",
];

fn names(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let long = [129, 4096, 10_000].map(|length| "a".repeat(length));
    let more = ["../".repeat(500), "é".repeat(2000), "%".repeat(300), "\u{1}".repeat(500)];
    let named = NAMES.iter().map(|name| name.replace("{}", &folder));
    named.chain(CONTROLS.map(str::to_owned)).chain(long).chain(more).collect()
}

/// How a name gets into a path: what has a meaning there escaped, all of it escaped, escaped twice.
fn encodings(name: &str) -> [(String, String); 3] {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    let once = utf8_percent_encode(name, PLAIN).to_string();
    let all = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let twice = utf8_percent_encode(&once, PLAIN).to_string();
    [(once.clone(), name.to_owned()), (all, name.to_owned()), (twice, once)]
}

/// Every file and folder below one.
fn tree(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a kind").is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

/// The daemon with a model that is not in its directory, but beside it.
async fn daemon() -> Daemon {
    let setup = Setup::new(&["mlp"]);
    let model = fixtures().join("models/mlp");
    copy(&model, &setup.beside("secret"));
    copy(&model.join("1/model.onnx"), &setup.beside("secret.onnx"));
    setup.start().await
}

/// Whether a sentence says what was asked for, and nothing that a terminal or a log would obey.
fn check_words(said: &str, name: &str) {
    let start: String = name.chars().take(60).collect();
    let named = [text::plain(start.as_str()), start.escape_debug().to_string()];
    assert!(named.iter().any(|named| said.contains(named)), "{name:?} is not in: {said}");
    assert!(!said.contains(char::is_control), "{said:?}");
    assert!(said.len() <= text::SENTENCE_BYTES_MAX, "{} bytes", said.len());
}

async fn rest(client: &mut Client, method: Method, path: &str, body: &Bytes) -> (u16, String) {
    let sent = client.send(method, path, HeaderMap::new(), body.clone());
    let answer = soon("an answer", sent).await.expect("the connection stays");
    let body = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    (answer.status, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn hostile_names_in_paths_are_only_names() {
    needs_runtime!();
    let daemon = daemon().await;
    let folder = daemon.setup.beside("");
    let before = tree(&folder);
    let (infer, _) = Ask::new("", vec![fp32("x", &[1, 16], &[0.5; 16])]).body(Form::Json);
    let mut client = daemon.client().await;
    let mut paths = BTreeSet::new();
    for name in names(&folder) {
        for (encoded, asked) in encodings(&name) {
            if !paths.insert(encoded.clone()) {
                continue;
            }
            let model = format!("/v2/models/{encoded}");
            let repository = format!("/v2/repository/models/{encoded}");
            let none = Bytes::new();
            for (method, path, body, done) in [
                (Method::GET, model.clone(), &none, false),
                (Method::GET, format!("{model}/ready"), &none, false),
                (Method::GET, format!("{model}/config"), &none, false),
                (Method::GET, format!("{model}/stats"), &none, false),
                (Method::GET, format!("{model}/versions/1"), &none, false),
                (Method::GET, format!("/v2/models/mlp/versions/{encoded}"), &none, false),
                (Method::POST, format!("{model}/infer"), &infer, false),
                (Method::POST, format!("/v2/models/mlp/versions/{encoded}/infer"), &infer, false),
                (Method::POST, format!("{repository}/load"), &none, false),
                // What is not there is unloaded already.
                (Method::POST, format!("{repository}/unload"), &none, true),
            ] {
                let (status, said) = rest(&mut client, method, &path, body).await;
                if status == 200 && done {
                    continue;
                }
                assert!((400..500).contains(&status), "{path}: {status} {said}");
                check_words(&said, &asked);
            }
        }
    }
    assert!(paths.len() >= 200, "{} are not enough", paths.len());
    is_as_before(&daemon, &folder, &before).await;
}

async fn is_as_before(daemon: &Daemon, folder: &Path, before: &BTreeSet<PathBuf>) {
    // What is outside is no more to be had than what is nowhere.
    let mut client = daemon.client().await;
    for (there, nowhere) in
        [("..%2fsecret", "..%2fnowhere"), ("%2fetc%2fpasswd", "%2fetc%2fnowhere")]
    {
        for path in ["/v2/models/@", "/v2/repository/models/@/load"] {
            let method = if path.ends_with("load") { Method::POST } else { Method::GET };
            let none = Bytes::new();
            let (status, said) =
                rest(&mut client, method.clone(), &path.replace('@', there), &none).await;
            let other = rest(&mut client, method, &path.replace('@', nowhere), &none).await;
            let said = said.replace("secret", "nowhere").replace("passwd", "nowhere");
            assert_eq!((status, said), other);
        }
    }
    assert!(daemon.lines().iter().all(|line| !line.contains(char::is_control)));
    assert_eq!(&tree(folder), before);
    let row = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.25; 16])]);
    row.of(daemon, Form::Binary).await.expect("it serves on");
    let (status, _) = rest(&mut client, Method::GET, "/v2/models/mlp/ready", &Bytes::new()).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn request_lines_that_are_none_are_refused() {
    needs_runtime!();
    let daemon = daemon().await;
    for name in [
        "../../etc/passwd",
        "%",
        "%2",
        "%zz",
        "%00",
        "%ff",
        "%c0%ae%c0%ae",
        "\u{e9}",
        "a b",
        "\0",
        "\u{1b}[31m",
        "mlp/../../../..",
        "//mlp",
        "mlp#x",
        "mlp?x=1/../..",
        "\\..\\..",
        "<x>",
        "\"",
        "^",
        "{a}",
        "|",
    ] {
        for path in [format!("/v2/models/{name}/ready"), format!("/{name}"), name.to_owned()] {
            let mut raw = Raw::open(&daemon).await;
            raw.send(get(&path)).await;
            if let Some(reply) = raw.try_reply().await {
                let known = reply.status == 200 && name.starts_with("mlp");
                assert!(known || (400..500).contains(&reply.status), "{path:?}: {reply:?}");
                assert!(!reply.body.contains("root:"), "{path:?}: {reply:?}");
            }
        }
    }
    let row = Ask::new("mlp", vec![fp32("x", &[1, 16], &[0.25; 16])]);
    row.of(&daemon, Form::Binary).await.expect("it serves on");
}

/// A refusal's words, with a code that does not blame the server.
fn refusal<T>(result: Result<tonic::Response<T>, tonic::Status>, what: &str) -> String {
    let Err(status) = result else { panic!("{what} was answered") };
    let blame = [tonic::Code::Internal, tonic::Code::Unknown, tonic::Code::Unavailable];
    assert!(!blame.contains(&status.code()), "{what}: {status:?}");
    status.message().to_owned()
}

#[tokio::test]
async fn hostile_names_in_messages_are_only_names() {
    needs_runtime!();
    let daemon = daemon().await;
    let folder = daemon.setup.beside("");
    let before = tree(&folder);
    let mut client = grpc(&daemon.setup.socket()).await;
    for asked in names(&folder) {
        let name = || asked.clone();
        let row = || vec![fp32("x", &[1, 16], &[0.5; 16])];
        let no_version = Ask::new("mlp", row()).version(&asked);
        for (ask, expected) in [
            (Ask::new(&asked, row()), tonic::Code::NotFound),
            (no_version, tonic::Code::InvalidArgument),
        ] {
            let answer = soon("an answer", client.model_infer(ask.message(Form::GrpcRaw))).await;
            let Refused { code, message, .. } = read_grpc(answer).expect_err("no such model");
            assert_eq!(code, expected as u32, "{message}");
            check_words(&message, &asked);
        }
        let request = proto::ModelReadyRequest { name: name(), ..Default::default() };
        let ready = soon("an answer", client.model_ready(request)).await.expect("an answer");
        assert!(!ready.into_inner().ready, "{asked:?}");
        let request = proto::ModelMetadataRequest { name: name(), ..Default::default() };
        let said = refusal(soon("an answer", client.model_metadata(request)).await, &asked);
        check_words(&said, &asked);
        let request = proto::ModelConfigRequest { name: name(), ..Default::default() };
        let said = refusal(soon("an answer", client.model_config(request)).await, &asked);
        check_words(&said, &asked);
        let request = proto::ModelStatisticsRequest { name: name(), ..Default::default() };
        let said = refusal(soon("an answer", client.model_statistics(request)).await, &asked);
        check_words(&said, &asked);
        let mut load =
            proto::RepositoryModelLoadRequest { model_name: name(), ..Default::default() };
        let said =
            refusal(soon("an answer", client.repository_model_load(load.clone())).await, &asked);
        check_words(&said, &asked);
        // With files in the request, under this name and at this path.
        let junk = |path: &str| {
            let choice = ParameterChoice::BytesParam(Bytes::from_static(b"junk"));
            let value = proto::ModelRepositoryParameter { parameter_choice: Some(choice) };
            (format!("file:{path}"), value)
        };
        load.parameters = [junk("1/model.onnx")].into();
        refusal(soon("an answer", client.repository_model_load(load.clone())).await, &asked);
        load.parameters = [junk(&asked)].into();
        load.model_name = "carried".to_owned();
        refusal(soon("an answer", client.repository_model_load(load)).await, &asked);
        let request =
            proto::RepositoryModelUnloadRequest { model_name: name(), ..Default::default() };
        soon("an answer", client.repository_model_unload(request)).await.expect("it is not there");
    }
    is_as_before(&daemon, &folder, &before).await;
}
