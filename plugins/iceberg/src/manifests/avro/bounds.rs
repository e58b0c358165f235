//! Avro files as the Avro library can be given them, whoever wrote them.
//!
//! The library believes a file: it makes room for as many values as nine bytes say, unpacks a block to whatever it becomes, and
//! follows a type into itself until the stack ends. So a file is walked here first, by the specification and within bounds, and
//! what the library gets is written anew: a schema that is printed from what was understood of the one there, blocks that are
//! unpacked, counts that were found to be true. It cannot take anything for something else than the walk did.

use std::io::{Cursor, Read};

use bytes::Bytes;
use philotes_sdk::{Error, Result};

use super::schema::{Schema, Shape};
use super::{Header, MAGIC, NO_FILE, bytes, long, put_bytes, put_long};
use crate::storage::{MAX_WHOLE_BYTES, too_long};

/// How many values one object may have, and a list of manifests in all, which is in memory at once. An entry of a table with ten
/// thousand columns has two hundred thousand.
const MAX_VALUES: usize = 1_000_000;
const MAX_LIST_VALUES: usize = 10_000_000;
/// How many values a byte may stand for: all take one or more, but for those that are null, empty records, and the records around.
const VALUES_PER_BYTE: usize = 4;
/// The mark between blocks.
const MARK: usize = 16;

/// What an Avro file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A list of manifests.
    List,
    /// The entries of a manifest.
    Manifest,
}

/// The file, written anew.
///
/// # Errors
/// Data: it is damaged, or beyond a bound.
pub(crate) fn bounded(file: &[u8], content: Content) -> Result<Bytes> {
    let header = Header::parse(file).ok_or_else(|| Error::data(NO_FILE))?;
    let entry = |name: &str| header.entries.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let schema = Schema::parse(entry("avro.schema").ok_or_else(|| damaged("it has no schema"))?)?;
    let codec = Codec::of(entry("avro.codec"))?;
    let printed = schema.print();

    let others = header.entries.iter().filter(|(key, _)| !key.starts_with("avro."));
    let others: Vec<(&str, &[u8])> = others.map(|(key, value)| (key.as_str(), *value)).collect();
    let mut sound = MAGIC.to_vec();
    put_long(&mut sound, others.len() + 1);
    put_bytes(&mut sound, b"avro.schema");
    put_bytes(&mut sound, printed.as_bytes());
    for (key, value) in others {
        put_bytes(&mut sound, key.as_bytes());
        put_bytes(&mut sound, value);
    }
    put_long(&mut sound, 0);

    let (mark, mut rest) = header.rest.split_at_checked(MARK).ok_or_else(|| damaged("it ends in its header"))?;
    sound.extend_from_slice(mark);
    let mut left = usize::try_from(MAX_WHOLE_BYTES).unwrap_or(usize::MAX);
    let (mut list_values, mut most_values) = (MAX_LIST_VALUES, 1_000_usize);
    while !rest.is_empty() {
        let count = long(&mut rest).and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or_else(|| damaged("a block of it says no number of objects"))?;
        let packed = bytes(&mut rest).ok_or_else(|| damaged("a block of it is cut off"))?;
        let after = rest.split_at_checked(MARK).ok_or_else(|| damaged("a block of it is cut off"))?;
        if after.0 != mark {
            return Err(damaged("a block of it has another mark than the file"));
        }
        rest = after.1;
        let block = codec.unpacked(packed, left)?;
        left -= block.len();
        // Whatever an object is, it takes a byte.
        if count > block.len() {
            return Err(damaged("a block of it says more objects than it has bytes"));
        }
        most_values = most_values.saturating_add(block.len().saturating_mul(VALUES_PER_BYTE));
        let mut objects = &*block;
        for _ in 0..count {
            let before = MAX_VALUES.min(list_values).min(most_values);
            let mut walk = Walk { left: before, bytes: objects };
            walk.pass(&schema, schema.root())?;
            let values = before - walk.left;
            most_values -= values;
            if content == Content::List {
                list_values -= values;
            }
            objects = walk.bytes;
        }
        if !objects.is_empty() {
            return Err(damaged("a block of it has more bytes than its objects"));
        }
        put_long(&mut sound, count);
        put_bytes(&mut sound, &block);
        sound.extend_from_slice(mark);
    }
    Ok(sound.into())
}

