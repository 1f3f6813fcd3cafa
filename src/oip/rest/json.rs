//! A reader that walks JSON text in place and hands out its pieces.
//!
//! Separate from `serde_json`, which this path cannot use: tensor elements must be read exactly as
//! written (an `FP32` straight from its digits, since going through a double rounds twice and
//! misses the value that `encode` printed; 64-bit integers; the value itself in the error), bare
//! `NaN` and `Infinity` must be understood because Python writes them, and nothing may be built
//! that is thrown away. A property test holds it against `serde_json`.
//!
//! # Invariants
//! - Reads forward only; no look-ahead past one byte; recursion is bounded by [`DEPTH_MAX`].
//! - Allocates only for strings that hold escapes.

use crate::error::InferError;
use crate::oip::check;
use std::borrow::Cow;

/// Deepest nesting that is followed. No tensor has that many axes, and it bounds the stack.
pub(super) const DEPTH_MAX: usize = 100;

/// Where an object or array stands: whether a member was already read.
pub(super) struct Started(bool);

/// A position in JSON text.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    /// Always on a character boundary: only whole ASCII bytes and whole strings are stepped over.
    at: usize,
    /// Objects and arrays that are open here.
    depth: usize,
    depth_max: usize,
}

impl<'a> Reader<'a> {
    #[cfg(test)]
    pub(super) fn new(text: &'a str) -> Self {
        Self::within(text, DEPTH_MAX)
    }

    /// A reader that follows nesting so deep, and never deeper than [`DEPTH_MAX`].
    pub(super) fn within(text: &'a str, depth_max: usize) -> Self {
        Self { text, at: 0, depth: 0, depth_max: depth_max.min(DEPTH_MAX) }
    }

    /// Opens an object; `what` names it in the error for anything else.
    pub(super) fn object(&mut self, what: &str) -> Result<Started, InferError> {
        self.open(b'{', what, "an object")
    }

    /// Opens an array; `what` names it in the error for anything else.
    pub(super) fn array(&mut self, what: &str) -> Result<Started, InferError> {
        self.open(b'[', what, "an array")
    }

