//! Files of a model, opened in its own folder and nowhere else.
//!
//! Model files name other files (weights, labels, data to warm up with), and a name may say `..` or be a
//! link; the system itself is asked to stay below the folder.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens a plain file below a folder, links not followed.
///
/// # Errors
/// A sentence, when there is no such file or the name leads elsewhere.
pub(crate) fn open(folder: &Path, location: &str) -> Result<File, String> {
    let dir = File::open(folder).map_err(|error| error.to_string())?;
    // A pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file =
        rustix::fs::openat2(&dir, location, flags, Mode::empty(), resolve).map_err(not_opened)?;
    let file = File::from(file);
    match file.metadata() {
        Ok(data) if data.is_file() => Ok(file),
        Ok(_) => Err("it is no plain file".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn not_opened(errno: Errno) -> String {
    match errno {
        Errno::LOOP | Errno::XDEV => {
            "it is a link or leads out of the model's folder; put the plain file itself there"
                .into()
        }
        other => format!("{other}; it must be a plain file in the model's folder"),
    }
}

/// Reads a plain file below a folder.
///
/// # Errors
/// As [`open`], and when the file is larger than `limit` bytes.
pub(crate) fn read(folder: &Path, location: &str, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = open(folder, location)?;
    // Known beforehand for all but files that grow.
    if file.metadata().is_ok_and(|data| data.len() > limit) {
        return Err(format!("it is larger than {limit} bytes"));
    }
    let count = file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if count as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_plain_files_of_the_folder_are_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("m");
        fs::create_dir_all(folder.join("warmup")).unwrap();
        fs::write(folder.join("warmup/x"), b"12").unwrap();
        fs::write(root.path().join("outside"), b"3").unwrap();
        std::os::unix::fs::symlink(root.path().join("outside"), folder.join("link")).unwrap();
        assert_eq!(read(&folder, "warmup/x", 2).unwrap(), b"12");
        assert!(read(&folder, "warmup/x", 1).unwrap_err().contains("1 bytes"));
        for name in ["../outside", "link", "warmup", "nothing", "", "/etc/passwd"] {
            assert!(read(&folder, name, 9).is_err(), "{name}");
        }
    }
}
