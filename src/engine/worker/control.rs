//! What the daemon and a worker say to one another beside batches: one JSON object a line.

use super::ring::Geometry;
use crate::engine::onnx::SessionOptions;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Bytes of a line in either direction.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// What a worker is to load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOrder {
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// The private copy of the model.
    pub model: PathBuf,
    /// How its session is set up.
    pub session: SessionOptions,
    /// How the shared memory is divided.
    pub geometry: Geometry,
    /// Whether loading, and what is run until the model serves, gives way to whoever serves meanwhile. It must not
    /// where requests wait for this worker.
    pub gives_way: bool,
    /// Whether all of it gives way for good, the runtime's own threads too: it is only tried out, and will not serve.
    pub trial: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LoadReply {
    /// The model is loaded.
    Ready {
        /// What the operator should know.
        warnings: Vec<String>,
    },
    /// The runtime refused it.
    Refused {
        /// Why.
        reason: String,
    },
}

/// The number of a model among those that live in one worker.
pub(super) type ModelNumber = u32;

/// What the daemon says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Load a model; the memory that its batches cross in comes with the line.
    Load { model: ModelNumber, order: LoadOrder },
    /// Run a model's batches as urgently as any: what was tried on it is over.
    Serve { model: ModelNumber },
    /// Let a model go that has nothing in hand.
    Unload { model: ModelNumber },
    /// End the run of this batch soon, if it still runs.
    Terminate { model: ModelNumber, lane: usize, batch: u64 },
}

/// What a worker says: what came of an order to load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Word {
    pub model: ModelNumber,
    pub reply: LoadReply,
}

/// A line on its way to a worker, and the memory that goes with it.
#[derive(Debug)]
pub(super) struct Letter {
    pub order: Order,
    pub memory: Option<OwnedFd>,
}

impl Letter {
    /// Sends the line in one piece.
    ///
    /// # Errors
    /// When the socket is closed, or takes no whole line: then whoever should read does not.
    pub(super) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let line = line(&self.order)?;
        let memory: Vec<BorrowedFd<'_>> = self.memory.iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut room);
        if !memory.is_empty() {
            along.push(SendAncillaryMessage::ScmRights(&memory));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(socket, &[IoSlice::new(&line)], &mut along, flags)?;
        if sent < line.len() {
            return Err(io::Error::other("the worker does not listen"));
        }
        Ok(())
    }
}

/// A line as it goes over the socket.
pub(super) fn line(what: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(what).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// The worker's side of the socket: lines, and the memory that comes with them, in order.
#[derive(Debug)]
pub(super) struct Mailbox {
    socket: OwnedFd,
    bytes: Vec<u8>,
    memory: VecDeque<OwnedFd>,
}

impl Mailbox {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, bytes: Vec::new(), memory: VecDeque::new() }
    }

    /// Waits for the next line; none once the daemon is gone.
    ///
    /// # Errors
    /// When what came is no order.
    pub(super) fn next(&mut self) -> Result<Option<Letter>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let order = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                let comes = matches!(order, Order::Load { .. });
                let memory = if comes { self.memory.pop_front() } else { None };
                return Ok(Some(Letter { order, memory }));
            }
            if !self.receive() || self.bytes.len() > LINE_BYTES_MAX {
                return Ok(None);
            }
        }
    }

    /// Takes what is there; says no where the other side is gone.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = RecvAncillaryBuffer::new(&mut room);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let count = loop {
            match recvmsg(&self.socket, parts, &mut along, RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => break got.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        };
        for message in along.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.memory.extend(descriptors);
            }
        }
        self.bytes.extend_from_slice(&bytes[..count]);
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn memory_comes_with_the_order_that_it_is_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut mailbox = Mailbox::new(theirs.into());
        let memory = |bytes: u64| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(bytes).unwrap();
            Some(file.into())
        };
        let session = SessionOptions {
            provider: crate::engine::onnx::Provider::Cpu,
            fallback_cpu: false,
            threads: 1,
            lanes: 1,
            tuning: Default::default(),
        };
        let geometry = Geometry { lanes: 1, area_bytes: 4096 };
        let load = LoadOrder {
            library: "l".into(),
            // Longer than what is taken at once.
            model: "m".repeat(9_000).into(),
            session,
            geometry,
            gives_way: true,
            trial: false,
        };
        let sent = [
            (Order::Load { model: 1, order: load.clone() }, memory(11)),
            (Order::Terminate { model: 1, lane: 0, batch: 7 }, None),
            (Order::Load { model: 2, order: load }, memory(22)),
        ];
        for (order, memory) in sent {
            Letter { order, memory }.send(ours.as_fd()).unwrap();
        }
        drop(ours);
        let mut got = Vec::new();
        while let Some(Letter { order, memory }) = mailbox.next().unwrap() {
            let bytes = memory.map(|memory| rustix::fs::fstat(memory).unwrap().st_size);
            got.push(match order {
                Order::Load { model, .. } => (model, bytes),
                Order::Terminate { batch, .. } => (batch as u32, bytes),
                Order::Serve { .. } | Order::Unload { .. } => panic!("nobody sent that"),
            });
        }
        assert_eq!(got, [(1, Some(11)), (7, None), (2, Some(22))]);
    }
}
