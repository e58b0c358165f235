//! The values of a column that is being built, of any type, whatever the format they come from.
//!
//! Rows that were refused halfway are cut off again by [`Values::truncate`], which Arrow's own builders have not.

use arrow::array::{ArrayRef, BooleanBufferBuilder, NullBufferBuilder};
use arrow::error::ArrowError;

use super::kind::{Digits, Kind, Text};
use super::{Refusal, convert};

mod array;

pub(super) const WRONG_TYPE: Refusal = Refusal::new("not a value of the column's type");
const BEYOND: Refusal = Refusal::new("beyond what the column's type holds");
const TOO_LARGE: Refusal = Refusal::new("more than a batch holds in one column");

/// Values of one type.
pub(crate) struct Values {
    kind: Kind,
    nulls: NullBufferBuilder,
    data: Data,
}

/// What is stored of values, by the Arrow type that they become.
enum Data {
    Booleans(BooleanBufferBuilder),
    Ints(Vec<i32>),
    Longs(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Decimals(Vec<i128>),
    Bytes { ends: Vec<i32>, bytes: Vec<u8> },
    Uuids(Vec<u8>),
    List { ends: Vec<i32>, elements: Box<Values> },
    Map { ends: Vec<i32>, keys: Box<Values>, values: Box<Values> },
    Struct { members: Vec<Values>, tokens: Vec<Vec<u8>> },
}

impl Data {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Boolean => Self::Booleans(BooleanBufferBuilder::new(0)),
            Kind::Int | Kind::Date { .. } => Self::Ints(Vec::new()),
            Kind::Long | Kind::Time(_) | Kind::Timestamp { .. } => Self::Longs(Vec::new()),
            Kind::Float => Self::Floats(Vec::new()),
            Kind::Double => Self::Doubles(Vec::new()),
            Kind::Decimal(..) => Self::Decimals(Vec::new()),
            Kind::String(_) | Kind::Json | Kind::JsonText | Kind::Binary => {
                Self::Bytes { ends: vec![0], bytes: Vec::new() }
            }
            Kind::Uuid => Self::Uuids(Vec::new()),
            Kind::List(element) => Self::List { ends: vec![0], elements: Box::new(Values::new(element)) },
            Kind::Map(key, value) => {
                let (keys, values) = (Box::new(Values::new(key)), Box::new(Values::new(value)));
                Self::Map { ends: vec![0], keys, values }
            }
            Kind::Struct(members) => Self::Struct {
                members: members.iter().map(|member| Values::new(&member.kind)).collect(),
                tokens: members.iter().map(|member| philotes_sdk::json::token(&member.name)).collect(),
            },
        }
    }
}

/// The last offset of a list, a map or bytes.
fn end(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}

fn push_end(ends: &mut Vec<i32>, end: usize) -> Result<(), Refusal> {
    ends.push(i32::try_from(end).map_err(|_| TOO_LARGE)?);
    Ok(())
}

impl Values {
    pub(crate) fn new(kind: &Kind) -> Self {
        Self { kind: kind.clone(), nulls: NullBufferBuilder::new(0), data: Data::new(kind) }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Cuts off what is behind the first `len` values, and what a value that was refused halfway left behind.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.nulls.truncate(len);
        match &mut self.data {
            Data::Booleans(values) => values.truncate(len),
            Data::Ints(values) => values.truncate(len),
            Data::Longs(values) => values.truncate(len),
            Data::Floats(values) => values.truncate(len),
            Data::Doubles(values) => values.truncate(len),
            Data::Decimals(values) => values.truncate(len),
            Data::Bytes { ends, bytes } => {
                ends.truncate(len + 1);
                bytes.truncate(end(ends));
            }
            Data::Uuids(values) => values.truncate(len * 16),
            Data::List { ends, elements } => {
                ends.truncate(len + 1);
                elements.truncate(end(ends));
            }
            Data::Map { ends, keys, values } => {
                ends.truncate(len + 1);
                keys.truncate(end(ends));
                values.truncate(end(ends));
            }
            Data::Struct { members, .. } => members.iter_mut().for_each(|member| member.truncate(len)),
        }
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.data {
            Data::Booleans(values) => values.append(false),
            Data::Ints(values) => values.push(0),
            Data::Longs(values) => values.push(0),
            Data::Floats(values) => values.push(0.0),
            Data::Doubles(values) => values.push(0.0),
            Data::Decimals(values) => values.push(0),
            Data::Uuids(values) => values.extend_from_slice(&[0; 16]),
            Data::Bytes { ends, .. } | Data::List { ends, .. } | Data::Map { ends, .. } => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
            Data::Struct { members, .. } => members.iter_mut().for_each(Self::push_null),
        }
        self.nulls.append_null();
    }

