//! The Unix socket's file: ours alone while we live, gone when we are.
//!
//! A lock beside the file settles who may replace it: two daemons that start at once race for the lock and
//! not for the file. The socket is bound under another name and gets its mode before it gets its place.

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// The longest path that the system takes for a socket.
const PATH_BYTES_MAX: usize = 107;
/// Connections that wait to be accepted; the system has a limit of its own below.
const BACKLOG: i32 = 4096;

/// Who may connect, as the file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file's mode.
    pub mode: u32,
    /// The file's group; none for the daemon's own.
    pub group: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

/// A bound socket file; dropping it removes the file if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    _lock: File,
}

impl SocketFile {
    /// Binds a socket, replacing a stale file and refusing a live one; makes its folder where it is missing.
    ///
    /// # Errors
    /// A sentence that says what is in the way, whose it is, and what to do.
    pub fn bind(path: &Path, access: Access) -> Result<(Self, UnixListener), String> {
        let shown = path.display();
        let temporary = temporary(path)?;
        let text = |error: io::Error| format!("--socket {shown}: {error}");
        make_folder(path).map_err(text)?;
        let lock = lock(path)?;
        if let Ok(stream) = UnixStream::connect(path) {
            let who = holder(&stream).unwrap_or_default();
            return Err(format!(
                "another program{who} listens on {shown}; stop it or choose another --socket"
            ));
        }
        if let Ok(meta) = fs::symlink_metadata(path)
            && !meta.file_type().is_socket()
        {
            return Err(format!(
                "{shown} exists and is no socket; move it away or choose another --socket"
            ));
        }
        let listener = listener(&temporary).map_err(|error| text(error.into()))?;
        let place = || -> Result<(u64, u64), String> {
            if let Some(group) = access.group {
                std::os::unix::fs::chown(&temporary, None, Some(group)).map_err(|error| {
                    format!("--socket-group {group}: {error}; choose a group that you are in")
                })?;
            }
            let mode = fs::Permissions::from_mode(access.mode);
            fs::set_permissions(&temporary, mode).map_err(text)?;
            let meta = fs::metadata(&temporary).map_err(text)?;
            fs::rename(&temporary, path).map_err(text)?;
            Ok((meta.dev(), meta.ino()))
        };
        let inode = place().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        let file = Self { path: path.to_owned(), inode, _lock: lock };
        let listener = UnixListener::from_std(listener).map_err(text)?;
        Ok((file, listener))
    }
}

/// Where the socket is bound before it gets its place.
fn temporary(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    if path.as_os_str().as_encoded_bytes().starts_with(b"@") {
        return Err(format!("--socket {shown}: abstract sockets have no permissions; name a file"));
    }
    let temporary = beside(path, &format!("{}.tmp", std::process::id()));
    let length = temporary.as_os_str().len();
    if length > PATH_BYTES_MAX {
        let own = path.as_os_str().len();
        let most = PATH_BYTES_MAX.saturating_sub(length - own);
        return Err(format!(
            "--socket {shown} is too long: {own} bytes, {most} fit; choose a shorter path"
        ));
    }
    Ok(temporary)
}

/// Makes the socket's folder, for its owner alone, where it is missing and lies in one that is not; says so where others may write to it.
fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    // Not what is above it: that is rather a path that was misspelt, and nobody would find the daemon there.
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => tracing::info!("made {} for the socket", folder.display()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = folder.parent().unwrap_or(folder).display();
            let text = format!("there is no folder {above}; correct the path, or make the folder");
            return Err(io::Error::new(error.kind(), text));
        }
        Err(error) => return Err(error),
    }
    let mode = fs::metadata(folder)?.permissions().mode();
    // Sticky folders, as /tmp is, let nobody replace what is another's.
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        tracing::warn!(
            "everybody may write to {}, and so replace the socket there; choose another --socket",
            folder.display()
        );
    }
    Ok(())
}

/// A listening socket whose file nobody but its owner could ever use.
fn listener(path: &Path) -> rustix::io::Result<std::os::unix::net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the unbound socket, so that no umask leaves a gap.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    // What a daemon with our number left behind after a crash.
    let _ = fs::remove_file(path);
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
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

