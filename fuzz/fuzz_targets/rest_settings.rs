//! Any body of a request that asks for something else than an inference.
#![no_main]

use graftd::error::InferError;
use graftd::oip::rest::extensions;
use graftd_fuzz::{memory, promises};

fn refused<T>(read: Result<T, InferError>) {
    if let Err(error) = read {
        promises::error(&error);
    }
}

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    memory::in_proportion(body.len(), 256, || {
        refused(extensions::decode_index(body));
        refused(extensions::decode_repository_parameters(body));
        refused(extensions::decode_log_settings(body));
        refused(extensions::decode_trace_settings(Some("m"), body));
        refused(extensions::decode_register("region", body));
    });
});
