//! A scanner over JSON text (RFC 8259), without a value tree: for sources that decode JSON straight into columns.
//!
//! It is strict: commas and colons, the grammar of numbers, escapes, control characters, surrogates, what follows the last value.
//! A value is looked at once; an object or an array is either entered, or taken as its text. A key that is expected costs one
//! comparison of bytes, a string eight bytes at a time. Keys that are given twice are left to the caller, who knows what keys there are.
//!
//! ```
//! use philotes_sdk::json::{Entry, Scanner, Value};
//! let mut scanner = Scanner::new(r#"{"id": 7, "tags": ["a"], "at": {"x": 1.5}}"#);
//! scanner.open(b'{')?;
//! assert!(matches!(scanner.entry(b"\"id\":")?, Some(Entry::Expected)));
//! assert_eq!(scanner.value()?, Value::Number("7"));
//! assert!(matches!(scanner.entry(b"")?, Some(Entry::Other(key)) if key == "tags"));
//! assert_eq!(scanner.value()?, Value::Nested(r#"["a"]"#));
//! assert!(matches!(scanner.entry(b"\"at\":")?, Some(Entry::Expected)));
//! scanner.open(b'{')?;
//! assert!(scanner.entry(b"\"x\":")?.is_some());
//! assert_eq!(scanner.value()?, Value::Number("1.5"));
//! assert!(scanner.entry(b"")?.is_none(), "the inner object ends");
//! assert!(scanner.entry(b"")?.is_none(), "the outer object ends");
//! scanner.end()?;
//! # Ok::<(), philotes_sdk::json::Fault>(())
//! ```

use std::borrow::Cow;

pub mod scalar;
mod text;
pub mod time;

use text::{special, unescape};

/// How deep objects and arrays may stand in one another where their text is taken whole. Taking it needs a bit a level, no stack.
pub const MAX_DEPTH: usize = 8192;

/// Why a text is not JSON, or a value not of its type. It says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(&'static str);

impl Fault {
    /// A fault for this reason.
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self(reason)
    }

    /// The reason as a clause: "its JSON is broken: a comma …".
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

const ENDS: Fault = Fault("its JSON is broken: it ends too early");
const NO_VALUE: Fault = Fault("its JSON is broken: a value is missing or is none");
const NO_KEY: Fault = Fault("its JSON is broken: a key in quotes is missing");
const NO_COLON: Fault = Fault("its JSON is broken: a colon is missing");
const NO_COMMA: Fault = Fault("its JSON is broken: a comma or a closing bracket is missing");
const NOT_OPEN: Fault = Fault("its JSON is broken: another kind of value was expected");
const TRAILING: Fault = Fault("its JSON is broken: something follows the value");
const TOO_DEEP: Fault = Fault("its JSON is broken: it is nested too deep");

