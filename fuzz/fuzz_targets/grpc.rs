//! Any bytes as a message of a gRPC inference request.
#![no_main]

use bytes::Bytes;
use graftd::oip::grpc;
use graftd::proto::ModelInferRequest;
use graftd_fuzz::{agree, memory, promises, rows};
use prost::Message;

/// An empty input takes two bytes on the wire and some three hundred once decoded, in a list that doubles.
const FACTOR: usize = 768;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let decode = || ModelInferRequest::decode(bytes).ok().map(grpc::decode_infer);
    match memory::in_proportion(data.len(), FACTOR, decode) {
        Some(Ok(request)) => {
            let request = promises::request(request);
            agree::everywhere(&request);
            memory::in_proportion(data.len(), FACTOR, || rows::cut(&request, 0));
            rows::cut(&request, 1);
        }
        Some(Err(error)) => promises::error(&error),
        None => {}
    }
});
