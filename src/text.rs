//! Text from elsewhere on its way to a reader: a terminal, a log line, a header.
//!
//! Separate because every sentence that quotes a name may carry what its sender put there.

/// Most bytes of a sentence; percent-encoded it still fits into the header block that gRPC clients take.
pub const SENTENCE_BYTES_MAX: usize = 2048;

/// Stands for what was left out.
const CUT: &str = " ... ";

/// The text without control characters, which are written as escapes, and no longer than a sentence.
///
/// A longer one loses its middle: what is wrong stands at its beginning, what to do at its end.
///
/// # Cost
/// One look at every byte; a copy only where something changes.
#[must_use]
pub fn plain(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.chars().any(char::is_control) {
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            match c.is_control() {
                true => clean.extend(c.escape_default()),
                false => clean.push(c),
            }
        }
        text = clean;
    }
    if text.len() <= SENTENCE_BYTES_MAX {
        return text;
    }
    let half = (SENTENCE_BYTES_MAX - CUT.len()) / 2;
    let (head, tail) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}{CUT}{}", &text[..head], &text[tail..])
}

/// A name as a sentence quotes it: without control characters, its first two hundred characters.
#[must_use]
pub fn name(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => plain(format!("{}...", &text[..end])),
        None => plain(text),
    }
}

/// What was most likely meant by a name that is not known: one that begins alike, or is one slip of the finger away.
pub fn meant<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    const SLIP_CHARS_MIN: usize = 3;
    let likeness = |known: &'a str| {
        let slip =
            typed.chars().count() >= SLIP_CHARS_MIN && strsim::osa_distance(typed, known) == 1;
        let alike = strsim::jaro_winkler(typed, known);
        (if slip { 1.0 } else { alike }, known)
    };
    let best = known.into_iter().map(likeness).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness > ALIKE).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_understood() {
        let known = ["mlp", "iris", "resnet50"];
        assert_eq!(meant("mpl", known), Some("mlp"));
        assert_eq!(meant("resnet_50", known), Some("resnet50"));
        assert_eq!(meant("bert", known), None);
        assert_eq!(meant("b", ["a"]), None);
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(plain("a\nb\u{1b}[31m\u{0}é"), "a\\nb\\u{1b}[31m\\u{0}é");
        assert_eq!(plain("\u{85}"), "\\u{85}");
        assert_eq!(plain("as it was"), "as it was");
    }

    #[test]
    fn names_are_short_and_on_one_line() {
        assert_eq!(name("a\tb"), "a\\tb");
        assert_eq!(name(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(name(&"é".repeat(201)), format!("{}...", "é".repeat(200)));
    }

    #[test]
    fn long_texts_lose_their_middle() {
        for name in ["n".repeat(100_000), "é".repeat(50_000), "\u{1}".repeat(1000)] {
            let found = plain(format!("input '{name}' is wrong; expected better"));
            assert!(found.len() <= SENTENCE_BYTES_MAX, "{}", found.len());
            assert!(found.starts_with("input '") && found.ends_with("' is wrong; expected better"));
        }
    }
}