/// A value, not yet read. Its text is known to be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number's own text.
    Number(&'a str),
    /// What stands between a string's quotes: the text itself.
    String(&'a str),
    /// What stands between a string's quotes, with escapes in it.
    Escaped(&'a str),
    /// The text of an object or an array.
    Nested(&'a str),
}

impl<'a> Value<'a> {
    /// A string's or a number's own text, `None` for everything else.
    ///
    /// # Errors
    /// Where escapes in the text are none; a value that the scanner gave has no such.
    #[inline(always)]
    pub fn scalar(self) -> Result<Option<Cow<'a, str>>, Fault> {
        match self {
            Self::Number(digits) => Ok(Some(Cow::Borrowed(digits))),
            Self::String(text) => Ok(Some(Cow::Borrowed(text))),
            Self::Escaped(raw) => unescape(raw).map(|text| Some(Cow::Owned(text))),
            Self::Null | Self::Bool(_) | Self::Nested(_) => Ok(None),
        }
    }
}

/// An entry of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The key that was expected.
    Expected,
    /// Another key.
    Other(Cow<'a, str>),
}

/// Walks over a text from its begin to its end.
///
/// After [`open`](Self::open) the caller asks for entries or elements, and takes each one's value, until there are none: then the object
/// or array is behind the scanner, and the one around it goes on.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Nothing of the innermost object or array was met yet, so that no comma comes.
    fresh: bool,
}

impl<'a> Scanner<'a> {
    /// At the begin of a text.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, fresh: true }
    }

    /// In the object (`{`) or array (`[`) with which a text begins.
    ///
    /// # Errors
    /// Where the text begins with something else.
    pub fn enter(text: &'a str, open: u8) -> Result<Self, Fault> {
        let mut scanner = Self::new(text);
        scanner.open(open)?;
        Ok(scanner)
    }

    /// Goes into the object (`{`) or array (`[`) at this point, in the place of [`value`](Self::value).
    ///
    /// # Errors
    /// Where something else is at this point.
    pub fn open(&mut self, open: u8) -> Result<(), Fault> {
        match self.next_byte() {
            Some(found) if found == open => {}
            Some(_) => return Err(NOT_OPEN),
            None => return Err(ENDS),
        }
        self.at += 1;
        self.fresh = true;
        Ok(())
    }

    /// The first byte of what comes next, white space aside; it stays there.
    #[inline(always)]
    pub fn next_byte(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            // One comparison tells most bytes from white space.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes the comma before all but the first, or the closing bracket; whether something follows.
    #[inline(always)]
    fn follows(&mut self, close: u8) -> Result<bool, Fault> {
        let found = self.next_byte().ok_or(ENDS)?;
        if found == b',' && !self.fresh {
            self.at += 1;
            self.next_byte();
            return Ok(true);
        }
        let fresh = std::mem::replace(&mut self.fresh, false);
        if found == close {
            self.at += 1;
            return Ok(false);
        }
        if fresh { Ok(true) } else { Err(NO_COMMA) }
    }

    /// Moves on to the next key of the object, if there is one, or else out of the object. `expected` is a key in quotes with its
    /// colon ([`token`]), or empty.
    ///
    /// # Errors
    /// Where neither a key nor the object's end is at this point.
    #[inline(always)]
    pub fn entry(&mut self, expected: &[u8]) -> Result<Option<Entry<'a>>, Fault> {
        if !self.follows(b'}')? {
            return Ok(None);
        }
        if !expected.is_empty() && self.text.as_bytes()[self.at..].starts_with(expected) {
            self.at += expected.len();
            return Ok(Some(Entry::Expected));
        }
        self.other_key().map(|key| Some(Entry::Other(key)))
    }

    fn other_key(&mut self) -> Result<Cow<'a, str>, Fault> {
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(NO_KEY),
            None => return Err(ENDS),
        }
        let key = self.string()?.scalar()?.ok_or(NO_KEY)?;
        match self.next_byte() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(NO_COLON),
            None => return Err(ENDS),
        }
        Ok(key)
    }

    /// Moves on to the next element of the array, if there is one, or else out of the array; its value is to be taken next.
    ///
    /// # Errors
    /// Where neither a comma nor the array's end is at this point.
    #[inline(always)]
    pub fn another(&mut self) -> Result<bool, Fault> {
        self.follows(b']')
    }

    /// The next element of the array.
    ///
    /// # Errors
    /// As [`another`](Self::another) and [`value`](Self::value).
    #[inline(always)]
    pub fn element(&mut self) -> Result<Option<Value<'a>>, Fault> {
        if self.another()? { self.value().map(Some) } else { Ok(None) }
    }

    /// The value at this point.
    ///
    /// # Errors
    /// Where none is there, or a broken one.
    #[inline(always)]
    pub fn value(&mut self) -> Result<Value<'a>, Fault> {
        match self.next_byte().ok_or(ENDS)? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b'{' | b'[' => self.nested(),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => Err(NO_VALUE),
        }
    }

    /// The value at this point as its own text, quotes and all.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn raw(&mut self) -> Result<&'a str, Fault> {
        self.next_byte();
        let start = self.at;
        self.value()?;
        Ok(&self.text[start..self.at])
    }

    /// Passes the value at this point where it is `text`, byte by byte. The caller knows that `text` is the whole of an object or an
    /// array, which no longer value begins with.
    pub fn pass(&mut self, text: &str) -> bool {
        self.next_byte();
        let same = text.starts_with(['{', '[']) && self.text.as_bytes()[self.at..].starts_with(text.as_bytes());
        if same {
            self.at += text.len();
        }
        same
    }

    /// The text ends here.
    ///
    /// # Errors
    /// Where something follows.
    pub fn end(&mut self) -> Result<(), Fault> {
        if self.next_byte().is_none() { Ok(()) } else { Err(TRAILING) }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(NO_VALUE);
        }
        self.at += word.len();
        Ok(value)
    }

    #[inline(always)]
    fn number(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at;
        self.pass_number()?;
        Ok(Value::Number(&self.text[start..self.at]))
    }

    #[inline(always)]
    fn pass_number(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + usize::from(bytes[self.at] == b'-');
        let first = at;
        at = text::digits(bytes, at)?;
        // Only a zero begins with a zero.
        if bytes[first] == b'0' && at > first + 1 {
            return Err(text::NO_NUMBER);
        }
        if matches!(bytes.get(at), Some(b'.' | b'e' | b'E')) {
            at = text::fraction_and_exponent(bytes, at)?;
        }
        self.at = at;
        Ok(())
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at + 1;
        let escapes = self.pass_string()?;
        let text = &self.text[start..self.at - 1];
        Ok(if escapes { Value::Escaped(text) } else { Value::String(text) })
    }

    /// Whether there are escapes in it.
    #[inline(always)]
    fn pass_string(&mut self) -> Result<bool, Fault> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        let mut escapes = false;
        loop {
            at += special(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    at += text::escape(&bytes[at..])?;
                }
                Some(_) => return Err(text::CONTROL),
                None => return Err(ENDS),
            }
        }
        self.at = at + 1;
        Ok(escapes)
    }

    /// Passes the object or array at this point.
    fn nested(&mut self) -> Result<Value<'a>, Fault> {
        let start = self.at;
        let mut brackets = Brackets::default();
        loop {
            // At a value.
            match self.next_byte().ok_or(ENDS)? {
                open @ (b'{' | b'[') => {
                    brackets.push(open == b'{')?;
                    self.at += 1;
                    self.fresh = true;
                }
                b'"' => drop(self.pass_string()?),
                b'-' | b'0'..=b'9' => self.pass_number()?,
                _ => drop(self.value()?),
            }
            // Behind a value or an opening bracket: on to the next value, out of all that ends here.
            loop {
                let Some(is_object) = brackets.innermost() else {
                    return Ok(Value::Nested(&self.text[start..self.at]));
                };
                let more = if is_object { self.key_follows()? } else { self.another()? };
                if more {
                    break;
                }
                brackets.pop();
            }
        }
    }

    fn key_follows(&mut self) -> Result<bool, Fault> {
        if !self.follows(b'}')? {
            return Ok(false);
        }
        match self.peek() {
            Some(b'"') => drop(self.pass_string()?),
            Some(_) => return Err(NO_KEY),
            None => return Err(ENDS),
        }
        match self.next_byte() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(NO_COLON),
            None => return Err(ENDS),
        }
        Ok(true)
    }
}

/// The brackets that are open: a bit each, whether it is an object.
#[derive(Default)]
struct Brackets {
    innermost: u128,
    depth: usize,
    /// Those beyond 128, by the 128.
    outer: Vec<u128>,
}

impl Brackets {
    const WORD: usize = u128::BITS as usize;

    fn push(&mut self, is_object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(TOO_DEEP);
        }
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD) {
            self.outer.push(self.innermost);
        }
        self.innermost = self.innermost << 1 | u128::from(is_object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.innermost >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::WORD) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.innermost & 1 == 1)
    }
}

/// A name as a key of JSON, quotes and colon and all, as most writers and PostgreSQL print it: what [`Scanner::entry`] expects.
#[must_use]
pub fn token(name: &str) -> Vec<u8> {
    let mut token = String::with_capacity(name.len() + 3);
    token.push('"');
    text::escape_into(&mut token, name);
    token.push_str("\":");
    token.into_bytes()
}

#[cfg(test)]
mod tests;
