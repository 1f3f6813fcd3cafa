//! `src/proto.rs` and `proto/descriptors.bin` are what `proto/inference.proto` generates.
//!
//! The generated file is checked in, so that building graftd needs neither protoc nor a build
//! script. `GRAFTD_REGENERATE=1 cargo test --test it generated` rewrites it.

use prost::Message;
use std::path::Path;

const HEADER: &str = "\
//! Messages and services of the protocol: `proto/inference.proto` and what it imports.
//!
//! Generated, so that the numbers on the wire have one source; do not edit. To refresh it:
//! `GRAFTD_REGENERATE=1 cargo test --test it generated`.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
#![allow(clippy::pedantic, clippy::nursery, clippy::restriction, unused_qualifications)]

/// The definitions themselves, as a set of file descriptors: for text forms and reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(\"../proto/descriptors.bin\");

";

/// The generated code and the encoded descriptors.
fn generate() -> (String, Vec<u8>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("proto/inference.proto")], [root.join("proto")])
        .expect("proto/inference.proto compiles");
    let encoded = descriptors.encode_to_vec();
    let mut named = tonic_prost_build::Config::new();
    named.enable_type_names();
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::codec::BoundedCodec")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, named)
        .expect("code is generated");
    let code = std::fs::read_to_string(out.path().join("inference.rs")).expect("inference.rs");
    (format!("{HEADER}{code}"), encoded)
}

#[test]
fn checked_in_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (code, descriptors) = generate();
    for (file, fresh) in
        [("src/proto.rs", code.into_bytes()), ("proto/descriptors.bin", descriptors)]
    {
        let path = root.join(file);
        if std::env::var_os("GRAFTD_REGENERATE").is_some() {
            std::fs::write(&path, &fresh).expect("what is generated can be written");
        }
        assert!(
            std::fs::read(&path).unwrap_or_default() == fresh,
            "{file} is not what proto/inference.proto generates; \
             refresh it with: GRAFTD_REGENERATE=1 cargo test --test it generated"
        );
    }
}
