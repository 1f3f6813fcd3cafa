//! The reader against `serde_json`, and its words.

use super::*;
use proptest::prelude::*;

/// Whether the reader takes the whole text.
fn reads(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.skip().and_then(|()| reader.end()).is_ok()
}

fn one_string(text: &str) -> Option<String> {
    Reader::new(text).string("it").ok().map(Cow::into_owned)
}

/// Text that is nearly JSON more often than chance would have it.
fn nearly_json() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"",
        "\\",
        "1",
        "-1",
        "-0",
        "01",
        "1.5",
        "1.",
        ".5",
        "1e5",
        "1E+5",
        "1e",
        "-",
        "+1",
        "true",
        "false",
        "null",
        "nul",
        "truex",
        " ",
        "\n",
        "\t",
        "\u{1}",
        "é",
        "0x1",
        "18446744073709551616",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn takes_what_serde_json_takes(text in nearly_json()) {
        let theirs = match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(_) => true,
            // A number past a double is JSON; whoever reads the number judges its range.
            Err(error) => error.to_string().contains("number out of range")
                && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(),
        };
        prop_assert_eq!(reads(&text), theirs, "{:?}", text);
    }

    #[test]
    fn strings_mean_what_serde_json_says(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).expect("a string is JSON");
        prop_assert_eq!(one_string(&quoted), Some(text));
    }

    #[test]
    fn escapes_mean_what_serde_json_says(codes in prop::collection::vec(any::<u16>(), 0..4)) {
        let text: String = codes.iter().map(|code| format!("\\u{code:04X}")).collect();
        let quoted = format!("\"{text}\"");
        prop_assert_eq!(one_string(&quoted), serde_json::from_str::<String>(&quoted).ok());
    }

    #[test]
    fn arbitrary_text_ends_in_a_value_or_an_error(text in any::<String>()) {
        let _ = reads(&text);
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(reads(&deep(DEPTH_MAX)));
    assert!(!reads(&deep(DEPTH_MAX + 1)));
    assert!(!reads(&"[".repeat(1_000_000)));
    assert!(!reads(&"{\"a\":".repeat(1_000_000)));
}

#[test]
fn bare_words_of_python_are_read() {
    for (text, value) in
        [("NaN", f32::NAN), ("Infinity", f32::INFINITY), (" -Infinity ", f32::NEG_INFINITY)]
    {
        let read = Reader::new(text).non_finite().map(f32::to_bits);
        assert_eq!(read, Some(value.to_bits()), "{text}");
        assert!(reads(text));
    }
    assert!(!reads("NaN1") && !reads("Inf") && !reads("-infinity"));
}

#[test]
fn errors_say_where_and_what() {
    let fails = |text: &str| {
        let mut reader = Reader::new(text);
        let error = reader.skip().and_then(|()| reader.end()).expect_err(text);
        error.message
    };
    assert_eq!(
        fails("{\"a\":[1,2"),
        "the JSON of the request is wrong at byte 9: expected ',' or ']', but it ends there"
    );
    assert_eq!(
        fails("this is no JSON"),
        "the JSON of the request is wrong at byte 0: expected a value, but found 'this is no JSON'"
    );
    assert_eq!(
        fails("{} x"),
        "the JSON of the request is wrong at byte 3: expected nothing more, but found 'x'"
    );
}
