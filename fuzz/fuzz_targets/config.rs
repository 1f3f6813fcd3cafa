//! Any text as the settings of a model: as a `config.pbtxt` in protobuf's text format, as the JSON of one where
//! it begins with a brace, and as a `model.toml`.
#![no_main]

use graftd::model::config::Setup;
use graftd::proto::ModelConfig;
use graftd::reflect;
use graftd_fuzz::{memory, promises};
use libfuzzer_sys::fuzz_target;

fn message(text: &str) {
    let parse = || match text.trim_start().starts_with('{') {
        true => reflect::from_json::<ModelConfig>(text),
        false => reflect::from_text::<ModelConfig>(text),
    };
    match memory::in_proportion(text.len(), 4096, parse) {
        Ok(config) => {
            let json = reflect::to_json(&config).expect("every configuration is JSON").to_string();
            let again = reflect::from_json::<ModelConfig>(&json).expect("our own JSON");
            // Compared as text, as a number may be NaN.
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
        Err(why) => {
            assert!(!why.is_empty());
            assert!(Setup::of_config(text, "m").is_err(), "settings of what is no message");
        }
    }
}

fn settings(text: &str) {
    match memory::in_proportion(text.len(), 8192, || Setup::of_config(text, "m")) {
        Ok(setup) => {
            let config = setup.config.expect("what was declared, word for word");
            let rows = usize::try_from(config.max_batch_size).expect("no batches below 0");
            assert_eq!(setup.declared.batched, (rows > 0).then_some(rows));
            assert_eq!(setup.declared.inputs.len(), config.input.len());
            assert_eq!(setup.declared.outputs.len(), config.output.len());
            assert!(setup.notes.iter().all(|note| !note.is_empty()));
        }
        Err(why) => promises::sentence(&why),
    }
    if let Err(why) = memory::in_proportion(text.len(), 4096, || Setup::of_own(text)) {
        promises::sentence(&why);
    }
}

fuzz_target!(init: { reflect::definition::<ModelConfig>().expect("a definition, made once"); }, |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    message(text);
    settings(text);
});
