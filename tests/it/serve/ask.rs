//! One question in every form that the protocol has, over Unix sockets.

use super::daemon::{Daemon, soon};
use crate::wire::agree::{contents, values};
use bytes::Bytes;
use graftd::cli::client::{Answer, Client, HEADER_LENGTH, model_path};
use graftd::oip::rest::{Decoded, decode_infer};
use graftd::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use graftd::proto::infer_parameter::ParameterChoice;
use graftd::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use graftd::proto::{InferParameter, ModelInferRequest, ModelInferResponse};
use graftd::request::{Input, Parameter};
use graftd::tensor::{DataType, Shape, Tensor};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// How a question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Binary,
    /// REST with every second tensor in JSON.
    Mixed,
    GrpcRaw,
    GrpcContents,
}

impl Form {
    pub(crate) const ALL: [Self; 5] =
        [Self::Json, Self::Binary, Self::Mixed, Self::GrpcRaw, Self::GrpcContents];

    /// Whether this form can carry the datatype.
    pub(crate) fn carries(self, datatype: DataType) -> bool {
        let half = matches!(datatype, DataType::Fp16 | DataType::Bf16);
        !half || matches!(self, Self::Binary | Self::GrpcRaw)
    }
}

/// A question.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) version: Option<String>,
    pub(crate) id: String,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<String>,
}

/// A good answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Got {
    pub(crate) version: String,
    pub(crate) id: String,
    pub(crate) route: String,
    /// The `graftd_rows` parameter.
    pub(crate) rows: Option<String>,
    /// The `graftd_explain` parameter.
    pub(crate) explain: Option<String>,
    pub(crate) outputs: Vec<Tensor>,
}

/// A refusal: the HTTP status or the gRPC code, and what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) retry_after: Option<String>,
}

/// A tensor from its elements' bytes.
pub(crate) fn tensor(name: &str, datatype: DataType, shape: &[usize], data: Vec<u8>) -> Tensor {
    let (name, shape) = (name.to_owned(), Shape(shape.to_vec()));
    Tensor { name, datatype, shape, data: Bytes::from(data) }
}

/// A tensor of singles.
pub(crate) fn fp32(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, DataType::Fp32, shape, data)
}

/// The singles of a tensor.
pub(crate) fn singles(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.datatype, DataType::Fp32);
    tensor.data.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

impl Ask {
    /// A question to a model.
    pub(crate) fn new(model: &str, inputs: Vec<Tensor>) -> Self {
        Self { model: model.to_owned(), inputs, ..Self::default() }
    }