    pub(crate) fn push_boolean(&mut self, value: bool) -> Result<(), Refusal> {
        let Data::Booleans(values) = &mut self.data else { return Err(WRONG_TYPE) };
        values.append(value);
        self.nulls.append_non_null();
        Ok(())
    }

    /// A whole number, or what it counts: days of a date, the unit's of a time or timestamp.
    pub(crate) fn push_integer(&mut self, value: i64) -> Result<(), Refusal> {
        match (&mut self.data, &self.kind) {
            (Data::Longs(values), Kind::Long) => values.push(value),
            (Data::Longs(values), Kind::Timestamp { unit: Some(unit), infinities, .. }) => {
                values.push(convert::timestamp(value, *unit, *infinities)?);
            }
            (Data::Longs(values), Kind::Time(Some(unit))) => values.push(convert::time(value, *unit)?),
            (Data::Ints(values), Kind::Int) => values.push(i32::try_from(value).map_err(|_| BEYOND)?),
            (Data::Ints(values), Kind::Date { infinities }) => values.push(convert::date(value, *infinities)?),
            _ => return Err(WRONG_TYPE),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// A floating point number of the column's own size, as it is.
    pub(crate) fn push_double(&mut self, value: f64) -> Result<(), Refusal> {
        match &mut self.data {
            Data::Doubles(values) => values.push(value),
            #[expect(clippy::cast_possible_truncation, reason = "it comes from a float")]
            Data::Floats(values) => values.push(value as f32),
            _ => return Err(WRONG_TYPE),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// The unscaled value of a decimal.
    pub(crate) fn push_unscaled(&mut self, value: i128) -> Result<(), Refusal> {
        let (Data::Decimals(values), Kind::Decimal(precision, ..)) = (&mut self.data, &self.kind) else {
            return Err(WRONG_TYPE);
        };
        if value.unsigned_abs() >= 10_u128.pow(u32::from(*precision).min(38)) {
            return Err(Refusal::new("more digits than the type holds"));
        }
        values.push(value);
        self.nulls.append_non_null();
        Ok(())
    }

    /// The digits of a number: exactly the value that they say, or a refusal.
    pub(crate) fn push_digits(&mut self, digits: &str) -> Result<(), Refusal> {
        use philotes_sdk::json::scalar;
        match (&mut self.data, &self.kind) {
            (Data::Longs(_) | Data::Ints(_), Kind::Long | Kind::Int | Kind::Date { .. }) => {
                let value = convert::integer(digits)?;
                return self.push_integer(value);
            }
            (Data::Longs(values), Kind::Timestamp { unit: Some(unit), infinities, .. }) => {
                values.push(convert::timestamp_digits(digits, *unit, *infinities)?);
            }
            (Data::Longs(values), Kind::Time(Some(unit))) => values.push(convert::time_digits(digits, *unit)?),
            (Data::Doubles(values), _) => values.push(scalar::float(digits, false)?),
            #[expect(clippy::cast_possible_truncation, reason = "parsed as a single, every value is one")]
            (Data::Floats(values), _) => values.push(scalar::float(digits, true)? as f32),
            (Data::Decimals(values), Kind::Decimal(precision, scale, Digits::Text)) => {
                values.push(scalar::decimal(digits, *precision, *scale)?);
            }
            (Data::Bytes { .. }, Kind::String(Text::Itself) | Kind::Json) => {
                return self.push_bytes_as_they_are(digits.as_bytes());
            }
            _ => return Err(WRONG_TYPE),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// A text: itself, JSON, a uuid, or a date or time in the form of ISO 8601.
    pub(crate) fn push_text(&mut self, text: &str) -> Result<(), Refusal> {
        use philotes_sdk::json::{scalar, time};
        match (&mut self.data, &self.kind) {
            (Data::Bytes { .. }, Kind::String(Text::Itself) | Kind::Json) => {
                return self.push_bytes_as_they_are(text.as_bytes());
            }
            (Data::Bytes { .. }, Kind::JsonText) => {
                convert::json(text)?;
                return self.push_bytes_as_they_are(text.as_bytes());
            }
            (Data::Longs(values), Kind::Timestamp { zone, unit: None, .. }) => {
                let zone = if *zone { time::Zone::With } else { time::Zone::Without };
                values.push(time::timestamp(text, zone)?);
            }
            (Data::Ints(values), Kind::Date { .. }) => values.push(time::date(text)?),
            (Data::Longs(values), Kind::Time(None)) => values.push(time::time(text)?),
            (Data::Uuids(values), _) => values.extend_from_slice(&scalar::uuid(text)?),
            (Data::Decimals(values), Kind::Decimal(precision, scale, Digits::Text)) => {
                values.push(scalar::decimal(text, *precision, *scale)?);
            }
            (Data::Doubles(values), _) => values.push(convert::not_finite(text)?),
            #[expect(clippy::cast_possible_truncation, reason = "it is not finite")]
            (Data::Floats(values), _) => values.push(convert::not_finite(text)? as f32),
            _ => return Err(WRONG_TYPE),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Bytes: themselves, the unscaled value of a decimal, the bits of a bit string, a uuid's sixteen.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match (&mut self.data, &self.kind) {
            (Data::Bytes { .. }, Kind::Binary) => return self.push_bytes_as_they_are(bytes),
            (Data::Bytes { bytes: text, .. }, Kind::String(Text::Bits(length))) => {
                convert::bits(bytes, *length, text)?;
                return self.end_bytes();
            }
            (Data::Decimals(_), _) => {
                let value = convert::unscaled(bytes).ok_or(Refusal::new("more digits than the type holds"))?;
                return self.push_unscaled(value);
            }
            (Data::Uuids(values), _) if bytes.len() == 16 => values.extend_from_slice(bytes),
            _ => return Err(WRONG_TYPE),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// The digits of a decimal with a scale of its own, as PostgreSQL prints them.
    pub(crate) fn push_variable_scale(&mut self, unscaled: &[u8], scale: i32) -> Result<(), Refusal> {
        let (Data::Bytes { bytes, .. }, Kind::String(Text::VariableScale)) = (&mut self.data, &self.kind) else {
            return Err(WRONG_TYPE);
        };
        convert::print_decimal(unscaled, scale, bytes)?;
        self.end_bytes()
    }

    /// A position in PostgreSQL's log as PostgreSQL prints it: `16/B374D848`.
    pub(crate) fn push_lsn(&mut self, lsn: u64) -> Result<(), Refusal> {
        let Data::Bytes { bytes, .. } = &mut self.data else { return Err(WRONG_TYPE) };
        convert::print_hexadecimal(lsn >> 32, bytes);
        bytes.push(b'/');
        convert::print_hexadecimal(lsn & 0xffff_ffff, bytes);
        self.end_bytes()
    }

    /// `topic-partition@offset`.
    pub(crate) fn push_parts(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), Refusal> {
        let Data::Bytes { bytes, .. } = &mut self.data else { return Err(WRONG_TYPE) };
        bytes.extend_from_slice(topic.as_bytes());
        bytes.push(b'-');
        convert::print_integer(partition.into(), bytes);
        bytes.push(b'@');
        convert::print_integer(offset, bytes);
        self.end_bytes()
    }

    pub(crate) fn last_is_null(&self) -> bool {
        self.len().checked_sub(1).is_some_and(|last| !self.nulls.is_valid(last))
    }

    pub(crate) fn all_null(&self) -> bool {
        (0..self.len()).all(|index| !self.nulls.is_valid(index))
    }

    #[inline(always)]
    fn push_bytes_as_they_are(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if let Data::Bytes { bytes, .. } = &mut self.data {
            bytes.extend_from_slice(value);
        }
        self.end_bytes()
    }

    /// What lies behind the last value of bytes becomes one.
    fn end_bytes(&mut self) -> Result<(), Refusal> {
        let Data::Bytes { ends, bytes } = &mut self.data else { return Err(WRONG_TYPE) };
        push_end(ends, bytes.len())?;
        self.nulls.append_non_null();
        Ok(())
    }

    /// The elements of a list, those of the lists before as well: what is added belongs to the next one, which
    /// [`end_list`](Self::end_list) makes.
    pub(crate) fn elements(&mut self) -> Result<&mut Self, Refusal> {
        let Data::List { elements, .. } = &mut self.data else { return Err(WRONG_TYPE) };
        Ok(elements)
    }

    pub(crate) fn end_list(&mut self) -> Result<(), Refusal> {
        let Data::List { ends, elements } = &mut self.data else { return Err(WRONG_TYPE) };
        push_end(ends, elements.len())?;
        self.nulls.append_non_null();
        Ok(())
    }

    /// The keys and values of a map, as with lists; a key is never null.
    pub(crate) fn entries(&mut self) -> Result<(&mut Self, &mut Self), Refusal> {
        let Data::Map { keys, values, .. } = &mut self.data else { return Err(WRONG_TYPE) };
        Ok((keys, values))
    }

    /// Whether one of the texts from this one on is there twice.
    pub(crate) fn repeats_from(&self, start: usize) -> bool {
        let Data::Bytes { ends, bytes } = &self.data else { return false };
        let at = |index: usize| usize::try_from(ends[index]).unwrap_or(0);
        let mut texts: Vec<&[u8]> = (start..self.len()).map(|index| &bytes[at(index)..at(index + 1)]).collect();
        texts.sort_unstable();
        texts.windows(2).any(|pair| pair[0] == pair[1])
    }

    pub(crate) fn end_map(&mut self) -> Result<(), Refusal> {
        let Data::Map { ends, keys, values } = &mut self.data else { return Err(WRONG_TYPE) };
        debug_assert_eq!(keys.len(), values.len());
        push_end(ends, keys.len())?;
        self.nulls.append_non_null();
        Ok(())
    }

    /// The members of a struct and their names as keys of JSON: each takes one value, or none, before [`end_struct`](Self::end_struct).
    pub(crate) fn members(&mut self) -> Result<(&mut [Self], &[Vec<u8>]), Refusal> {
        let Data::Struct { members, tokens } = &mut self.data else { return Err(WRONG_TYPE) };
        Ok((members, tokens))
    }

    /// Members that were not given are null.
    pub(crate) fn end_struct(&mut self) -> Result<(), Refusal> {
        let Data::Struct { members, .. } = &mut self.data else { return Err(WRONG_TYPE) };
        let len = self.nulls.len();
        members.iter_mut().filter(|member| member.len() == len).for_each(Self::push_null);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Takes the values and starts anew.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let fresh = Data::new(&self.kind);
        let nulls = self.nulls.finish();
        array::array(std::mem::replace(&mut self.data, fresh), &self.kind, nulls)
    }

    /// The values as JSON printed them, `None` for null; only of the types that are inferred.
    pub(crate) fn printed(&self) -> Vec<Option<String>> {
        let text = |index: usize| match (&self.data, &self.kind) {
            (Data::Booleans(values), _) => values.get_bit(index).to_string(),
            (Data::Longs(values), _) => values[index].to_string(),
            // Never with an exponent.
            (Data::Doubles(values), _) => values[index].to_string(),
            (Data::Decimals(values), Kind::Decimal(_, scale, _)) => convert::decimal_text(values[index], *scale),
            (Data::Bytes { ends, bytes }, _) => {
                let at = |index: usize| usize::try_from(ends[index]).unwrap_or(0);
                String::from_utf8_lossy(&bytes[at(index)..at(index + 1)]).into_owned()
            }
            _ => String::new(),
        };
        (0..self.len()).map(|index| self.nulls.is_valid(index).then(|| text(index))).collect()
    }
}
