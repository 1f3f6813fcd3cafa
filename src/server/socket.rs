//! The Unix socket's file: ours alone while we live, gone when we are.
//!
//! A lock beside the file settles who may replace it: two daemons that start at once race for the lock and
//! not for the file. The socket is bound under another name and gets its mode before it gets its place.

use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The longest path that the system takes for a socket.
const PATH_BYTES_MAX: usize = 107;

/// A bound socket file; dropping it removes the file if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    _lock: File,
}

impl SocketFile {
    /// Binds a socket, replacing a stale file and refusing a live one.
    ///
    /// # Errors
    /// A sentence that says what is in the way and what to do.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), String> {
        let shown = path.display();
        if path.as_os_str().as_encoded_bytes().starts_with(b"@") {
            return Err(format!(
                "--socket {shown}: abstract sockets have no permissions; name a file"
            ));
        }
        let temporary = beside(path, &format!("{}.tmp", std::process::id()));
        let length = temporary.as_os_str().len();
        if length > PATH_BYTES_MAX {
            return Err(format!(
                "--socket {shown} is too long: {length} bytes of {PATH_BYTES_MAX}"
            ));
        }
        let text = |error: io::Error| format!("--socket {shown}: {error}");
        let lock = lock(&beside(path, "lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("another graftd serves {shown}; stop it first or choose another --socket")
            }
            _ => text(error),
        })?;
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(format!("another program listens on {shown}; choose another --socket"));
        }
        if let Ok(meta) = fs::symlink_metadata(path)
            && !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type())
        {
            return Err(format!(
                "{shown} exists and is no socket; move it away or choose another --socket"
            ));
        }
        let listener = UnixListener::bind(&temporary).map_err(text)?;
        let place = || -> io::Result<(u64, u64)> {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
            let meta = fs::metadata(&temporary)?;
            fs::rename(&temporary, path)?;
            Ok((meta.dev(), meta.ino()))
        };
        let inode = place().inspect_err(|_| drop(fs::remove_file(&temporary))).map_err(text)?;
        Ok((Self { path: path.to_owned(), inode, _lock: lock }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode);
        if ours {
            // Whatever keeps it from going, the next daemon replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (file, _listener) = SocketFile::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(SocketFile::bind(&path).unwrap_err().contains("another graftd"));
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(SocketFile::bind(&path).unwrap_err().contains("another program"));
        let file = dir.path().join("notes");
        fs::write(&file, b"mine").unwrap();
        assert!(SocketFile::bind(&file).unwrap_err().contains("no socket"));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(SocketFile::bind(Path::new("@x")).unwrap_err().contains("abstract"));
        let long = dir.path().join("x".repeat(120));
        assert!(SocketFile::bind(&long).unwrap_err().contains("too long"));
    }

    #[tokio::test]
    async fn a_file_that_someone_else_put_there_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (file, _listener) = SocketFile::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"theirs").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
