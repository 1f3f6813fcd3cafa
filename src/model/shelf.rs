//! What was worked out of models' contents, kept on disk for the next start: bytes by digest, checked when they are read.
//!
//! Whoever can write here decides what is served, so a folder that is not ours alone is not used. A file is written
//! under another name and then put into place, so that it is there whole or not at all, whoever else writes.

use crate::digest::StageDigest;
use bytes::Bytes;
use rustix::fs::{Timespec, Timestamps};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a file begins with; another number for another layout.
const MAGIC: &[u8; 16] = b"graftd shelf 01\n";
/// The beginning and the digest of all that follows.
const HEAD_BYTES: usize = MAGIC.len() + 32;
/// What is read at most.
const ENTRY_BYTES_MAX: u64 = 4 << 30;
/// The beginning of the names of files that are being written.
const NEW_PREFIX: &str = ".new-";
/// After so long whoever wrote one has died.
const NEW_AGE_MAX: Duration = Duration::from_hours(1);
/// The permission of others than the owner to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The permission of everybody to write, and what keeps them from replacing what is not theirs.
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A folder of entries by digest; or none, which keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    folder: Option<PathBuf>,
    bytes_max: u64,
}

/// What was found under a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What was put there.
    Entry(Bytes),
    /// Something that is not what was put there; it was taken away.
    Damaged,
}

impl Shelf {
    /// Opens a folder, made if it is not there, that may hold so many bytes.
    ///
    /// # Errors
    /// A sentence, when it cannot be used or is not ours alone.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, String> {
        let shown = folder.display();
        let unusable =
            |error: io::Error| format!("{shown}: {error}; name a folder that can be written");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let folder = &fs::canonicalize(folder).map_err(unusable)?;
        let data = fs::metadata(folder).map_err(unusable)?;
        let us = rustix::process::geteuid().as_raw();
        // Whoever can write above it can put another folder into its place.
        let above = folder.ancestors().skip(1).map(|above| (above, fs::metadata(above)));
        let replaceable = |data: &Metadata| {
            let open = data.mode() & WRITABLE_BY_ALL != 0 && data.mode() & STICKY == 0;
            open || (data.uid() != us && data.uid() != 0)
        };
        for (above, data) in above {
            if replaceable(&data.map_err(unusable)?) {
                return Err(format!(
                    "{shown} can be replaced by whoever may write to {}; name a folder where only the daemon's own \
                     user and root can",
                    above.display()
                ));
            }
        }
        if data.uid() != us || data.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(format!(
                "{shown} can be written by others, who so would decide what is served; take that right away, or name a \
                 folder of the daemon's own user"
            ));
        }
        let shelf = Self { folder: Some(folder.to_owned()), bytes_max };
        // Shows whether it can be written, and what time it is there.
        let new = tempfile::Builder::new().prefix(NEW_PREFIX).tempfile_in(folder);
        let now = new.and_then(|new| new.as_file().metadata()?.modified()).map_err(unusable)?;
        shelf.sweep(folder, now);
        Ok(shelf)
    }

    /// What was put under a kind and a digest.
    #[must_use]
    pub fn get(&self, kind: &str, digest: &StageDigest) -> Found {
        let Some(path) = self.path(kind, digest) else { return Found::Nothing };
        let Ok(mut file) = File::open(&path) else { return Found::Nothing };
        let Ok(entry) = read(&mut file, &name(kind, digest)) else {
            // It would only be found again.
            let _ = fs::remove_file(&path);
            return Found::Damaged;
        };
        // What is used stays longest.
        let (omit, now) = (time(rustix::fs::UTIME_OMIT), time(rustix::fs::UTIME_NOW));
        let times = Timestamps { last_access: omit, last_modification: now };
        let _ = rustix::fs::futimens(&file, &times);
        Found::Entry(entry)
    }

    /// Puts bytes under a kind and a digest, and takes away what is too much by then.
    ///
    /// # Errors
    /// When they cannot be written; nothing is there then that was not before.
    pub fn put(&self, kind: &str, digest: &StageDigest, entry: &[u8]) -> io::Result<()> {
        let (Some(folder), Some(path)) = (&self.folder, self.path(kind, digest)) else {
            return Ok(());
        };
        let bytes = (HEAD_BYTES + entry.len()) as u64;
        if bytes > self.bytes_max.min(ENTRY_BYTES_MAX) {
            return Ok(());
        }
        self.make_room(folder, bytes);
        let mut file = tempfile::Builder::new().prefix(NEW_PREFIX).tempfile_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(checksum(&name(kind, digest), entry).as_bytes())?;
        file.write_all(entry)?;
        // A name that survives a crash without its bytes would be found damaged, which costs less than waiting here.
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn path(&self, kind: &str, digest: &StageDigest) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(name(kind, digest)))
    }

    /// Takes away what was used longest ago until so many bytes more fit.
    fn make_room(&self, folder: &Path, more: u64) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = files(folder)
            .filter(|(path, _)| !is_new(path))
            .filter_map(|(path, data)| Some((data.modified().ok()?, data.len(), path)))
            .collect();
        let mut bytes = entries.iter().map(|(_, bytes, _)| bytes).sum::<u64>().saturating_add(more);
        entries.sort();
        for (_, freed, path) in entries {
            if bytes <= self.bytes_max {
                return;
            }
            if fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(freed);
            }
        }
    }

    /// Removes what was being written when somebody died.
    fn sweep(&self, folder: &Path, now: SystemTime) {
        let old = |data: &Metadata| {
            let age = data.modified().ok().and_then(|at| now.duration_since(at).ok());
            age.is_some_and(|age| age > NEW_AGE_MAX)
        };
        for (path, _) in files(folder).filter(|(path, data)| is_new(path) && old(data)) {
            // One that cannot be removed is only a waste of space.
            let _ = fs::remove_file(path);
        }
        self.make_room(folder, 0);
    }
}

