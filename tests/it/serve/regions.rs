//! Tensors in shared memory: both ways, both transports, and while their owner does with them what he likes.

use super::ask::{Ask, Form, fp32, grpc, read_grpc, tensor};
use super::daemon::{Daemon, Setup, needs_runtime, soon};
use bytes::Bytes;
use graftd::cli::client::{Answer, model_path};
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graftd::proto::{
    InferParameter, ModelInferRequest, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryUnregisterRequest,
};
use graftd::tensor::{DataType, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An object of shared memory that is gone with the test.
struct Object {
    key: String,
    path: PathBuf,
    file: File,
}

impl Object {
    fn new(name: &str, data: &[u8]) -> Self {
        let key = format!("/graftd-test-{}-{name}", std::process::id());
        let path = PathBuf::from(format!("/dev/shm{key}"));
        fs::write(&path, data).expect("/dev/shm can be written");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
        Self { key, path, file }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("it is there")
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A part of a region.
#[derive(Clone, Copy)]
struct Part(&'static str, u64, usize);

impl Part {
    fn json(self) -> Value {
        let Self(region, offset, size) = self;
        json!({ "shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size })
    }

    fn message(self) -> BTreeMap<String, InferParameter> {
        let Self(region, offset, size) = self;
        [
            ("shared_memory_region", ParameterChoice::StringParam(region.to_owned())),
            ("shared_memory_offset", ParameterChoice::Int64Param(offset.cast_signed())),
            ("shared_memory_byte_size", ParameterChoice::Uint64Param(size as u64)),
        ]
        .map(|(key, choice)| (key.to_owned(), InferParameter { parameter_choice: Some(choice) }))
        .into()
    }
}

async fn register(daemon: &Daemon, name: &str, object: &Object) -> Result<(), tonic::Status> {
    let byte_size = object.bytes().len() as u64;
    let (name, key) = (name.to_owned(), object.key.clone());
    let request = SystemSharedMemoryRegisterRequest { name, key, offset: 0, byte_size };
    let mut client = grpc(&daemon.setup.socket()).await;
    soon("an answer", client.system_shared_memory_register(request)).await.map(|_| ())
}

/// Asks an identity whose input is in one part and whose output goes to another; what was answered in words.
async fn identity(
    daemon: &Daemon,
    rest: bool,
    x: (DataType, &[i64]),
    from: Part,
    to: Option<Part>,
) -> Result<String, (u32, String)> {
    let (datatype, shape) = x;
    let model = format!("id_{}", datatype.name().to_lowercase().replace("bytes", "string"));
    if rest {
        let input = json!({ "name": "x", "datatype": datatype.name(), "shape": shape, "parameters": from.json() });
        let output = to.map(|to| json!({ "name": "y", "parameters": to.json() }));
        let body = json!({ "inputs": [input], "outputs": output.into_iter().collect::<Vec<_>>() });
        let body = Bytes::from(body.to_string());
        let path = model_path(&model, None, "/infer");
        let mut client = daemon.client().await;
        let answer: Answer = soon("an answer", client.post(&path, None, body)).await.expect("one");
        let text: Value = serde_json::from_slice(&answer.body).expect("JSON");
        return match answer.status {
            200 => Ok(text["outputs"][0].to_string()),
            status => Err((status.into(), text["error"].as_str().expect("an error").to_owned())),
        };
    }
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.name().to_owned(),
        shape: shape.to_vec(),
        parameters: from.message(),
        contents: None,
    };
    let output =
        |to: Part| InferRequestedOutputTensor { name: "y".to_owned(), parameters: to.message() };
    let request = ModelInferRequest {
        model_name: model,
        inputs: vec![input],
        outputs: to.map(output).into_iter().collect(),
        ..ModelInferRequest::default()
    };
    let mut client = grpc(&daemon.setup.socket()).await;
    match soon("an answer", client.model_infer(request)).await {
        Ok(answer) => Ok(format!("{:?}", answer.into_inner())),
        Err(status) => Err((
            u32::try_from(i32::from(status.code())).expect("a code"),
            status.message().to_owned(),
        )),
    }
}

#[tokio::test]
async fn tensors_go_both_ways_in_shared_memory() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32", "id_string"]).start().await;
    let x = fp32("x", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let given = Object::new("both-in", &[&[9; 8], &x.data[..]].concat());
    let taken = Object::new("both-out", &[7; 40]);
    register(&daemon, "in", &given).await.expect("it is ours");
    register(&daemon, "out", &taken).await.expect("it is ours");
    for rest in [true, false] {
        taken.file.write_all_at(&[7; 40], 0).expect("it can be written");
        let to = Some(Part("out", 4, 30));
        let got = identity(&daemon, rest, (DataType::Fp32, &[2, 3]), Part("in", 8, 24), to).await;
        let got = got.expect("an answer");
        for words in ["shared_memory_byte_size", "24", "shared_memory_region", "out"] {
            assert!(got.contains(words), "{got}");
        }
        assert!(!got.contains("\"data\""), "{got}");
        assert_eq!(taken.bytes(), [&[7; 4], &x.data[..], &[7; 12]].concat());
    }
    // The copy is a tensor as any other: the same rows sent are the same rows.
    let sent = Ask::new("id_fp32", vec![x]).of(&daemon, Form::Binary).await.expect("an answer");
    assert_eq!(sent.route, "hit=2 join=0 run=0");
    let texts = Object::new("both-texts", b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c");
    register(&daemon, "texts", &texts).await.expect("it is ours");
    for rest in [true, false] {
        let x = (DataType::Bytes, [3_i64, 1]);
        let to = Some(Part("out", 0, 40));
        let got = identity(&daemon, rest, (x.0, &x.1), Part("texts", 0, 15), to).await;
        got.expect("an answer");
        assert_eq!(taken.bytes()[..15], texts.bytes());
    }
}

#[tokio::test]
async fn regions_are_listed_forgotten_and_refused_alike_on_both_transports() {
    needs_runtime!();
    let flags = ["--shared-memory-regions-max", "2"];
    let daemon = Setup::new(&["id_fp32"]).flags(&flags).start().await;
    let object = Object::new("list", &[0; 64]);
    let mut rest = daemon.client().await;
    let path = "/v2/systemsharedmemory/region/a/register";
    let body = json!({ "key": object.key, "offset": 8, "byte_size": 16 }).to_string();
    let first = soon("an answer", rest.post(path, None, Bytes::from(body.clone()))).await;
    assert_eq!(first.expect("an answer").status, 200);
    let again = soon("an answer", rest.post(path, None, Bytes::from(body))).await.expect("one");
    assert_eq!(again.status, 409);
    register(&daemon, "b", &object).await.expect("it is ours");
    let again = register(&daemon, "b", &object).await.expect_err("it is there");
    assert_eq!(again.code(), tonic::Code::AlreadyExists);
    let full = register(&daemon, "c", &object).await.expect_err("two are the limit");
    assert!(full.message().contains("--shared-memory-regions-max"), "{full}");
    let status = soon("an answer", rest.get("/v2/systemsharedmemory/status")).await.expect("one");
    let status: Value = serde_json::from_slice(&status.body).expect("JSON");
    assert_eq!(status[0], json!({ "name": "a", "key": object.key, "offset": 8, "byte_size": 16 }));
    let mut client = grpc(&daemon.setup.socket()).await;
    let all = SystemSharedMemoryStatusRequest::default();
    let all = client.system_shared_memory_status(all).await.expect("an answer").into_inner();
    assert_eq!(all.regions.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(all.regions["b"].byte_size, 64);
    let gone = SystemSharedMemoryUnregisterRequest { name: "a".to_owned() };
    client.system_shared_memory_unregister(gone).await.expect("an answer");
    let a = SystemSharedMemoryStatusRequest { name: "a".to_owned() };
    let a = client.system_shared_memory_status(a).await.expect_err("it is gone");
    assert_eq!(a.code(), tonic::Code::NotFound);
    let path = "/v2/systemsharedmemory/unregister";
    let answer = soon("an answer", rest.post(path, None, Bytes::new())).await.expect("one");
    assert_eq!(answer.status, 200);
    let all = SystemSharedMemoryStatusRequest::default();
    let all = client.system_shared_memory_status(all).await.expect("an answer").into_inner();
    assert!(all.regions.is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_region_is_said_and_nothing_written() {
    needs_runtime!();
    let daemon = Setup::new(&["id_fp32", "id_bool", "id_string"]).start().await;
    let object = Object::new("wrong", &[2; 64]);
    let taken = Object::new("wrong-out", &[7; 64]);
    register(&daemon, "in", &object).await.expect("it is ours");
    register(&daemon, "out", &taken).await.expect("it is ours");
    let (all, part) = (Part("in", 0, 16), |offset, size| Part("in", offset, size));
    let to = |offset, size| Some(Part("out", offset, size));
    let table: [(DataType, Part, Option<Part>, u32, &str); 8] = [
        (DataType::Fp32, Part("no", 0, 16), None, 404, "no shared memory region \"no\""),
        (DataType::Fp32, all, Some(Part("no", 0, 16)), 404, "no shared memory region \"no\""),
        (DataType::Fp32, part(56, 16), None, 400, "16 bytes at offset 56 are not within"),
        (DataType::Fp32, part(0, 12), None, 400, "'shared_memory_byte_size' is 12"),
        (DataType::Fp32, all, to(0, 15), 400, "16 bytes are needed, but 15 were given"),
        (DataType::Fp32, all, to(60, 16), 400, "16 bytes at offset 60 are not within"),
        (DataType::Bool, part(0, 4), None, 400, "element 0 is the byte 2; a BOOL is"),
        (DataType::Bytes, part(0, 64), None, 400, "element 0 claims 33686018 bytes"),
    ];
    for (datatype, from, to, http, words) in table {
        let grpc = if http == 404 { tonic::Code::NotFound } else { tonic::Code::InvalidArgument };
        let grpc = u32::try_from(i32::from(grpc)).expect("a code");
        for (rest, expected) in [(true, http), (false, grpc)] {
            let got = identity(&daemon, rest, (datatype, &[1, 4]), from, to).await;
            let (code, message) = got.expect_err(words);
            assert_eq!(code, expected, "{message}");
            assert!(message.contains(words), "{message}");
        }
    }
    assert_eq!(taken.bytes(), [7; 64]);
    let off = Setup::new(&["id_fp32"]).flags(&["--shared-memory", "off"]).start().await;
    let refused = register(&off, "in", &object).await.expect_err("it is off");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    assert!(refused.message().contains("--shared-memory on"), "{refused}");
}

/// Floats of one row of the storm: four pages, so that a copy takes long enough to be disturbed.
const ROW: usize = 4096;
/// Rows of equal floats from 1 on that are written over each other.
const KINDS: u8 = 8;

fn row(kind: u8) -> Vec<u8> {
    f32::from(kind).to_le_bytes().repeat(ROW)
}

/// Fills, shortens and renames what the daemon reads and writes, as fast as it goes, until told to stop.
fn rage(objects: &[&Object], stop: &AtomicBool) -> u64 {
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        for object in objects {
            let full = 4 * ROW as u64;
            object.file.set_len(full).expect("it can grow");
            for kind in 1..=KINDS {
                object.file.write_all_at(&row(kind), 0).expect("it can be written");
            }
            object.file.set_len(full / 2).expect("it can shrink");
            object.file.set_len(0).expect("it can shrink");
            let _ = fs::remove_file(&object.path);
            fs::write(&object.path, b"another file under the same name").expect("a new file");
            turns += 1;
        }
    }
    turns
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_owners_do_answers_are_of_what_was_copied_and_nothing_dies() {
    needs_runtime!();
    let requests = if std::env::var_os("GRAFTD_LONG").is_some() { 100_000 } else { 1_000 };
    let daemon = Setup::new(&["id_fp32"]).start().await;
    let given = Arc::new(Object::new("storm-in", &row(1)));
    let taken = Arc::new(Object::new("storm-out", &row(0)));
    register(&daemon, "in", &given).await.expect("it is ours");
    register(&daemon, "out", &taken).await.expect("it is ours");
    let stop = Arc::new(AtomicBool::new(false));
    let raging = tokio::task::spawn_blocking({
        let (given, taken, stop) = (given.clone(), taken.clone(), stop.clone());
        move || rage(&[&given, &taken], &stop)
    });
    let input = InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, i64::try_from(ROW).expect("small")],
        parameters: Part("in", 0, 4 * ROW).message(),
        contents: None,
    };
    let mut client = grpc(&daemon.setup.socket()).await;
    let (mut answered, mut refused) = (0, 0);
    for number in 0..requests {
        let output = InferRequestedOutputTensor {
            name: "y".to_owned(),
            parameters: Part("out", 0, 4 * ROW).message(),
        };
        let request = ModelInferRequest {
            model_name: "id_fp32".to_owned(),
            inputs: vec![input.clone()],
            outputs: (number % 2 == 0).then_some(output).into_iter().collect(),
            ..ModelInferRequest::default()
        };
        match soon("an answer", client.model_infer(request)).await {
            Ok(answer) if number % 2 == 0 => {
                answered += 1;
                assert_eq!(answer.into_inner().raw_output_contents, [Bytes::new()]);
            }
            answer @ Ok(_) => {
                answered += 1;
                // Torn between two rows it may be; made of anything else it may not.
                let got = read_grpc(answer).expect("it is one");
                let known = |value: &f32| (0..=KINDS).any(|kind| f32::from(kind) == *value);
                assert!(super::ask::singles(&got.outputs[0]).iter().all(known), "{got:?}");
            }
            Err(status) => {
                refused += 1;
                assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
                assert!(status.message().contains("it was shortened after it was"), "{status}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let turns = soon("the rage's end", raging).await.expect("no panic");
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused, {turns} turns");
    // What was kept meanwhile is what the model says of the row it is kept for.
    let mut hits = 0;
    for kind in 0..=KINDS {
        let x = tensor("x", DataType::Fp32, &[1, ROW], row(kind));
        let ask = Ask::new("id_fp32", vec![x.clone()]);
        let got = ask.of(&daemon, Form::Binary).await.expect("an answer");
        hits += u32::from(got.route.starts_with("hit=1"));
        assert!(got.outputs == [Tensor { name: "y".to_owned(), ..x }], "kept for a row of {kind}");
    }
    assert!(hits > 0, "{answered} answers, and none of a whole row was kept");
    assert_eq!(daemon.metric("graftd_workers_died_total").await, 0.0);
}
