//! Rows of a binary COPY, as they come from the server.
//!
//! The server sends one row per message, but the protocol does not promise it: what is left of a message waits for the
//! next one.

use bytes::{Bytes, BytesMut};
use philotes_sdk::{Error, Result};

/// The signature of the format, with the byte sequences that a transfer as text would break.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// How many columns [`crate::sql::snapshot`] selects.
pub(crate) const COLUMNS: usize = 12;

/// One row of the buffer as the snapshot selects it; texts are UTF-8 that nobody has checked yet.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) id: i64,
    /// The place of its stream among those that the snapshot marks; the names are empty then.
    pub(crate) place: Option<usize>,
    /// Metadata and key columns are those that the snapshot was told, and are not sent.
    pub(crate) known: bool,
    pub(crate) schema: &'a [u8],
    pub(crate) table: &'a [u8],
    /// `None` where the row only announces its stream.
    pub(crate) operation: Option<&'a [u8]>,
    pub(crate) lsn: Option<&'a [u8]>,
    /// When it happened, in microseconds since 1970.
    pub(crate) event_time: Option<i64>,
    /// When the buffer took it in, in microseconds since 1970.
    pub(crate) created_at: Option<i64>,
    pub(crate) key_columns: Option<&'a [u8]>,
    pub(crate) before: Option<&'a [u8]>,
    pub(crate) after: Option<&'a [u8]>,
    pub(crate) metadata: Option<&'a [u8]>,
}

/// Cuts a COPY stream into rows.
#[derive(Default)]
pub(crate) struct Rows {
    header_read: bool,
    message: Bytes,
    at: usize,
}

impl Rows {
    /// Takes in a message; all rows of the one before have been taken out by [`next`](Self::next).
    pub(crate) fn feed(&mut self, message: Bytes) {
        self.message = if self.at == self.message.len() {
            message
        } else {
            let mut joined = BytesMut::from(&self.message[self.at..]);
            joined.extend_from_slice(&message);
            joined.freeze()
        };
        self.at = 0;
    }

    /// The next whole row of what was fed.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>> {
        if !self.header_read && !self.header()? {
            return Ok(None);
        }
        let mut rest = &self.message[self.at..];
        loop {
            match cut(&mut rest)? {
                Cut::Row(fields) => {
                    self.at = self.message.len() - rest.len();
                    return read(&fields).map(Some);
                }
                Cut::End => self.at = self.message.len() - rest.len(),
                Cut::Short => return Ok(None),
            }
        }
    }

    /// Skips signature, flags and extension; false where they have not arrived in full.
    fn header(&mut self) -> Result<bool> {
        let bytes = &self.message[self.at..];
        let Some(extension) = bytes.get(SIGNATURE.len() + 4..).and_then(<[u8]>::first_chunk::<4>) else {
            return Ok(false);
        };
        if !bytes.starts_with(SIGNATURE) {
            return Err(malformed("signature"));
        }
        let length = SIGNATURE.len() + 8 + u32::from_be_bytes(*extension) as usize;
        if bytes.len() < length {
            return Ok(false);
        }
        self.at += length;
        self.header_read = true;
        Ok(true)
    }
}

enum Cut<'a> {
    Row([Option<&'a [u8]>; COLUMNS]),
    /// The trailer of the whole COPY.
    End,
    /// The row goes on in the next message.
    Short,
}

fn cut<'a>(bytes: &mut &'a [u8]) -> Result<Cut<'a>> {
    let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else { return Ok(Cut::Short) };
    match i16::from_be_bytes(*count) {
        -1 => {
            *bytes = rest;
            return Ok(Cut::End);
        }
        count if usize::try_from(count) == Ok(COLUMNS) => {}
        _ => return Err(malformed("number of columns")),
    }
    let mut fields = [None; COLUMNS];
    for field in &mut fields {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(Cut::Short) };
        rest = after;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            continue;
        }
        let length = usize::try_from(length).map_err(|_| malformed("length"))?;
        let Some((value, after)) = rest.split_at_checked(length) else { return Ok(Cut::Short) };
        *field = Some(value);
        rest = after;
    }
    *bytes = rest;
    Ok(Cut::Row(fields))
}

