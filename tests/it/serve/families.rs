//! Models that share their lower layers: found by themselves, run once, and let go without anybody noticing.

use super::ask::{Ask, Form, fp32, singles};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use crate::daemon::process::Process;
use bytes::Bytes;
use graftd::rows::{Block, BlockTensor};
use graftd::sched::cache::OVERHEAD_BYTES;
use graftd::tensor::DataType;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) const KIN: [&str; 3] = ["kin_left", "kin_right", "kin_far"];

/// Rows that all differ.
pub(super) fn rows(model: &str, range: Range<u16>) -> Ask {
    let count = range.len();
    let values: Vec<f32> = range
        .flat_map(|row| {
            (0..64_u16).map(move |n| f32::from(row) / 8.0 - f32::from(n * 7 % 13) / 6.0)
        })
        .collect();
    let input = if model == "kin_right" { "features" } else { "x" };
    Ask::new(model, vec![fp32(input, &[count, 64], &values)])
}

/// A daemon whose families are found.
pub(super) async fn family(flags: &[&str]) -> Daemon {
    let daemon = Setup::new(&KIN).flags(flags).start().await;
    for model in KIN {
        daemon.logged(&format!("model {model}:1 shares base"), 0).await;
    }
    daemon
}

/// What `graftd inspect` prints.
async fn inspected(arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_graftd"));
    let told = command.arg("inspect").args(arguments).output().await.expect("it runs");
    assert!(told.status.success(), "{told:?}");
    String::from_utf8(told.stdout).expect("UTF-8")
}

/// A family's heads, told by the base that they stand on.
fn heads(base: &Value) -> Vec<&str> {
    let heads = base["heads"].as_array().expect("heads");
    heads.iter().map(|head| head["model"].as_str().expect("a name")).collect()
}

/// Has a model loaded or unloaded.
async fn told(daemon: &Daemon, verb: &str) {
    told_of(daemon, verb, "kin_right").await;
}

async fn told_of(daemon: &Daemon, verb: &str, model: &str) {
    let socket = daemon.setup.socket();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_graftd"));
    let told = command.args([verb, model, "--socket"]).arg(socket).output().await;
    let told = told.expect("it runs");
    assert!(told.status.success(), "{told:?}");
}

async fn answer(daemon: &Daemon, ask: Ask) -> (String, Vec<f32>) {
    let got = ask.of(daemon, Form::Binary).await.expect("an answer");
    (got.route.clone(), singles(&got.outputs[0]))
}

#[tokio::test]
async fn families_among_files_are_shown_without_a_daemon() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let files = KIN.map(|name| root.join(name).join("1/model.onnx").display().to_string());
    let [left, right, far] = &files;
    let text = inspected(&[left, right, far]).await;
    for part in ["\nfamily of 3 models\nbase ", "\n│  ├─ kin_left: head of ", " saved\n"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let text = inspected(&[left, right, far, "--json"]).await;
    let found: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    let [family] = &found["families"].as_array().expect("families")[..] else { panic!("{found}") };
    assert_eq!((heads(family), heads(&family["bases"][0])), (vec![KIN[2]], KIN[..2].to_vec()));
    assert!(family["total"]["saved"].as_u64() > Some(0), "{found}");
    let text = inspected(&[left, right, far, "--dot"]).await;
    assert!(text.starts_with("digraph families {") && text.ends_with("}\n"), "{text}");
    assert!(text.contains("\"model kin_far\" -> \"base "), "{text}");
}

#[tokio::test]
async fn what_is_served_is_shown_with_its_proof_and_why_others_are_left_whole() {
    needs_runtime!();
    let setup = Setup::new(&[&KIN[..], &["mlp", "div"]].concat());
    let flags = ["--sharing", "always", "--set", "div.sharing=never"];
    let daemon = setup.flags(&flags).start().await;
    for model in KIN {
        daemon.logged(&format!("{model}:1: the whole model rests"), 0).await;
    }
    let socket = daemon.setup.socket().display().to_string();
    // What is told follows what is logged.
    let found = soon("three models to rest", async {
        loop {
            let text = inspected(&["--socket", &socket, "--json"]).await;
            let found: Value = serde_json::from_str(&text).expect("JSON");
            if text.matches("\"rests\":true").count() == KIN.len() {
                break found;
            }
        }
    })
    .await;
    let [family] = &found["families"].as_array().expect("families")[..] else { panic!("{found}") };
    assert_eq!(heads(family), ["kin_far:1"]);
    let inner = &family["bases"][0];
    assert_eq!(heads(inner), ["kin_left:1", "kin_right:1"]);
    assert_eq!(family["parameters"], 2 * (64 * 64 + 64));
    for head in inner["heads"].as_array().expect("heads") {
        assert!(head["difference"].as_f64().is_some_and(|most| most < 1e-3), "{head}");
        assert_eq!(head["rests"], true);
        assert!(head["whole_bytes"].as_u64() > Some(0), "{head}");
    }
    assert_eq!(left(&found, "mlp:1"), "it has nothing large enough in common with another");
    assert_eq!(left(&found, "div:1"), "its sharing setting says never");
    let text = inspected(&["--socket", &socket, "kin_left"]).await;
    assert!(text.contains("\n│  └─ kin_right:1: "), "{text}");
    assert!(text.contains(", the whole rests\n") && !text.contains("mlp"), "{text}");
    let text = inspected(&["--socket", &socket, "--dot"]).await;
    assert!(text.contains("\"model kin_far:1\" -> \"base "), "{text}");
}

