//! Any body as an inference request of JSON alone.
#![no_main]

use bytes::Bytes;
use graftd::oip::rest::{self, Decoded};
use graftd_fuzz::{agree, memory, promises, rows};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let bytes = Bytes::copy_from_slice(body);
    match memory::in_proportion(body.len(), 32, || rest::decode_infer(bytes, None)) {
        Ok(Decoded::Request(request, _)) => {
            let request = promises::request(request);
            agree::everywhere(&request);
            memory::in_proportion(body.len(), 256, || rows::cut(&request, 0));
            rows::cut(&request, 1);
        }
        Ok(Decoded::Raw(_)) => panic!("only a header length of 0 makes a body raw"),
        Err(error) => promises::error(&error),
    }
});
