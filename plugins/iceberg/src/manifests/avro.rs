//! The header of an Avro file: entries by name, which can be read and replaced without touching what the file holds.

mod bounds;
mod schema;

use bytes::Bytes;
use serde_json::Value;

pub(crate) use bounds::{Content, bounded};

/// How many entries a header may have, and how long each may be. The longest is the table's schema as JSON.
const MAX_ENTRIES: usize = 1_000;
const MAX_ENTRY: usize = 8 << 20;
/// Why a header is none.
pub(super) const NO_FILE: &str =
    "it is no Avro file that is whole, or its header has more than 1000 entries or one longer than 8 MiB";

pub(crate) const MAGIC: &[u8] = b"Obj\x01";

/// The header of an Avro file, and what comes after its entries: the mark between blocks, and the blocks.
pub(super) struct Header<'a> {
    pub(super) entries: Vec<(String, &'a [u8])>,
    pub(super) rest: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(MAGIC)?;
        let mut entries = Vec::new();
        loop {
            let mut count = long(&mut rest)?;
            if count == 0 {
                return Some(Self { entries, rest });
            }
            if count < 0 {
                // The size of the entries in bytes, for those who skip them.
                long(&mut rest)?;
                count = count.checked_neg()?;
            }
            for _ in 0..count {
                if entries.len() == MAX_ENTRIES {
                    return None;
                }
                let key = std::str::from_utf8(bytes(&mut rest)?).ok()?.to_owned();
                entries.push((key, bytes(&mut rest).filter(|value| value.len() <= MAX_ENTRY)?));
            }
        }
    }

    /// The entry of this name, as JSON.
    pub(super) fn json(&self, name: &str) -> Option<Value> {
        let (_, value) = self.entries.iter().find(|(key, _)| key == name)?;
        serde_json::from_slice(value).ok()
    }

    /// The file with other values for these entries.
    pub(super) fn with<const N: usize>(&self, other: [(&str, &Value); N]) -> Bytes {
        let mut file = MAGIC.to_vec();
        put_long(&mut file, self.entries.len());
        for (key, value) in &self.entries {
            put_bytes(&mut file, key.as_bytes());
            match other.iter().find(|(name, _)| name == key) {
                Some((_, value)) => put_bytes(&mut file, value.to_string().as_bytes()),
                None => put_bytes(&mut file, value),
            }
        }
        put_long(&mut file, 0);
        file.extend_from_slice(self.rest);
        file.into()
    }
}

/// A file with these entries and one block.
#[cfg(feature = "fuzz")]
pub(crate) fn file_of(entries: &[(&str, &[u8])], count: usize, block: &[u8]) -> Vec<u8> {
    let mark = [7; 16];
    let mut file = MAGIC.to_vec();
    put_long(&mut file, entries.len());
    for (key, value) in entries {
        put_bytes(&mut file, key.as_bytes());
        put_bytes(&mut file, value);
    }
    put_long(&mut file, 0);
    file.extend(mark);
    put_long(&mut file, count);
    put_bytes(&mut file, block);
    file.extend(mark);
    file
}

/// A number in Avro's encoding: seven bits a byte, the lowest first, the sign in the lowest bit of all.
fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(long(rest)?).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

pub(super) fn put_long(file: &mut Vec<u8>, value: usize) {
    let mut value = (value as u64) << 1;
    while value >= 0x80 {
        file.extend_from_slice(&(value | 0x80).to_le_bytes()[..1]);
        value >>= 7;
    }
    file.extend_from_slice(&value.to_le_bytes()[..1]);
}

pub(super) fn put_bytes(file: &mut Vec<u8>, value: &[u8]) {
    put_long(file, value.len());
    file.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are the Avro specification's: 1 is 0x02, 64 is 0x80 0x01, -1 is 0x01.
    #[test]
    fn a_header_is_read_and_written() {
        let long_value = "x".repeat(64);
        let mut file = b"Obj\x01\x01\x88\x01\x02a".to_vec();
        file.extend(b"\x80\x01");
        file.extend(long_value.as_bytes());
        file.extend(b"\x02\x02b\x041y\x00MARKERMARKERMARKblocks");
        let header = Header::parse(&file).unwrap();
        assert_eq!(header.entries, [("a".to_owned(), long_value.as_bytes()), ("b".to_owned(), &b"1y"[..])]);
        assert_eq!(header.rest, b"MARKERMARKERMARKblocks");
        let again = header.with([("b", &Value::from(7))]);
        assert!(again.starts_with(b"Obj\x01\x04\x02a\x80\x01x"));
        assert!(again.ends_with(b"x\x02b\x027\x00MARKERMARKERMARKblocks"));
        assert!(Header::parse(b"PAR1").is_none() && Header::parse(&file[..9]).is_none());
    }
}
