//! `src/oip/proto.rs` is what `proto/inference.proto` generates.
//!
//! The generated file is checked in, so that building graftd needs neither protoc nor a build
//! script. `GRAFTD_REGENERATE=1 cargo test --test it generated` rewrites it.

use std::path::Path;

const HEADER: &str = "\
//! Messages and services of `proto/inference.proto`.
//!
//! Generated, so that the numbers on the wire have one source; do not edit. To refresh it:
//! `GRAFTD_REGENERATE=1 cargo test --test it generated`.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
#![allow(clippy::pedantic, clippy::nursery, clippy::restriction, unused_qualifications)]

";

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("proto/inference.proto")], [root.join("proto")])
        .expect("proto/inference.proto compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        .btree_map(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code is generated");
    let code = std::fs::read_to_string(out.path().join("inference.rs")).expect("inference.rs");
    format!("{HEADER}{code}")
}

#[test]
fn checked_in_code_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/oip/proto.rs");
    let fresh = generate();
    if std::env::var_os("GRAFTD_REGENERATE").is_some() {
        std::fs::write(&path, &fresh).expect("src/oip/proto.rs can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == fresh,
        "src/oip/proto.rs is not what proto/inference.proto generates; \
         refresh it with: GRAFTD_REGENERATE=1 cargo test --test it generated"
    );
}
