//! Avro's binary encoding, read from the front.
//!
//! Nothing is believed: a length is compared with what is there before anything is made of it.

use super::schema::{Shape, Type};
use crate::decode::Refusal;

/// How many items of arrays in one value may take no bytes: of those a few bytes could name any number.
const MOST_EMPTY_ITEMS: i64 = 65_536;

const ENDS_EARLY: Refusal = Refusal::new("the value ends before it should");
const TOO_MANY: Refusal = Refusal::new("more items than the value has bytes");

/// The bytes that were not read yet, and how many items without bytes they may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8], i64);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes, MOST_EMPTY_ITEMS)
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Refusal> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Refusal::new("a boolean that is neither 0 nor 1")),
        }
    }

    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Refusal> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Refusal> {
        i32::try_from(self.long()?).map_err(|_| Refusal::new("an int of more than 32 bits"))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for (index, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // The tenth byte has one bit left.
                if index == 9 && *byte > 1 {
                    break;
                }
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { ENDS_EARLY } else { Refusal::new("a number of more than 64 bits") })
    }

    /// What is preceded by its length.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| Refusal::new("a length below zero"))?;
        self.take(length)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Refusal::new("a string that is not UTF-8"))
    }

    /// Which one of so many.
    #[inline]
    pub(super) fn index(&mut self, of: usize, what: &str) -> Result<usize, Refusal> {
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < of)
            .ok_or_else(|| Refusal::said(format!("{what} {index} of {of}, which are counted from 0")))
    }

    /// How many items of an array or entries of a map the next block has; 0 at the end.
    #[inline]
    pub(super) fn block(&mut self, may_be_empty: bool) -> Result<i64, Refusal> {
        let mut count = self.long()?;
        if count < 0 {
            count = count.checked_neg().ok_or(ENDS_EARLY)?;
            // The block's length, for those who skip it.
            let length = self.long()?;
            if usize::try_from(length).is_ok_and(|length| length > self.0.len()) || length < 0 {
                return Err(ENDS_EARLY);
            }
        }
        let most = if may_be_empty { self.1 } else { i64::try_from(self.0.len()).unwrap_or(i64::MAX) };
        if count > most {
            return Err(TOO_MANY);
        }
        if may_be_empty {
            self.1 -= count;
        }
        Ok(count)
    }

    /// Nothing may come any more.
    pub(super) fn end(self) -> Result<(), Refusal> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Refusal::said(format!("{left} bytes are left behind the value"))),
        }
    }

    /// Reads over a value, and sees that it is one.
    pub(super) fn skip(&mut self, of: &Type) -> Result<(), Refusal> {
        match &of.shape {
            Shape::Null => Ok(()),
            Shape::Boolean => self.boolean().map(|_| ()),
            Shape::Int => self.int().map(|_| ()),
            Shape::Long => self.long().map(|_| ()),
            Shape::Float => self.take(4).map(|_| ()),
            Shape::Double => self.take(8).map(|_| ()),
            Shape::Bytes => self.bytes().map(|_| ()),
            Shape::String => self.text().map(|_| ()),
            Shape::Fixed(size) => self.take(*size).map(|_| ()),
            Shape::Enum(symbols) => self.index(symbols.len(), "symbol").map(|_| ()),
            Shape::Array(items) => self.items(items.may_be_empty(), |bytes| bytes.skip(items)),
            Shape::Map(values) => self.items(false, |bytes| bytes.text().and_then(|_| bytes.skip(values))),
            Shape::Record(record) => {
                record.fields.iter().try_for_each(|field| self.skip(&field.of).map_err(|why| within(&field.name, why)))
            }
            Shape::Union(branches) => {
                let branch = self.index(branches.len(), "branch")?;
                self.skip(&branches[branch])
            }
        }
    }

    /// Reads the items of an array, or the entries of a map.
    #[inline]
    pub(super) fn items(
        &mut self,
        may_be_empty: bool,
        mut read: impl FnMut(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        loop {
            let count = self.block(may_be_empty)?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                read(self)?;
            }
        }
    }
}

/// The same refusal, as it is seen from the record around it.
#[cold]
pub(super) fn within(field: &str, mut refusal: Refusal) -> Refusal {
    refusal.column = Some(match refusal.column {
        Some(inner) => format!("{field}.{inner}"),
        None => field.to_owned(),
    });
    refusal
}

impl Type {
    /// Goes into the one type that a union with null has; whether the value is not null.
    pub(super) fn enter(&self, bytes: &mut Bytes<'_>) -> Result<bool, Refusal> {
        match &self.shape {
            Shape::Union(branches) => Ok(branches[bytes.index(branches.len(), "branch")?].shape != Shape::Null),
            _ => Ok(true),
        }
    }
}
