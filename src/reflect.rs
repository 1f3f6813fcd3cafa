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
/// A sentence: where the text is wrong, or which field is unknown or of another type.
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M, String> {
    let dynamic = DynamicMessage::parse_text_format(definition::<M>()?, &with_colons(text))
        .map_err(|error| error.to_string())?;
    dynamic.transcode_to().map_err(|error| error.to_string())
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
        let why = from_text::<ModelConfig>("max_batch: 4").unwrap_err();
        assert!(why.contains("max_batch"), "{why}");
        assert!(from_json::<ModelConfig>("{\"max_batch\": 4}").unwrap_err().contains("max_batch"));
        assert!(from_json::<ModelConfig>("{} {}").is_err());
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