#[tokio::test]
async fn a_base_runs_once_for_all_its_heads_and_gives_the_same_answers() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always"]).await;
    let whole = Setup::new(&KIN).flags(&["--sharing", "never"]).start().await;
    let expected = [
        ("kin_left", "hit=0 join=0 run=5 whole=0 reuse=0 follow=0 recompute=5"),
        ("kin_right", "hit=0 join=0 run=5 whole=0 reuse=5 follow=0 recompute=0"),
        // It stands on the lower of the two bases.
        ("kin_far", "hit=0 join=0 run=5 whole=0 reuse=5 follow=0 recompute=0"),
        ("kin_left", "hit=5 join=0 run=0"),
    ];
    for (model, route) in expected {
        let (taken, shared) = answer(&daemon, rows(model, 0..5)).await;
        assert_eq!(taken, route, "{model}");
        let (_, plain) = answer(&whole, rows(model, 0..5)).await;
        let worst = shared.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5 && shared.len() == plain.len(), "{model}: {worst}");
    }
}

#[tokio::test]
async fn a_model_can_be_kept_out() {
    needs_runtime!();
    let setup = Setup::new(&KIN).flags(&["--set", "kin_right.sharing=never"]);
    let daemon = setup.flags(&["--sharing", "always"]).start().await;
    daemon.logged("model kin_left:1 shares base", 0).await;
    daemon.logged("model kin_far:1 shares base", 0).await;
    let (route, _) = answer(&daemon, rows("kin_right", 0..2)).await;
    assert_eq!(route, "hit=0 join=0 run=2");
    let (route, _) = answer(&daemon, rows("kin_left", 0..2)).await;
    assert_eq!(route, "hit=0 join=0 run=2 whole=0 reuse=0 follow=0 recompute=2");
}

#[tokio::test]
async fn a_member_that_goes_leaves_the_others_their_answers() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always"]).await;
    let before = answer(&daemon, rows("kin_left", 0..3)).await.1;
    let from = daemon.lines().len();
    told(&daemon, "unload").await;
    let asked = answer(&daemon, rows("kin_left", 0..3)).await;
    assert_eq!((asked.0.as_str(), asked.1), ("hit=3 join=0 run=0", before));
    // The two that are left have the two lower layers in common, and their base is cut anew.
    daemon.logged("model kin_left:1 shares base", from).await;
    let (route, _) = answer(&daemon, rows("kin_left", 20..22)).await;
    assert_eq!(route, "hit=0 join=0 run=2 whole=0 reuse=0 follow=0 recompute=2");
    told(&daemon, "load").await;
    daemon.logged("model kin_right:1 shares base", from).await;
    let (route, _) = answer(&daemon, rows("kin_right", 20..22)).await;
    assert!(
        route.ends_with("recompute=2") || route.ends_with("reuse=2 follow=0 recompute=0"),
        "{route}"
    );
}

#[tokio::test]
async fn a_family_lives_in_one_process_and_its_whole_models_rest() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always"]).await;
    for model in KIN {
        daemon.logged(&format!("{model}:1: the whole model rests"), 0).await;
    }
    let (family, wholes): (Vec<Process>, Vec<Process>) =
        daemon.workers().into_iter().partition(|worker| worker.label().starts_with("base "));
    assert_eq!(family.len(), 1);
    assert!(wholes.iter().all(|whole| whole.ended_within(10)), "a whole model stays");
    let mut before = Vec::new();
    for model in KIN {
        before.push(answer(&daemon, rows(model, 0..3)).await.1);
    }
    family[0].signal(Signal::KILL);
    assert!(family[0].ended_within(10));
    for (model, before) in KIN.iter().zip(before) {
        let (route, after) = answer(&daemon, rows(model, 0..6)).await;
        assert!(route.starts_with("hit=3 join=0 run=3 whole=0"), "{model}: {route}");
        assert_eq!(after[..before.len()], before, "{model}");
    }
    let labels = daemon.workers().iter().map(Process::label).collect::<Vec<_>>();
    // Rows that came before the death was known may be run again in a process apart.
    let bases = |label: &&String| label.starts_with("base ") && !label.ends_with(" apart");
    assert_eq!(labels.iter().filter(bases).count(), 1, "{labels:?}");
}

