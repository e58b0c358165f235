//! Takes columns out of records that the source could not make rows of: they are text for people, whose form only the source
//! knows. As JSON, members of these names leave, however deep they lie; everything else stays as it is, to the last digit.

/// What stands in place of a record in which no columns can be found.
const WITHHELD: &str = "(withheld: it is no JSON, and the connector drops columns of this stream)";

/// How the names of members end that hold bytes: see the sdk's `dead_letter::RECORD`.
const BYTES: &str = "_base64";

/// The record without members of these names.
pub(crate) fn without(record: &str, columns: &[&str]) -> String {
    scrubbed(record, columns, 0).unwrap_or_else(|| WITHHELD.to_owned())
}

/// The same of a JSON text; `None` where it is none.
fn scrubbed(text: &str, columns: &[&str], depth: usize) -> Option<String> {
    // Whether it is JSON is not left to this scanner.
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    let mut scrubber = Scrubber { text, at: 0, columns, out: String::with_capacity(text.len()) };
    scrubber.value(depth);
    scrubber.space();
    (scrubber.at == text.len()).then_some(scrubber.out)
}

/// Records nested deeper than this are no record's.
const MAX_DEPTH: usize = 128;

struct Scrubber<'a> {
    text: &'a str,
    at: usize,
    columns: &'a [&'a str],
    out: String,
}

impl Scrubber<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn copy_to(&mut self, end: usize) {
        self.out.push_str(&self.text[self.at..end]);
        self.at = end;
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        let end = self.at + rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.copy_to(end);
    }

    fn value(&mut self, depth: usize) {
        self.space();
        match self.peek() {
            Some(b'{') if depth < MAX_DEPTH => self.members(depth),
            Some(b'[') if depth < MAX_DEPTH => self.items(depth),
            Some(b'"') => self.string(depth),
            Some(_) => {
                let rest = &self.text[self.at..];
                let length = rest.find([',', '}', ']', ' ', '\t', '\n', '\r', '{', '[', '"']).unwrap_or(rest.len());
                self.copy_to(self.at + length);
            }
            None => {}
        }
    }

    fn items(&mut self, depth: usize) {
        self.copy_to(self.at + 1);
        loop {
            self.value(depth + 1);
            self.space();
            match self.peek() {
                Some(b',') => self.copy_to(self.at + 1),
                Some(b']') => return self.copy_to(self.at + 1),
                _ => return,
            }
        }
    }

    fn members(&mut self, depth: usize) {
        self.copy_to(self.at + 1);
        let mut any = false;
        loop {
            let begin = self.out.len();
            if any {
                self.out.push(',');
            }
            self.space();
            if self.peek() == Some(b'}') {
                self.out.truncate(begin);
                return self.copy_to(self.at + 1);
            }
            let end = self.string_end();
            let name: Option<String> = serde_json::from_str(&self.text[self.at..end]).ok();
            self.copy_to(end);
            self.space();
            if self.peek() != Some(b':') {
                return;
            }
            self.copy_to(self.at + 1);
            let value = self.out.len();
            self.value(depth + 1);
            if name.as_ref().is_some_and(|name| name.ends_with(BYTES)) {
                self.out.truncate(value);
                self.out.push_str(&serde_json::Value::from(WITHHELD).to_string());
            }
            self.space();
            if name.is_some_and(|name| self.columns.contains(&name.as_str())) {
                self.out.truncate(begin);
            } else {
                any = true;
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.copy_to(self.at + 1),
                _ => return,
            }
        }
    }

    /// A text, in which JSON may stand again.
    fn string(&mut self, depth: usize) {
        let end = self.string_end();
        let inner: Option<String> = serde_json::from_str(&self.text[self.at..end]).ok();
        let inner = inner.filter(|text| text.trim_start().starts_with(['{', '[']) && depth < MAX_DEPTH);
        let Some(inner) = inner else { return self.copy_to(end) };
        match scrubbed(&inner, self.columns, depth + 1) {
            Some(inner) => self.put(&inner, end),
            // JSON that is broken, of which nobody can say where the value ends.
            None if self.columns.iter().any(|column| inner.contains(column)) => self.put(WITHHELD, end),
            None => self.copy_to(end),
        }
    }

    /// Puts this text in the place of what ends here.
    fn put(&mut self, text: &str, end: usize) {
        self.out.push_str(&serde_json::Value::from(text).to_string());
        self.at = end;
    }

    /// Where the text that begins here ends.
    fn string_end(&self) -> usize {
        let mut escaped = false;
        for (index, byte) in self.text.as_bytes().iter().enumerate().skip(self.at + 1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return index + 1,
                _ => {}
            }
        }
        self.text.len()
    }
}
