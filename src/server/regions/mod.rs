//! Regions of shared memory that callers made known, each caller's own.
//!
//! The memory stays the caller's, who may write to it, shorten it or take it away at any time. So it is never
//! mapped here, where that would be a signal: it is read and written as the file that it is, and what is read is
//! a copy before anybody looks at it.
//!
//! # Invariants
//! - A region of another tenant is told from one that does not exist by nothing.
//! - No more descriptors are held than the limit allows.

mod object;

use crate::error::{ErrorKind, InferError};
use crate::id::Tenant;
use crate::request::RegionSlice;
use bytes::Bytes;
use object::Object;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where the system keeps shared memory that has a name.
const ROOT: &str = "/dev/shm";
/// The longest name of a region, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Large copies at a time: they are as fast as memory is, and what they hold counts nowhere yet.
const LARGE_COPIES_MAX: usize = 4;

/// What callers may do with shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLimits {
    /// Regions of all callers together, at most; 0 where shared memory is switched off.
    pub regions_max: usize,
    /// Bytes that the inputs of one request may have in shared memory, at most.
    pub request_bytes_max: usize,
}

/// A region: part of an object of shared memory, by name.
#[derive(Debug)]
pub struct Region {
    /// The caller's name for it.
    pub name: String,
    /// The object's name, as it came.
    pub key: String,
    /// Bytes from the start of the object.
    pub offset: u64,
    /// Bytes of the region.
    pub byte_size: u64,
    object: Object,
}

/// Every region, by its owner and its name.
#[derive(Debug)]
pub struct Regions {
    limits: RegionLimits,
    root: PathBuf,
    known: Mutex<BTreeMap<(Tenant, String), Arc<Region>>>,
    copies: Arc<Semaphore>,
}

impl Regions {
    /// No regions yet.
    #[must_use]
    pub fn new(limits: RegionLimits) -> Self {
        let copies = Arc::new(Semaphore::new(LARGE_COPIES_MAX));
        Self { limits, root: PathBuf::from(ROOT), known: Mutex::default(), copies }
    }

    /// Whether shared memory is offered.
    #[must_use]
    pub const fn on(&self) -> bool {
        self.limits.regions_max > 0
    }

    /// Bytes that the inputs of one request may have in shared memory.
    #[must_use]
    pub const fn request_bytes_max(&self) -> usize {
        self.limits.request_bytes_max
    }