pub(super) fn damaged(what: &str) -> Error {
    Error::data(format!("it is no Avro file that is whole: {what}"))
}

/// How blocks are packed.
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    fn of(name: Option<&[u8]>) -> Result<Self> {
        Ok(match name {
            None | Some(b"null") => Self::Null,
            Some(b"deflate") => Self::Deflate,
            Some(b"snappy") => Self::Snappy,
            Some(b"zstandard") => Self::Zstandard,
            Some(other) => {
                let name: String = String::from_utf8_lossy(other).chars().take(64).collect();
                return Err(Error::data(format!(
                    "its blocks are packed by the codec {name:?}; allowed are null, deflate, snappy and zstandard"
                )));
            }
        })
    }

    /// A block, which may take so many bytes.
    fn unpacked<'a>(&self, packed: &'a [u8], most: usize) -> Result<std::borrow::Cow<'a, [u8]>> {
        let long = || Error::data(too_long("unpacked it would be"));
        let read = |reader: &mut dyn Read| {
            let mut block = Vec::new();
            let most_and_one = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            let read = reader.take(most_and_one).read_to_end(&mut block);
            read.map_err(|e| damaged("a block of it does not unpack").with_source(e))?;
            if block.len() > most { Err(long()) } else { Ok(block) }
        };
        Ok(match self {
            Self::Null if packed.len() > most => return Err(long()),
            Self::Null => packed.into(),
            Self::Deflate => read(&mut flate2::read::DeflateDecoder::new(packed))?.into(),
            Self::Zstandard => {
                let decoder = zstd::Decoder::new(Cursor::new(packed));
                read(&mut decoder.map_err(|e| damaged("a block of it does not unpack").with_source(e))?)?.into()
            }
            Self::Snappy => {
                // The checksum behind it, of what it unpacks to, is Avro's own.
                let (packed, checksum) =
                    packed.split_last_chunk::<4>().ok_or_else(|| damaged("a block of it is cut off"))?;
                let failed = |e| damaged("a block of it does not unpack").with_source(e);
                if snap::raw::decompress_len(packed).map_err(failed)? > most {
                    return Err(long());
                }
                let block = snap::raw::Decoder::new().decompress_vec(packed).map_err(failed)?;
                let mut sum = flate2::Crc::new();
                sum.update(&block);
                if sum.sum().to_be_bytes() != *checksum {
                    return Err(damaged("the checksum of a block is wrong"));
                }
                block.into()
            }
        })
    }
}

/// Passes values without making any.
struct Walk<'a> {
    bytes: &'a [u8],
    /// How many values more there may be.
    left: usize,
}

