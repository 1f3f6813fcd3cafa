//! Any body with any header length: JSON with binary data behind it, or one raw tensor for any model.
//!
//! Two bytes of header length come first, little-endian. Where they are 0 a model follows: whether it
//! batches and its datatype, its number of axes, one byte an axis.
#![no_main]

use bytes::Bytes;
use graftd::oip::rest::{self, Decoded, RawRequest};
use graftd::request::TensorMetadata;
use graftd::tensor::DataType;
use graftd_fuzz::{agree, memory, promises, rows};

/// The sizes that a byte stands for: small ones, open ones, and those past what can be multiplied.
fn size(byte: u8) -> i64 {
    match byte {
        0..=0x7f => i64::from(byte),
        0x80..=0xbf => -1,
        0xc0..=0xdf => 1 << (byte & 0x1f),
        0xe0..=0xfe => 1 << (31 + (byte & 0x1f)),
        0xff => i64::MAX,
    }
}

fn complete(raw: RawRequest, model: [u8; 2], axes: &[u8]) {
    let [batched, datatype] = model;
    let datatype = DataType::ALL[usize::from(datatype) % DataType::ALL.len()];
    let shape: Vec<i64> = axes.iter().map(|&byte| size(byte)).collect();
    let input = TensorMetadata { name: "IN".to_owned(), datatype, shape: shape.clone() };
    match raw.complete(&[input], batched & 1 == 1) {
        Ok((request, form)) => {
            let request = promises::request(request);
            assert!(form.is_binary("any"));
            let found = &request.inputs[0].shape.0;
            assert_eq!(found.len(), shape.len());
            let fits =
                |(&size, &found): (&i64, &usize)| size < 0 || i64::try_from(found) == Ok(size);
            assert!(shape.iter().zip(found).all(fits), "{shape:?} became {found:?}");
            agree::everywhere(&request);
            rows::cut(&request, 0);
        }
        Err(error) => promises::error(&error),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((length, mut body)) = data.split_first_chunk::<2>() else { return };
    let header_length = usize::from(u16::from_le_bytes(*length));
    let mut model = None;
    if header_length == 0 {
        let Some((&[batched, datatype, rank], rest)) = body.split_first_chunk::<3>() else {
            return;
        };
        let Some((axes, rest)) = rest.split_at_checked(usize::from(rank % 5)) else { return };
        model = Some(([batched, datatype], axes));
        body = rest;
    }
    let bytes = Bytes::copy_from_slice(body);
    let decode = || rest::decode_infer(bytes, Some(header_length));
    match memory::in_proportion(body.len(), 32, decode) {
        Ok(Decoded::Request(request, _)) => {
            let request = promises::request(request);
            agree::everywhere(&request);
            memory::in_proportion(body.len(), 256, || rows::cut(&request, 0));
            rows::cut(&request, 1);
        }
        Ok(Decoded::Raw(raw)) => {
            let (model, axes) = model.expect("only a header length of 0 makes a body raw");
            complete(raw, model, axes);
        }
        Err(error) => promises::error(&error),
    }
});
