//! What is refused, in the same words on every transport: wrong requests, late ones, one too many.

use super::ask::{Ask, Form, Refused, fp32, grpc, read_grpc, tensor};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use graftd::tensor::{DataType, Tensor};
use std::time::Duration;

const FORMS: [Form; 4] = [Form::Json, Form::Binary, Form::GrpcRaw, Form::GrpcContents];

/// HTTP's status, or gRPC's code for the same.
fn code(form: Form, http: u32, grpc: tonic::Code) -> u32 {
    let grpc = u32::try_from(i32::from(grpc)).expect("a code");
    if matches!(form, Form::GrpcRaw | Form::GrpcContents) { grpc } else { http }
}

async fn refused(daemon: &Daemon, ask: &Ask, form: Form) -> Refused {
    ask.of(daemon, form).await.expect_err("a refusal")
}

#[tokio::test]
async fn errors_name_the_tensor_what_was_expected_and_what_came() {
    needs_runtime!();
    let daemon = Setup::new(&["mlp", "div"]).start().await;
    let x = fp32("x", &[1, 16], &[0.5; 16]);
    let ask = |inputs: &[Tensor]| Ask::new("mlp", inputs.to_vec());
    let named = Tensor { name: "z".to_owned(), ..x.clone() };
    let short = Tensor { shape: graftd::tensor::Shape(vec![2, 16]), ..x.clone() };
    let whole = tensor("x", DataType::Int32, &[1, 16], vec![0; 64]);
    let numbers = |name: &str, rows| tensor(name, DataType::Int64, &[rows, 4], vec![1; rows * 32]);
    let pair = |a, b| Ask::new("div", vec![numbers("a", a), numbers("b", b)]);
    let table: [(Ask, u32, tonic::Code, &[&str]); 12] = [
        (
            Ask::new("nope", vec![]),
            404,
            tonic::Code::NotFound,
            &["model 'nope' is not known", "mlp"],
        ),
        (
            ask(std::slice::from_ref(&x)).version("9"),
            404,
            tonic::Code::NotFound,
            &["no version '9'", "versions are 1"],
        ),
        (
            ask(std::slice::from_ref(&x)).version("one"),
            404,
            tonic::Code::InvalidArgument,
            &["'one' is no version", "a whole number from 1 on", "such as 1"],
        ),
        (ask(&[named]), 400, tonic::Code::InvalidArgument, &["no input 'z'", "inputs are x"]),
        (ask(&[]), 400, tonic::Code::InvalidArgument, &["'x'", "missing", "FP32 [-1,16]"]),
        (ask(&[x.clone(), x.clone()]), 400, tonic::Code::InvalidArgument, &["'x'", "twice"]),
        (ask(&[whole]), 400, tonic::Code::InvalidArgument, &["'x'", "INT32", "expected FP32"]),
        (
            ask(&[fp32("x", &[16], &[0.5; 16])]),
            400,
            tonic::Code::InvalidArgument,
            &["'x'", "[16]", "[-1,16]"],
        ),
        (
            ask(&[fp32("x", &[2, 8], &[0.5; 16])]),
            400,
            tonic::Code::InvalidArgument,
            &["'x'", "[2,8]", "[-1,16]"],
        ),
        (ask(&[short]), 400, tonic::Code::InvalidArgument, &["'x'", "[2,16]", "came"]),
        (
            ask(std::slice::from_ref(&x)).outputs(&["z"]),
            400,
            tonic::Code::InvalidArgument,
            &["no output 'z'", "outputs are y"],
        ),
        (
            ask(std::slice::from_ref(&x)).parameter("no_cache", 1),
            400,
            tonic::Code::InvalidArgument,
            &["'no_cache'", "true or false"],
        ),
    ];
    for (ask, http, grpc, texts) in table {
        for form in FORMS {
            let refused = refused(&daemon, &ask, form).await;
            assert_eq!(refused.code, code(form, http, grpc), "{refused:?}");
            for text in texts {
                assert!(refused.message.contains(text), "{text} over {form:?}: {refused:?}");
            }
        }
    }
    // The daemon is as well as before.
    ask(&[x]).of(&daemon, Form::Json).await.expect("an answer");
    pair(2, 2).of(&daemon, Form::Json).await.expect("an answer");
}

/// A run of about two seconds that no other equals.
pub(crate) fn long(number: u16) -> Ask {
    trips(1_000_000 + i64::from(number))
}

/// A run of almost no time that no other equals, for workers that are held.
pub(crate) fn short(number: u16) -> Ask {
    trips(i64::from(number))
}

fn trips(trips: i64) -> Ask {
    Ask::new("loop", vec![tensor("trips", DataType::Int64, &[], trips.to_le_bytes().to_vec())])
}

