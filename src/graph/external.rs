//! Where a model may keep its weights: the lexical rule for external-data locations.
//!
//! Separate because it is the first of two guards (the other opens files without following links) and its
//! table of refusals must be readable in one place.
//!
//! # Source
//! CVE-2022-25882, CVE-2024-27318, CVE-2026-27489 (traversal), and ONNX Runtime's in-memory marker, which makes
//! it read from an address named in the file.

use super::error::GraphError;
use super::proto::TensorProto;
use crate::text;

/// Where a tensor's values lie outside the model file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExternalData {
    /// Path below the model's folder, lexically checked.
    pub location: String,
    /// First byte in that file.
    pub offset: u64,
    /// Bytes; none for all that the shape needs.
    pub length: Option<u64>,
}

/// Why a location is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalError {
    /// There is no location.
    #[error("names no file")]
    Empty,
    /// The path starts at the root or at a drive.
    #[error("is not relative to the model's folder")]
    Absolute,
    /// A part of the path is `..`.
    #[error("leaves the model's folder")]
    Parent,
    /// The path names a folder.
    #[error("names a folder, not a file")]
    Folder,
    /// The path holds NUL, another control character or a backslash.
    #[error("holds a character that no weights file needs")]
    Character,
    /// The path is ONNX Runtime's marker for an address in memory.
    #[error("is a marker for memory, not a file")]
    Memory,
}

/// Checks that a location is a plain path inside the model's own folder.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_location(location: &str) -> Result<(), ExternalError> {
    if location.contains("_ORT_MEM_ADDR_") {
        return Err(ExternalError::Memory);
    }
    if location.chars().any(|c| c.is_control() || c == '\\') {
        return Err(ExternalError::Character);
    }
    if location.is_empty() {
        return Err(ExternalError::Empty);
    }
    if location.starts_with('/') || has_drive(location) {
        return Err(ExternalError::Absolute);
    }
    if location.split('/').any(|part| part == "..") {
        return Err(ExternalError::Parent);
    }
    match location.rsplit('/').next() {
        Some("" | ".") | None => Err(ExternalError::Folder),
        Some(_) => Ok(()),
    }
}

fn has_drive(location: &str) -> bool {
    let mut chars = location.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}

/// Where a tensor's values lie, if not in the model file.
///
/// # Errors
/// A location that [`check_location`] refuses, or fields that mean nothing.
pub fn external_data(tensor: &TensorProto) -> Result<Option<ExternalData>, GraphError> {
    let bad = |what| GraphError::ExternalField { tensor: text::name(tensor.name()), what };
    match tensor.data_location() {
        0 => return Ok(None),
        1 => {}
        _ => return Err(bad("data_location")),
    }
    let mut found = ExternalData { location: String::new(), offset: 0, length: None };
    for entry in &tensor.external_data {
        match entry.key() {
            "location" => entry.value().clone_into(&mut found.location),
            "offset" => found.offset = entry.value().parse().map_err(|_| bad("offset"))?,
            "length" => {
                found.length = Some(entry.value().parse().map_err(|_| bad("length"))?);
            }
            // Checksums and writers' own notes; the daemon keeps its own digests.
            _ => {}
        }
        if entry.key() == "location" {
            check_location(entry.value()).map_err(|why| refused(tensor, entry.value(), why))?;
        }
    }
    if found.location.is_empty() {
        return Err(refused(tensor, "", ExternalError::Empty));
    }
    Ok(Some(found))
}

fn refused(tensor: &TensorProto, location: &str, why: ExternalError) -> GraphError {
    GraphError::External { tensor: text::name(tensor.name()), location: text::name(location), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let check = |location: &str, expected: Result<(), ExternalError>| {
            assert_eq!(check_location(location), expected, "{location:?}");
        };
        check("weights.bin", Ok(()));
        check("./weights.bin", Ok(()));
        check("a/b/weights.bin", Ok(()));
        check("a..b", Ok(()));
        check("...", Ok(()));
        check("", Err(ExternalError::Empty));
        check("/etc/passwd", Err(ExternalError::Absolute));
        check("//host/x", Err(ExternalError::Absolute));
        check("C:weights", Err(ExternalError::Absolute));
        check("..", Err(ExternalError::Parent));
        check("../x", Err(ExternalError::Parent));
        check("a/../x", Err(ExternalError::Parent));
        check("a/..", Err(ExternalError::Parent));
        check("..\\x", Err(ExternalError::Character));
        check("a\0b", Err(ExternalError::Character));
        check("a\nb", Err(ExternalError::Character));
        check("a/", Err(ExternalError::Folder));
        check(".", Err(ExternalError::Folder));
        check("a/.", Err(ExternalError::Folder));
        check("*/_ORT_MEM_ADDR_/*", Err(ExternalError::Memory));
        check("x/*/_ORT_MEM_ADDR_/*", Err(ExternalError::Memory));
    }
}
