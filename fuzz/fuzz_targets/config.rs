//! Any text as the configuration of a model: in protobuf's text format, or as JSON where it begins with a brace.
#![no_main]

use graftd::proto::ModelConfig;
use graftd::reflect;
use graftd_fuzz::memory;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: { reflect::definition::<ModelConfig>().expect("a definition, made once"); }, |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parse = || match text.starts_with('{') {
        true => reflect::from_json::<ModelConfig>(text),
        false => reflect::from_text::<ModelConfig>(text),
    };
    match memory::in_proportion(data.len(), 4096, parse) {
        Ok(config) => {
            let json = reflect::to_json(&config).expect("every configuration is JSON").to_string();
            let again = reflect::from_json::<ModelConfig>(&json).expect("our own JSON");
            // Compared as text, as a number may be NaN.
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
