//! Text of strangers on its way to a log or a terminal: names, messages and values that plugins, servers and rows bring.
//!
//! A control character in them could end a line and begin a false one, or move the cursor, and what turns the direction of text
//! round could make one thing look like another. They are shown escaped, as `\n` or `\u{1b}`; nothing else is changed.

use std::borrow::Cow;
use std::io::{self, Write};

/// Whether a character does something to a terminal or a line instead of being shown.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        // The separators of lines and paragraphs, and what embeds, overrides or isolates a direction.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, as it may be shown.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The text as it may be shown; it keeps its lines and tabs.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && c != '\n' && c != '\t')
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            true if c.is_control() => shown.extend(c.escape_debug()),
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Writes what may be shown, whatever it is given: for output that is put together from texts of many origins. Lines stay lines; a
/// value that must not begin one goes through [`line`] before.
pub(crate) struct Printable<W>(pub(crate) W);

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Formatting writes whole texts; what is none is shown as far as it is.
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(lines(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_escaped_and_nothing_else() {
        for (text, expected) in [
            ("public.orders", "public.orders"),
            ("größe \"x\\n\" 日本 👩‍💻", "größe \"x\\n\" 日本 👩‍💻"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[2J\x07\0\x7f", "\\u{1b}[2J\\u{7}\\0\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}gpj.exe\u{2066}\u{2028}", "\\u{202e}gpj.exe\\u{2066}\\u{2028}"),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\tb\nc\x1b[0m\r"), "a\tb\nc\\u{1b}[0m\\r");
    }

    #[test]
    fn a_writer_lets_no_escape_through() {
        let mut out = Vec::new();
        let mut printable = Printable(&mut out);
        let name = "t\x1b]0;title\x07";
        writeln!(printable, "{name}: {}", 7).unwrap();
        printable.write_all(b"\xff\x1b\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "t\\u{1b}]0;title\\u{7}: 7\n\u{fffd}\\u{1b}\n");
    }
}
