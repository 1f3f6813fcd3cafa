//! Finding ONNX Runtime's library: a fixed order of places, and never a file that others may write.

use super::onnx;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of the library that `make` fetches and the tests run with.
pub const PINNED_VERSION: &str = "1.31.1";
/// The oldest version whose interface has all that is called here: `api-24` in `Cargo.toml`.
const LEAST_VERSION: &str = "1.24";
/// The verb of the process that tries a library.
const VERB: &str = "try-runtime";

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

/// Loads a library in a process of its own, as loading is running it.
///
/// # Errors
/// A sentence: why it is no usable ONNX Runtime, and what is expected.
pub fn try_out(program: &Path, library: &Path) -> Result<(), String> {
    let shown = library.display();
    let tried = Command::new(program)
        .args([VERB.as_ref(), library.as_os_str()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ONNX Runtime's library {shown} could not be tried: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stderr);
    let why = match said.lines().last() {
        Some(line) => line.trim_start_matches("graftd: ").to_owned(),
        None => format!("a process that loads it ends with {}", tried.status),
    };
    Err(format!(
        "{shown} is no usable ONNX Runtime library: {why}; expected a libonnxruntime.so of version \
         {LEAST_VERSION} or newer for this machine, such as the {PINNED_VERSION} that `make runtime` \
         fetches; name it with --onnxruntime PATH"
    ))
}

/// What the process does that tries a library.
///
/// # Errors
/// What is wrong with it.
pub fn tried(library: &Path) -> Result<(), String> {
    onnx::open(library).map(drop)
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