    pub(crate) fn parameter(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    pub(crate) fn outputs(mut self, names: &[&str]) -> Self {
        self.outputs = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn path(&self) -> String {
        model_path(&self.model, self.version.as_deref(), "/infer")
    }

    /// The body of a REST request, and the length of its JSON.
    pub(crate) fn body(&self, form: Form) -> (Bytes, Option<usize>) {
        let binary = |number: usize| match form {
            Form::Json => false,
            Form::Mixed => number.is_multiple_of(2),
            _ => true,
        };
        let mut tail = Vec::new();
        let mut inputs = Vec::new();
        for (number, tensor) in self.inputs.iter().enumerate() {
            let mut input = json!({
                "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.0,
            });
            if binary(number) {
                input["parameters"] = json!({ "binary_data_size": tensor.data.len() });
                tail.extend_from_slice(&tensor.data);
            } else {
                input["data"] = Value::Array(values(tensor));
            }
            inputs.push(input);
        }
        let mut request = json!({ "id": self.id, "parameters": self.parameters, "inputs": inputs });
        request["parameters"]["binary_data_output"] = json!(form == Form::Binary);
        let output = |(number, name)| json!({ "name": name, "parameters": { "binary_data": binary(number + 1) } });
        if !self.outputs.is_empty() {
            request["outputs"] = self.outputs.iter().enumerate().map(output).collect();
        }
        let json = request.to_string().into_bytes();
        let length = (form != Form::Json).then_some(json.len());
        (Bytes::from([json, tail].concat()), length)
    }

    /// The message of a gRPC request.
    pub(crate) fn message(&self, form: Form) -> ModelInferRequest {
        let raw = form == Form::GrpcRaw;
        let input = |tensor: &Tensor| InferInputTensor {
            name: tensor.name.clone(),
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape.to_wire(),
            contents: (!raw).then(|| contents(tensor)),
            ..InferInputTensor::default()
        };
        let output = |name: &String| InferRequestedOutputTensor {
            name: name.clone(),
            ..InferRequestedOutputTensor::default()
        };
        let parameter = |(key, value): (&String, &Value)| {
            let choice = match value {
                Value::Bool(value) => ParameterChoice::BoolParam(*value),
                Value::String(text) => ParameterChoice::StringParam(text.clone()),
                number => ParameterChoice::Int64Param(number.as_i64().expect("a whole number")),
            };
            (key.clone(), InferParameter { parameter_choice: Some(choice) })
        };
        let bytes = self.inputs.iter().filter(|_| raw).map(|tensor| tensor.data.clone());
        ModelInferRequest {
            model_name: self.model.clone(),
            model_version: self.version.clone().unwrap_or_default(),
            id: self.id.clone(),
            parameters: self.parameters.iter().map(parameter).collect(),
            inputs: self.inputs.iter().map(input).collect(),
            outputs: self.outputs.iter().map(output).collect(),
            raw_input_contents: bytes.collect(),
        }
    }

    /// Asks on a connection of its own.
    pub(crate) async fn of(&self, daemon: &Daemon, form: Form) -> Result<Got, Refused> {
        if matches!(form, Form::GrpcRaw | Form::GrpcContents) {
            let mut client = grpc(&daemon.setup.socket()).await;
            let answer = soon("an answer", client.model_infer(self.message(form))).await;
            return read_grpc(answer);
        }
        self.over(&mut daemon.client().await, form).await
    }

    /// Asks over REST on a connection that is there.
    pub(crate) async fn over(&self, client: &mut Client, form: Form) -> Result<Got, Refused> {
        let (body, length) = self.body(form);
        let answer = soon("an answer", client.post(&self.path(), length, body)).await;
        read_rest(&answer.expect("the connection stays"))
    }
}

/// Reads a REST answer, which has the form of a request but for two names.
pub(crate) fn read_rest(answer: &Answer) -> Result<Got, Refused> {
    if answer.status != 200 {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let message = body["error"].as_str().expect("an error").to_owned();
        let retry_after = answer.header("retry-after").map(str::to_owned);
        return Err(Refused { code: answer.status.into(), message, retry_after });
    }
    let length = answer.header(HEADER_LENGTH.as_str()).map(|n| n.parse().expect("a number"));
    let (head, tail) = answer.body.split_at(length.unwrap_or(answer.body.len()));
    let whole: Value = serde_json::from_slice(head).expect("JSON");
    let head = str::from_utf8(head).expect("UTF-8").replacen("\"outputs\"", "\"inputs\"", 1);
    let (body, length) = ([head.as_bytes(), tail].concat(), length.map(|_| head.len()));
    let decoded = decode_infer(Bytes::from(body), length).expect("an answer that reads");
    let Decoded::Request(read, _) = decoded else { panic!("an answer without JSON") };
    let text = |key: &str| {
        read.parameters.get(key).map(|value| match value {
            Parameter::Text(text) => text.clone(),
            other => panic!("{key} is {other:?}"),
        })
    };
    let (rows, explain) = (text("graftd_rows"), text("graftd_explain"));
    Ok(Got {
        version: whole["model_version"].as_str().expect("a version").to_owned(),
        id: read.id,
        route: answer.header("graftd-route").expect("a route").to_owned(),
        rows,
        explain,
        outputs: read.inputs.into_iter().map(sent).collect(),
    })
}

fn sent(input: Input) -> Tensor {
    match input {
        Input::Sent(tensor) => tensor,
        Input::Shared(shared) => panic!("{shared:?} is not in the answer"),
    }
}

/// Reads a gRPC answer.
pub(crate) fn read_grpc(
    answer: Result<tonic::Response<ModelInferResponse>, tonic::Status>,
) -> Result<Got, Refused> {
    let answer = answer.map_err(|status| {
        let retry_after = status.metadata().get("retry-after");
        Refused {
            code: u32::try_from(i32::from(status.code())).expect("a code"),
            message: status.message().to_owned(),
            retry_after: retry_after.map(|wait| wait.to_str().expect("text").to_owned()),
        }
    })?;
    let route = answer.metadata().get("graftd-route").expect("a route");
    let route = route.to_str().expect("text").to_owned();
    let message = answer.into_inner();
    let text = |key: &str| {
        message.parameters.get(key).map(|value| match &value.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => text.clone(),
            other => panic!("{key} is {other:?}"),
        })
    };
    let (rows, explain) = (text("graftd_rows"), text("graftd_explain"));
    assert_eq!(message.outputs.len(), message.raw_output_contents.len());
    let outputs = message.outputs.into_iter().zip(message.raw_output_contents);
    let outputs = outputs.map(|(output, data)| Tensor {
        datatype: DataType::from_name(&output.datatype).expect("a datatype"),
        shape: Shape(output.shape.iter().map(|&d| usize::try_from(d).expect("a size")).collect()),
        name: output.name,
        data,
    });
    let (version, id) = (message.model_version, message.id);
    Ok(Got { version, id, route, rows, explain, outputs: outputs.collect() })
}

/// An HTTP/2 connection, as a gRPC client wants it.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: SendRequest<tonic::body::Body>,
}

impl Http2 {
    /// Connects with prior knowledge.
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).await.expect("the daemon listens")).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::spoken(hyper::client::conn::http2::Builder::new(TokioExecutor::new()), stream).await
    }

    /// Speaks to whoever is at the other end, by these settings.
    pub(crate) async fn spoken(
        builder: hyper::client::conn::http2::Builder<TokioExecutor>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { sender }
    }
}

impl tower_service::Service<Request<tonic::body::Body>> for Http2 {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

/// The generated gRPC client on a connection of its own.
pub(crate) async fn grpc(socket: &Path) -> GrpcInferenceServiceClient<Http2> {
    grpc_over(Http2::connect(socket).await)
}

/// The generated gRPC client on a stream that is there.
pub(crate) async fn grpc_on(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> GrpcInferenceServiceClient<Http2> {
    grpc_over(Http2::over(stream).await)
}

/// The generated gRPC client on an HTTP/2 connection that is there.
pub(crate) fn grpc_over(connection: Http2) -> GrpcInferenceServiceClient<Http2> {
    let origin = http::Uri::from_static("http://localhost");
    GrpcInferenceServiceClient::with_origin(connection, origin)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}
