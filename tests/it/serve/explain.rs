//! Why rows went their way and what made them: in answers, over the endpoint and from the verb.

use super::ask::{Ask, Form, fp32};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use super::families::{KIN, family, rows};
use graftd::cli::client::Client;
use graftd::sched::reuse::Reason;
use serde_json::{Value, json};
use tokio::net::TcpStream;

fn called(ask: Ask, id: &str) -> Ask {
    Ask { id: id.to_owned(), ..ask }
}

/// What an answer says of its rows.
async fn explained(daemon: &Daemon, ask: Ask, form: Form) -> Value {
    let ask = ask.parameter("graftd_explain", true);
    let text = ask.of(daemon, form).await.expect("an answer").explain.expect("an explanation");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the endpoint says, with its status.
async fn decided(client: &mut Client, id: &str) -> (u16, Value) {
    let path = format!("/v2/graftd/explain{id}");
    let answer = soon("an answer", client.get(&path)).await.expect("the connection stays");
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

fn mlp(value: f32, rows: usize) -> Ask {
    let values: Vec<f32> = (0..rows * 16).map(|n| value + (n / 16) as f32).collect();
    Ask::new("mlp", vec![fp32("x", &[rows, 16], &values)])
}

#[tokio::test]
async fn a_base_output_names_whoever_had_it_made_in_both_codecs() {
    needs_runtime!();
    let daemon = family(&["--sharing", "always"]).await;
    for (form, from) in [(Form::Binary, 0), (Form::GrpcRaw, 100)] {
        let range = from..from + 2;
        let id = format!("maker {from}");
        let made = explained(&daemon, called(rows(KIN[0], range.clone()), &id), form).await;
        let [first, _] = &made["rows"].as_array().expect("rows")[..] else { panic!("{made}") };
        assert_eq!((&first["route"], &made["left_out"]), (&json!("recompute"), &json!(0)));
        let stages = |row: &Value| {
            let steps = row["lineage"].as_array().expect("steps").iter();
            steps.map(|step| step["stage"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(stages(first), ["head", "base", "base"], "{made}");
        let base = &first["lineage"][1];
        assert_eq!((&base["request"], &base["id"]), (&made["request"], &json!(id)));

        let reused = explained(&daemon, rows(KIN[1], range.clone()), form).await;
        let row = &reused["rows"][0];
        assert_eq!((&row["route"], &row["cost_us"]["base"]), (&json!("reuse"), &Value::Null));
        assert_eq!(row["reason"], Reason::Set.words());
        assert!(row["chance"].is_number() && row["busy"].is_number(), "{row}");
        assert_eq!(row["lineage"][0]["request"], reused["request"]);
        for part in ["stage", "digest", "batch", "request", "id"] {
            assert_eq!(row["lineage"][1][part], base[part], "{part}: {reused}");
        }
        assert!(row["lineage"][1]["age_ms"].is_u64());

        let hit = explained(&daemon, rows(KIN[0], range), form).await;
        let row = &hit["rows"][0];
        assert_eq!((&row["route"], &row["reason"]), (&json!("hit"), &json!(Reason::Kept.words())));
        assert_eq!(stages(row), stages(first));
        assert_eq!(row["lineage"][0]["batch"], first["lineage"][0]["batch"]);
        assert_eq!((&row["lineage"][0]["id"], &row["chance"]), (&json!(id), &Value::Null));
        assert_ne!(hit["request"], made["request"]);
    }
}

#[tokio::test]
async fn rows_without_a_choice_have_a_reason_too_and_many_are_cut() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let told = explained(&daemon, mlp(0.0, 70), Form::Json).await;
    assert_eq!((told["rows"].as_array().map(Vec::len), &told["left_out"]), (Some(64), &json!(6)));
    let row = &told["rows"][63];
    let expected = (&json!("whole"), &json!(Reason::NoWay.words()));
    assert_eq!((&row["route"], &row["reason"]), expected);
    assert_eq!(row["lineage"].as_array().map(Vec::len), Some(1), "{row}");
    assert_eq!(row["lineage"][0]["model"], "mlp:1");
    // Rows that were asked for alike ran once.
    let twice = Ask::new("mlp", vec![fp32("x", &[2, 16], &[-3.0; 32])]);
    let told = explained(&daemon, twice, Form::GrpcContents).await;
    let routes = [&told["rows"][0]["route"], &told["rows"][1]["route"]];
    assert_eq!(routes, [&json!("whole"), &json!("join")]);
    assert_eq!(told["rows"][0]["lineage"], told["rows"][1]["lineage"]);
    let unasked = mlp(0.0, 1).of(&daemon, Form::Json).await.expect("an answer");
    assert_eq!(unasked.explain, None);
    let wrong = mlp(0.0, 1).parameter("graftd_explain", "yes").of(&daemon, Form::Json).await;
    let message = wrong.expect_err("no flag").message;
    assert!(message.contains("parameter 'graftd_explain' is the text"), "{message}");
}

#[tokio::test]
async fn the_last_decisions_are_listed_and_found_by_id_and_by_number() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).start().await;
    let mut client = daemon.client().await;
    assert_eq!(decided(&mut client, "").await, (200, json!({ "decisions": [] })));
    for value in 0..22_u8 {
        let id = if value < 2 { "again/ü".to_owned() } else { format!("one {value}") };
        let ask = called(mlp(f32::from(value) * 100.0, 2), &id);
        ask.of(&daemon, Form::Binary).await.expect("an answer");
    }
    let (_, all) = decided(&mut client, "").await;
    let all = all["decisions"].as_array().expect("decisions");
    assert_eq!((all.len(), &all[0]["id"], &all[19]["id"]), (20, &json!("one 21"), &json!("one 2")));
    assert_eq!((&all[0]["model"], &all[0]["rows"]), (&json!("mlp:1"), &json!(2)));
    assert_eq!((&all[0]["routes"], all[0].get("why")), (&json!({ "whole": 2 }), None));
    let (_, both) = decided(&mut client, "/again%2F%C3%BC").await;
    let both = both["decisions"].as_array().expect("decisions");
    assert!(both.len() == 2 && both[0]["request"].as_u64() > both[1]["request"].as_u64());
    assert_eq!(both[0]["why"].as_array().map(Vec::len), Some(2));
    let (_, same) = decided(&mut client, &format!("/{}", both[1]["request"])).await;
    assert_eq!(same["decisions"][0]["request"], both[1]["request"]);
    let (status, error) = decided(&mut client, "/nobody").await;
    let text = error["error"].as_str().expect("a sentence");
    assert!(status == 404 && text.starts_with("request 'nobody' is not among those"), "{text}");
}

#[tokio::test]
async fn nobody_learns_of_the_requests_of_others_but_administrators() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).flags(&["--listen", "127.0.0.1:0"]).start().await;
    let line = daemon.logged("listening on 127.0.0.1:", 0).await;
    let (_, address) = line.rsplit_once(' ').expect("an address");
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut stranger = Client::over(stream).await.expect("HTTP");
    let mut own = daemon.client().await;
    let ask = |id: &str| called(mlp(1.0, 1), id);
    ask("mine").over(&mut own, Form::Json).await.expect("an answer");
    assert_eq!(decided(&mut stranger, "").await, (200, json!({ "decisions": [] })));
    for id in ["/mine", "/0", "/1", "/2"] {
        assert_eq!(decided(&mut stranger, id).await.0, 404, "{id}");
    }
    ask("theirs").over(&mut stranger, Form::Json).await.expect("an answer");
    let ids = |(_, told): (u16, Value)| {
        let told = told["decisions"].as_array().expect("decisions").clone();
        told.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(decided(&mut stranger, "").await), ["theirs"]);
    assert_eq!(ids(decided(&mut own, "").await), ["theirs", "mine"]);
    assert_eq!(decided(&mut own, "/theirs").await.0, 200);
}

#[tokio::test]
async fn refusals_are_decisions_too() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp"]).flags(&["--queue-bytes", "64"]).start().await;
    let refused = called(mlp(1.0, 3), "big").of(&daemon, Form::Json).await.expect_err("too much");
    let (_, told) = decided(&mut daemon.client().await, "/big").await;
    let told = &told["decisions"][0];
    assert_eq!((&told["outcome"], &told["rows"]), (&json!("refused"), &json!(3)));
    let said = told["error"].as_str().expect("a sentence");
    assert!(refused.message.starts_with(said.trim_end_matches("...")), "{said}");
    assert_eq!((told.get("why"), &told["routes"]), (None, &json!({})));
}
