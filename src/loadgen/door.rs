//! Where a server is and how it is spoken to, and one connection to it.

use super::form::{Form, Slot};
use super::{grpc, rest};
use crate::traffic::measured::End;
use crate::traffic::workload::Ask;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use tokio::net::{TcpStream, UnixStream};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On a host's port.
    Tcp(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

/// The protocol's two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1 with tensors in binary
    Http,
    /// gRPC
    Grpc,
}

/// A server to be asked.
#[derive(Clone, Debug)]
pub struct Door {
    /// Where it listens.
    pub place: Place,
    /// How it is spoken to.
    pub protocol: Protocol,
}

/// One connection.
#[derive(Debug)]
pub enum Line {
    /// Which takes one request at a time.
    Rest(rest::Sender),
    /// Which takes many.
    Grpc(grpc::Sender),
}

/// A request in the bytes of its protocol.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The path it goes to.
    pub path: String,
    /// For HTTP, how many bytes of the body are JSON.
    pub json_bytes: usize,
    /// The body.
    pub body: Bytes,
}

impl Door {
    /// Connects.
    ///
    /// # Errors
    /// A sentence on who does not answer there.
    pub async fn connect(&self) -> Result<Line, String> {
        let nobody = |error: std::io::Error| format!("nobody answers at {}: {error}", self.place);
        match &self.place {
            Place::Unix(path) => self.over(UnixStream::connect(path).await.map_err(nobody)?).await,
            Place::Tcp(host) => {
                let stream = TcpStream::connect(host).await.map_err(nobody)?;
                // A request that is not sent at once is not measured as it was meant.
                stream.set_nodelay(true).map_err(nobody)?;
                self.over(stream).await
            }
        }
    }

    async fn over<S>(&self, stream: S) -> Result<Line, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let host = match &self.place {
            Place::Unix(_) => "localhost".to_owned(),
            Place::Tcp(host) => host.clone(),
        };
        match self.protocol {
            Protocol::Http => Ok(Line::Rest(rest::Sender::over(stream, host).await?)),
            Protocol::Grpc => Ok(Line::Grpc(grpc::Sender::over(stream, host).await?)),
        }
    }

    /// A request for a form's rows.
    #[must_use]
    pub fn request(&self, form: &Form, ask: &Ask) -> Wire {
        match self.protocol {
            Protocol::Http => rest::request(form, ask),
            Protocol::Grpc => grpc::request(form, ask),
        }
    }
}

impl Line {
    /// Another handle of the same connection, where one takes many requests at once.
    #[must_use]
    pub fn another(&self) -> Option<Self> {
        match self {
            Self::Rest(_) => None,
            Self::Grpc(sender) => Some(Self::Grpc(sender.clone())),
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn infer(&mut self, request: Wire) -> End {
        match self {
            Self::Rest(sender) => sender.infer(request).await,
            Self::Grpc(sender) => sender.infer(request).await,
        }
    }

    /// The inputs of a model.
    ///
    /// # Errors
    /// What the server said.
    pub async fn inputs(&mut self, model: &str) -> Result<Vec<Slot>, String> {
        let slots = match self {
            Self::Rest(sender) => sender.inputs(model).await,
            Self::Grpc(sender) => sender.inputs(model).await,
        };
        slots.map_err(|why| format!("model '{model}': {why}"))
    }

    /// The server's name and version.
    ///
    /// # Errors
    /// What the server said.
    pub async fn server(&mut self) -> Result<String, String> {
        match self {
            Self::Rest(sender) => sender.server().await,
            Self::Grpc(sender) => sender.server().await,
        }
    }
}
