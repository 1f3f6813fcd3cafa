//! Private copies of model files: what is loaded is what was judged, whatever happens to the original.
//!
//! A model file can be rewritten under a live session, and ONNX Runtime follows external data wherever it
//! leads. So the file and all it refers to are copied into a folder of our own while they are digested,
//! and only that copy is ever loaded.

use super::beneath;
use crate::courtesy::Polite;
use crate::digest::StageDigest;
use crate::graph::family::{self, Sketch};
use crate::graph::{self, ExternalData, Model};
use bytes::Bytes;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// The largest piece copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// What protobuf can hold.
const MODEL_BYTES_MAX: u64 = 2 << 30;
/// The permission of others to write.
const WRITABLE_BY_ALL: u32 = 0o002;
const FOLDER_PREFIX: &str = "graftd-stash-";

/// A folder for private copies; it goes when the daemon does.
#[derive(Debug)]
pub struct Stash {
    folder: TempDir,
    /// Bytes of one model's external data at most.
    external_max: u64,
    /// Held for life, so that a later daemon can tell folders that were left behind.
    _lock: File,
}

/// The folder of one private copy; it goes with the last who holds it.
#[derive(Debug)]
pub struct PrivateCopy {
    path: PathBuf,
    _folder: Polite<TempDir>,
}

impl PrivateCopy {
    fn new(folder: TempDir) -> Self {
        Self { path: folder.path().to_owned(), _folder: Polite::new(folder) }
    }

    /// The model file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.path.join("model.onnx")
    }

    /// The bytes of an external tensor of the copied model.
    ///
    /// # Errors
    /// A sentence, when the file ends before them or cannot be read.
    pub fn weights(&self, data: &ExternalData) -> Result<Bytes, String> {
        let file = File::open(self.path.join(&data.location));
        let bytes = file.and_then(|file| external(&file, data));
        bytes.map_err(|error| format!("external data '{}': {error}", data.location))
    }

    /// What the search for families needs of the copied model.
    ///
    /// # Errors
    /// Why the model can only be run whole.
    ///
    /// # Cost
    /// One pass over all weights.
    pub fn sketch(&self, model: &Model) -> Result<Sketch, String> {
        let sketch = family::sketch(model, &|data| self.weights(data));
        sketch.map_err(|reason| reason.to_string())
    }
}

/// The bytes of an external tensor in the file that holds them.
///
/// # Errors
/// When the file ends before them or cannot be read.
pub fn external(file: &File, data: &ExternalData) -> io::Result<Bytes> {
    let left = file.metadata()?.len().saturating_sub(data.offset);
    let length = data.length.unwrap_or(left);
    if length > left {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, data.offset)?;
    Ok(Bytes::from(bytes))
}

/// A model as it was copied.
#[derive(Debug)]
pub struct Stashed {
    /// The private copy.
    pub copy: PrivateCopy,
    /// The digest of the model file and all it refers to.
    pub digest: StageDigest,
    /// What the file says.
    pub model: Model,
    /// What the operator should know of the files.
    pub warnings: Vec<String>,
}

