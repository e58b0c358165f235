//! The text of `partition_by`: `transform(arguments) as name`, names in double quotes where they need them.

use iceberg::spec::Transform;
use philotes_sdk::{Error, Result};

use super::PartitionField;

const ALLOWED: &str = "column, identity(column), bucket(buckets, column), truncate(width, column), year(column), \
    month(column), day(column), hour(column), void(column), each optionally followed by \"as name\"";

/// Reads the entries of `partition_by`.
///
/// # Errors
/// Config: an entry that does not read; it names the entry, what was found and what is allowed.
pub(crate) fn parse(fields: &[String]) -> Result<Vec<PartitionField>> {
    let mut parsed: Vec<PartitionField> = Vec::with_capacity(fields.len());
    for entry in fields {
        let field = field(Parser::new("partition_by", ALLOWED, entry))?;
        if let Some(other) = parsed.iter().find(|other| other.name.eq_ignore_ascii_case(&field.name)) {
            return Err(Error::config(format!(
                "partition_by: {entry:?}: the name {:?} is already that of {:?}; allowed is any other, with \"as name\"",
                field.name,
                other.to_string()
            )));
        }
        parsed.push(field);
    }
    Ok(parsed)
}

/// A name as this module reads it back.
pub(crate) fn quoted(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(is_plain) && !name.eq_ignore_ascii_case("as");
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '-')
}

fn field(mut text: Parser<'_>) -> Result<PartitionField> {
    let (first, was_quoted) = text.name("a column or a transform")?;
    let (transform, column) = if !was_quoted && text.takes('(') {
        let field = arguments(&mut text, &first)?;
        if !text.takes(')') {
            return Err(text.expected("\")\""));
        }
        field
    } else {
        (Transform::Identity, first)
    };
    let name = alias(&mut text)?.unwrap_or_else(|| PartitionField::default_name(transform, &column));
    Ok(PartitionField { transform, column, name })
}

fn arguments(text: &mut Parser<'_>, transform: &str) -> Result<(Transform, String)> {
    let transform = match transform.to_ascii_lowercase().as_str() {
        "identity" => Transform::Identity,
        "year" => Transform::Year,
        "month" => Transform::Month,
        "day" => Transform::Day,
        "hour" => Transform::Hour,
        "void" => Transform::Void,
        "bucket" => Transform::Bucket(number(text, "the number of buckets")?),
        "truncate" => Transform::Truncate(number(text, "the width")?),
        _ => return Err(text.fault(&format!("no transform {transform:?}"))),
    };
    let (column, _) = text.name("a column")?;
    Ok((transform, column))
}

/// The number that comes before the column, and the comma between them.
fn number(text: &mut Parser<'_>, what: &str) -> Result<u32> {
    text.skip_spaces();
    let end = text.rest.find([',', ')']).unwrap_or(text.rest.len());
    let (digits, rest) = text.rest.split_at(end);
    // The specification's numbers are Java's ints.
    let number = digits.trim().parse::<u32>().ok().filter(|n| (1..=i32::MAX.unsigned_abs()).contains(n));
    let Some(number) = number else {
        return Err(text.fault(&format!("{what} is {:?}, it must be 1 to {}", digits.trim(), i32::MAX)));
    };
    text.rest = rest;
    if !text.takes(',') {
        return Err(text.expected("\",\" and a column"));
    }
    Ok(number)
}

fn alias(text: &mut Parser<'_>) -> Result<Option<String>> {
    let name = if text.takes_word("as") { Some(text.name("a name")?.0) } else { None };
    match (text.at_end(), &name) {
        (true, _) => Ok(name),
        (false, None) => Err(text.expected("\"as name\" or the end")),
        (false, Some(_)) => Err(text.expected("the end")),
    }
}

/// The text of an entry of a key that names columns.
pub(crate) struct Parser<'a> {
    key: &'static str,
    /// What may stand there.
    allowed: &'static str,
    entry: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(key: &'static str, allowed: &'static str, entry: &'a str) -> Self {
        Self { key, allowed, entry, rest: entry }
    }

    /// A name, and whether it stood in quotes.
    pub(crate) fn name(&mut self, what: &str) -> Result<(String, bool)> {
        self.skip_spaces();
        if let Some(mut rest) = self.rest.strip_prefix('"') {
            let mut name = String::new();
            while let Some(end) = rest.find('"') {
                name.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        rest = more;
                    }
                    None if name.is_empty() => return Err(self.expected(what)),
                    None => {
                        self.rest = rest;
                        return Ok((name, true));
                    }
                }
            }
            return Err(self.fault("a quote is not closed"));
        }
        let end = self.rest.find(|c: char| !is_plain(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok((name.to_owned(), false))
    }

    fn takes(&mut self, c: char) -> bool {
        self.skip_spaces();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Whether this word stands next, in any case.
    pub(crate) fn takes_word(&mut self, word: &str) -> bool {
        self.skip_spaces();
        let end = self.rest.find(|c: char| !is_plain(c)).unwrap_or(self.rest.len());
        let is_it = self.rest[..end].eq_ignore_ascii_case(word);
        if is_it {
            self.rest = &self.rest[end..];
        }
        is_it
    }

    /// Whether nothing follows.
    pub(crate) fn at_end(&mut self) -> bool {
        self.skip_spaces();
        self.rest.is_empty()
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = if self.rest.is_empty() { "the end".to_owned() } else { format!("{:?}", self.rest) };
        self.fault(&format!("found {found} where {what} must stand"))
    }

    pub(crate) fn fault(&self, what: &str) -> Error {
        Error::config(format!("{}: {:?}: {what}; allowed are {}", self.key, self.entry, self.allowed))
    }
}
