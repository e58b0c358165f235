//! The footer of a Parquet file, passed without making anything of it.
//!
//! The library makes room for as many items as a list says. It takes a field for what its number says, whatever its type is,
//! and passes a list of booleans without taking bytes. So a footer is passed here first: lists are no longer than the bytes
//! that are left, fields of Parquet have Parquet's types, and there are no lists of booleans, which no footer has.

/// The longest footer.
pub(super) const MAX_FOOTER: u64 = 64 << 20;
/// How deep structs and lists may stand in one another. Those of Parquet are eight deep.
const MAX_DEPTH: usize = 32;
/// The greatest number of a field: the library counts in 16 bits.
const MAX_NUMBER: u64 = i16::MAX as u64;
/// What a struct of a list takes at least: those of Parquet all have a field.
const LEAST_STRUCT: usize = 3;

/// What a field holds, in the words of parquet.thrift.
#[derive(Clone, Copy)]
enum Type {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List(&'static Type),
    Struct(&'static [(u64, Type)]),
}

impl Type {
    /// Whether Thrift's compact protocol writes it under this type.
    fn is(self, kind: u8) -> bool {
        match self {
            Self::Bool => matches!(kind, 1 | 2),
            Self::Byte => kind == 3,
            Self::I16 => kind == 4,
            Self::I32 => kind == 5,
            Self::I64 => kind == 6,
            Self::Double => kind == 7,
            Self::Binary => kind == 8,
            Self::List(_) => kind == LIST,
            Self::Struct(_) => kind == STRUCT,
        }
    }
}

use Type::{Binary, Bool, Byte, Double, I16, I32, I64};

const fn list(of: &'static Type) -> Type {
    Type::List(of)
}

const FILE: Type = Type::Struct(&[
    (1, I32),
    (2, list(&SCHEMA_ELEMENT)),
    (3, I64),
    (4, list(&ROW_GROUP)),
    (5, list(&KEY_VALUE)),
    (6, Binary),
    (7, list(&COLUMN_ORDER)),
    (8, Type::Struct(&[(1, AES), (2, AES)])),
    (9, Binary),
]);
const SCHEMA_ELEMENT: Type = Type::Struct(&[
    (1, I32),
    (2, I32),
    (3, I32),
    (4, Binary),
    (5, I32),
    (6, I32),
    (7, I32),
    (8, I32),
    (9, I32),
    (10, LOGICAL_TYPE),
]);
const LOGICAL_TYPE: Type = Type::Struct(&[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Type::Struct(&[(1, I32), (2, I32)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Type::Struct(&[(1, Byte), (2, Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Type::Struct(&[(1, Byte)])),
    (17, Type::Struct(&[(1, Binary)])),
    (18, Type::Struct(&[(1, Binary), (2, I32)])),
]);
const TIME: Type = Type::Struct(&[(1, Bool), (2, Type::Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const ROW_GROUP: Type = Type::Struct(&[
    (1, list(&COLUMN_CHUNK)),
    (2, I64),
    (3, I64),
    (4, list(&SORTING_COLUMN)),
    (5, I64),
    (6, I64),
    (7, I16),
]);
const SORTING_COLUMN: Type = Type::Struct(&[(1, I32), (2, Bool), (3, Bool)]);
const COLUMN_CHUNK: Type = Type::Struct(&[
    (1, Binary),
    (2, I64),
    (3, COLUMN),
    (4, I64),
    (5, I32),
    (6, I64),
    (7, I32),
    (8, Type::Struct(&[(1, EMPTY), (2, Type::Struct(&[(1, list(&Binary)), (2, Binary)]))])),
    (9, Binary),
]);
const COLUMN: Type = Type::Struct(&[
    (1, I32),
    (2, list(&I32)),
    (3, list(&Binary)),
    (4, I32),
    (5, I64),
    (6, I64),
    (7, I64),
    (8, list(&KEY_VALUE)),
    (9, I64),
    (10, I64),
    (11, I64),
    (12, STATISTICS),
    (13, list(&PAGE_ENCODING)),
    (14, I64),
    (15, I32),
    (16, Type::Struct(&[(1, I64), (2, list(&I64)), (3, list(&I64))])),
    (17, Type::Struct(&[(1, BOUNDING_BOX), (2, list(&I32))])),
]);
const STATISTICS: Type =
    Type::Struct(&[(1, Binary), (2, Binary), (3, I64), (4, I64), (5, Binary), (6, Binary), (7, Bool), (8, Bool)]);
const PAGE_ENCODING: Type = Type::Struct(&[(1, I32), (2, I32), (3, I32)]);
const BOUNDING_BOX: Type = Type::Struct(&[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
]);
const KEY_VALUE: Type = Type::Struct(&[(1, Binary), (2, Binary)]);
const COLUMN_ORDER: Type = Type::Struct(&[(1, EMPTY), (2, EMPTY)]);
const AES: Type = Type::Struct(&[(1, Binary), (2, Binary), (3, Bool)]);
const EMPTY: Type = Type::Struct(&[]);

/// Whether it is a footer, in Thrift's compact protocol, that says no more of itself than there is.
pub(super) fn is_sound(mut footer: &[u8]) -> bool {
    pass(&mut footer, STRUCT, Some(FILE), MAX_DEPTH).is_some()
}

const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Passes a value that is written as this kind. `known`: it is one of Parquet's fields.
fn pass(rest: &mut &[u8], kind: u8, known: Option<Type>, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    if known.is_some_and(|known| !known.is(kind)) {
        return None;
    }
    match kind {
        3 => skip(rest, 1),
        4..=6 => varint(rest).map(drop),
        7 => skip(rest, 8),
        8 => {
            let length = varint(rest)?;
            skip(rest, usize::try_from(length).ok()?)
        }
        // A list, and a set.
        LIST | 10 => {
            let head = byte(rest)?;
            let (count, kind) = (head >> 4, head & 15);
            let count = if count == 15 { usize::try_from(varint(rest)?).ok()? } else { usize::from(count) };
            let least = if kind == STRUCT { LEAST_STRUCT } else { 1 };
            if count.checked_mul(least)? > rest.len() {
                return None;
            }
            let items = match known {
                Some(Type::List(items)) => Some(*items),
                _ => None,
            };
            (0..count).try_for_each(|_| pass(rest, kind, items, depth))
        }
        11 => {
            let count = usize::try_from(varint(rest)?).ok().filter(|count| *count <= rest.len())?;
            if count == 0 {
                return Some(());
            }
            let kinds = byte(rest)?;
            (0..count).try_for_each(|_| {
                pass(rest, kinds >> 4, None, depth)?;
                pass(rest, kinds & 15, None, depth)
            })
        }
        STRUCT => fields(rest, known, depth),
        _ => None,
    }
}

/// Passes the fields of a struct.
fn fields(rest: &mut &[u8], known: Option<Type>, depth: usize) -> Option<()> {
    let mut number: u64 = 0;
    loop {
        let head = byte(rest)?;
        if head == 0 {
            return Some(());
        }
        number = match head >> 4 {
            // In zigzag: a negative number, from which later ones would count on, is odd.
            0 => varint(rest).filter(|said| said % 2 == 0)? / 2,
            more => number + u64::from(more),
        };
        if number > MAX_NUMBER {
            return None;
        }
        let field = match known {
            Some(Type::Struct(fields)) => fields.iter().find(|(known, _)| *known == number).map(|(_, field)| *field),
            _ => None,
        };
        match head & 15 {
            // A boolean field is its type.
            1 | 2 => field.is_none_or(|field| field.is(1)).then_some(())?,
            kind => pass(rest, kind, field, depth)?,
        }
    }
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}

fn skip(rest: &mut &[u8], count: usize) -> Option<()> {
    *rest = rest.get(count..)?;
    Some(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are the compact protocol's: field 1 as an i32 is 0x15, as a list 0x19; a list of two structs is 0x2c, of
    /// many 0xfc.
    #[test]
    fn what_says_more_than_there_is_is_refused() {
        // A version, and two elements of the schema that have names.
        assert!(is_sound(&[0x15, 0x02, 0x19, 0x2c, 0x48, 0x01, b'a', 0x00, 0x48, 0x00, 0x00, 0x00]));
        // Fields that nobody knows: 100, a double and a map.
        assert!(is_sound(&[0x07, 0xc8, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0x1b, 0x01, 0x88, 0x01, b'k', 0x01, b'v', 0x00]));
        // Two thousand million elements in eight bytes.
        assert!(!is_sound(&[0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]));
        assert!(!is_sound(&[0x68, 0x05, b'a', 0x00]), "a text that is cut off");
        assert!(!is_sound(&[0x1c; 100_000]), "structs without an end");
        assert!(!is_sound(&[]) && !is_sound(&[0x1e, 0x00]));
    }

    /// The library takes a field for what its number says, and passes booleans in lists without a byte.
    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        assert!(!is_sound(&[0x12, 0x00]), "a version that is true");
        assert!(!is_sound(&[0x82, 0x00, 0x1c, 0x17, 0xe9, 0x00]), "an encryption that is true");
        assert!(!is_sound(&[0x29, 0x15, 0x02, 0x00]), "a schema of numbers");
        assert!(!is_sound(&[0x09, 0xc8, 0x01, 0x21, 0x01, 0x01, 0x00]), "field 100, a list of booleans");
        assert!(!is_sound(&[0x05, 0x09, 0x00, 0x75, 0x00, 0x00]), "field 2 as a number, by way of -5");
        assert!(!is_sound(&[0x05, 0xfe, 0xff, 0x03, 0x00, 0x25, 0x00, 0x00]), "beyond 16 bits");
        assert!(is_sound(&[0x09, 0xc8, 0x01, 0x23, 0x01, 0x01, 0x00]), "field 100, a list of bytes");
    }
}
