//! FP32 elements kept as FP16: base outputs that may be rounded take half the memory.

use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Elements that are converted at a time.
const CHUNK: usize = 256;

/// FP32 elements rounded to FP16; none where one of them is too large for that.
pub(super) fn packed(exact: &[u8]) -> Option<Bytes> {
    let (elements, _) = exact.as_chunks::<4>();
    let mut packed = Vec::with_capacity(elements.len() * 2);
    let (mut floats, mut halves) = ([0.0_f32; CHUNK], [f16::ZERO; CHUNK]);
    for chunk in elements.chunks(CHUNK) {
        let (floats, halves) = (&mut floats[..chunk.len()], &mut halves[..chunk.len()]);
        floats.iter_mut().zip(chunk).for_each(|(float, bytes)| *float = f32::from_le_bytes(*bytes));
        halves.convert_from_f32_slice(floats);
        let lost = |(float, half): (&f32, &f16)| float.is_finite() && !half.is_finite();
        if floats.iter().zip(halves.iter()).any(lost) {
            return None;
        }
        halves.iter().for_each(|half| packed.extend_from_slice(&half.to_le_bytes()));
    }
    Some(packed.into())
}

/// FP16 elements as FP32, which take twice the bytes.
pub(super) fn unpack(packed: &[u8], exact: &mut [u8]) {
    let (elements, _) = packed.as_chunks::<2>();
    let (mut floats, mut halves) = ([0.0_f32; CHUNK], [f16::ZERO; CHUNK]);
    for (from, to) in elements.chunks(CHUNK).zip(exact.chunks_mut(CHUNK * 4)) {
        let (floats, halves) = (&mut floats[..from.len()], &mut halves[..from.len()]);
        halves.iter_mut().zip(from).for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
        halves.convert_to_f32_slice(floats);
        for (float, to) in floats.iter().zip(to.as_chunks_mut::<4>().0) {
            *to = float.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(floats: &[f32]) -> Vec<u8> {
        floats.iter().flat_map(|float| float.to_le_bytes()).collect()
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn there_and_back(given: &[f32]) -> Option<Vec<f32>> {
        let packed = packed(&bytes(given))?;
        assert_eq!(packed.len(), given.len() * 2);
        let mut exact = vec![0; packed.len() * 2];
        unpack(&packed, &mut exact);
        Some(floats(&exact))
    }

    proptest! {
        #[test]
        fn every_number_comes_back_within_a_rounding(
            given in proptest::collection::vec(-65_000.0_f32..65_000.0, 0..700)
        ) {
            let back = there_and_back(&given).unwrap();
            prop_assert_eq!(back.len(), given.len());
            for (given, back) in given.iter().zip(back) {
                let limit = (given.abs() / 2048.0).max(2.0_f32.powi(-24));
                prop_assert!((given - back).abs() <= limit, "{given} became {back}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so_and_what_is_too_large_is_not_packed() {
        let odd = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0];
        let back = there_and_back(&odd).unwrap();
        assert_eq!(back[..2], odd[..2]);
        assert!(back[2].is_nan() && back[4].is_sign_negative());
        assert_eq!(there_and_back(&[1.0, 70_000.0]), None);
    }
}