#[tokio::test]
async fn a_model_whose_family_goes_serves_whole_again_without_a_gap() {
    needs_runtime!();
    let daemon = Setup::new(&KIN[..2]).flags(&["--sharing", "always"]).start().await;
    for model in &KIN[..2] {
        daemon.logged(&format!("{model}:1: the whole model rests"), 0).await;
    }
    let from = daemon.lines().len();
    let change = async {
        told(&daemon, "unload").await;
        daemon.logged("kin_left:1: the whole model is wanted again", from).await;
        let head = "model kin_left:1 head is retired";
        daemon.logged(head, from).await;
    };
    let mut number = 0;
    let traffic = async {
        loop {
            number += 1;
            let (route, _) = answer(&daemon, rows("kin_left", number..number + 1)).await;
            assert!(route.contains("run=1"), "{route}");
        }
    };
    tokio::select! {
        () = change => {}
        () = traffic => {}
    }
    let (route, _) = answer(&daemon, rows("kin_left", 30_000..30_002)).await;
    assert_eq!(route, "hit=0 join=0 run=2");
}

/// Families as a daemon tells of them.
async fn families(daemon: &Daemon) -> Value {
    let socket = daemon.setup.socket().display().to_string();
    serde_json::from_str(&inspected(&["--socket", &socket, "--json"]).await).expect("JSON")
}

/// Why a model is in no family.
fn left<'a>(found: &'a Value, model: &str) -> &'a str {
    let left = found["left"].as_array().expect("left");
    let one = left.iter().find(|one| one["members"][0] == model);
    one.expect("a reason")["why"].as_str().expect("a sentence")
}

#[tokio::test]
async fn base_outputs_may_be_kept_as_float16() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always", "--base-storage", "float16"]).await;
    let whole = Setup::new(&KIN).flags(&["--sharing", "never"]).start().await;
    let mut expected = ["recompute=5", "reuse=5 follow=0 recompute=0"].into_iter();
    for model in &KIN[..2] {
        let told = format!("model {model}:1: its base outputs are stored as float16");
        daemon.logged(&told, 0).await;
        let (taken, rounded) = answer(&daemon, rows(model, 0..5)).await;
        assert!(taken.ends_with(expected.next().expect("one each")), "{model}: {taken}");
        let (_, plain) = answer(&whole, rows(model, 0..5)).await;
        let worst = rounded.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 1e-2, "{model}: {worst}");
    }
    // Five rows of each of two bases, 64 numbers of two bytes a row, and what keeping a row costs.
    let data = Bytes::from(vec![0; 128]);
    let output = BlockTensor::new(DataType::Fp16, vec![1, 64], Some(0), data, 1).expect("a tensor");
    let row = Block { tensors: vec![output], rows: 1 }.kept_row_bytes() as u64 + OVERHEAD_BYTES;
    daemon.metric_is("graftd_base_bytes", (10 * row) as f64).await;
    let found = families(&daemon).await;
    let head = &found["families"][0]["bases"][0]["heads"][0];
    let (exact, rounded) = (head["difference"].as_f64(), head["rounded"].as_f64());
    assert!(rounded > exact && rounded < Some(1e-2), "{head}");
}

#[tokio::test]
async fn one_model_that_wants_exact_base_outputs_has_them_kept_exactly() {
    needs_runtime!();
    let flags = ["--sharing", "always", "--base-storage", "float16"];
    let flags = [&flags[..], &["--set", "kin_far.base_storage=exact"]].concat();
    let daemon = family(&flags).await;
    let found = families(&daemon).await;
    // It stands on the lower base alone; the upper one is rounded on.
    let (far, left) = (&found["families"][0]["heads"][0], &found["families"][0]["bases"][0]);
    assert!(far["rounded"].is_null() && left["heads"][0]["rounded"].is_number(), "{found}");
    let (_, first) = answer(&daemon, rows("kin_left", 0..3)).await;
    let (route, far) = answer(&daemon, rows("kin_far", 0..3)).await;
    assert!(route.contains("reuse=3"), "{route}");
    let whole = Setup::new(&KIN).flags(&["--sharing", "never"]).start().await;
    let (_, plain) = answer(&whole, rows("kin_far", 0..3)).await;
    let worst = far.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5 && !first.is_empty(), "{worst}");
}