impl Walk<'_> {
    /// Passes a value of this type. As deep as types are nested, which the schema bounds.
    fn pass(&mut self, schema: &Schema, at: usize) -> Result<()> {
        let cut_off = || damaged("a value of it is cut off");
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Error::data(format!(
                "it has more than {MAX_VALUES} values in one entry, or {MAX_LIST_VALUES} in a list of manifests, or more than its \
                 bytes can hold; rewrite the table's manifests"
            ))
        })?;
        match schema.shape(at) {
            Shape::Null => {}
            Shape::Boolean => match self.bytes.split_first() {
                Some((0 | 1, rest)) => self.bytes = rest,
                Some(_) => return Err(damaged("a boolean of it is neither true nor false")),
                None => return Err(cut_off()),
            },
            Shape::Int => {
                let int = long(&mut self.bytes).ok_or_else(cut_off)?;
                i32::try_from(int).map_err(|_| damaged("an int of it is none"))?;
            }
            Shape::Long => {
                long(&mut self.bytes).ok_or_else(cut_off)?;
            }
            Shape::Float => self.skip(4)?,
            Shape::Double => self.skip(8)?,
            Shape::Fixed(_, size) => self.skip(*size)?,
            Shape::Bytes => {
                bytes(&mut self.bytes).ok_or_else(cut_off)?;
            }
            Shape::String => {
                let text = bytes(&mut self.bytes).ok_or_else(cut_off)?;
                std::str::from_utf8(text).map_err(|_| damaged("a text of it is not UTF-8"))?;
            }
            Shape::Enum(_, symbols) => {
                let index = long(&mut self.bytes).and_then(|index| usize::try_from(index).ok()).ok_or_else(cut_off)?;
                symbols.get(index).ok_or_else(|| damaged("a value of it is none of its symbols"))?;
            }
            Shape::Array(element) => {
                while let Some(count) = self.items()? {
                    for _ in 0..count {
                        self.pass(schema, *element)?;
                    }
                }
            }
            Shape::Map(value) => {
                while let Some(count) = self.items()? {
                    for _ in 0..count {
                        let key = bytes(&mut self.bytes).ok_or_else(cut_off)?;
                        std::str::from_utf8(key).map_err(|_| damaged("a text of it is not UTF-8"))?;
                        self.pass(schema, *value)?;
                    }
                }
            }
            Shape::Union(branches) => {
                let index = long(&mut self.bytes).and_then(|index| usize::try_from(index).ok()).ok_or_else(cut_off)?;
                let branch = *branches.get(index).ok_or_else(|| damaged("a value of it is of no type of its union"))?;
                self.pass(schema, branch)?;
            }
            Shape::Record(_, fields) => {
                for field in fields {
                    self.pass(schema, field.of)?;
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, size: usize) -> Result<()> {
        let rest = self.bytes.get(size..);
        self.bytes = rest.ok_or_else(|| damaged("a value of it is cut off"))?;
        Ok(())
    }

    /// How many items come next of an array or a map, each of which takes a byte at least; `None` at its end.
    fn items(&mut self) -> Result<Option<usize>> {
        let count = long(&mut self.bytes).ok_or_else(|| damaged("a value of it is cut off"))?;
        if count < 0 {
            // Their size in bytes, for those who skip them.
            long(&mut self.bytes).ok_or_else(|| damaged("a value of it is cut off"))?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        if count > self.bytes.len() {
            return Err(damaged("an array of it says more items than there are bytes"));
        }
        Ok((count > 0).then_some(count))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use iceberg::spec::{FormatVersion, Manifest, ManifestList};

    use super::*;

    /// A file with these blocks: how many objects each says that it has, and its bytes.
    fn file(schema: &str, codec: &str, blocks: &[(i64, &[u8])]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        put_long(&mut file, 2);
        for (key, value) in [("avro.schema", schema), ("avro.codec", codec)] {
            put_bytes(&mut file, key.as_bytes());
            put_bytes(&mut file, value.as_bytes());
        }
        put_long(&mut file, 0);
        file.extend(b"0123456789abcdef");
        for (count, block) in blocks {
            put_long(&mut file, usize::try_from(*count).unwrap());
            put_bytes(&mut file, block);
            file.extend(b"0123456789abcdef");
        }
        file
    }

    fn refused(file: &[u8]) -> String {
        for content in [Content::List, Content::Manifest] {
            assert_eq!(bounded(file, content).unwrap_err().kind(), philotes_sdk::ErrorKind::Data);
        }
        bounded(file, Content::List).unwrap_err().to_string()
    }

    /// The library made room for 28 GB, or used up the stack, with each of these.
    #[test]
    fn files_that_make_much_of_little_are_refused() {
        // Nine bytes: a header of 500,000,000 entries.
        let mut nine = MAGIC.to_vec();
        put_long(&mut nine, 500_000_000);
        assert_eq!(nine.len(), 9);
        assert!(refused(&nine).starts_with("it is no Avro file"));
        // An array of 500,000,000 items, of longs and of what takes no bytes.
        let mut array = Vec::new();
        put_long(&mut array, 500_000_000);
        for of in [r#""long""#, r#""null""#, r#"{"type":"fixed","name":"f","size":0}"#] {
            let file = file(&format!(r#"{{"type":"array","items":{of}}}"#), "null", &[(1, &array)]);
            assert!(file.len() < 200 && refused(&file).contains("more items than there are bytes"), "{of}");
        }
        // As many of what takes no bytes as there are bytes, again and again.
        let mut nothing = Vec::new();
        for _ in 0..1_000 {
            put_long(&mut nothing, 1_000);
        }
        nothing.extend([0; 1_000]);
        let file_of = |of: &str, block: &[u8]| file(of, "null", &[(1, block)]);
        let refusal = refused(&file_of(r#"{"type":"array","items":"null"}"#, &nothing));
        assert!(refusal.contains("more than its bytes can hold"), "{refusal}");
        assert!(refused(&file("\"null\"", "null", &[(500_000_000, b"")])).contains("more objects than it has bytes"));
        assert!(refused(&file("\"long\"", "null", &[(2, b"\x02")])).contains("more objects than it has bytes"));
        // A recursive schema, and three kilobytes that follow it.
        let recursive = r#"{"type":"record","name":"r","fields":[{"name":"r","type":["null","r"]}]}"#;
        assert!(refused(&file_of(recursive, &[2; 3_000])).contains("part of itself"));
        let text = [&[0xfe, 0xff, 0xff, 0xff, 0x0f][..], b"x"].concat();
        assert!(refused(&file_of("\"string\"", &text)).contains("cut off"));
    }

    #[test]
    fn blocks_that_unpack_to_more_than_is_allowed_are_refused() {
        let zeros = vec![0_u8; 1 << 20];
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut zstandard = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..257 {
            deflate.write_all(&zeros).unwrap();
            zstandard.write_all(&zeros).unwrap();
        }
        // What Snappy says that it unpacks to.
        let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0];
        for (codec, block) in [
            ("deflate", &deflate.finish().unwrap()[..]),
            ("zstandard", &zstandard.finish().unwrap()),
            ("snappy", &snappy),
        ] {
            let refusal = refused(&file("\"bytes\"", codec, &[(1, block)]));
            assert!(refusal.contains("more than the 256 MiB that metadata may take"), "{codec}: {refusal}");
        }
        assert!(refused(&file("\"int\"", "bzip2", &[])).contains("allowed are null, deflate, snappy and zstandard"));
    }

    /// What a file holds is the same afterwards, however it was packed.
    #[test]
    fn sound_files_keep_what_they_hold() {
        let block = b"\x02\x04\x08abcd\x00\x00";
        let schema = r#"{"type":"record","name":"r","fields":[{"name":"n","type":["null","int"]},{"name":"s","type":"string"},
            {"name":"l","type":{"type":"array","items":"long"}},{"name":"o","type":["null","long"]}]}"#;
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(block).unwrap();
        let mut snappy = snap::raw::Encoder::new().compress_vec(block).unwrap();
        let mut sum = flate2::Crc::new();
        sum.update(block);
        snappy.extend(sum.sum().to_be_bytes());
        for (codec, packed) in [
            ("null", &block[..]),
            ("deflate", &deflate.finish().unwrap()),
            ("snappy", &snappy),
            ("zstandard", &zstd::encode_all(&block[..], 1).unwrap()),
        ] {
            let sound = bounded(&file(schema, codec, &[(1, packed), (1, packed)]), Content::List).unwrap();
            let header = Header::parse(&sound).unwrap();
            let expected =
                [&b"0123456789abcdef\x02\x12"[..], block, b"0123456789abcdef\x02\x12", block, b"0123456789abcdef"];
            assert_eq!(header.rest, expected.concat(), "{codec}");
            assert_eq!(header.json("avro.schema").unwrap()["fields"][1]["type"], "string");
        }
        let cut = file(schema, "null", &[(1, block)]);
        for at in 0..cut.len() {
            let sound = bounded(&cut[..at], Content::Manifest);
            // With no block at all it is a file without objects.
            assert_eq!(sound.is_ok(), at == cut.len() - block.len() - 18, "{at}");
        }
    }

    /// The library takes what is written anew, and refuses what is no list or manifest.
    #[test]
    fn the_library_reads_no_more_than_was_walked() {
        let sound = bounded(&file("\"long\"", "null", &[(1, b"\x02")]), Content::List).unwrap();
        assert!(ManifestList::parse_with_version(&sound, FormatVersion::V2).is_err());
        assert!(Manifest::parse_avro(&sound).is_err());
    }
}
