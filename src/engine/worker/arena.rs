//! The memory that the daemon and one worker share: sealed, so that neither can shrink it under the other.
//!
//! Pages exist once they are written, so the space may be generous. Who may touch a part of it at a time
//! is settled by the ring's counters: a slot is the daemon's until it is submitted, the worker's until
//! it is completed, and then the daemon's again.
//!
//! All `unsafe` that concerns shared memory stands in this file.
#![expect(unsafe_code, reason = "mapping shared memory")]

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// A mapping of the shared memory.
#[derive(Debug)]
pub(super) struct Arena {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory; access to its parts is handed over by the ring's atomic counters.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes a new sealed memory of `len` bytes and maps it.
    pub(super) fn create(len: usize) -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
        let fd = rustix::fs::memfd_create("graftd-batches", flags).or_else(|_| {
            // Kernels before 6.3 know no NOEXEC_SEAL.
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            rustix::fs::memfd_create("graftd-batches", flags)
        })?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        Ok((Self::map(fd.as_fd(), len)?, fd))
    }

    /// Maps a memory made by [`create`](Self::create), after checking that it is one.
    pub(super) fn open(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(fd)?;
        let stat = rustix::fs::fstat(fd)?;
        if !seals.contains(SealFlags::SHRINK) || u64::try_from(stat.st_size) != Ok(len as u64) {
            return Err(io::Error::other("the shared memory is not sealed or has another size"));
        }
        Self::map(fd.as_fd(), len)
    }

    fn map(fd: std::os::fd::BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the seal keeps it from shrinking.
        let base = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, fd, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        Ok(Self { base, len })
    }

    fn check(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// The counter at an offset that is a multiple of four.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(self.check(offset, 4) && offset.is_multiple_of(4), "a counter outside the arena");
        // SAFETY: within the mapping, aligned, and only ever used as an atomic by both sides.
        unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }
    }

    /// A part of the memory that is ours by the ring's counters, to read.
    ///
    /// None where it is not inside. The caller has checked that the part is its own.
    pub(super) fn part(&self, offset: usize, len: usize) -> Option<&[u8]> {
        // SAFETY: within the mapping, which is initialised to zero; the other side leaves it alone while
        // it is ours, and where it does not, only the bytes of its own batch are wrong.
        self.check(offset, len)
            .then(|| unsafe { std::slice::from_raw_parts(self.base.add(offset).as_ptr(), len) })
    }

    /// A part of the memory that is ours by the ring's counters, to write.
    ///
    /// None where it is not inside. The caller holds the lane's lock, so that no other reference to
    /// the part exists on this side.
    #[expect(clippy::mut_from_ref, reason = "parts are handed out by lane and slot, never twice")]
    pub(super) fn part_mut(&self, offset: usize, len: usize) -> Option<&mut [u8]> {
        // SAFETY: as in `part`; exclusive by the caller's lock and the ring's counters.
        self.check(offset, len)
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.base.add(offset).as_ptr(), len) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; no reference outlives the arena.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Takes the descriptors that the daemon passed at `exec`, which are ours alone from then on.
pub(super) fn inherited(numbers: [i32; 2]) -> Result<[OwnedFd; 2], String> {
    // SAFETY: called first thing in a worker's main, before anything else opened a descriptor.
    let listed = unsafe { command_fds::inherited::init_inherited_fds() };
    listed.map_err(|error| error.to_string())?;
    let take = |number| {
        command_fds::inherited::take_fd_ownership(number).map_err(|error| {
            format!("descriptor {number}: {error}; this verb is for graftd itself")
        })
    };
    Ok([take(numbers[0])?, take(numbers[1])?])
}
