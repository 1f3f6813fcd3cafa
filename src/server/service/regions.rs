//! Shared memory: what callers register, and the tensors that lie in it.

use super::Service;
use crate::error::{ErrorKind, InferError};
use crate::oip;
use crate::proto::system_shared_memory_status_response::RegionStatus;
use crate::proto::{
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
};
use crate::request::{
    InferRequest, InferResponse, Input, Output, RegionSlice, RequestedOutput, SharedTensor,
};
use crate::server::regions::Region;
use crate::server::rights::Peer;
use crate::tensor::Tensor;
use crate::text;
use bytes::Bytes;
use std::sync::Arc;

/// Copies up to this many bytes are made where they are wanted; larger ones would keep others waiting.
const COPY_HERE_BYTES_MAX: u64 = 1 << 20;

/// Where the outputs of a request go: by their place in it, those that go to shared memory.
#[derive(Debug)]
pub(super) struct Places(Vec<Option<(Arc<Region>, RegionSlice)>>);

impl Service {
    /// Makes a region of shared memory known to this peer.
    ///
    /// # Errors
    /// `Forbidden` for a peer without a user, and as [`crate::server::regions::Regions::register`].
    pub fn register_region(
        &self,
        peer: &Peer,
        request: &SystemSharedMemoryRegisterRequest,
    ) -> Result<(), InferError> {
        let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
        let Some(uid) = peer.uid else {
            let text = "shared memory is for callers whose user is known; use the Unix socket";
            return Err(InferError::new(ErrorKind::Forbidden, text));
        };
        self.regions.register(peer.tenant, uid, name, key, (*offset, *byte_size))?;
        tracing::debug!(uid, region = %name, "shared memory registered");
        Ok(())
    }

    /// The regions of this peer; one of them where a name is given.
    ///
    /// # Errors
    /// `NotFound` for a name that this peer did not register.
    pub fn region_status(
        &self,
        peer: &Peer,
        request: &SystemSharedMemoryStatusRequest,
    ) -> Result<SystemSharedMemoryStatusResponse, InferError> {
        let regions = match request.name.as_str() {
            "" => self.regions.all(peer.tenant),
            name => vec![self.regions.find(peer.tenant, name)?],
        };
        let status = |region: Arc<Region>| {
            let (name, key) = (region.name.clone(), region.key.clone());
            let (offset, byte_size) = (region.offset, region.byte_size);
            (region.name.clone(), RegionStatus { name, key, offset, byte_size })
        };
        let regions = regions.into_iter().map(status).collect();
        Ok(SystemSharedMemoryStatusResponse { regions })
    }

    /// Forgets a region of this peer, or without a name all of them. One that is not known is forgotten already.
    pub fn unregister_region(&self, peer: &Peer, request: &SystemSharedMemoryUnregisterRequest) {
        self.regions.unregister(peer.tenant, &request.name);
    }

