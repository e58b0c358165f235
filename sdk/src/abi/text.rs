//! Text and errors across the boundary.

use std::borrow::Cow;

use crate::{Error, ErrorKind, Result};

use super::{ERROR_HELD_ELSEWHERE, OK, Sized32};

/// `philotes_text`: borrowed UTF-8.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The bytes; may be null where there are none.
    pub data: *const u8,
    /// How many.
    pub length: u64,
}

impl Text {
    /// No text.
    pub const EMPTY: Self = Self { data: std::ptr::null(), length: 0 };

    /// Lends a text; the caller keeps it alive for as long as the other side may read it.
    #[must_use]
    pub const fn lend(text: &str) -> Self {
        Self { data: text.as_ptr(), length: text.len() as u64 }
    }

    /// The text, or `None` where the bytes are no UTF-8 or their length makes no sense.
    ///
    /// # Safety
    /// Where `data` is not null, `length` bytes are readable there for `'a` and do not change.
    #[must_use]
    pub unsafe fn get<'a>(self) -> Option<&'a str> {
        if self.length == 0 {
            return Some("");
        }
        let length = usize::try_from(self.length).ok().filter(|length| isize::try_from(*length).is_ok())?;
        if self.data.is_null() {
            return None;
        }
        // SAFETY: not null, and the caller warrants the bytes; the length fits an isize.
        std::str::from_utf8(unsafe { std::slice::from_raw_parts(self.data, length) }).ok()
    }

    /// The text with whatever is no UTF-8 replaced: for the log, where something beats nothing.
    ///
    /// # Safety
    /// As [`Text::get`].
    #[must_use]
    pub unsafe fn lossy<'a>(self) -> Cow<'a, str> {
        // SAFETY: the caller warrants it.
        if let Some(text) = unsafe { self.get() } {
            return Cow::Borrowed(text);
        }
        match usize::try_from(self.length) {
            Ok(length) if !self.data.is_null() && isize::try_from(length).is_ok() => {
                // SAFETY: not null, and the caller warrants the bytes; the length fits an isize.
                String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(self.data, length) })
            }
            _ => Cow::Borrowed(""),
        }
    }

    /// The text, or an error that names what it is.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where the bytes are no UTF-8.
    ///
    /// # Safety
    /// As [`Text::get`].
    pub unsafe fn read<'a>(self, what: &str) -> Result<&'a str> {
        // SAFETY: the caller warrants it.
        unsafe { self.get() }.ok_or_else(|| Error::internal(format!("{what} is no valid UTF-8")))
    }
}

/// `philotes_error`: allocated by the caller, filled by whoever fails.
#[repr(C)]
#[derive(Debug)]
pub struct ErrorText {
    /// Size of the struct.
    pub struct_size: u32,
    /// Length of the message in bytes.
    pub length: u32,
    /// The message.
    pub message: [u8; Self::MAX_BYTES],
    /// [`ERROR_HELD_ELSEWHERE`].
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

impl ErrorText {
    /// The longest message.
    pub const MAX_BYTES: usize = 4096;

    /// Fills `theirs` with the error's message, cut between two characters where it is too long, and returns the status.
    ///
    /// # Safety
    /// `theirs` is null or points to a `philotes_error` whose `struct_size` bytes are writable.
    pub unsafe fn fill(theirs: *mut Self, error: &Error) -> u32 {
        if !theirs.is_null() {
            // SAFETY: the caller warrants that `struct_size` bytes are there; no more are written.
            unsafe {
                let size = theirs.cast::<u32>().read() as usize;
                let room = size.saturating_sub(8).min(Self::MAX_BYTES);
                let message = error.to_string();
                let cut = cut(&message, room);
                if size >= 8 {
                    (&raw mut (*theirs).length).write(u32::try_from(cut.len()).unwrap_or(0));
                }
                std::ptr::copy_nonoverlapping(cut.as_ptr(), (&raw mut (*theirs).message).cast::<u8>(), cut.len());
                // A host from before this field lends a struct that ends before it; it retries as for any absence.
                if size >= std::mem::offset_of!(Self, reserved) {
                    (&raw mut (*theirs).flags).write(if error.is_held_elsewhere() { ERROR_HELD_ELSEWHERE } else { 0 });
                }
            }
        }
        error.kind() as u32
    }