    /// The next key of the object, up to its value; none at the object's end.
    pub(super) fn key(&mut self, object: &mut Started) -> Result<Option<Cow<'a, str>>, InferError> {
        if !self.more(object, b'}')? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a member name in quotes"));
        }
        let key = self.string("a member name")?;
        if !self.take(b':') {
            return Err(self.unexpected("a ':' after a member name"));
        }
        Ok(Some(key))
    }

    /// Whether the array has another item, which the reader then stands before.
    #[inline]
    pub(super) fn item(&mut self, array: &mut Started) -> Result<bool, InferError> {
        self.more(array, b']')
    }

    /// Refuses anything but white space up to the end of the text.
    pub(super) fn end(&mut self) -> Result<(), InferError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("nothing more")),
        }
    }

    /// The first byte of the next token.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Bytes from here to the end of the text.
    pub(super) fn remaining(&self) -> usize {
        self.text.len() - self.at
    }

    /// A string; `what` names it in the error for anything else.
    pub(super) fn string(&mut self, what: &str) -> Result<Cow<'a, str>, InferError> {
        if !self.take(b'"') {
            return Err(self.wrong_type(what, "a string"));
        }
        let start = self.at;
        self.plain_characters();
        if self.here() == Some(b'"') {
            let text = self.text.get(start..self.at).unwrap_or_default();
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = self.text.get(start..self.at).unwrap_or_default().to_owned();
        self.string_with_escapes(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// `true` or `false`; none, and nothing read, where the next token is neither.
    pub(super) fn truth(&mut self) -> Option<bool> {
        if self.word("true") {
            return Some(true);
        }
        self.word("false").then_some(false)
    }

    /// Steps over a `null`; false, and nothing read, where the next token is something else.
    pub(super) fn null(&mut self) -> bool {
        self.word("null")
    }

    /// The text of a number, as written; none, and nothing read, where the next token is none.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Option<&'a str>, InferError> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => {}
            _ => return Ok(None),
        }
        let start = self.at;
        self.at += usize::from(self.here() == Some(b'-'));
        match self.here() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            // `-Infinity` is for whoever asked for a number to recognise.
            _ => {
                self.at = start;
                return Ok(None);
            }
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.here(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.here(), Some(b'+' | b'-')));
            self.some_digits()?;
        }
        Ok(self.text.get(start..self.at))
    }

    /// One of the bare words that Python writes for what JSON has no number for.
    pub(super) fn non_finite(&mut self) -> Option<f32> {
        let words = [("NaN", f32::NAN), ("Infinity", f32::INFINITY), ("-Infinity", -f32::INFINITY)];
        words.into_iter().find(|(word, _)| self.word(word)).map(|(_, value)| value)
    }

    /// Steps over one value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), InferError> {
        match self.peek() {
            Some(b'{') => {
                let mut object = self.object("")?;
                while self.key(&mut object)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'[') => {
                let mut array = self.array("")?;
                while self.item(&mut array)? {
                    self.skip()?;
                }
                Ok(())
            }
            Some(b'"') => self.string("").map(|_| ()),
            _ => {
                let known = self.truth().is_some()
                    || self.null()
                    || self.number()?.is_some()
                    || self.non_finite().is_some();
                if known { Ok(()) } else { Err(self.unexpected("a value")) }
            }
        }
    }

    /// The error for a value of the wrong type, which the reader stands before.
    #[cold]
    pub(super) fn wrong_type(&mut self, what: &str, expected: &str) -> InferError {
        let came = match self.peek() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b'-' | b'0'..=b'9') => "a number",
            _ if self.clone().truth().is_some() => "a truth value",
            _ if self.clone().null() => "null",
            _ => return self.unexpected(&format!("{what} to be {expected}")),
        };
        InferError::bad_request(format!(
            "{what} must be {expected}, but it is {came} (byte {} of the JSON)",
            self.at
        ))
    }

    /// The error for text that is not JSON at this place.
    #[cold]
    pub(super) fn unexpected(&self, expected: &str) -> InferError {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let came = match rest.chars().next() {
            None => "it ends there".to_owned(),
            Some(_) => format!("found '{}'", check::excerpt(rest.trim_end())),
        };
        InferError::bad_request(format!(
            "the JSON of the request is wrong at byte {}: expected {expected}, but {came}",
            self.at
        ))
    }

    fn open(&mut self, bracket: u8, what: &str, expected: &str) -> Result<Started, InferError> {
        if !self.take(bracket) {
            return Err(self.wrong_type(what, expected));
        }
        self.depth += 1;
        if self.depth > self.depth_max {
            return Err(InferError::bad_request(format!(
                "the JSON of the request is nested more than {} deep at byte {}, the limit of \
                 --json-depth-max; flatten it",
                self.depth_max,
                self.at - 1
            )));
        }
        Ok(Started(false))
    }

    /// Whether there is another member, past its comma; closes the bracket where there is none.
    #[inline]
    fn more(&mut self, started: &mut Started, close: u8) -> Result<bool, InferError> {
        match self.peek() {
            Some(b',') if started.0 => self.at += 1,
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            _ if !started.0 => started.0 = true,
            _ => return Err(self.unexpected_separator(close)),
        }
        Ok(true)
    }

    #[cold]
    fn unexpected_separator(&self, close: u8) -> InferError {
        self.unexpected(&format!("',' or '{}'", char::from(close)))
    }

    /// Steps over `byte` where it is the next token.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Steps over `word` where it is the next token.
    fn word(&mut self, word: &str) -> bool {
        if self.peek() != word.bytes().next() {
            return false;
        }
        let bytes = self.text.as_bytes();
        let end = self.at + word.len();
        let whole = bytes.get(self.at..end) == Some(word.as_bytes())
            && !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
        if whole {
            self.at = end;
        }
        whole
    }

    #[inline]
    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.here();
        self.at += usize::from(byte.is_some());
        byte
    }

    #[inline]
    fn digits(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    }

    fn some_digits(&mut self) -> Result<(), InferError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    /// Steps over what a string holds up to its end, an escape or what may not stand in it.
    #[inline]
    fn plain_characters(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
        self.at += rest.iter().position(special).unwrap_or(rest.len());
    }

    /// Goes on with a string from where its plain beginning ends.
    fn string_with_escapes(&mut self, text: &mut String) -> Result<(), InferError> {
        loop {
            match self.here() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(0..0x20) => {
                    let expected = "no control character in a string (write it as an escape)";
                    return Err(self.unexpected(expected));
                }
                Some(_) => {
                    let start = self.at;
                    self.plain_characters();
                    text.push_str(self.text.get(start..self.at).unwrap_or_default());
                }
                None => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    /// The character of an escape, past its backslash.
    fn escape(&mut self) -> Result<char, InferError> {
        let escaped = match self.here() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("an escape that JSON knows")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// The character of a `\uXXXX`, or of two that are a surrogate pair, past the first `u`.
    fn unicode_escape(&mut self) -> Result<char, InferError> {
        let first = self.hex4()?;
        let mut code = first;
        if (0xD800..0xDC00).contains(&first) && self.text.as_bytes().get(self.at) == Some(&b'\\') {
            self.at += 1;
            if self.byte() != Some(b'u') {
                self.at -= 1;
                return Err(self.unexpected("the second half of a surrogate pair"));
            }
            let second = self.hex4()?;
            if (0xDC00..0xE000).contains(&second) {
                code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            }
        }
        char::from_u32(code).ok_or_else(|| {
            InferError::bad_request(format!(
                "the JSON of the request is wrong at byte {}: \\u{first:04x} is half of a \
                 surrogate pair and no character; send such bytes as binary data",
                self.at
            ))
        })
    }

    fn hex4(&mut self) -> Result<u32, InferError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let mut code = 0;
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return Err(self.unexpected("four hexadecimal digits"));
            };
            code = code * 16 + value;
        }
        if digits.len() < 4 {
            return Err(self.unexpected("four hexadecimal digits"));
        }
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests;
