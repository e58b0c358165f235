//! The names of types in the configuration's `columns`.

use std::collections::BTreeMap;

use super::kind::{Digits, Kind, Member, Unit};
use super::topic::check_name;

const ALLOWED: &str = "boolean, int, long, float, double, decimal(p,s), decimal_base64(p,s), string, binary, uuid, json, json_text, date, time, \
    time_millis, time_micros, time_nanos, timestamp and timestamptz, both also with _seconds, _millis, _micros or _nanos behind, \
    list<T>, map<T>, map<string, T> and struct<name: T, …>";

/// How deep types may stand in one another.
const MOST_LEVELS: usize = 16;

/// The type that a name means.
///
/// # Errors
/// What was found and what is allowed.
pub(crate) fn parse_type(text: &str) -> Result<Kind, String> {
    let mut parser = Parser { text, rest: text };
    let kind = parser.kind(0)?;
    parser.space();
    if parser.rest.is_empty() { Ok(kind) } else { Err(parser.unexpected("the type's end")) }
}

/// A column that a configuration declares: its name, its type, and the type's name.
pub(crate) type Declared = (String, Kind, String);

/// The columns that a configuration declares.
///
/// # Errors
/// The column, what was found and what is allowed, for each column at fault.
pub(crate) fn parse_columns(columns: &BTreeMap<String, String>) -> Result<Vec<Declared>, Vec<(String, String)>> {
    let (mut parsed, mut faults) = (Vec::new(), Vec::new());
    for (name, text) in columns {
        let kind = check_name(name).map_err(|refusal| refusal.reason.into_owned()).and_then(|()| parse_type(text));
        match kind {
            Ok(kind) => parsed.push((name.clone(), kind, text.clone())),
            Err(fault) => faults.push((name.clone(), fault)),
        }
    }
    if faults.is_empty() { Ok(parsed) } else { Err(faults) }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn unexpected(&self, wanted: &str) -> String {
        let found = self.rest.chars().next().map_or("its end".to_owned(), |c| format!("{c:?}"));
        format!("{:?}: {found} where {wanted} was expected; allowed types are {ALLOWED}", self.text)
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(&format!("{wanted:?}"))) }
    }

    /// Up to what ends a name of a type or a member.
    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|c: char| c.is_whitespace() || "<>(),:\"".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Result<u8, String> {
        let before = self.rest;
        let word = self.word();
        word.parse().ok().filter(|number| *number <= 38).ok_or_else(|| {
            self.rest = before.trim_start();
            self.unexpected("a number up to 38")
        })
    }

    fn kind(&mut self, level: usize) -> Result<Kind, String> {
        if level > MOST_LEVELS {
            return Err(format!("{:?}: more than {MOST_LEVELS} types in one another", self.text));
        }
        let name = self.word();
        Ok(match name {
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "decimal" => self.decimal(Digits::Text)?,
            "decimal_base64" => self.decimal(Digits::Bytes)?,
            "string" => Kind::STRING,
            "binary" => Kind::Binary,
            "uuid" => Kind::Uuid,
            "json" => Kind::Json,
            "json_text" => Kind::JsonText,
            "date" => Kind::DATE,
            "list" => {
                self.expect('<')?;
                let element = self.kind(level + 1)?;
                self.expect('>')?;
                Kind::List(Box::new(element))
            }
            "map" => self.map(level)?,
            "struct" => self.members(level)?,
            _ => self.moment(name)?,
        })
    }

    fn decimal(&mut self, digits: Digits) -> Result<Kind, String> {
        self.expect('(')?;
        let precision = self.number()?;
        let scale = if self.take(',') { self.number()? } else { 0 };
        self.expect(')')?;
        if precision == 0 || scale > precision {
            return Err(format!("{:?}: a decimal has 1 to 38 digits, and no more of them behind the point", self.text));
        }
        Ok(Kind::Decimal(precision, i8::try_from(scale).unwrap_or(0), digits))
    }

    fn map(&mut self, level: usize) -> Result<Kind, String> {
        self.expect('<')?;
        let first = self.kind(level + 1)?;
        let value = if self.take(',') {
            if first != Kind::STRING {
                return Err(format!(
                    "{:?}: the keys of a map in JSON are strings: map<T> or map<string, T>",
                    self.text
                ));
            }
            self.kind(level + 1)?
        } else {
            first
        };
        self.expect('>')?;
        Ok(Kind::Map(Box::new(Kind::STRING), Box::new(value)))
    }

    fn members(&mut self, level: usize) -> Result<Kind, String> {
        self.expect('<')?;
        let mut members: Vec<Member> = Vec::new();
        loop {
            let name = self.member_name()?;
            self.expect(':')?;
            let kind = self.kind(level + 1)?;
            if members.iter().any(|member| member.name == name) {
                return Err(format!("{:?}: the member {name:?} twice", self.text));
            }
            members.push(Member { name, kind, source_type: None });
            if !self.take(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(Kind::Struct(members))
    }

    /// A name, or anything in double quotes.
    fn member_name(&mut self) -> Result<String, String> {
        if self.take('"') {
            let (name, rest) = self.rest.split_once('"').ok_or_else(|| self.unexpected("a closing quote"))?;
            self.rest = rest;
            return Ok(name.to_owned());
        }
        match self.word() {
            "" => Err(self.unexpected("a member's name")),
            name => Ok(name.to_owned()),
        }
    }

    /// A time or timestamp, by what its numbers count.
    fn moment(&self, name: &str) -> Result<Kind, String> {
        let (base, unit) = match name.split_once('_') {
            Some((base, "seconds")) => (base, Some(Unit::Seconds)),
            Some((base, "millis")) => (base, Some(Unit::Millis)),
            Some((base, "micros")) => (base, Some(Unit::Micros)),
            Some((base, "nanos")) => (base, Some(Unit::Nanos)),
            Some(_) => ("", None),
            None => (name, None),
        };
        match (base, unit) {
            ("time", unit) if unit != Some(Unit::Seconds) => Ok(Kind::Time(unit)),
            ("timestamp", unit) => Ok(Kind::timestamp(false, unit)),
            ("timestamptz", unit) => Ok(Kind::timestamp(true, unit)),
            _ if name.is_empty() => Err(self.unexpected("a type")),
            _ => Err(format!("{name:?} is no type; allowed are {ALLOWED}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(element: Kind) -> Kind {
        Kind::List(Box::new(element))
    }

    fn map(value: Kind) -> Kind {
        Kind::Map(Box::new(Kind::STRING), Box::new(value))
    }

    #[test]
    fn each_name_is_its_type() {
        let member = |name: &str, kind| Member { name: name.to_owned(), kind, source_type: None };
        for (text, expected) in [
            ("boolean", Kind::Boolean),
            ("int", Kind::Int),
            ("long", Kind::Long),
            ("float", Kind::Float),
            ("double", Kind::Double),
            ("decimal(18,2)", Kind::Decimal(18, 2, Digits::Text)),
            (" decimal ( 38 ) ", Kind::Decimal(38, 0, Digits::Text)),
            ("decimal_base64(10, 4)", Kind::Decimal(10, 4, Digits::Bytes)),
            ("string", Kind::STRING),
            ("binary", Kind::Binary),
            ("uuid", Kind::Uuid),
            ("json", Kind::Json),
            ("json_text", Kind::JsonText),
            ("date", Kind::DATE),
            ("time", Kind::Time(None)),
            ("time_millis", Kind::Time(Some(Unit::Millis))),
            ("time_micros", Kind::Time(Some(Unit::Micros))),
            ("time_nanos", Kind::Time(Some(Unit::Nanos))),
            ("timestamp", Kind::timestamp(false, None)),
            ("timestamptz", Kind::timestamp(true, None)),
            ("timestamp_seconds", Kind::timestamp(false, Some(Unit::Seconds))),
            ("timestamp_nanos", Kind::timestamp(false, Some(Unit::Nanos))),
            ("timestamptz_millis", Kind::timestamp(true, Some(Unit::Millis))),
            ("timestamptz_micros", Kind::timestamp(true, Some(Unit::Micros))),
            ("list<list<int>>", list(list(Kind::Int))),
            ("map<long>", map(Kind::Long)),
            ("map<string>", map(Kind::STRING)),
            ("map<string,decimal(5,2)>", map(Kind::Decimal(5, 2, Digits::Text))),
            (
                "struct<a: int, \"b c\": list<struct<x: double>>>",
                Kind::Struct(vec![
                    member("a", Kind::Int),
                    member("b c", list(Kind::Struct(vec![member("x", Kind::Double)]))),
                ]),
            ),
        ] {
            assert_eq!(parse_type(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn each_fault_says_what_is_allowed() {
        for (text, fault) in [
            ("", "its end where a type"),
            ("integer", "\"integer\" is no type; allowed are boolean"),
            ("time_seconds", "is no type"),
            ("timestamp_days", "is no type"),
            ("decimal", "its end where '('"),
            ("decimal(0)", "1 to 38 digits"),
            ("decimal(39,2)", "a number up to 38"),
            ("decimal(2,3)", "no more of them"),
            ("list<int", "its end where '>'"),
            ("list<>", "'>' where a type"),
            ("map<int, long>", "keys of a map"),
            ("struct<a int>", "'i' where ':'"),
            ("struct<a: int, a: long>", "twice"),
            ("struct<>", "a member's name"),
            ("int int", "'i' where the type's end"),
        ] {
            let found = parse_type(text).unwrap_err();
            assert!(found.contains(fault), "{text}: {found}");
        }
        assert!(parse_type(&("list<".repeat(99) + "int" + &">".repeat(99))).unwrap_err().contains("more than"));
        let faults =
            parse_columns(&[("_cdc_lsn".to_owned(), "long".to_owned()), ("b".to_owned(), "x".to_owned())].into());
        assert_eq!(faults.unwrap_err().len(), 2);
    }

    /// docs/KAFKA.md says what the code does.
    #[test]
    fn the_documented_types_are_these() {
        let document = include_str!("../../../../docs/KAFKA.md");
        let (_, section) = document.split_once("### The language of types").unwrap();
        let (section, _) = section.split_once("###").unwrap();
        let mut types = 0;
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            for name in row.split('|').nth(1).unwrap().trim().split("`, `") {
                let name = name.trim_matches('`').replace("p,s", "9,2").replace('T', "int");
                assert!(parse_type(&name).is_ok(), "{name}");
                types += 1;
            }
        }
        assert!(types > 25, "only {types} types");
    }
}
