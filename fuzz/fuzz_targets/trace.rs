//! Any bytes as recorded traffic: a trace whose requests are for its own models, or a sentence.
#![no_main]

use graftd::traffic::trace::{HEAD, Trace};
use graftd_fuzz::{memory, promises};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    // Most inputs are about what follows the head.
    let with_head = [HEAD, data].concat();
    for bytes in [data, &with_head] {
        match memory::in_proportion(bytes.len(), 4096, || Trace::read(bytes)) {
            Ok(trace) => {
                assert!(trace.asks.iter().all(|ask| ask.model < trace.models.len() && ask.rows > 0));
                assert!(trace.asks.is_sorted_by_key(|ask| ask.at));
                let asks = trace.asks.len();
                assert_eq!(Arc::new(trace).replay(Some(100.0), 3).count(), asks);
            }
            Err(why) => promises::sentence(&why),
        }
    }
});