    /// What a call's status and this text say.
    ///
    /// # Errors
    /// The error that the other side reported. An unknown kind and an unreadable message become
    /// [`ErrorKind::Internal`] and a message that says so.
    pub fn result(&self, status: u32, call: &str) -> Result<()> {
        if status == OK {
            return Ok(());
        }
        let length = (self.length as usize).min(Self::MAX_BYTES);
        let message = match std::str::from_utf8(&self.message[..length]) {
            _ if self.length as usize > Self::MAX_BYTES => format!("{call} failed with a message of impossible length"),
            Ok("") => format!("{call} failed without a message"),
            Ok(message) => message.to_owned(),
            Err(_) => format!("{call} failed with a message that is no valid UTF-8"),
        };
        match ErrorKind::from_u32(status) {
            Some(ErrorKind::Unavailable) if self.flags & ERROR_HELD_ELSEWHERE != 0 => {
                Err(Error::held_elsewhere(message))
            }
            Some(kind) => Err(Error::new(kind, message)),
            None => Err(Error::internal(format!("{call} returned the unknown error kind {status}: {message}"))),
        }
    }

    /// One to lend to a call.
    #[must_use]
    pub fn new() -> Self {
        Self::zeroed()
    }
}

impl Default for ErrorText {
    fn default() -> Self {
        Self::new()
    }
}

/// The longest start of `text` that fits into `room` bytes and ends between two characters.
fn cut(text: &str, room: usize) -> &str {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut text = ErrorText::new();
        let error = Error::data(format!("x{}", "ä".repeat(3000)));
        // SAFETY: a whole struct of our own.
        let status = unsafe { ErrorText::fill(&raw mut text, &error) };
        assert_eq!(status, 3);
        assert_eq!(text.length, 4095);
        let error = text.result(status, "poll").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!(error.message(), format!("x{}", "ä".repeat(2047)));
    }

    #[test]
    fn a_shorter_struct_of_the_other_side_is_not_overrun() {
        let mut text = ErrorText::new();
        text.struct_size = 8 + 3;
        // SAFETY: a whole struct of our own that says it is shorter.
        unsafe { ErrorText::fill(&raw mut text, &Error::data("abcdef")) };
        assert_eq!((text.length, &text.message[..4]), (3, b"abc\0".as_slice()));
    }

    #[test]
    fn what_is_held_elsewhere_stays_so_where_both_sides_know_it() {
        let held = Error::held_elsewhere("another host has it").context("source");
        let mut text = ErrorText::new();
        // SAFETY: a whole struct of our own.
        let status = unsafe { ErrorText::fill(&raw mut text, &held) };
        assert_eq!(status, ErrorKind::Unavailable as u32);
        let error = text.result(status, "open").unwrap_err();
        assert_eq!((error.is_held_elsewhere(), error.message()), (true, "source: another host has it"));

        // A struct from before the field: not written, so that the error is one that passes.
        let mut text = ErrorText::new();
        text.struct_size = 4104;
        // SAFETY: a whole struct of our own that says it is shorter.
        let status = unsafe { ErrorText::fill(&raw mut text, &held) };
        assert_eq!((status, text.flags), (2, 0));
        assert!(!text.result(status, "open").unwrap_err().is_held_elsewhere());

        // The flag says nothing with any other kind.
        text.flags = ERROR_HELD_ELSEWHERE;
        assert!(!text.result(ErrorKind::Config as u32, "open").unwrap_err().is_held_elsewhere());
    }

    #[test]
    fn unknown_kinds_and_unreadable_messages_become_internal_errors() {
        let mut text = ErrorText::new();
        assert_eq!(text.result(99, "poll").unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(text.result(2, "poll").unwrap_err().message(), "poll failed without a message");
        text.length = 1;
        text.message[0] = 0xff;
        assert!(text.result(2, "poll").unwrap_err().message().contains("no valid UTF-8"));
        text.length = u32::MAX;
        assert!(text.result(2, "poll").unwrap_err().message().contains("impossible length"));
        assert!(text.result(0, "poll").is_ok());
    }

    #[test]
    fn text_that_is_no_utf8_or_null_is_refused() {
        let bytes = [0xff_u8, 0xfe];
        // SAFETY: the bytes are there, or the pointer is null.
        unsafe {
            assert!(Text { data: bytes.as_ptr(), length: 2 }.get().is_none());
            assert!(Text { data: std::ptr::null(), length: 2 }.get().is_none());
            assert!(Text { data: bytes.as_ptr(), length: u64::MAX }.get().is_none());
            assert_eq!(Text { data: bytes.as_ptr(), length: 2 }.lossy(), "\u{fffd}\u{fffd}");
            assert_eq!(Text { data: std::ptr::null(), length: 2 }.lossy(), "");
            assert_eq!(Text::EMPTY.get(), Some(""));
            assert_eq!(Text::lend("öl").get(), Some("öl"));
        }
    }
}