/// Takes the lock beside the socket and writes our number into it.
fn lock(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let text = |error: io::Error| format!("--socket {shown}: {error}");
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(beside(path, "lock")).map_err(text)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let who = UnixStream::connect(path).ok().and_then(|stream| holder(&stream));
            let who = who.or_else(|| listed(&file)).or_else(|| written(&file));
            let who = who.unwrap_or_default();
            return Err(format!(
                "another graftd{who} serves {shown}; stop it first or choose another --socket"
            ));
        }
        Err(error) => return Err(text(error.into())),
    }
    // Only a courtesy to the next who wants it: the lock is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The process that listens at the other end.
fn holder(stream: &UnixStream) -> Option<String> {
    let credentials = rustix::net::sockopt::socket_peercred(stream).ok()?;
    Some(process(credentials.pid.as_raw_nonzero().get()))
}

/// The process that has the lock, as the system lists it: it may not yet have written down who it is.
fn listed(lock: &File) -> Option<String> {
    // The device is left out: file systems that lie over others have another one than their files' locks.
    let inode = format!(":{}", lock.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let ours = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = ours.filter_map(|words| match words[..] {
        [_, "FLOCK", _, "WRITE", pid, place, ..] if place.ends_with(&inode) => pid.parse().ok(),
        _ => None,
    });
    let pid = ours.next().filter(|pid| *pid > 0)?;
    ours.next().is_none().then(|| process(pid))
}

/// The process that wrote its number into the lock.
fn written(lock: &File) -> Option<String> {
    let mut bytes = [0; 32];
    let length = lock.read_at(&mut bytes, 0).ok()?;
    str::from_utf8(bytes.get(..length)?).ok()?.trim().parse().ok().map(process)
}

fn process(pid: i32) -> String {
    format!(" (process {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (file, _listener) = SocketFile::bind(&path, Access::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let why = SocketFile::bind(&path, Access::default()).unwrap_err();
        let own = format!("another graftd (process {})", std::process::id());
        assert!(why.contains(&own), "{why}");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn who_just_took_the_lock_is_named_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let file = File::create(beside(&path, "lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let why = lock(&path).unwrap_err();
        let own = format!("another graftd (process {}) serves ", std::process::id());
        assert!(why.starts_with(&own), "{why}");
    }

    #[tokio::test]
    async fn mode_and_group_are_what_was_asked_for_and_the_folder_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("graftd/s.sock");
        let group = rustix::process::getegid().as_raw();
        let access = Access { mode: 0o660, group: Some(group) };
        let (_file, _listener) = SocketFile::bind(&path, access).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o660, group));
        let mode = fs::metadata(dir.path().join("graftd")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let path = dir.path().join("rnu/graftd/s.sock");
        let why = SocketFile::bind(&path, access).unwrap_err();
        assert!(why.contains("there is no folder") && why.contains("rnu"), "{why}");
        assert!(!dir.path().join("rnu").exists());
    }

    #[tokio::test]
    async fn a_lock_without_a_listener_names_its_holder_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _held = lock(&path).unwrap();
        let why = SocketFile::bind(&path, Access::default()).unwrap_err();
        assert!(why.contains(&format!("(process {})", std::process::id())), "{why}");
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(
            SocketFile::bind(&path, Access::default()).unwrap_err().contains("another program")
        );
        let file = dir.path().join("notes");
        fs::write(&file, b"mine").unwrap();
        assert!(SocketFile::bind(&file, Access::default()).unwrap_err().contains("no socket"));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        assert!(
            SocketFile::bind(Path::new("@x"), Access::default()).unwrap_err().contains("abstract")
        );
        let long = dir.path().join("x".repeat(120));
        assert!(SocketFile::bind(&long, Access::default()).unwrap_err().contains("too long"));
    }

    #[tokio::test]
    async fn a_file_that_someone_else_put_there_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (file, _listener) = SocketFile::bind(&path, Access::default()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"theirs").unwrap();
        drop(file);
        assert!(path.exists());
    }
}
