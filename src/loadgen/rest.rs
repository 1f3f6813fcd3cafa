//! The protocol over HTTP/1.1, tensors in binary: one request a connection at a time.

use super::door::Wire;
use super::form::{Form, Parameter, Slot};
use crate::traffic::measured::End;
use crate::traffic::workload::Ask;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// What stays as it is in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One connection.
#[derive(Debug)]
pub struct Sender {
    inner: SendRequest<Full<Bytes>>,
    host: String,
}

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<Slot>,
}

#[derive(Deserialize)]
struct Server {
    name: String,
    version: String,
}

fn model_path(model: &str) -> String {
    format!("/v2/models/{}", utf8_percent_encode(model, SEGMENT))
}

/// A request for rows of a form.
pub(super) fn request(form: &Form, ask: &Ask) -> Wire {
    let tensors = form.tensors(ask.row, ask.rows);
    let described = tensors.iter().map(|tensor| {
        json!({
            "name": tensor.name, "datatype": tensor.datatype.name(), "shape": tensor.shape.0,
            "parameters": { "binary_data_size": tensor.data.len() },
        })
    });
    let mut parameters: Map<String, Value> =
        form.parameters(ask).map(|known| parameter(&known)).collect();
    parameters.insert("binary_data_output".to_owned(), Value::Bool(true));
    let inputs: Vec<Value> = described.collect();
    let json = json!({ "inputs": inputs, "parameters": parameters }).to_string();
    let tail: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
    let mut body = BytesMut::with_capacity(json.len() + tail);
    body.extend_from_slice(json.as_bytes());
    tensors.iter().for_each(|tensor| body.extend_from_slice(&tensor.data));
    let path = format!("{}/infer", model_path(&form.model));
    Wire { path, json_bytes: json.len(), body: body.freeze() }
}

fn parameter((name, value): &(String, Parameter)) -> (String, Value) {
    let value = match value {
        Parameter::Bool(value) => json!(value),
        Parameter::Integer(value) => json!(value),
        Parameter::Text(value) => json!(value),
    };
    (name.clone(), value)
}

impl Sender {
    pub(super) async fn over<S>(stream: S, host: String) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (inner, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // How it ends is told to whoever waits for an answer on it.
        tokio::spawn(connection);
        Ok(Self { inner, host })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        json_bytes: Option<usize>,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, self.host.as_str());
        if let Some(length) = json_bytes {
            request = request
                .header(HEADER_LENGTH, length)
                .header(CONTENT_TYPE, "application/octet-stream");
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let broken = |error: hyper::Error| format!("the connection broke: {error}");
        self.inner.ready().await.map_err(broken)?;
        self.inner.send_request(request).await.map_err(broken)
    }

    pub(super) async fn infer(&mut self, wire: Wire) -> End {
        let sent = self.send(Method::POST, &wire.path, Some(wire.json_bytes), wire.body).await;
        let response = match sent {
            Ok(response) => response,
            Err(why) => return End::Broken(why),
        };
        let status = response.status();
        match response.into_body().collect().await {
            Err(error) => End::Broken(format!("the connection broke: {error}")),
            Ok(_) if status == StatusCode::OK => End::Answered,
            Ok(body) => End::Refused(refusal(status, &body.to_bytes())),
        }
    }

    async fn get<T: for<'a> Deserialize<'a>>(&mut self, path: &str) -> Result<T, String> {
        let response = self.send(Method::GET, path, None, Bytes::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let body = body.to_bytes();
        if status != StatusCode::OK {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| format!("GET {path} gave no such JSON: {error}"))
    }

    pub(super) async fn inputs(&mut self, model: &str) -> Result<Vec<Slot>, String> {
        Ok(self.get::<Metadata>(&model_path(model)).await?.inputs)
    }

    pub(super) async fn server(&mut self) -> Result<String, String> {
        let Server { name, version } = self.get("/v2").await?;
        Ok(format!("{name} {version} over HTTP"))
    }
}

/// A status with the words of the server, as far as there are any.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|body| body.get("error")?.as_str());
    // Errors of one kind are counted together, and what makes each one different comes late in a sentence.
    let said = said.map(|said| said.chars().take(60).collect::<String>());
    said.map_or_else(|| status.to_string(), |said| format!("{}: {said}", status.as_u16()))
}