const fn time(nanos: i64) -> Timespec {
    Timespec { tv_sec: 0, tv_nsec: nanos }
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    files.filter(|(_, data)| data.is_file())
}

fn is_new(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NEW_PREFIX.as_bytes()))
}

fn name(kind: &str, digest: &StageDigest) -> String {
    format!("{kind}-{}", blake3::Hash::from_bytes(digest.0).to_hex())
}

/// Of the name, too: a file that was given another one is no other entry.
fn checksum(name: &str, entry: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(entry);
    hasher.finalize()
}

fn read(file: &mut File, name: &str) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(ENTRY_BYTES_MAX).read_to_end(&mut bytes)?;
    entry(bytes.into(), name).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The entry in a file of this name; none where it is not what was written.
fn entry(file: Bytes, name: &str) -> Option<Bytes> {
    let head = file.get(..HEAD_BYTES)?;
    let entry = file.slice(HEAD_BYTES..);
    let (magic, digest) = head.split_at(MAGIC.len());
    (magic == MAGIC && checksum(name, &entry).as_bytes() == digest).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: StageDigest = StageDigest([7; 32]);

    fn shelf(bytes_max: u64) -> (tempfile::TempDir, Shelf) {
        let parent = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(&parent.path().join("shelf"), bytes_max).unwrap();
        (parent, shelf)
    }

    #[test]
    fn what_was_put_is_found_and_nothing_else() {
        let (_parent, shelf) = shelf(1 << 20);
        assert_eq!(shelf.get("a", &KEY), Found::Nothing);
        shelf.put("a", &KEY, b"entry").unwrap();
        assert_eq!(shelf.get("a", &KEY), Found::Entry(Bytes::from_static(b"entry")));
        assert_eq!(shelf.get("b", &KEY), Found::Nothing);
        shelf.put("a", &KEY, b"").unwrap();
        assert_eq!(shelf.get("a", &KEY), Found::Entry(Bytes::new()));
        let none = Shelf::default();
        none.put("a", &KEY, b"entry").unwrap();
        assert_eq!(none.get("a", &KEY), Found::Nothing);
    }

    #[test]
    fn every_change_of_a_file_is_noticed_and_it_goes() {
        let (_parent, shelf) = shelf(1 << 20);
        let path = shelf.path("a", &KEY).unwrap();
        shelf.put("a", &KEY, b"entry").unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            for bytes in [&changed[..], &whole[..at]] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(shelf.get("a", &KEY), Found::Damaged, "at {at}");
                assert!(!path.exists());
            }
        }
        let other = StageDigest([8; 32]);
        fs::write(shelf.path("a", &other).unwrap(), &whole).unwrap();
        assert_eq!(shelf.get("a", &other), Found::Damaged, "under another name");
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let open = |name: &str| Shelf::open(&parent.path().join(name), 1).map(drop);
        assert_eq!(open("ours"), Ok(()));
        fs::set_permissions(parent.path().join("ours"), PermissionsExt::from_mode(0o720)).unwrap();
        assert!(open("ours").unwrap_err().contains("by others"));
        let above = parent.path().join("above");
        fs::create_dir(&above).unwrap();
        assert_eq!(open("above/inner"), Ok(()));
        fs::set_permissions(&above, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(open("above/inner").unwrap_err().contains("can be replaced"));
        fs::set_permissions(&above, PermissionsExt::from_mode(0o1777)).unwrap();
        assert_eq!(open("above/inner"), Ok(()), "as the system's temporary folder is");
        fs::write(parent.path().join("file"), b"").unwrap();
        assert!(open("file").unwrap_err().contains("can be written"));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_never_more_is_there_than_may_be() {
        let (parent, shelf) = shelf(3 * (HEAD_BYTES as u64 + 10));
        let old = parent.path().join("shelf/.new-old");
        fs::write(&old, b"half").unwrap();
        let key = |number: u8| StageDigest([number; 32]);
        let used = |number: u8, minutes: u64| {
            let file = File::options().write(true).open(shelf.path("a", &key(number)).unwrap());
            let at = SystemTime::UNIX_EPOCH + Duration::from_mins(minutes);
            file.unwrap().set_modified(at).unwrap();
        };
        for number in 0..3 {
            shelf.put("a", &key(number), &[number; 10]).unwrap();
            used(number, u64::from(number));
        }
        assert!(matches!(shelf.get("a", &key(0)), Found::Entry(_)));
        shelf.put("a", &key(3), &[3; 10]).unwrap();
        assert_eq!(shelf.get("a", &key(1)), Found::Nothing);
        assert!(matches!(shelf.get("a", &key(0)), Found::Entry(_)));
        shelf.put("a", &key(4), &[4; 200]).unwrap();
        assert_eq!(shelf.get("a", &key(4)), Found::Nothing, "more than all that may be there");
        assert!(old.exists(), "somebody may be writing it");
        let long_ago = SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        let again = Shelf::open(&parent.path().join("shelf"), HEAD_BYTES as u64 + 10).unwrap();
        assert!(!old.exists());
        let left = (0..5).filter(|&number| again.get("a", &key(number)) != Found::Nothing).count();
        assert_eq!(left, 1);
    }

    #[test]
    fn two_writers_leave_one_whole_entry() {
        let (_parent, shelf) = shelf(1 << 20);
        std::thread::scope(|scope| {
            for writer in 0..2_u8 {
                let shelf = &shelf;
                scope.spawn(move || {
                    for _ in 0..50 {
                        shelf.put("a", &KEY, &[writer; 5_000]).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                assert_ne!(shelf.get("a", &KEY), Found::Damaged);
            }
        });
        assert!(matches!(shelf.get("a", &KEY), Found::Entry(entry) if entry.len() == 5_000));
    }
}
