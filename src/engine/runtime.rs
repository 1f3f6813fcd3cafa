//! Finding ONNX Runtime's library: a fixed order of places, and never a file that others may write.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The version of the library that `make` fetches and the tests run with.
pub const PINNED_VERSION: &str = "1.31.1";

/// Finds the library: what the user named, then the environment, the fetched folder, beside the
/// executable, and the system's own places.
///
/// # Errors
/// One text that says what was looked for and what to type.
pub fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return check(path).map_err(|why| format!("--onnxruntime {}: {why}", path.display()));
    }
    let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    if let Some(path) = variable.map(PathBuf::from) {
        return check(&path).map_err(|why| format!("ORT_DYLIB_PATH={}: {why}", path.display()));
    }
    let mut refused = Vec::new();
    for path in candidates() {
        match check(&path) {
            Ok(path) => return Ok(path),
            Err(_) if !path.exists() => {}
            Err(why) => refused.push(format!("{}: {why}", path.display())),
        }
    }
    let mut text = format!(
        "ONNX Runtime was not found: no --onnxruntime PATH, no ORT_DYLIB_PATH, no \
         target/onnxruntime/libonnxruntime.so.{PINNED_VERSION}, nothing beside the executable or in \
         the system's library folders. Type `make runtime` to fetch it, or name the library with \
         --onnxruntime PATH."
    );
    refused.iter().for_each(|why| text.push_str(&format!("\n  passed over {why}")));
    Err(text)
}

fn candidates() -> Vec<PathBuf> {
    let versioned = format!("libonnxruntime.so.{PINNED_VERSION}");
    let mut places = Vec::new();
    if let Ok(exe) = std::env::current_exe() {
        // The fetched folder stands beside the build profiles: target/onnxruntime, target/release.
        let above = exe.ancestors().skip(1);
        places.extend(
            above.clone().skip(1).take(2).map(|dir| dir.join("onnxruntime").join(&versioned)),
        );
        let beside = above.take(1);
        places.extend(beside.flat_map(|dir| [dir.join(&versioned), dir.join("libonnxruntime.so")]));
    }
    let system = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu"];
    let names = [versioned.as_str(), "libonnxruntime.so"];
    places.extend(system.iter().flat_map(|dir| names.map(|name| Path::new(dir).join(name))));
    places
}

/// Loading a library is running it, so it must be a file of ours or root's that nobody else may write.
fn check(path: &Path) -> Result<PathBuf, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    for part in [Some(path.as_path()), path.parent()].into_iter().flatten() {
        let meta = std::fs::metadata(part).map_err(|error| error.to_string())?;
        let us = rustix::process::geteuid().as_raw();
        if meta.uid() != 0 && meta.uid() != us {
            return Err(format!(
                "{} belongs to user {}; expected root or {us}",
                part.display(),
                meta.uid()
            ));
        }
        // A sticky folder keeps others from replacing our file.
        let writable = meta.mode() & 0o002 != 0 && (part == path || meta.mode() & 0o1000 == 0);
        if writable {
            return Err(format!("{} may be written by others; chmod o-w it", part.display()));
        }
    }
    if path.is_file() { Ok(path) } else { Err("is no file".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_library_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(find(Some(&path)).is_ok());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(find(Some(&path)).unwrap_err().contains("written by others"));
        assert!(find(Some(&dir.path().join("missing.so"))).unwrap_err().contains("--onnxruntime"));
    }
}