    /// Waits for its turn to make a large copy, until the permit is dropped.
    pub async fn may_copy(&self) -> Option<OwnedSemaphorePermit> {
        self.copies.clone().acquire_owned().await.ok()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(Tenant, String), Arc<Region>>> {
        // Nothing that could panic runs under the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes part of an object known to a tenant under a name; `uid` is the user that must own the object.
    ///
    /// # Errors
    /// `Unsupported` where shared memory is off, `AlreadyExists` for a name in use, `TooLarge` past the limit,
    /// `BadRequest` for an object that is not there, not the caller's or too short.
    pub fn register(
        &self,
        tenant: Tenant,
        uid: u32,
        name: &str,
        key: &str,
        (offset, byte_size): (u64, u64),
    ) -> Result<(), InferError> {
        self.may_register(tenant, name)?;
        let owner = |why: String| {
            InferError::bad_request(format!(
                "shared memory region {name:?} with key {key:?}: {why}"
            ))
        };
        let end = offset.checked_add(byte_size).filter(|_| byte_size > 0).ok_or_else(|| {
            owner(format!("byte_size {byte_size} at offset {offset} is not a part of anything; expected 1 or more"))
        })?;
        let object = Object::open(&self.root, key, uid).map_err(owner)?;
        let length = object.length().map_err(owner)?;
        if end > length {
            return Err(owner(format!(
                "offset {offset} and byte_size {byte_size} end at {end}, but the object has {length} bytes"
            )));
        }
        let (name, key) = (name.to_owned(), key.to_owned());
        let region = Region { name: name.clone(), key, offset, byte_size, object };
        // Others may have been quicker while the object was looked at.
        let mut known = self.known();
        self.room(&known, tenant, &name)?;
        known.insert((tenant, name), Arc::new(region));
        Ok(())
    }

    /// Refuses what is hopeless before anything is opened.
    fn may_register(&self, tenant: Tenant, name: &str) -> Result<(), InferError> {
        if !self.on() {
            let text = "shared memory is switched off here; send the bytes, or start graftd with --shared-memory on";
            return Err(InferError::new(ErrorKind::Unsupported, text));
        }
        if name.chars().any(char::is_control) {
            let text = "the name of a shared memory region has control characters; leave them out";
            return Err(InferError::bad_request(text));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(InferError::bad_request(format!(
                "the name of a shared memory region has {} bytes; expected 1 to {NAME_BYTES_MAX}",
                name.len()
            )));
        }
        self.room(&self.known(), tenant, name)
    }

    fn room(
        &self,
        known: &BTreeMap<(Tenant, String), Arc<Region>>,
        tenant: Tenant,
        name: &str,
    ) -> Result<(), InferError> {
        if known.contains_key(&(tenant, name.to_owned())) {
            let text = format!(
                "shared memory region {name:?} is registered already; unregister it first, or take another name"
            );
            return Err(InferError::new(ErrorKind::AlreadyExists, text));
        }
        let limit = self.limits.regions_max;
        if known.len() >= limit {
            let text = format!(
                "{limit} shared memory regions are registered, the limit of --shared-memory-regions-max; unregister some"
            );
            return Err(InferError::new(ErrorKind::TooLarge, text));
        }
        Ok(())
    }

    /// A tenant's region.
    ///
    /// # Errors
    /// `NotFound`, in the same words whether it never was, is gone, or is another tenant's.
    pub fn find(&self, tenant: Tenant, name: &str) -> Result<Arc<Region>, InferError> {
        let found = self.known().get(&(tenant, name.to_owned())).cloned();
        found.ok_or_else(|| {
            let text = format!("there is no shared memory region {name:?}; register it first");
            InferError::new(ErrorKind::NotFound, text)
        })
    }

    /// Every region of a tenant, by name.
    #[must_use]
    pub fn all(&self, tenant: Tenant) -> Vec<Arc<Region>> {
        let from = (Bound::Included((tenant, String::new())), Bound::Unbounded);
        let known = self.known();
        let own = known.range(from).take_while(|((owner, _), _)| *owner == tenant);
        own.map(|(_, region)| region.clone()).collect()
    }

    /// Forgets a region, or with an empty name all of a tenant's; what uses it now still may.
    pub fn unregister(&self, tenant: Tenant, name: &str) {
        let mut known = self.known();
        if name.is_empty() {
            known.retain(|(owner, _), _| *owner != tenant);
        } else {
            known.remove(&(tenant, name.to_owned()));
        }
    }
}

impl Region {
    /// Where a part of this region starts in the object.
    ///
    /// # Errors
    /// `BadRequest` for a part that is not within the region.
    pub fn start(&self, slice: &RegionSlice) -> Result<u64, InferError> {
        let RegionSlice { offset, byte_size, .. } = *slice;
        let within = offset.checked_add(byte_size).is_some_and(|end| end <= self.byte_size);
        self.offset.checked_add(offset).filter(|_| within).ok_or_else(|| {
            InferError::bad_request(format!(
                "{byte_size} bytes at offset {offset} are not within shared memory region {:?}, which has {} bytes",
                self.name, self.byte_size
            ))
        })
    }

    /// Copies a part out of the region.
    ///
    /// # Errors
    /// `BadRequest` for a part that is not within the region, and where the object got shorter since.
    ///
    /// # Cost
    /// One copy, in a system call for each; nothing is allocated before so many bytes are known to be there.
    pub fn read(&self, slice: &RegionSlice) -> Result<Vec<u8>, InferError> {
        let start = self.start(slice)?;
        self.object.read(start, slice.byte_size).map_err(|why| self.failed(&why))
    }

    /// Refuses a part that cannot take so many bytes.
    ///
    /// # Errors
    /// `BadRequest` where it is too small or not within the region, the object got shorter since, or graftd's
    /// user may not write to it.
    pub fn takes(&self, slice: &RegionSlice, needed: u64) -> Result<(), InferError> {
        let start = self.start(slice)?;
        if needed > slice.byte_size {
            let given = slice.byte_size;
            return Err(self.failed(&format!("{needed} bytes are needed, but {given} were given")));
        }
        self.object.takes(start, needed).map_err(|why| self.failed(&why))
    }

    /// Writes pieces into the region, one after the other.
    ///
    /// # Errors
    /// As [`Self::takes`], with nothing written; or that the system could not write.
    pub fn write(&self, slice: &RegionSlice, pieces: &[Bytes]) -> Result<(), InferError> {
        let start = self.start(slice)?;
        self.takes(slice, pieces.iter().map(|piece| piece.len() as u64).sum())?;
        self.object.write(start, pieces).map_err(|why| self.failed(&why))
    }

    fn failed(&self, why: &str) -> InferError {
        InferError::bad_request(format!("shared memory region {:?}: {why}", self.name))
    }
}

#[cfg(test)]
mod tests;
