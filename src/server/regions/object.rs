//! One object of POSIX shared memory, used as the file that it is.
//!
//! Separate from the regions, since here is all that is between a caller's text and the file system.

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The longest name of a file.
const KEY_BYTES_MAX: usize = 255;

/// An open object of shared memory.
#[derive(Debug)]
pub(super) struct Object {
    file: File,
    uid: u32,
    /// Whether it may be written to.
    writable: bool,
}

impl Object {
    /// Opens the object that `key` names, as long as it is a regular file of this user.
    pub(super) fn open(root: &Path, key: &str, uid: u32) -> Result<Self, String> {
        let path = root.join(file_name(key)?);
        // A name that someone put a link, a pipe or a device under leads nowhere and waits for nothing.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |access: OFlags| rustix::fs::open(&path, access | flags, Mode::empty());
        let (opened, writable) = match open(OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => (open(OFlags::RDONLY), false),
            opened => (opened, true),
        };
        let file = File::from(opened.map_err(not_opened)?);
        let object = Self { file, uid, writable };
        object.length()?;
        Ok(object)
    }

    /// The object's length now, as long as it is still what it was.
    pub(super) fn length(&self) -> Result<u64, String> {
        let facts =
            self.file.metadata().map_err(|error| format!("it cannot be looked at: {error}"))?;
        // In the same words as where there is nothing: what others have is not told.
        if !facts.is_file() || facts.uid() != self.uid {
            return Err(not_opened(Errno::NOENT));
        }
        Ok(facts.len())
    }

    /// Copies so many bytes from `start` on.
    pub(super) fn read(&self, start: u64, byte_size: u64) -> Result<Vec<u8>, String> {
        self.holds(start, byte_size)?;
        let size =
            usize::try_from(byte_size).map_err(|_| "more than memory can hold".to_owned())?;
        let mut data = vec![0; size];
        let mut done = 0;
        while done < size {
            let rest = data.get_mut(done..).unwrap_or_default();
            match self.file.read_at(rest, start.saturating_add(done as u64)) {
                Ok(0) => {
                    return Err(too_short(start, byte_size, start.saturating_add(done as u64)));
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("it cannot be read: {error}")),
            }
        }
        Ok(data)
    }

    /// Refuses to write where there is no room or no right.
    pub(super) fn takes(&self, start: u64, byte_size: u64) -> Result<(), String> {
        if !self.writable {
            return Err(
                "graftd's user may not write to it; let it, or take the output in the answer"
                    .to_owned(),
            );
        }
        self.holds(start, byte_size)
    }

    /// Writes pieces from `start` on.
    pub(super) fn write(&self, start: u64, pieces: &[Bytes]) -> Result<(), String> {
        let mut at = start;
        for piece in pieces {
            let written = self.file.write_all_at(piece, at);
            written.map_err(|error| format!("it cannot be written to: {error}"))?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    fn holds(&self, start: u64, byte_size: u64) -> Result<(), String> {
        let length = self.length()?;
        match start.checked_add(byte_size) {
            Some(end) if end <= length => Ok(()),
            _ => Err(too_short(start, byte_size, length)),
        }
    }
}

/// The file's name for a key such as `/name`.
fn file_name(key: &str) -> Result<&str, String> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sized = (1..=KEY_BYTES_MAX).contains(&name.len());
    if sized && name.bytes().all(plain) && !matches!(name, "." | "..") {
        return Ok(name);
    }
    Err(format!(
        "the key names no shared memory; expected '/' and 1 to {KEY_BYTES_MAX} letters, digits, '.', '_' or '-'"
    ))
}

fn not_opened(errno: Errno) -> String {
    match errno {
        Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR => {
            "there is no such object of shared memory of your user's".to_owned()
        }
        Errno::ACCESS | Errno::PERM => {
            "graftd's user may not read it; give the object another mode or group".to_owned()
        }
        other => format!("it cannot be opened: {other}"),
    }
}

fn too_short(start: u64, byte_size: u64, length: u64) -> String {
    let expected = match byte_size {
        0 => format!("expected the object to reach to byte {start}"),
        _ => format!("expected {byte_size} bytes from byte {start} of the object on"),
    };
    format!("{expected}, but it has only {length} bytes; it was shortened after it was registered")
}
