//! What stands between the quotes of a string, and the parts of numbers.

use super::Fault;

const ENDS: Fault = Fault("its JSON is broken: it ends too early");
const NO_ESCAPE: Fault = Fault("its JSON is broken: an escape in a string is none");
const SURROGATE: Fault = Fault("its JSON is broken: an escape in a string is half a surrogate pair");
pub(super) const CONTROL: Fault = Fault("its JSON is broken: a control character in a string is not escaped");

pub(super) const NO_NUMBER: Fault = Fault("its JSON is broken: a number is none");

/// Behind the digits at this point, of which there is at least one.
#[inline(always)]
pub(super) fn digits(bytes: &[u8], start: usize) -> Result<usize, Fault> {
    let rest = bytes.get(start..).unwrap_or_default();
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count > 0 { Ok(start + count) } else { Err(NO_NUMBER) }
}

/// Behind what follows the whole part of a number at this point.
pub(super) fn fraction_and_exponent(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(bytes, at + 1 + sign)?;
    }
    Ok(at)
}

/// How many bytes come before the first quote, backslash or control character, eight at a time.
#[inline(always)]
pub(super) fn special(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const QUOTE_OR_CONTROL: u64 = LOW * 0x21;
    const BACKSLASH: u64 = LOW * b'\\' as u64;
    let (chunks, _) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        // With their second bit turned, quote and control characters are the bytes below 0x21; with the backslash's bits turned, that is
        // the only one below 1. The lowest byte that is below gets its high bit set, unless it had it before; higher ones may get it by
        // mistake, which does not matter.
        let below = (word ^ LOW * 2).wrapping_sub(QUOTE_OR_CONTROL) | (word ^ BACKSLASH).wrapping_sub(LOW);
        let found = below & !word & HIGH;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let start = chunks.len() * 8;
    start + bytes[start..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..b' ')).count()
}

/// The length of the escape at the begin of these bytes, a pair of surrogates at once.
pub(super) fn escape(bytes: &[u8]) -> Result<usize, Fault> {
    match bytes.get(1).ok_or(ENDS)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(2),
        b'u' => match hex4(bytes.get(2..6).ok_or(ENDS)?)? {
            0xd800..0xdc00 => match bytes.get(6..12).ok_or(SURROGATE)? {
                [b'\\', b'u', low @ ..] if (0xdc00..0xe000).contains(&hex4(low)?) => Ok(12),
                _ => Err(SURROGATE),
            },
            0xdc00..0xe000 => Err(SURROGATE),
            _ => Ok(6),
        },
        _ => Err(NO_ESCAPE),
    }
}

fn hex4(digits: &[u8]) -> Result<u32, Fault> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(NO_ESCAPE)?;
        Ok(value << 4 | digit)
    })
}

/// The text of what stands between quotes.
pub(super) fn unescape(raw: &str) -> Result<String, Fault> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let bytes = &rest.as_bytes()[at..];
        let length = escape(bytes)?;
        text.push(match bytes[1] {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut unit = hex4(&bytes[2..6])?;
                if length == 12 {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (hex4(&bytes[8..12])? - 0xdc00);
                }
                char::from_u32(unit).ok_or(SURROGATE)?
            }
            itself => char::from(itself),
        });
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    Ok(text)
}

/// Appends a text as it stands between quotes.
pub(super) fn escape_into(json: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\0'..' ' => {
                json.push_str("\\u00");
                for shift in [4, 0] {
                    json.extend(char::from_digit(u32::from(c) >> shift & 15, 16));
                }
            }
            c => json.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_special_wherever_it_stands() {
        for length in 0..40 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(special(&bytes), length);
            for at in 0..length {
                for found in [b'"', b'\\', 0, 31] {
                    bytes.fill(0xc3);
                    bytes[at] = found;
                    assert_eq!(special(&bytes), at);
                }
                for ordinary in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    bytes.fill(ordinary);
                    assert_eq!(special(&bytes), length, "{ordinary}");
                }
            }
        }
    }

    #[test]
    fn unescapes_as_json_says() {
        assert_eq!(unescape(r#"a\"\\\/\b\f\n\r\tz"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(unescape(r"\u00e4\ud83d\ude00é").unwrap(), "ä😀é");
        for broken in [r"\x", r"\u12", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\", r"\u+123", r"\udc00"] {
            assert!(unescape(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn escapes_come_back() {
        let text = "a\"\\\n\u{1f}ä😀";
        let mut json = String::new();
        escape_into(&mut json, text);
        assert_eq!(json, r#"a\"\\\u000a\u001fä😀"#);
        assert_eq!(unescape(&json).unwrap(), text);
    }
}