impl Stash {
    /// Makes a folder for copies below `parent` and removes those that dead daemons left there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(parent: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(parent)?;
        let lock = File::create(folder.path().join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { folder, external_max: memory(), _lock: lock })
    }

    /// A new folder among the copies; it goes when it is dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, prefix: &str) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix(prefix).tempdir_in(self.folder.path())
    }

    /// Writes a model that was made here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, model: &[u8]) -> io::Result<PrivateCopy> {
        let copy = PrivateCopy::new(self.folder("leg-")?);
        fs::write(copy.file(), model)?;
        Ok(copy)
    }

    /// Copies a model file and all it refers to, until `cancelled` is set.
    ///
    /// Only plain files are opened, and links are not followed. A file with further names elsewhere is as
    /// good as any: the copy is a file of its own.
    ///
    /// # Errors
    /// A sentence: what cannot be read, is too large, is no model, or leads out of the model's folder.
    pub fn copy(&self, original: &Path, cancelled: &AtomicBool) -> Result<Stashed, String> {
        let place = self.folder("model-");
        let place = place.map_err(|error| format!("cannot make a private copy: {error}"))?;
        let folder = original.parent().unwrap_or_else(|| Path::new("."));
        let name = original.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = beneath::read(folder, name, MODEL_BYTES_MAX);
        let bytes = polite(bytes.map_err(|why| {
            format!("the model file: {why}; expected a plain file of at most 2 GiB, with larger weights beside it")
        })?);
        let model = graph::read(bytes.clone()).map_err(|error| error.to_string())?;
        let file = place.path().join("model.onnx");
        fs::write(&file, &bytes).map_err(|error| format!("cannot be copied: {error}"))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"graftd stage 1\0").update(blake3::hash(&bytes).as_bytes());
        let mut copying =
            Copying { folder, place: place.path(), left: self.external_max, cancelled };
        for location in model.external_files() {
            let digest = copying.file(location);
            let digest = digest.map_err(|why| format!("external data '{location}': {why}"))?;
            hasher.update(&(location.len() as u64).to_le_bytes()).update(location.as_bytes());
            hasher.update(digest.as_bytes());
        }
        let digest = StageDigest(*hasher.finalize().as_bytes());
        let copy = PrivateCopy::new(place);
        Ok(Stashed { copy, digest, model, warnings: writable(original) })
    }
}

/// A file's bytes; large ones are given back by a thread that gives way.
fn polite(bytes: Vec<u8>) -> Bytes {
    if bytes.len() < CHUNK_BYTES { bytes.into() } else { Bytes::from_owner(Polite::new(bytes)) }
}

/// External data on its way.
struct Copying<'a> {
    folder: &'a Path,
    place: &'a Path,
    /// Bytes that may still come.
    left: u64,
    cancelled: &'a AtomicBool,
}

impl Copying<'_> {
    /// Copies one file that lies below the model's folder, links not followed.
    fn file(&mut self, location: &str) -> Result<blake3::Hash, String> {
        let text = |error: io::Error| error.to_string();
        let mut source = beneath::open(self.folder, location)?;
        let target = self.place.join(location);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(text)?;
        }
        let mut target = File::create(target).map_err(text)?;
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = source.read(&mut chunk).map_err(text)?;
            if count == 0 {
                return Ok(hasher.finalize());
            }
            if self.cancelled.load(Ordering::Relaxed) {
                return Err("nobody waits for it any more".into());
            }
            // A file may have no blocks and still be endless to read, so what is read is counted.
            self.left = self.left.checked_sub(count as u64).ok_or(
                "all such files together are larger than this machine's memory, so the model cannot run here",
            )?;
            hasher.update(&chunk[..count]);
            target.write_all(&chunk[..count]).map_err(text)?;
        }
    }
}

/// Warnings for places where others than the owner can change what is served.
fn writable(original: &Path) -> Vec<String> {
    let places = original.ancestors().take(2);
    let open = places.filter(|place| {
        fs::metadata(place).is_ok_and(|data| data.permissions().mode() & WRITABLE_BY_ALL != 0)
    });
    let warn = |place: &Path| {
        format!("{} can be written by every user, who so decides what is served", place.display())
    };
    open.map(warn).collect()
}

/// Bytes of this machine's memory.
fn memory() -> u64 {
    let facts = rustix::system::sysinfo();
    (facts.totalram as u64).saturating_mul(u64::from(facts.mem_unit))
}

