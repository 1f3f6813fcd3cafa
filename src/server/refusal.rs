//! What HTTP/1's parser refuses by itself, in the words that every other refusal has.
//!
//! The parser answers before there is a request that anybody could be asked about: with a status and no body. Nothing else
//! here answers so, which is how its answers are known.

use super::limits::Limits;
use crate::oip::rest::metadata;
use bytes::Bytes;

/// As the parser writes it.
const NO_BODY: &str = "content-length: 0\r\n";

/// What to send in place of the parser's refusal; none where the bytes are anything else.
///
/// # Cost
/// One look at the first bytes of every answer.
pub(super) fn worded(bytes: &[u8], limits: &Limits) -> Option<Bytes> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.first_chunk::<3>().filter(|s| s[0] == b'4')?;
    let head = std::str::from_utf8(bytes).ok().filter(|head| head.ends_with("\r\n\r\n"))?;
    let (before, after) = head.split_once(NO_BODY)?;
    let body = metadata::error(&sentence(*status, limits));
    let length = body.len();
    let facts = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    Some([before.as_bytes(), facts.as_bytes(), after.as_bytes(), &body].concat().into())
}

fn sentence(status: [u8; 3], limits: &Limits) -> String {
    match &status {
        b"431" => format!(
            "the request's head has more than {} headers (--headers-max) or {} bytes (--header-bytes-max); send less",
            limits.headers_max, limits.header_bytes_max
        ),
        b"414" => "the request's path is too long; a route of this protocol has some hundred bytes".into(),
        _ => "this is no HTTP/1.1 request: expected a method, a path and a version, then headers of visible \
              characters, each on one line, with no more than one Content-Length, a whole number"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::tests::LIMITS;
    use super::*;

    fn told(bytes: &str) -> Option<String> {
        worded(bytes.as_bytes(), &LIMITS).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn an_empty_refusal_gets_a_body_of_the_length_it_says() {
        let refusal =
            "HTTP/1.1 431 Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let told = told(refusal).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Too Large\r\nconnection: close\r\n"), "{head}");
        assert!(head.ends_with("date: now"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.starts_with(r#"{"error":"#) && body.contains("--headers-max"), "{body}");
    }

    #[test]
    fn other_answers_are_left_alone() {
        for other in [
            "",
            "HTTP/1.1 4",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 10\r\n\r\n0123456789",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 19\r\n\r\ncontent-length: 0\r\n",
            "content-length: 0\r\n\r\n",
        ] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }
}
