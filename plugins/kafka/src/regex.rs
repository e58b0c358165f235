//! POSIX's extended regular expressions, as librdkafka reads them: so that what `validate` and `plan` say of a pattern is what the
//! group subscribes to. The C library's own, hence the unsafe code.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use philotes_sdk::{Error, Result};

/// A pattern that was compiled.
struct Pattern(libc::regex_t);

impl Pattern {
    /// What is wrong with the pattern, in the C library's words.
    fn new(pattern: &str) -> Result<Self, String> {
        let text = CString::new(pattern).map_err(|_| "a zero byte".to_owned())?;
        let mut compiled = MaybeUninit::<libc::regex_t>::zeroed();
        // SAFETY: the text lives through the call, which fills the struct where it returns 0.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code == 0 {
            // SAFETY: it was filled.
            return Ok(Self(unsafe { compiled.assume_init() }));
        }
        let mut reason = [0; 128];
        // SAFETY: the buffer has this length; the struct is zeroed or as the failed call left it.
        unsafe { libc::regerror(code, compiled.as_ptr(), reason.as_mut_ptr(), reason.len()) };
        // SAFETY: the buffer ends with a zero byte: the call cuts what is longer.
        Err(unsafe { CStr::from_ptr(reason.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the pattern was compiled, the text lives through the call, and no groups are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: it was compiled, and is freed once.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

/// What the whole name of a topic is matched with; librdkafka takes what begins so for a pattern.
pub(crate) fn whole(regex: &str) -> String {
    format!("^({regex})$")
}

/// The longest expression, how deep parentheses may stand in one another, and how long it may be with all that is repeated, one
/// repetition taken to stand in another: the C library has a stack for the second, and copies what is repeated.
const MAX_BYTES: usize = 1024;
const MAX_DEPTH: usize = 32;
const MAX_REPEATED: usize = 1_000_000;

/// Which of the bounds an expression is beyond; what stands in brackets or behind a backslash is counted, too.
fn beyond(regex: &str) -> Option<String> {
    if regex.len() > MAX_BYTES {
        return Some(format!("{} bytes; allowed are {MAX_BYTES}", regex.len()));
    }
    let (mut depth, mut repeated) = (0_usize, regex.len());
    for (at, byte) in regex.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'{' => {
                let numbers = regex[at + 1..].split('}').next().unwrap_or_default().split(',');
                let most = numbers.filter_map(|number| number.trim().parse::<usize>().ok()).max();
                repeated = repeated.saturating_mul(most.unwrap_or(1).saturating_add(1));
            }
            // Once, and then as often as one likes.
            b'+' => repeated = repeated.saturating_mul(2),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(format!("parentheses more than {MAX_DEPTH} deep in one another"));
        }
    }
    (repeated > MAX_REPEATED)
        .then(|| format!("repetitions such as {{1,9}} that make more than {MAX_REPEATED} characters of it"))
}

/// What is wrong with a regular expression.
pub(crate) fn fault(regex: &str) -> Option<String> {
    if let Some(beyond) = beyond(regex) {
        return Some(beyond);
    }
    // Alone first: `)(` would be whole.
    Pattern::new(regex).and_then(|_| Pattern::new(&whole(regex))).err()
}

/// The names that match as a whole, in their order by name.
pub(crate) fn matching<'a>(regex: &str, names: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let pattern =
        Pattern::new(&whole(regex)).map_err(|reason| Error::config(format!("topics_regex: {regex:?}: {reason}")))?;
    let mut matching: Vec<String> = names.filter(|name| pattern.matches(name)).map(str::to_owned).collect();
    matching.sort();
    Ok(matching)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C library ended the process at the first of these, and took the memory of the machine for the last.
    #[test]
    fn expressions_that_make_much_of_little_are_refused() {
        for (regex, expected) in [
            ("(".repeat(100_000), "100000 bytes; allowed are 1024"),
            ("(".repeat(500) + "a" + &")".repeat(500), "more than 32 deep"),
            ("((a{1,30000}){1,30000}){1,30000}".to_owned(), "more than 1000000 characters"),
            (format!("a{}", "{9}".repeat(6)), "more than 1000000 characters"),
            (format!("a{}", "+".repeat(40)), "more than 1000000 characters"),
            ("(".repeat(30) + "a" + &"+)".repeat(30), "more than 1000000 characters"),
        ] {
            assert!(fault(&regex).unwrap().contains(expected), "{:?}", fault(&regex));
        }
        assert_eq!(fault("shop\\.[a-z]{1,63}(_v[0-9]{1,3})?_[a-z]{1,63}"), None);
    }

    #[test]
    fn a_whole_name_matches() {
        let names = ["shop.b", "shop.a", "shop", "ashop.a", "shop.a.b"];
        let found = |regex: &str| matching(regex, names.into_iter()).unwrap();
        assert_eq!(found("shop\\.[ab]"), ["shop.a", "shop.b"]);
        assert_eq!(found("shop|ashop\\..*"), ["ashop.a", "shop"]);
        assert_eq!(found("^shop$"), ["shop"]);
    }

    #[test]
    fn a_broken_pattern_is_told() {
        for broken in ["(", "[a", "a)(b", "*"] {
            let found = fault(broken);
            assert!(found.is_some() || broken == "*", "{broken}");
        }
        assert_eq!(fault("shop\\..*"), None);
    }
}