/// Removes the folders of daemons that are gone: their locks are free.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let ours = folder
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|n| n.starts_with(FOLDER_PREFIX));
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        if ours && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // A folder that cannot be removed is only a waste of space.
            let _ = fs::remove_dir_all(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static GOING: AtomicBool = AtomicBool::new(false);

    fn fixture(name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("tests/fixtures/models").join(name).join("1/model.onnx")
    }

    #[test]
    fn the_copy_is_ours_and_its_digest_is_of_the_content() {
        let parent = tempfile::tempdir().unwrap();
        let stash = Stash::create(parent.path()).unwrap();
        let first = stash.copy(&fixture("external"), &GOING).unwrap();
        let again = stash.copy(&fixture("external"), &GOING).unwrap();
        let other = stash.copy(&fixture("mlp"), &GOING).unwrap();
        assert_eq!(first.digest, again.digest);
        assert_ne!(first.digest, other.digest);
        assert_ne!(first.copy.file(), again.copy.file());
        let weights = first.copy.file().with_file_name("weights.bin");
        assert_eq!(
            fs::read(weights).unwrap(),
            fs::read(fixture("external").with_file_name("weights.bin")).unwrap()
        );
    }

    #[test]
    fn external_data_counts_in_the_digest_and_may_not_lead_away() {
        let parent = tempfile::tempdir().unwrap();
        let stash = Stash::create(&parent.path().join("stash")).unwrap();
        let model = parent.path().join("model.onnx");
        fs::copy(fixture("external"), &model).unwrap();
        let weights = parent.path().join("weights.bin");
        let mut bytes = fs::read(fixture("external").with_file_name("weights.bin")).unwrap();
        fs::write(&weights, &bytes).unwrap();
        let before = stash.copy(&model, &GOING).unwrap().digest;
        bytes[0] ^= 1;
        fs::write(&weights, &bytes).unwrap();
        assert_ne!(stash.copy(&model, &GOING).unwrap().digest, before);
        let elsewhere = parent.path().join("stash/elsewhere.bin");
        fs::rename(&weights, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &weights).unwrap();
        let why = stash.copy(&model, &GOING).unwrap_err();
        assert!(why.contains("weights.bin") && why.contains("plain file"), "{why}");
    }

    #[test]
    fn folders_of_dead_daemons_are_removed_and_those_of_live_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let live = Stash::create(parent.path()).unwrap();
        let dead = parent.path().join(format!("{FOLDER_PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), b"").unwrap();
        let _third = Stash::create(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(live.folder.path().exists());
    }

    #[test]
    fn only_plain_files_of_bearable_size_are_read() {
        let parent = tempfile::tempdir().unwrap();
        let mut stash = Stash::create(&parent.path().join("stash")).unwrap();
        let (model, weights) =
            (parent.path().join("model.onnx"), parent.path().join("weights.bin"));
        let refused = |stash: &Stash| stash.copy(&model, &GOING).unwrap_err();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &model,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(refused(&stash).contains("plain file"), "a pipe: {}", refused(&stash));
        fs::remove_file(&model).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &model).unwrap();
        assert!(refused(&stash).contains("plain file"), "a device: {}", refused(&stash));
        fs::remove_file(&model).unwrap();
        File::create(&model).unwrap().set_len(3 << 30).unwrap();
        assert!(refused(&stash).contains("2 GiB"), "a giant: {}", refused(&stash));
        fs::copy(fixture("external"), &model).unwrap();
        fs::copy(fixture("external").with_file_name("weights.bin"), parent.path().join("w"))
            .unwrap();
        fs::hard_link(parent.path().join("w"), &weights).unwrap();
        let linked = stash.copy(&model, &GOING).unwrap();
        let copy = fs::metadata(linked.copy.file().with_file_name("weights.bin")).unwrap();
        assert_eq!(
            std::os::unix::fs::MetadataExt::nlink(&copy),
            1,
            "the copy is a file of its own"
        );
        let warned = |mode| {
            fs::set_permissions(&model, PermissionsExt::from_mode(mode)).unwrap();
            stash.copy(&model, &GOING).unwrap().warnings.len()
        };
        assert_eq!((warned(0o644), warned(0o646)), (0, 1));
        stash.external_max = fs::metadata(&weights).unwrap().len() - 1;
        assert!(refused(&stash).contains("memory"), "{}", refused(&stash));
        stash.external_max += 1;
        stash.copy(&model, &GOING).unwrap();
        let cancelled = stash.copy(&model, &AtomicBool::new(true)).unwrap_err();
        assert!(cancelled.contains("nobody waits"), "{cancelled}");
    }
}
