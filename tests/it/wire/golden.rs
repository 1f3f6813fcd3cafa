//! Requests as real clients write them, what they mean, and the answers byte for byte.
//!
//! Each file in `golden/` is one request and what becomes of it: sections that start with `== ` and
//! a name. Binary sections are in hexadecimal. The model echoes its inputs. `GRAFTD_REGENERATE=1
//! cargo test --test it golden` rewrites the sections that follow from the request; read the
//! difference before committing it.

use super::{decode, echo, sent};
use bytes::Bytes;
use graftd::error::InferError;
use graftd::oip::{grpc, rest};
use graftd::proto;
use graftd::request::InferRequest;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

type Sections = BTreeMap<String, String>;

fn sections(text: &str) -> Sections {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let parts = text.split("\n== ").skip(1);
    let section = |part: &str| {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        (name.to_owned(), content.to_owned())
    };
    parts.map(section).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(40).map(line).collect::<Vec<_>>().join("\n")
}

/// A request in words; `form` tells in which form an output goes.
fn meaning(request: &InferRequest, form: impl Fn(&str) -> &'static str) -> String {
    let mut text = format!("id {:?}\n", request.id);
    if !request.model.is_empty() {
        writeln!(text, "model {:?} version {:?}", request.model, request.version)
            .expect("a string");
    }
    for (key, value) in &request.parameters {
        writeln!(text, "parameter {key:?} {value:?}").expect("a string");
    }
    for input in &request.inputs {
        let (name, data) = (&input.name, hex(&input.data).replace('\n', ""));
        writeln!(text, "input {name:?} {} {} {data}", input.datatype, input.shape)
            .expect("a string");
    }
    for output in &request.outputs {
        writeln!(text, "output {:?} {}", output.name, form(&output.name)).expect("a string");
    }
    if request.outputs.is_empty() {
        writeln!(text, "all outputs {}", form("any")).expect("a string");
    }
    text.trim_end().to_owned()
}

fn error(error: &InferError) -> (String, String) {
    (format!("{:?}", error.kind), error.message.clone())
}

fn over_rest(given: &Sections) -> Result<Sections, InferError> {
    let json = given.get("request json").map_or("", String::as_str);
    let tail = given.get("request tail").map(|tail| unhex(tail));
    let header_length = tail.as_ref().map(|_| json.len());
    let body = [json.as_bytes(), &tail.unwrap_or_default()].concat();
    let (request, form) = decode(Bytes::from(body), header_length)?;
    let name = |output: &str| if form.is_binary(output) { "binary" } else { "json" };
    let mut out = Sections::from([("meaning".to_owned(), meaning(&request, name))]);
    let answer = rest::encode_infer(&echo(&request), &form)?;
    let whole = answer.chunks.concat();
    let (json, tail) = whole.split_at(answer.header_length.unwrap_or(whole.len()));
    let json = String::from_utf8(json.to_vec()).expect("JSON is UTF-8");
    out.insert("response json".to_owned(), json);
    if answer.header_length.is_some() {
        out.insert("response tail".to_owned(), hex(tail));
    }
    Ok(out)
}

fn over_grpc(message: &str) -> Result<Sections, InferError> {
    let message = Bytes::from(unhex(message));
    let message = proto::ModelInferRequest::decode(message).expect("a ModelInferRequest");
    let request = sent(grpc::decode_infer(message)?);
    let answer = grpc::encode_infer(echo(&request)).encode_to_vec();
    Ok(Sections::from([
        ("meaning".to_owned(), meaning(&request, |_| "raw")),
        ("response grpc".to_owned(), hex(&answer)),
    ]))
}

fn check(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a golden file");
    let given = sections(&text);
    let outcome = given.get("request grpc").map_or_else(|| over_rest(&given), |hex| over_grpc(hex));
    let outcome = outcome.unwrap_or_else(|failure| Sections::from([error(&failure)]));
    let requests = given.into_iter().filter(|(name, _)| name.starts_with("request"));
    let comment = text.split("\n== ").next().unwrap_or_default();
    let mut fresh = comment.to_owned();
    for (name, content) in requests.chain(outcome) {
        write!(fresh, "\n== {name}\n{content}").expect("a string");
    }
    fresh.push('\n');
    if std::env::var_os("GRAFTD_REGENERATE").is_some() {
        std::fs::write(path, &fresh).expect("the golden file can be written");
    }
    let stored = std::fs::read_to_string(path).expect("a golden file");
    assert_eq!(stored, fresh, "{}", path.display());
}

#[test]
fn requests_mean_what_they_meant_and_are_answered_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wire/golden");
    let files = std::fs::read_dir(folder).expect("tests/it/wire/golden");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "the golden files are there");
    paths.iter().for_each(|path| check(path));
}

#[test]
fn small_bodies_are_as_clients_read_them() {
    use graftd::request::{ModelMetadata, ServerMetadata, TensorMetadata};
    use graftd::tensor::DataType;
    let text = |body: Bytes| String::from_utf8(body.to_vec()).expect("UTF-8");
    assert_eq!(text(rest::metadata::live(true)), r#"{"live":true}"#);
    assert_eq!(text(rest::metadata::ready(false)), r#"{"ready":false}"#);
    assert_eq!(text(rest::metadata::model_ready("a\"b", true)), r#"{"name":"a\"b","ready":true}"#);
    assert_eq!(text(rest::metadata::error("no\n\u{1}")), r#"{"error":"no\n\u0001"}"#);
    let server = ServerMetadata {
        name: "graftd".to_owned(),
        version: "0.1.0".to_owned(),
        extensions: vec!["binary_tensor_data".to_owned(), "parameters".to_owned()],
    };
    assert_eq!(
        text(rest::metadata::server_metadata(&server)),
        r#"{"name":"graftd","version":"0.1.0","extensions":["binary_tensor_data","parameters"]}"#
    );
    let tensor = |name: &str, datatype, shape: &[i64]| TensorMetadata {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    let mut model = ModelMetadata {
        name: "m".to_owned(),
        versions: vec!["1".to_owned(), "3".to_owned()],
        platform: "onnxruntime_onnx".to_owned(),
        inputs: vec![tensor("IN", DataType::Fp32, &[-1, 3]), tensor("S", DataType::Int64, &[])],
        outputs: vec![],
        properties: BTreeMap::new(),
    };
    let bare = r#"{"name":"m","versions":["1","3"],"platform":"onnxruntime_onnx","inputs":[{"name":"IN","datatype":"FP32","shape":[-1,3]},{"name":"S","datatype":"INT64","shape":[]}],"outputs":[]"#;
    assert_eq!(text(rest::metadata::model_metadata(&model)), format!("{bare}}}"));
    model.properties = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(
        text(rest::metadata::model_metadata(&model)),
        format!("{bare},\"properties\":{{\"a\":\"1\",\"b\":\"2\"}}}}")
    );
    let message = grpc::model_metadata(&model);
    assert_eq!(message.inputs[0].shape, [-1, 3]);
    assert_eq!(message.inputs[1].datatype, "INT64");
    assert_eq!(message.properties.len(), 2);
}