#[tokio::test]
async fn a_base_can_be_named() {
    needs_runtime!();
    let flags = ["--set", "kin_left.base=kin_far", "--set", "mlp.base=kin_far"];
    let flags = [&flags[..], &["--set", "div.base=nobody", "--sharing", "always"]].concat();
    let daemon = Setup::new(&[&KIN[..], &["mlp", "div"]].concat()).flags(&flags).start().await;
    for model in ["kin_left", "kin_far"] {
        daemon.logged(&format!("model {model}:1 shares base"), 0).await;
    }
    let found = families(&daemon).await;
    let [family] = &found["families"].as_array().expect("families")[..] else { panic!("{found}") };
    assert_eq!(heads(family), ["kin_far:1", "kin_left:1"]);
    assert!(left(&found, "kin_right:1").starts_with("it has nothing"), "{found}");
    assert!(left(&found, "mlp:1").starts_with("its setting says base = 'kin_far'"), "{found}");
    assert!(left(&found, "div:1").starts_with("its setting says base = 'nobody'"), "{found}");
}

/// The same model but for one weight of its head.
fn retrained(model: &[u8]) -> Vec<u8> {
    let read = graftd::graph::read(Bytes::copy_from_slice(model)).expect("a model");
    let first = read.graph().initializer.first().expect("weights");
    let raw = first.raw_data.as_ref().expect("weights in the file").to_vec();
    let at = model.windows(raw.len()).rposition(|window| window == raw).expect("they are there");
    let mut other = model.to_vec();
    other[at + 2] ^= 0x40;
    other
}

#[tokio::test]
async fn a_member_that_is_replaced_disturbs_nobody_and_finds_the_rows_of_its_base() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always"]).await;
    let (_, before) = answer(&daemon, rows("kin_left", 0..4)).await;
    let file = daemon.setup.models().join("kin_left/1/model.onnx");
    let other = retrained(&std::fs::read(&file).expect("a model"));
    std::fs::write(&file, other).expect("another one");
    let from = daemon.lines().len();
    let change = async {
        told_of(&daemon, "load", "kin_left").await;
        daemon.logged("model kin_left:1 shares base", from).await;
    };
    let traffic = async {
        for number in 100.. {
            let (route, _) = answer(&daemon, rows("kin_right", number..number + 1)).await;
            assert!(route.ends_with("whole=0 reuse=0 follow=0 recompute=1"), "{route}");
        }
    };
    tokio::select! {
        () = change => {}
        () = traffic => {}
    }
    let (route, after) = answer(&daemon, rows("kin_left", 0..4)).await;
    assert_eq!(route, "hit=0 join=0 run=4 whole=0 reuse=4 follow=0 recompute=0");
    assert!(after != before, "it is another model");
}

/// The files that a daemon left for the next one, by name, with what tells whether they were written again.
fn splits(setup: &Setup) -> BTreeMap<String, u64> {
    let folder = std::fs::read_dir(setup.beside("splits")).expect("a folder");
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        (entry.file_name().into_string().expect("UTF-8"), entry.metadata().expect("a file").ino())
    };
    // What was learned of costs is written whenever it changed.
    folder.map(entry).filter(|(name, _)| !name.starts_with("costs")).collect()
}

#[tokio::test]
async fn the_next_start_finds_what_was_split_and_makes_anew_what_is_damaged() {
    needs_runtime!();
    let setup = Setup::new(&KIN);
    let folder = setup.beside("splits").display().to_string();
    let flags = ["--sharing", "always", "--splits-dir", &folder];
    let mut daemon = setup.flags(&flags).start().await;
    let shared = async |daemon: &Daemon| {
        for model in KIN {
            daemon.logged(&format!("model {model}:1 shares base"), 0).await;
        }
        answer(daemon, rows("kin_left", 0..3)).await.1
    };
    let first = shared(&daemon).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    let before = splits(&daemon.setup);
    for kind in ["sketch", "split", "leg"] {
        assert!(before.keys().any(|name| name.starts_with(kind)), "{before:?}");
    }
    let mut daemon = daemon.setup.start().await;
    assert_eq!(shared(&daemon).await, first);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    assert_eq!(splits(&daemon.setup), before, "something was made anew");
    for name in before.keys() {
        let file = daemon.setup.beside("splits").join(name);
        let mut bytes = std::fs::read(&file).expect("a file");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(&file, bytes).expect("damage");
    }
    let daemon = daemon.setup.start().await;
    assert_eq!(shared(&daemon).await, first);
    for kind in ["sketch", "split", "leg"] {
        let told = |line: &String| line.contains(kind) && line.contains("is damaged");
        assert!(daemon.lines().iter().any(told), "{kind}");
    }
    let after = splits(&daemon.setup);
    assert!(after.keys().eq(before.keys()) && after.values().ne(before.values()), "{after:?}");
}
