//! Protocol messages by their definition: the JSON that goes with a message, and back.
//!
//! Triton's extensions are protobuf messages first and JSON second, so their JSON is derived and not written
//! by hand: names as in the definition, 64-bit numbers as numbers, and every field there, also where it holds
//! nothing, as clients look them up without asking.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use std::sync::LazyLock;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(crate::proto::DESCRIPTORS).ok());

/// The definition of a message.
///
/// # Errors
/// When the message is not in `proto/`, which is a bug of ours.
pub fn definition<M: Name>() -> Result<MessageDescriptor, String> {
    let name = M::full_name();
    let found = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&name));
    found.ok_or_else(|| format!("there is no definition of {name}"))
}

/// The JSON of a message.
///
/// # Errors
/// When the message is not in `proto/`, which is a bug of ours.
pub fn to_json<M: Message + Name>(message: &M) -> Result<Value, String> {
    let mut dynamic = DynamicMessage::new(definition::<M>()?);
    dynamic.transcode_from(message).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| error.to_string())
}

/// The message that a JSON text says.
///
/// # Errors
/// A sentence: where the text is no JSON, or what in it does not fit the message.
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let dynamic = DynamicMessage::deserialize(definition::<M>()?, &mut json)
        .and_then(|message| json.end().map(|()| message))
        .map_err(|error| error.to_string())?;
    dynamic.transcode_to().map_err(|error| error.to_string())
}

/// The message that a text in protobuf's text format says.
///
/// # Errors
/// A sentence with the line: what is wrong there, and what was expected.
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M, String> {
    let text = with_colons(text);
    let definition = definition::<M>()?;
    let dynamic = parsed(&definition, &text).map_err(|why| {
        let line = line(&definition, &text, &why);
        format!("line {line}: {}", known(&why).unwrap_or(why))
    })?;
    dynamic.transcode_to().map_err(|error| error.to_string())
}

fn parsed(definition: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    DynamicMessage::parse_text_format(definition.clone(), text).map_err(|error| error.to_string())
}

/// The line that an error is about. The parser does not tell, so it is the first at whose end the text is as
/// wrong as in whole.
///
/// # Cost
/// Parses the text once for each halving of its lines.
fn line(definition: &MessageDescriptor, text: &str, why: &str) -> usize {
    let wrong = |text: &str| parsed(definition, text).is_err_and(|found| found == why);
    // Where more text makes it another error, it is about the end.
    if !wrong(&format!("{text} %")) {
        return 1 + text.trim_end().matches('\n').count();
    }
    let ends: Vec<&str> = text.match_indices('\n').filter_map(|(end, _)| text.get(..end)).collect();
    1 + ends.partition_point(|text| !wrong(text))
}

/// What is wrong with a name that is unknown, and which ones are known; none for other errors.
fn known(text: &str) -> Option<String> {
    // The parser's words are: field 'name' not found for message 'of'.
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (name, of) = (quoted.next()?, quoted.next()?);
    let pool = POOL.as_ref()?;
    let (what, known): (_, Vec<String>) = if text.starts_with("field '") {
        let fields = pool.get_message_by_name(of)?;
        ("field", fields.fields().map(|field| field.name().to_owned()).collect())
    } else if text.starts_with("value '") {
        let values = pool.get_enum_by_name(of)?;
        ("value", values.values().map(|value| value.name().to_owned()).collect())
    } else {
        return None;
    };
    Some(format!("unknown {what} '{name}'; expected one of {}", known.join(", ")))
}

/// Writes `name [` as `name: [`, which means the same: the parser wants the colon before lists of messages,
/// and hardly any config.pbtxt has it.
fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut after_name = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' => {
                out.push(c);
                out.extend(std::iter::from_fn(|| chars.next_if(|&c| c != '\n')));
                continue;
            }
            '"' | '\'' => {
                out.push(c);
                copy_string(c, &mut chars, &mut out);
                after_name = false;
                continue;
            }
            '[' if after_name => out.push(':'),
            _ => {}
        }
        if !c.is_whitespace() {
            after_name = c.is_ascii_alphanumeric() || c == '_';
        }
        out.push(c);
    }
    out
}

/// The rest of a string up to its closing quote.
fn copy_string(quote: char, chars: &mut impl Iterator<Item = char>, out: &mut String) {
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            c if c == quote => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ModelConfig, ModelStatistics};
    use serde_json::json;

    #[test]
    fn json_has_every_field_and_numbers_are_numbers() {
        let stats = ModelStatistics {
            name: "m".into(),
            inference_count: 1 << 60,
            ..ModelStatistics::default()
        };
        let json = to_json(&stats).unwrap();
        assert_eq!(json["inference_count"], json!(1_u64 << 60));
        assert_eq!(json["batch_stats"], json!([]));
    }

    #[test]
    fn text_and_json_say_the_same() {
        let text = "name: 'm' # a comment\nmax_batch_size: 4, input [ { name: 'IN' data_type: 11 dims: [ -1 ] } ];";
        let config: ModelConfig = from_text(text).unwrap();
        let json = to_json(&config).unwrap();
        assert_eq!(json["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(json["input"][0]["dims"], json!([-1]));
        assert_eq!(from_json::<ModelConfig>(&json.to_string()).unwrap(), config);
        assert!(from_json::<ModelConfig>("{\"max_batch\": 4}").unwrap_err().contains("max_batch"));
        assert!(from_json::<ModelConfig>("{} {}").is_err());
    }

    #[test]
    fn wrong_texts_name_the_line_and_what_was_expected() {
        let table: [(&str, &[&str]); 8] = [
            (
                "name: 'm'\nmax_batch: 4\n",
                &["line 2: unknown field 'max_batch'; expected one of name, ", " max_batch_size, "],
            ),
            (
                "input [\n  {\n    nmae: 'x' }\n]",
                &["line 3: unknown field 'nmae'; expected one of name, data_type, "],
            ),
            (
                "# one\ninput { data_type: FP32 }",
                &["line 2: unknown value 'FP32'; expected one of TYPE_INVALID, TYPE_BOOL, "],
            ),
            ("\n\nmax_batch_size: 'four'", &["line 3: expected an integer, but found '\"four\"'"]),
            (
                "max_batch_size: 99999999999",
                &["line 1: ", "a signed 32-bit integer", "99999999999"],
            ),
            ("name: 'a'\nname: 'b'", &["line 2: 'name' is already set"]),
            ("name: 'm'\ninput {\n  name: 'x'\n\n", &["line 3: expected ", "end of input"]),
            ("name: 'm'\n\nplatform: 'onnx", &["line 3: "]),
        ];
        for (text, parts) in table {
            let why = from_text::<ModelConfig>(text).unwrap_err();
            parts.iter().for_each(|part| assert!(why.contains(part), "{text}: {why}"));
        }
    }

    #[test]
    fn colons_are_added_before_lists_and_nowhere_else() {
        let table = [
            ("input [", "input :["),
            ("dims: [1]", "dims: [1]"),
            ("a # b [\n[", "a # b [\n:["),
            (r#"name: "x \" [" [ "#, r#"name: "x \" [" [ "#),
        ];
        for (text, expected) in table {
            assert_eq!(with_colons(text), expected, "{text}");
        }
    }
}