fn read<'a>(fields: &[Option<&'a [u8]>; COLUMNS]) -> Result<Row<'a>> {
    let [id, mark, schema, table, operation, lsn, event_time, created_at, key_columns, before, after, metadata] =
        *fields;
    let mark =
        mark.map(|bytes| bytes.try_into().map(i16::from_be_bytes).map_err(|_| malformed("smallint"))).transpose()?;
    Ok(Row {
        place: mark.and_then(|mark| usize::try_from(mark / 2).ok()),
        known: mark.is_some_and(|mark| mark % 2 == 0),
        id: int8(id)?.ok_or_else(|| malformed("id"))?,
        schema: schema.unwrap_or_default(),
        table: table.unwrap_or_default(),
        operation,
        lsn,
        event_time: timestamp(event_time)?,
        created_at: timestamp(created_at)?,
        key_columns: jsonb(key_columns)?,
        before: jsonb(before)?,
        after: jsonb(after)?,
        metadata: jsonb(metadata)?,
    })
}

fn int8(field: Option<&[u8]>) -> Result<Option<i64>> {
    field.map(|bytes| bytes.try_into().map(i64::from_be_bytes).map_err(|_| malformed("bigint"))).transpose()
}

/// PostgreSQL counts from 2000; `infinity` and what would overflow have no microseconds since 1970.
fn timestamp(field: Option<&[u8]>) -> Result<Option<i64>> {
    const FROM_1970_TO_2000: i64 = 946_684_800_000_000;
    Ok(int8(field)?
        .filter(|micros| ![i64::MIN, i64::MAX].contains(micros))
        .and_then(|m| m.checked_add(FROM_1970_TO_2000)))
}

/// A jsonb crosses as a version and its text.
fn jsonb(field: Option<&[u8]>) -> Result<Option<&[u8]>> {
    match field {
        None => Ok(None),
        Some([1, text @ ..]) => Ok(Some(text)),
        Some(_) => Err(malformed("version of jsonb")),
    }
}

fn malformed(what: &str) -> Error {
    Error::internal(format!("the server's COPY stream has an unknown {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        for id in [5_i64, 6] {
            bytes.extend(12_i16.to_be_bytes());
            let mut field = |value: Option<&[u8]>| match value {
                None => bytes.extend((-1_i32).to_be_bytes()),
                Some(value) => {
                    bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                    bytes.extend(value);
                }
            };
            field(Some(&id.to_be_bytes()));
            field(Some(&5_i16.to_be_bytes()));
            field(Some(b"public"));
            field(Some(b"orders"));
            field(Some(b"INSERT"));
            field(None);
            field(Some(&0_i64.to_be_bytes()));
            field(Some(&i64::MAX.to_be_bytes()));
            field(None);
            field(None);
            field(Some(b"\x01{\"a\": 1}"));
            field(None);
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn rows_survive_any_cut_of_the_stream() {
        let stream = stream();
        for cut in 0..stream.len() {
            let (mut rows, mut seen) = (Rows::default(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                rows.feed(Bytes::copy_from_slice(part));
                while let Some(row) = rows.next().unwrap() {
                    assert_eq!(row.after, Some(&b"{\"a\": 1}"[..]));
                    assert_eq!((row.place, row.known), (Some(2), false));
                    assert_eq!((row.event_time, row.created_at), (Some(946_684_800_000_000), None));
                    seen.push(row.id);
                }
            }
            assert_eq!(seen, [5, 6], "cut at {cut}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = stream();
        for (at, value) in [(0, b'X'), (20, 11), (good.len() - 15, 2)] {
            let mut bad = good.clone();
            bad[at] = value;
            let mut rows = Rows::default();
            rows.feed(Bytes::from(bad));
            let outcome = std::iter::from_fn(|| rows.next().map(|row| row.map(|row| row.id)).transpose());
            assert!(outcome.collect::<Result<Vec<_>>>().is_err(), "byte {at}");
        }
    }
}
