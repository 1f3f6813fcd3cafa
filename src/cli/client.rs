//! A small HTTP/1.1 client for the verbs that talk to a daemon: one connection, one request at a time.

use super::exit::{Failure, Kind};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// The header that says where the JSON of a body ends.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// The header that says how the rows of an answer were come by.
pub const ROUTE: HeaderName = HeaderName::from_static("graftd-route");

/// What stays as it is in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A connection to a daemon.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What a daemon answered, whatever the status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Client {
    /// Connects to the daemon on a Unix socket.
    ///
    /// # Errors
    /// A sentence that says why nobody answers there and what to type.
    pub async fn connect(socket: &Path) -> Result<Self, Failure> {
        let shown = socket.display();
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| Failure::new(Kind::Unavailable, match error.kind() {
            ErrorKind::NotFound => format!(
                "no daemon: there is no socket {shown}; start one with `graftd serve --socket \
                 {shown}`, or name the socket of a running one with --socket PATH"
            ),
            ErrorKind::ConnectionRefused => format!(
                "no daemon: nobody listens on {shown} any more; start one with `graftd serve \
                 --socket {shown}`, or name the socket of a running one with --socket PATH"
            ),
            ErrorKind::PermissionDenied => format!(
                "the socket {shown} may only be used by whoever started its daemon; become that \
                 user, or name another socket with --socket PATH"
            ),
            _ => format!("cannot connect to {shown}: {error}"),
        }))?;
        Self::over(stream).await
    }

    /// Speaks over a connection that is there already.
    ///
    /// # Errors
    /// When the connection breaks at once.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, Failure> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
        // How a connection ends is told to whoever waits for an answer on it.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Asks for what is at a path.
    ///
    /// # Errors
    /// When the connection breaks off; an error status is an answer.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, HeaderMap::new(), Bytes::new()).await
    }

    /// Posts a body whose first `header_length` bytes are JSON, or all of it.
    ///
    /// # Errors
    /// When the connection breaks off; an error status is an answer.
    pub async fn post(
        &mut self,
        path: &str,
        header_length: Option<usize>,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(length) = header_length {
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
        }
        self.send(Method::POST, path, headers, body).await
    }

    /// Sends any request.
    ///
    /// # Errors
    /// When the connection breaks off; an error status is an answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let uri: Uri = path.parse().map_err(|error| format!("{path} is no path: {error}"))?;
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
            (method, uri, headers);
        // HTTP/1.1 asks for one; on a Unix socket its value has no meaning.
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().insert(http::header::HOST, host);
        self.sender.ready().await.map_err(broke_off)?;
        let response = self.sender.send_request(request).await.map_err(broke_off)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broke_off)?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Answer {
    /// The answer if it is a good one.
    ///
    /// # Errors
    /// What the daemon said is wrong, with its status.
    pub fn success(self) -> Result<Self, Failure> {
        if self.status == 200 {
            return Ok(self);
        }
        let error = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let error = error.and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
        let text = error.unwrap_or_else(|| "without a reason".to_owned());
        let wait = match self.header("retry-after") {
            Some(seconds) => format!(" (try again in {seconds} s)"),
            None => String::new(),
        };
        let kind = match self.status {
            429 | 503 | 504 => Kind::Temporary,
            _ => Kind::Failed,
        };
        Err(Failure::new(kind, format!("the daemon answered {}: {text}{wait}", self.status)))
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The path of a model, or of one of its versions; `verb` is what follows, such as `/infer`.
#[must_use]
pub fn model_path(model: &str, version: Option<&str>, verb: &str) -> String {
    let model = utf8_percent_encode(model, SEGMENT);
    match version {
        None => format!("/v2/models/{model}{verb}"),
        Some(version) => {
            format!("/v2/models/{model}/versions/{}{verb}", utf8_percent_encode(version, SEGMENT))
        }
    }
}

/// The path of what was decided for a request, or for the last ones.
#[must_use]
pub fn explain_path(id: Option<&str>) -> String {
    let id = id.map(|id| format!("/{}", utf8_percent_encode(id, SEGMENT)));
    format!("/v2/graftd/explain{}", id.unwrap_or_default())
}

/// The path of an order to the model repository: `load` or `unload`.
#[must_use]
pub fn repository_path(model: &str, verb: &str) -> String {
    format!("/v2/repository/models/{}/{verb}", utf8_percent_encode(model, SEGMENT))
}

fn broke_off(error: hyper::Error) -> Failure {
    if error.is_parse() {
        let text = "whoever answers on this socket does not speak HTTP, and so is no graftd; name its \
                    socket with --socket PATH";
        return Failure::new(Kind::Unavailable, text);
    }
    let text = format!("the daemon closed the connection before it answered: {error}");
    Failure::new(Kind::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(model_path("a", None, ""), "/v2/models/a");
        assert_eq!(
            model_path("a b/c", Some("2"), "/infer"),
            "/v2/models/a%20b%2Fc/versions/2/infer"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_what_to_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let why = Client::connect(&path).await.unwrap_err().message;
        assert!(why.contains("no socket") && why.contains("graftd serve --socket"), "{why}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let why = Client::connect(&path).await.unwrap_err().message;
        assert!(why.contains("nobody listens") && why.contains("graftd serve --socket"), "{why}");
    }
}
