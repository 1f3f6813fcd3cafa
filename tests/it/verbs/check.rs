//! `graftd check`: what would be served, and what is wrong with it.

use super::{Ended, command, ended};
use crate::serve::daemon::{Setup, fixtures, needs_runtime};

/// `graftd check` over the models and the working folder of a setup.
async fn check(setup: &Setup, more: &[&str]) -> Ended {
    let mut verb = command(&setup.socket(), &[&["check"], more].concat());
    // A flag counts over them.
    verb.env("GRAFTD_MODELS", setup.models()).env("GRAFTD_WORK_DIR", setup.beside("work"));
    ended(verb).await
}

fn rows(out: &str) -> Vec<Vec<&str>> {
    out.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn what_would_be_served() {
    needs_runtime!();
    let setup = Setup::new(&["mlp", "random", "mixrows"]);
    let Ended { code, out, err } = check(&setup, &[]).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    let rows = rows(&out);
    assert_eq!(rows[1], ["mixrows", "1", "good", "at", "start", "as", "sent", "yes"]);
    assert_eq!(rows[2], ["mlp", "1", "good", "at", "start", "independent", "yes"]);
    assert_eq!(rows[3].last(), Some(&"no"), "{out}");
    assert!(out.contains("3 of 3 models of "), "{out}");
    let left = std::fs::read_dir(setup.beside("work")).expect("the folder").count();
    assert_eq!(left, 0, "copies are taken away again");
    assert!(!setup.socket().exists());
    let off = check(&setup, &["--no-dedupe", "--set", "random.dedupe=on,mixrows.dedupe=on"]).await;
    let ends: Vec<_> = self::rows(&off.out)[1..4].iter().map(|row| row.last().copied()).collect();
    assert_eq!(ends, [Some("yes"), Some("no"), Some("no")], "{}", off.out);
}

#[tokio::test]
async fn warnings_alone_are_no_failure() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    std::fs::create_dir(setup.models().join("mlp/latest")).expect("a new folder");
    let source = fixtures().join("models/mlp/1/model.onnx");
    std::fs::copy(source, setup.models().join("mlp/latest/model.onnx")).expect("a copy");
    let doubtful = ["--set", "mpl.cache=off", "--queue-bytes", "1"];
    let Ended { code, out, err } = check(&setup, &doubtful).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("warning: --queue-bytes 1: "), "{out}");
    assert!(out.contains("warning: the settings of model mpl are for none"), "{out}");
    assert!(out.contains("did you mean mlp?"), "{out}");
    assert!(out.contains("'latest' is no version"), "{out}");
}

#[tokio::test]
async fn problems_are_listed_and_counted() {
    needs_runtime!();
    let setup = Setup::new(&["mlp", "mixrows"]);
    setup.add("truncated", "broken");
    let models = setup.models();
    let config = "input [ { name: 'q' data_type: TYPE_FP32 dims: [ 16 ] } ]";
    std::fs::write(models.join("mlp/config.pbtxt"), config).expect("a new file");
    std::fs::write(models.join("mixrows/model.toml"), "cahce = 'off'").expect("a new file");
    let explicit = ["--model-control-mode", "explicit", "--load-model", "mlp,nope"];
    let Ended { code, out, err } = check(&setup, &explicit).await;
    assert_eq!((code, &*err), (Some(1), "graftd: there are 4 problems\n"), "{out}");
    for part in
        ["broken:1: ", "mlp:1: config.pbtxt: ", "mixrows:1: model.toml: ", "--load-model nope"]
    {
        assert!(out.contains(&format!("problem: {part}")), "{part} is not in\n{out}");
    }
    assert!(out.contains("  if asked  "), "{out}");
    assert!(out.contains("0 of 1 models of "), "{out}");
}