#[tokio::test]
async fn what_would_be_late_gets_its_deadline() {
    needs_runtime!();
    let daemon = Setup::new(&["loop"]).flags(&["--sessions", "1"]).start().await;
    let running = long(0);
    let running = running.of(&daemon, Form::Binary);
    let late = async {
        daemon.metric_is("graftd_requests_in_flight", 1.0).await;
        for form in FORMS {
            let refused = refused(&daemon, &long(1).parameter("timeout", 1_000), form).await;
            let expected = code(form, 504, tonic::Code::DeadlineExceeded);
            assert_eq!(refused.code, expected, "{refused:?}");
            if refused.message.contains("not tried") {
                assert!(refused.retry_after.is_some(), "{refused:?}");
            }
        }
        let mut request = tonic::Request::new(long(1).message(Form::GrpcRaw));
        request.set_timeout(Duration::from_millis(1));
        let mut client = grpc(&daemon.setup.socket()).await;
        let answer = soon("an answer", client.model_infer(request)).await;
        let refused = read_grpc(answer).expect_err("it is late");
        assert_eq!(refused.code, code(Form::GrpcRaw, 504, tonic::Code::DeadlineExceeded));
    };
    let (answer, ()) = tokio::join!(running, late);
    answer.expect("nobody else's deadline matters");
    // One run taught what a run takes: now what cannot be done in time is not even tried.
    let hopeless = long(2).parameter("timeout", 1_000);
    let refused = refused(&daemon, &hopeless, Form::Binary).await;
    assert_eq!((refused.code, refused.retry_after.is_some()), (504, true), "{refused:?}");
    assert!(refused.message.contains("not tried"), "{refused:?}");
    daemon.metric_is("graftd_flights", 0.0).await;
}

#[tokio::test]
async fn what_would_miss_its_models_target_is_told_to_come_later() {
    needs_runtime!();
    let flags = ["--sessions", "1", "--set", "loop.latency_target_ms=1"];
    let daemon = Setup::new(&["loop"]).flags(&flags).start().await;
    // What a run takes is not known yet, and late is better than never.
    long(0).of(&daemon, Form::Binary).await.expect("an answer");
    for form in FORMS {
        let refused = refused(&daemon, &long(1), form).await;
        assert_eq!(refused.code, code(form, 503, tonic::Code::Unavailable), "{refused:?}");
        assert!(refused.message.contains("latency target leaves"), "{refused:?}");
        assert!(refused.retry_after.is_some(), "{refused:?}");
    }
    assert!(daemon.metric("graftd_requests_shed_total").await >= 1.0);
    let labelled = |family| format!("{family}{{model=\"loop\",version=\"1\"}}");
    let [in_time, late] =
        ["in_time", "late"].map(|end| labelled(format!("graftd_answers_{end}_total")));
    assert_eq!((daemon.metric(&in_time).await, daemon.metric(&late).await), (0.0, 1.0));
}

#[tokio::test]
async fn one_request_too_many_is_told_so_at_once() {
    needs_runtime!();
    let flags = ["--requests-max", "1", "--sessions", "1"];
    let daemon = Setup::new(&["loop"]).flags(&flags).start().await;
    let held = daemon.hold();
    let running = short(0);
    let running = running.of(&daemon, Form::Json);
    let more = async {
        daemon.metric_is("graftd_requests_in_flight", 1.0).await;
        for form in FORMS {
            let refused = refused(&daemon, &short(1), form).await;
            assert_eq!(refused.code, code(form, 503, tonic::Code::Unavailable), "{refused:?}");
            assert!(refused.message.contains("--requests-max"), "{refused:?}");
            assert!(refused.retry_after.is_some(), "{refused:?}");
        }
        drop(held);
    };
    let (answer, ()) = tokio::join!(running, more);
    answer.expect("the first is not touched");
    assert_eq!(daemon.metric("graftd_requests_shed_total{reason=\"requests\"}").await, 4.0);
    assert_eq!(daemon.metric("graftd_requests_total{end=\"refused\"}").await, 4.0);
}

#[tokio::test]
async fn who_hangs_up_takes_queued_work_along() {
    needs_runtime!();
    let daemon = Setup::new(&["loop"]).flags(&["--sessions", "1"]).start().await;
    let held = daemon.hold();
    // One runs, one is in the session's hands already, the others wait in the queue.
    let first = short(0);
    let mut running = Box::pin(first.of(&daemon, Form::Binary));
    let hung_up = async {
        daemon.metric_is("graftd_requests_in_flight", 1.0).await;
        let asks: Vec<Ask> = (1..6).map(short).collect();
        let forms = [Form::Json, Form::GrpcRaw, Form::Binary, Form::GrpcContents, Form::Json];
        let mut others: Vec<_> =
            asks.iter().zip(forms).map(|(ask, form)| Box::pin(ask.of(&daemon, form))).collect();
        let all_there = daemon.metric_is("graftd_requests_in_flight", 6.0);
        tokio::pin!(all_there);
        std::future::poll_fn(|context| {
            for other in &mut others {
                assert!(other.as_mut().poll(context).is_pending(), "the first still runs");
            }
            all_there.as_mut().poll(context)
        })
        .await;
        assert!(daemon.metric("graftd_queued_rows").await >= 4.0);
        drop(others);
        daemon.metric_is("graftd_queued_rows", 0.0).await;
        daemon.metric_is("graftd_requests_in_flight", 1.0).await;
    };
    tokio::select! {
        () = hung_up => {}
        _ = running.as_mut() => panic!("the first cannot have ended"),
    }
    drop(held);
    running.await.expect("the first is not touched");
    daemon.metric_is("graftd_flights", 0.0).await;
    daemon.metric_is("graftd_batches_in_hand", 0.0).await;
}
