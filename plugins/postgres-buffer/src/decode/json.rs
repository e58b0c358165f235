//! A scanner over the text of one JSON object, without a value tree.
//!
//! The text comes from PostgreSQL's jsonb and is therefore valid JSON; the scanner still refuses what it cannot follow, but
//! it is no validator. A key that is expected costs one comparison of bytes.

use std::borrow::Cow;

use super::Refusal;

/// A value, not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// Its digits.
    Number(&'a str),
    /// What stands between the quotes: the text itself.
    String(&'a str),
    /// What stands between the quotes, with escapes in it.
    Escaped(&'a str),
    /// The text of an object or an array.
    Nested(&'a str),
}

impl<'a> Value<'a> {
    /// A string's or a number's own text, `None` for everything else.
    #[inline(always)]
    pub(crate) fn scalar(self) -> Result<Option<Cow<'a, str>>, Refusal> {
        match self {
            Self::Number(digits) => Ok(Some(Cow::Borrowed(digits))),
            Self::String(text) => Ok(Some(Cow::Borrowed(text))),
            Self::Escaped(raw) => unescape(raw).map(|text| Some(Cow::Owned(text))),
            Self::Null | Self::Bool(_) | Self::Nested(_) => Ok(None),
        }
    }
}

const BROKEN: Refusal = Refusal::new("its JSON is broken");

/// Walks over an object or an array.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// An entry of an object.
pub(crate) enum Entry<'a> {
    /// The key that was expected.
    Expected,
    /// Another key.
    Other(Cow<'a, str>),
}

impl<'a> Scanner<'a> {
    /// Enters an object (`{`) or an array (`[`).
    pub(crate) fn enter(text: &'a str, open: u8) -> Result<Self, Refusal> {
        let mut scanner = Self { text, at: 0 };
        scanner.space();
        if scanner.peek() != Some(open) {
            return Err(BROKEN);
        }
        scanner.at += 1;
        Ok(scanner)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves on to the next key of the object, if there is one. `expected` is a key in quotes with its colon.
    #[inline(always)]
    pub(crate) fn entry(&mut self, expected: &[u8]) -> Result<Option<Entry<'a>>, Refusal> {
        self.space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        }
        if !expected.is_empty() && self.text.as_bytes()[self.at..].starts_with(expected) {
            self.at += expected.len();
            return Ok(Some(Entry::Expected));
        }
        match self.peek() {
            Some(b'}') => return Ok(None),
            Some(b'"') => {}
            _ => return Err(BROKEN),
        }
        let Some(key) = self.string()?.scalar()? else { return Err(BROKEN) };
        self.space();
        if self.peek() != Some(b':') {
            return Err(BROKEN);
        }
        self.at += 1;
        Ok(Some(Entry::Other(key)))
    }

    /// The next element of the array.
    pub(crate) fn element(&mut self) -> Result<Option<Value<'a>>, Refusal> {
        self.space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space();
        }
        if self.peek() == Some(b']') { Ok(None) } else { self.value().map(Some) }
    }

    /// The value at this point.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Refusal> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => {
                self.nested()?;
                Ok(Value::Nested(&self.text[start..self.at]))
            }
            Some(b'-' | b'0'..=b'9') => {
                while matches!(self.peek(), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
                    self.at += 1;
                }
                Ok(Value::Number(&self.text[start..self.at]))
            }
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(BROKEN),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Refusal> {
        if !self.text[self.at..].starts_with(word) {
            return Err(BROKEN);
        }
        self.at += word.len();
        Ok(value)
    }

    /// The string at this point.
    #[inline(always)]
    fn string(&mut self) -> Result<Value<'a>, Refusal> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut escapes = false;
        loop {
            at += quote_or_backslash(bytes.get(at..).ok_or(BROKEN)?);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    at += 2;
                }
                _ => return Err(BROKEN),
            }
        }
        self.at = at + 1;
        let text = self.text.get(start..at).ok_or(BROKEN)?;
        Ok(if escapes { Value::Escaped(text) } else { Value::String(text) })
    }

    /// Skips the object or array at this point.
    fn nested(&mut self) -> Result<(), Refusal> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(BROKEN)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// How many bytes come before the first quote or backslash, eight at a time.