#[tokio::test]
async fn what_a_load_would_refuse_of_warm_ups_and_padding_is_a_problem() {
    needs_runtime!();
    let setup = Setup::new(&["mlp", "masked"]);
    setup.add("mlp", "other");
    setup.add("mlp", "fine");
    let models = setup.models();
    let write = |file: &str, text: &str| std::fs::write(models.join(file), text).expect("a file");
    let warmup = |input: &str, dims: &str| {
        format!(
            "max_batch_size: 4 model_warmup {{ name: 'w' batch_size: 2 inputs {{ key: '{input}' value: {{ \
             data_type: TYPE_FP32 dims: {dims} random_data: true }} }} }}"
        )
    };
    write("mlp/config.pbtxt", &warmup("q", "16"));
    write("other/config.pbtxt", &warmup("x", "17"));
    write("fine/config.pbtxt", &warmup("x", "16"));
    // The batch axis.
    let padding = "[[padding]]\ninputs = { x = { axis = 1 } }\nmultiple = 4\noutputs = { y = 0 }\n";
    write("masked/model.toml", padding);
    let Ended { code, out, .. } = check(&setup, &[]).await;
    assert_eq!(code, Some(1), "{out}");
    for part in [
        "mlp:1: config.pbtxt: model_warmup 'w': model 'mlp' has no input 'q'",
        "other:1: config.pbtxt: model_warmup 'w': input 'x' has shape [2,17]; expected [-1,16]",
        "masked:1: [[padding]] in the model's settings: output 'y' axis 0 cannot be padded",
    ] {
        assert!(out.contains(&format!("problem: {part}")), "{part} is not in\n{out}");
    }
    assert!(!out.contains("fine:1: "), "{out}");
    // A load says the same.
    let daemon = setup.start().await;
    daemon.logged("model_warmup 'w': input 'x' has shape [2,17]", 0).await;
    daemon.logged("output 'y' axis 0 cannot be padded", 0).await;
}

#[tokio::test]
async fn what_keeps_the_daemon_from_starting() {
    needs_runtime!();
    let setup = Setup::new(&["mlp"]);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    let file = setup.beside("file");
    std::fs::write(&file, "").expect("a new file");
    let file = file.to_str().expect("UTF-8");
    let table: &[(&[&str], &str)] = &[
        (&["--models", "/nowhere"], "problem: --models /nowhere: "),
        (&["--work-dir", file], "problem: --work-dir "),
        (&["--onnxruntime", "/nowhere/lib.so"], "problem: --onnxruntime /nowhere/lib.so: "),
        (
            &["--onnxruntime", "/etc/passwd"],
            "problem: /etc/passwd is no usable ONNX Runtime library: ",
        ),
    ];
    for (flags, expected) in table {
        let Ended { code, out, err } = check(&setup, flags).await;
        assert_eq!((code, &*err), (Some(1), "graftd: there is a problem\n"), "{flags:?}: {out}");
        assert!(out.contains(expected), "{out}");
    }
    let Ended { code, out, .. } = check(&setup, &["--listen", &taken]).await;
    assert!(code == Some(1) && out.contains("problem: --listen 127.0.0.1:"), "{out}");
}

#[tokio::test]
async fn a_daemon_that_serves_there_is_no_problem() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let Ended { code, out, err } = check(&daemon.setup, &[]).await;
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("a daemon listens there now"), "{out}");
    let text = super::good(&daemon.setup.socket(), &["status"]).await;
    assert!(text.contains("mlp"), "it serves on: {text}");
}

#[tokio::test]
async fn a_start_tells_the_same_doubts() {
    needs_runtime!();
    let flags = ["--set", "mpl.cache=off", "--set", "mlp.cache=off", "--cache-bytes", "1"];
    let daemon = Setup::new(&["mlp"]).flags(&flags).start().await;
    let line = daemon.logged("did you mean mlp?", 0).await;
    assert!(line.contains(" WARN ") && line.contains("settings of model mpl are"), "{line}");
    daemon.logged("--cache-bytes 1: hardly a row fits", 0).await;
    let told =
        daemon.lines().iter().filter(|line| line.contains("settings of model mlp are")).count();
    assert_eq!(told, 0);
}
