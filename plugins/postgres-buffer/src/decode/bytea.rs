//! The bytes of a bytea out of their text.

use philotes_sdk::json::scalar::hex;

use super::Refusal;

/// The bytes of a bytea as either of PostgreSQL's output formats prints them: hexadecimal behind `\x`, or escaped.
pub(crate) fn bytea(text: &str) -> Result<Vec<u8>, Refusal> {
    const BAD: Refusal = Refusal::new("not a bytea, neither in hexadecimal nor in escape form");
    let Some(digits) = text.strip_prefix("\\x") else { return unescaped(text).ok_or(BAD) };
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return Err(BAD) };
    pairs.iter().map(|[high, low]| Some(hex(*high)? << 4 | hex(*low)?)).collect::<Option<_>>().ok_or(BAD)
}

/// Printable ASCII stands for itself, a backslash for itself where it is doubled, everything else as three octal digits
/// behind one. A text that begins with `\x` is never one of these.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', rest @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest
            }
            [byte @ b' '..=b'~', rest @ ..] if *byte != b'\\' => {
                bytes.push(*byte);
                rest
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        assert_eq!(bytea("\\x00ff").unwrap(), [0, 255]);
        assert_eq!(bytea(r"a\\\000\377 ~").unwrap(), b"a\\\x00\xff ~");
        assert_eq!(bytea("").unwrap(), b"");
        for text in ["\\x0", "\\xzz", "\\", "\\9", "\\40", "\\400", "ä", "\n"] {
            assert!(bytea(text).is_err(), "{text}");
        }
    }
}
