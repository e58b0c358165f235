//! A connector file's YAML as values, with a bound on everything that a text can make much of.
//!
//! The YAML library has a bound on depth alone, at which it has long read the whole text, in a time that grows with the square of
//! the brackets that are open. What an alias repeats it repeats as often as it is asked to.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

/// A file's length, and that of a file that a variable names. A connector file takes a few thousand bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// How many brackets may be open at once, those in quotes and comments counted too: the library's time per word grows with them.
const MAX_OPEN: usize = 256;
/// How deep lists and maps may stand in one another.
const MAX_DEPTH: usize = 32;
/// How many values there may be, those that aliases repeat counted again.
const MAX_VALUES: usize = 100_000;
/// The longest key, which is part of the path of each fault below it.
const MAX_KEY: usize = 1024;

/// What is too much in a text, before it is parsed.
pub(super) fn check(text: &str) -> Result<(), (String, String)> {
    if text.len() > MAX_BYTES {
        return Err((format!("{} bytes", text.len()), format!("a file of up to {} KiB", MAX_BYTES >> 10)));
    }
    let mut open = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => continue,
        }
        if open > MAX_OPEN {
            return Err((
                format!("more than {MAX_OPEN} brackets are open at once"),
                "brackets that are closed".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Reads values until there are too many.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    left: &'a Cell<usize>,
    depth: usize,
}

/// Reads one document.
pub(super) fn read<'de, D: Deserializer<'de>>(document: D) -> Result<Value, D::Error> {
    let left = Cell::new(MAX_VALUES);
    serde::de::DeserializeSeed::deserialize(Reader { left: &left, depth: MAX_DEPTH }, document)
}

impl Reader<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        let deeper = || E::custom(format_args!("lists and maps more than {MAX_DEPTH} deep in one another"));
        Ok(Self { depth: self.depth.checked_sub(1).ok_or_else(deeper)?, ..self })
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let more =
            || D::Error::custom(format_args!("more than {MAX_VALUES} values, those of aliases counted each time"));
        self.left.set(self.left.get().checked_sub(1).ok_or_else(more)?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(below)? {
            values.push(value);
        }
        Ok(Value::Sequence(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut entries = Mapping::new();
        while let Some(key) = map.next_key_seed(below)? {
            if let Value::String(key) = &key
                && key.len() > MAX_KEY
            {
                return Err(A::Error::custom(format_args!(
                    "a key of {} bytes, where {MAX_KEY} are allowed",
                    key.len()
                )));
            }
            if entries.contains_key(&key) {
                return Err(A::Error::custom(match &key {
                    Value::String(key) => format!("duplicate entry with key {key:?}"),
                    _ => "duplicate entry with a key that is no text".to_owned(),
                }));
            }
            let value = map.next_value_seed(below)?;
            entries.insert(key, value);
        }
        Ok(Value::Mapping(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (tag, contents) = data.variant::<String>()?;
        let value = contents.newtype_variant_seed(self.below()?)?;
        // The library refuses an empty tag by itself, and `Tag` by a panic.
        let tag = if tag.is_empty() { "!".to_owned() } else { tag };
        Ok(Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value })))
    }
}