fn quote_or_backslash(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest byte that is zero gets its high bit set; higher ones may get it by mistake, which does not matter.
    let zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let (chunks, _) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let found = zero(word ^ (LOW * u64::from(b'"'))) | zero(word ^ (LOW * u64::from(b'\\')));
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let start = chunks.len() * 8;
    start + bytes[start..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}

/// The text of what stands between quotes.
fn unescape(raw: &str) -> Result<String, Refusal> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1).ok_or(BROKEN)?;
        rest = rest.get(at + 2..).ok_or(BROKEN)?;
        text.push(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut unit = hex4(&mut rest)?;
                if (0xd800..0xdc00).contains(&unit) {
                    rest = rest.strip_prefix("\\u").ok_or(BROKEN)?;
                    let low = hex4(&mut rest)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(BROKEN);
                    }
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(unit).ok_or(BROKEN)?
            }
            _ => return Err(BROKEN),
        });
    }
    text.push_str(rest);
    Ok(text)
}

fn hex4(rest: &mut &str) -> Result<u32, Refusal> {
    let digits = rest.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())).ok_or(BROKEN)?;
    *rest = &rest[4..];
    u32::from_str_radix(digits, 16).map_err(|_| BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_over_an_object() {
        let text = r#"{"id": -1.5e3, "a\"b": "x\\", "nested": {"s": "}]\"", "l": [1]}, "t":true,"f" : false, "n": null, "l": [ ]}"#;
        let mut scanner = Scanner::enter(text, b'{').unwrap();
        assert!(matches!(scanner.entry(b"\"id\":").unwrap(), Some(Entry::Expected)));
        assert_eq!(scanner.value().unwrap(), Value::Number("-1.5e3"));
        let mut found = Vec::new();
        while let Some(Entry::Other(key)) = scanner.entry(b"\"other\":").unwrap() {
            found.push((key.into_owned(), scanner.value().unwrap()));
        }
        assert_eq!(
            found,
            [
                ("a\"b".to_owned(), Value::Escaped(r"x\\")),
                ("nested".to_owned(), Value::Nested(r#"{"s": "}]\"", "l": [1]}"#)),
                ("t".to_owned(), Value::Bool(true)),
                ("f".to_owned(), Value::Bool(false)),
                ("n".to_owned(), Value::Null),
                ("l".to_owned(), Value::Nested("[ ]")),
            ]
        );
    }

    #[test]
    fn finds_quotes_wherever_they_stand() {
        for length in 0..40 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(quote_or_backslash(&bytes), length);
            for at in 0..length {
                for found in [b'"', b'\\'] {
                    bytes.fill(0xc3);
                    bytes[at] = found;
                    assert_eq!(quote_or_backslash(&bytes), at);
                }
            }
        }
    }

    #[test]
    fn unescapes_as_json_says() {
        assert_eq!(unescape(r#"a\"\\\/\b\f\n\r\tz"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(unescape(r"\u00e4\ud83d\ude00é").unwrap(), "ä😀é");
        for broken in [r"\x", r"\u12", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\", r"\u+123"] {
            assert!(unescape(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in ["", "[", "{\"a\"", "{\"a\": ", "{\"a\": tru", "{\"a\": \"x", "{\"a\": {\"b\": 1", "{x"] {
            let walk = || -> Result<(), Refusal> {
                let mut scanner = Scanner::enter(text, b'{')?;
                while let Some(Entry::Other(_)) = scanner.entry(b"")? {
                    scanner.value()?;
                }
                Ok(())
            };
            assert!(walk().is_err(), "{text}");
        }
    }
}
