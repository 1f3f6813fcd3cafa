//! The protocol over gRPC: unary calls on a connection that takes many at once.

use super::door::Wire;
use super::form::{Form, Parameter, Slot};
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::InferInputTensor;
use crate::proto::{
    InferParameter, ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse,
    ServerMetadataRequest, ServerMetadataResponse,
};
use crate::traffic::measured::End;
use crate::traffic::workload::Ask;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

const SERVICE: &str = "/inference.GRPCInferenceService";
/// The byte that says whether a message is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// What may be under way towards a client before it has read; the default of 64 KiB holds up large answers.
const WINDOW_BYTES: u32 = 4 << 20;

/// One connection.
#[derive(Clone, Debug)]
pub struct Sender {
    inner: SendRequest<Full<Bytes>>,
    host: String,
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    body.put(message.encode_to_vec().as_slice());
    body.freeze()
}

/// A request for rows of a form.
pub(super) fn request(form: &Form, ask: &Ask) -> Wire {
    let mut message = ModelInferRequest {
        model_name: form.model.clone(),
        parameters: form.parameters(ask).map(|known| parameter(&known)).collect(),
        ..ModelInferRequest::default()
    };
    for tensor in form.tensors(ask.row, ask.rows) {
        message.inputs.push(InferInputTensor {
            name: tensor.name,
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape.to_wire(),
            ..InferInputTensor::default()
        });
        message.raw_input_contents.push(tensor.data);
    }
    Wire { path: format!("{SERVICE}/ModelInfer"), json_bytes: 0, body: framed(&message) }
}

fn parameter((name, value): &(String, Parameter)) -> (String, InferParameter) {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Integer(value) => ParameterChoice::Int64Param(*value),
        Parameter::Text(value) => ParameterChoice::StringParam(value.clone()),
    };
    (name.clone(), InferParameter { parameter_choice: Some(choice) })
}

impl Sender {
    pub(super) async fn over<S>(stream: S, host: String) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES)
            .handshake(TokioIo::new(stream));
        let (inner, connection) = handshake.await.map_err(|error| error.to_string())?;
        // How it ends is told to whoever waits for an answer on it.
        tokio::spawn(connection);
        Ok(Self { inner, host })
    }

    /// The message that answers a call.
    async fn call(&mut self, path: &str, body: Bytes) -> Result<Bytes, End> {
        let request = Request::post(format!("http://{}{path}", self.host))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body))
            .map_err(|error| End::Broken(error.to_string()))?;
        let broken = |error: hyper::Error| End::Broken(format!("the connection broke: {error}"));
        self.inner.ready().await.map_err(broken)?;
        let response = self.inner.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broken)?;
        // Where there is no message, the status stands in the head.
        let trailers = body.trailers().unwrap_or(&head.headers);
        match trailers.get("grpc-status").map(|status| status.as_bytes()) {
            Some(b"0") => Ok(body.to_bytes()),
            Some(_) => Err(End::Refused(refusal(trailers))),
            None => Err(End::Refused(format!("{} without a gRPC status", head.status))),
        }
    }

    pub(super) async fn infer(&mut self, wire: Wire) -> End {
        self.call(&wire.path, wire.body).await.err().unwrap_or(End::Answered)
    }

    async fn unary<T: Message + Default>(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<T, String> {
        let answer = self.call(&format!("{SERVICE}/{method}"), framed(message)).await;
        let answer = answer.map_err(|end| match end {
            End::Refused(why) | End::Broken(why) => why,
            End::Answered | End::HungUp => "no answer".to_owned(),
        })?;
        let message = answer.get(PREFIX_BYTES..).ok_or("an answer without a message")?;
        T::decode(message).map_err(|error| format!("{method} gave no such message: {error}"))
    }

    pub(super) async fn inputs(&mut self, model: &str) -> Result<Vec<Slot>, String> {
        let name = model.to_owned();
        let asked = ModelMetadataRequest { name, ..ModelMetadataRequest::default() };
        let metadata: ModelMetadataResponse = self.unary("ModelMetadata", &asked).await?;
        let slots = metadata.inputs.into_iter();
        Ok(slots
            .map(|input| Slot { name: input.name, datatype: input.datatype, shape: input.shape })
            .collect())
    }

    pub(super) async fn server(&mut self) -> Result<String, String> {
        let server: ServerMetadataResponse =
            self.unary("ServerMetadata", &ServerMetadataRequest::default()).await?;
        Ok(format!("{} {} over gRPC", server.name, server.version))
    }
}

/// A status with the words of the server.
fn refusal(trailers: &HeaderMap) -> String {
    let text = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let message = percent_encoding::percent_decode_str(text("grpc-message")).decode_utf8_lossy();
    // Errors of one kind are counted together, and what makes each one different comes late in a sentence.
    let message: String = message.chars().take(60).collect();
    format!("status {}: {message}", text("grpc-status"))
}
