//! Where in a `config.pbtxt` a field stands that cannot be honoured.
//!
//! Apart from the parser, which keeps no places: what is wrong with a field is known only once all are read.

/// The line of the field that a sentence begins with; none for one that the text has several times, as the
/// sentence says which of them it means.
pub(super) fn of(text: &str, sentence: &str) -> Option<usize> {
    let field = sentence.split(|c: char| !in_name(c)).next().filter(|name| !name.is_empty())?;
    let mut places = fields(text).into_iter().filter(|(name, _)| name == field);
    let (_, line) = places.next()?;
    places.next().is_none().then_some(line)
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words outside of all braces and quotes, with their lines.
fn fields(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let (mut depth, mut quote) = (0_usize, None);
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(_), '\\') => drop(chars.next()),
                (Some(open), _) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '#') => break,
                (None, '"' | '\'') => quote = Some(c),
                (None, '{' | '[' | '<') => depth += 1,
                (None, '}' | ']' | '>') => depth = depth.saturating_sub(1),
                (None, _) if in_name(c) && depth == 0 => {
                    word.push(c);
                    continue;
                }
                (None, _) => {}
            }
            found.extend((!word.is_empty()).then(|| (std::mem::take(&mut word), number + 1)));
        }
        found.extend((!word.is_empty()).then_some((word, number + 1)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_where_it_stands_alone() {
        let text = "name: 'backend' # backend\ninput [\n  { name: \"a\\\"}\" backend: 1 }\n]\n\
                    backend: 'python' output { }\noutput { }\nlast";
        let table = [
            ("backend is 'python'; expected", Some(5)),
            ("name is 'backend'", Some(1)),
            ("input 'a': dims is missing", Some(2)),
            ("output 'b' is declared twice", None),
            ("the model's input", None),
            ("last.of is 1", Some(7)),
            ("'x' is wrong", None),
        ];
        for (sentence, line) in table {
            assert_eq!(of(text, sentence), line, "{sentence}");
        }
        assert_eq!(of("{\n \"backend\": 1}", "backend is 1"), None);
    }
}