    /// Turns a request into one of tensors alone, and says where its outputs go.
    ///
    /// Bytes in shared memory are copied here, before anybody looks at them: what their owner does to them from
    /// now on is not seen.
    pub(super) async fn take_shared(
        &self,
        request: InferRequest<Input>,
        peer: &Peer,
    ) -> Result<(InferRequest, Places), InferError> {
        let (mut request, inputs) = request.with_inputs(Vec::new());
        let places = self.places(&request.outputs, peer)?;
        let total = inputs.iter().fold(0_u64, |total, input| match input {
            Input::Sent(_) => total,
            Input::Shared(shared) => total.saturating_add(shared.slice.byte_size),
        });
        self.within_limit(total)?;
        let mut found = Vec::with_capacity(inputs.len());
        for input in inputs {
            found.push(match input {
                Input::Sent(tensor) => Found::Tensor(tensor),
                Input::Shared(shared) => {
                    let region = self.regions.find(peer.tenant, &shared.slice.region);
                    let region = region.map_err(|error| of_input(&shared.name, error))?;
                    Found::Shared(region, shared)
                }
            });
        }
        request.inputs = if total > COPY_HERE_BYTES_MAX {
            let permit = self.regions.may_copy().await;
            let copied = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                copy(found)
            });
            copied
                .await
                .map_err(|error| InferError::new(ErrorKind::Internal, error.to_string()))??
        } else {
            copy(found)?
        };
        Ok((request, places))
    }

    /// Bytes in shared memory are bounded as bytes in a body are.
    fn within_limit(&self, bytes: u64) -> Result<(), InferError> {
        let max = self.regions.request_bytes_max();
        if usize::try_from(bytes).is_ok_and(|bytes| bytes <= max) {
            return Ok(());
        }
        let text = format!(
            "the inputs have {bytes} bytes in shared memory; the limit is {max}, that of --body-bytes-max"
        );
        Err(InferError::new(ErrorKind::TooLarge, text))
    }

    /// Finds where outputs go, and refuses what is hopeless before anything runs for it.
    fn places(&self, outputs: &[RequestedOutput], peer: &Peer) -> Result<Places, InferError> {
        let place = |output: &RequestedOutput| {
            let Some(slice) = &output.region else { return Ok(None) };
            let find = || {
                let region = self.regions.find(peer.tenant, &slice.region)?;
                region.takes(slice, 0).map(|()| region)
            };
            let region = find().map_err(|error| of_output(&output.name, error))?;
            Ok(Some((region, slice.clone())))
        };
        outputs.iter().map(place).collect::<Result<_, _>>().map(Places)
    }
}

fn of_input(name: &str, error: InferError) -> InferError {
    InferError { message: format!("input '{}': {}", text::name(name), error.message), ..error }
}

fn of_output(name: &str, error: InferError) -> InferError {
    InferError { message: format!("output '{}': {}", text::name(name), error.message), ..error }
}

/// An input that is there, or known where.
enum Found {
    Tensor(Tensor),
    Shared(Arc<Region>, SharedTensor),
}

/// Copies what lies in shared memory, and checks the copies as bytes from a body are checked.
fn copy(found: Vec<Found>) -> Result<Vec<Tensor>, InferError> {
    let tensor = |found| match found {
        Found::Tensor(tensor) => Ok(tensor),
        Found::Shared(region, SharedTensor { name, datatype, shape, slice }) => {
            let data = region.read(&slice).map_err(|error| of_input(&name, error))?;
            oip::tensor(name, datatype, shape, Bytes::from(data))
        }
    };
    found.into_iter().map(tensor).collect()
}

impl Places {
    /// Writes the outputs that go to shared memory there; all of them or, where one does not fit, none.
    pub(super) fn put(self, mut response: InferResponse) -> Result<InferResponse, InferError> {
        let Self(places) = self;
        let placed = || places.iter().zip(&response.outputs);
        for (place, output) in placed() {
            if let (Some((region, slice)), Output::Sent(output)) = (place, output) {
                let taken = region.takes(slice, output.byte_len() as u64);
                taken.map_err(|error| of_output(&output.name, error))?;
            }
        }
        for (place, output) in placed() {
            if let (Some((region, slice)), Output::Sent(output)) = (place, output) {
                let written = region.write(slice, &output.pieces);
                written.map_err(|error| of_output(&output.name, error))?;
            }
        }
        for (place, output) in places.into_iter().zip(&mut response.outputs) {
            if let (Some((_, mut slice)), Output::Sent(sent)) = (place, &mut *output) {
                slice.byte_size = sent.byte_len() as u64;
                let (name, shape) =
                    (std::mem::take(&mut sent.name), std::mem::take(&mut sent.shape));
                let datatype = sent.datatype;
                *output = Output::Shared(SharedTensor { name, datatype, shape, slice });
            }
        }
        Ok(response)
    }
}
