//! Whether the files of a version changed, told without reading them.
//!
//! Notifications of the system may be lost, so what decides is what a look at the files shows: inode, size,
//! and the times of the last change to content and to inode. A file rewritten in place within one tick of
//! the system's clock keeps all of these, so a look that comes that soon after a change proves nothing.

use super::scan::Found;
use crate::clock;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files looked at for one version, at most; more are no model of anybody's.
const FILES_MAX: usize = 4096;
/// Folders below a version's own that are looked into.
const DEPTH_MAX: usize = 8;
/// The coarsest clock that a file system takes its times from, and some more.
pub const TICK: Duration = Duration::from_millis(50);

/// What a look at the files of a version showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    digest: blake3::Hash,
    /// Bytes of all files.
    bytes: u64,
    /// The last change was so recent that a further one could go unseen.
    racy: bool,
}

impl Fingerprint {
    /// Looks at the model file and all that may belong to it.
    ///
    /// In a version's folder that is everything, and the files beside the version folders; of a flat model it
    /// is the file and all that lies beside it and is no model. Reads no content; costs one system call a file.
    ///
    /// # Errors
    /// When the model file is not there; other files may come and go.
    pub fn of(found: &Found) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        files.insert(found.file.clone(), fs::symlink_metadata(&found.file)?);
        if let Some(model) = found.folder() {
            walk(&mut files, &model.join(found.version.to_string()), DEPTH_MAX);
            walk(&mut files, model, 0);
            // Whatever else the settings refer to, but not the other versions.
            folders(model)
                .filter(|path| !is_number(path))
                .for_each(|path| walk(&mut files, &path, 1));
        } else {
            let folder = found.file.parent().unwrap_or_else(|| Path::new("."));
            walk(&mut files, folder, 0);
            // Weights may lie in a folder, but other models' folders are theirs.
            folders(folder)
                .filter(|path| !folders(path).any(|below| is_number(&below)))
                .for_each(|path| walk(&mut files, &path, DEPTH_MAX));
            let model = |path: &Path| path.extension().is_some_and(|end| end == "onnx");
            files.retain(|path, _| *path == found.file || !model(path));
        }
        Ok(Self::from(&files))
    }

    fn from(files: &BTreeMap<PathBuf, Metadata>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut last = Duration::ZERO;
        for (path, data) in files {
            let name = path.as_os_str().as_encoded_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            for number in [data.dev(), data.ino(), data.size()] {
                hasher.update(&number.to_le_bytes());
            }
            for number in [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()] {
                hasher.update(&number.to_le_bytes());
            }
            last = last.max(since_epoch(data.ctime(), data.ctime_nsec()));
        }
        Self {
            digest: hasher.finalize(),
            bytes: files.values().fold(0, |sum, data| sum.saturating_add(data.size())),
            racy: is_recent(last, clock::wall()),
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a later look shows the very files that this one saw, with no change in between.
    #[must_use]
    pub fn still(&self, later: &Self) -> bool {
        self.digest == later.digest
    }

    /// Whether the last change was so recent that a further one could go unseen.
    #[must_use]
    pub fn is_racy(&self) -> bool {
        self.racy
    }
}

/// Times in the future are recent too: the clock was set back.
fn is_recent(last: Duration, now: Duration) -> bool {
    last + TICK > now
}

fn since_epoch(seconds: i64, nanos: i64) -> Duration {
    let (seconds, nanos) = (u64::try_from(seconds), u32::try_from(nanos));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

fn note(files: &mut BTreeMap<PathBuf, Metadata>, path: PathBuf) {
    if files.len() < FILES_MAX
        && let Ok(data) = fs::symlink_metadata(&path)
    {
        files.insert(path, data);
    }
}

fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir())
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

/// Notes all files of a folder, and of those in it down to a depth.
fn walk(files: &mut BTreeMap<PathBuf, Metadata>, folder: &Path, depth: usize) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(files, &entry.path(), depth - 1),
            Ok(kind) if kind.is_dir() => {}
            _ => note(files, entry.path()),
        }
        if files.len() >= FILES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path) -> Found {
        Found { name: "m".into(), version: 1, file: root.join("m/1/model.onnx") }
    }

    #[test]
    fn every_change_to_any_file_shows() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("m/1"), root.path().join("m/1/model.onnx"));
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(&file, b"one").unwrap();
        let look = || Fingerprint::of(&found(root.path())).unwrap();
        let mut last = look();
        assert!(last.still(&look()), "nothing changed");
        let changes: [(&str, &dyn Fn()); 6] = [
            ("longer", &|| fs::write(&file, b"three").unwrap()),
            ("replaced", &|| {
                fs::write(folder.join("new"), b"other").unwrap();
                fs::rename(folder.join("new"), &file).unwrap();
            }),
            ("weights below", &|| fs::write(folder.join("data/w.bin"), b"w").unwrap()),
            ("a setting beside", &|| fs::write(root.path().join("m/config.pbtxt"), b"c").unwrap()),
            ("a setting gone", &|| fs::remove_file(root.path().join("m/config.pbtxt")).unwrap()),
            ("time alone", &|| {
                let file = fs::File::options().write(true).open(&file).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            let now = look();
            assert!(!last.still(&now), "{what}");
            last = now;
        }
        fs::remove_file(&file).unwrap();
        assert!(Fingerprint::of(&found(root.path())).is_err());
    }

    #[test]
    fn weights_in_a_folder_beside_a_flat_model_are_its_own_and_other_models_are_not() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("m.onnx");
        for folder in ["weights/parts", "other/1"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(&file, b"one").unwrap();
        let found = Found { name: "m".into(), version: 1, file };
        let look = || Fingerprint::of(&found).unwrap();
        for (path, belongs) in [
            ("weights/w.bin", true),
            ("weights/parts/1.bin", true),
            ("w.bin", true),
            ("other.onnx", false),
            ("other/1/model.onnx", false),
            ("other/config.pbtxt", false),
        ] {
            let before = look();
            fs::write(root.path().join(path), b"w").unwrap();
            assert_eq!(!before.still(&look()), belongs, "{path}");
        }
    }

    #[test]
    fn what_just_changed_may_change_again_unseen() {
        let at = |ms: u64| Duration::from_millis(1_000_000 + ms);
        for (last, now, recent) in [(0, 0, true), (0, 49, true), (0, 51, false), (9, 0, true)] {
            assert_eq!(is_recent(at(last), at(now)), recent, "{last} {now}");
        }
    }
}
