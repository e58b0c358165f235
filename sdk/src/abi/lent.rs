//! Partitions and positions lent across the boundary, and read from it.

use crate::{Error, Offset, Result, StreamName, StreamOffset, StreamPartition};

use super::{Partition, Position, Sized32, Text};

/// More parts than any name has; a count beyond it is garbage.
const MAX_PARTS: u32 = 64;
/// More partitions or positions than any call names.
const MAX_ITEMS: u32 = 1 << 20;

/// Partitions in the shape of the ABI. The pointers are valid as long as this lives, wherever it is moved to.
#[derive(Debug, Default)]
pub struct LentPartitions {
    // Read through the pointers below only; held because they point into it.
    _names: Vec<StreamPartition>,
    _parts: Vec<Vec<Text>>,
    _partitions: Vec<Partition>,
    pointers: Vec<*const Partition>,
}

impl LentPartitions {
    /// Lends these.
    #[must_use]
    pub fn new(names: Vec<StreamPartition>) -> Self {
        let parts: Vec<Vec<Text>> =
            names.iter().map(|name| name.stream.parts().iter().map(|part| Text::lend(part)).collect()).collect();
        #[expect(clippy::cast_possible_truncation, reason = "a name has a handful of parts")]
        let partitions: Vec<Partition> = names
            .iter()
            .zip(&parts)
            .map(|(name, parts)| Partition {
                struct_size: Partition::SIZE,
                part_count: parts.len() as u32,
                parts: parts.as_ptr(),
                partition: Text::lend(&name.partition),
            })
            .collect();
        let pointers = partitions.iter().map(std::ptr::from_ref).collect();
        Self { _names: names, _parts: parts, _partitions: partitions, pointers }
    }

    /// The array of pointers.
    #[must_use]
    pub fn as_ptr(&self) -> *const *const Partition {
        self.pointers.as_ptr()
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> *const Partition {
        self.pointers.first().copied().unwrap_or(std::ptr::null())
    }

    /// How many.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a call names far fewer than 2^32 partitions")]
    pub fn count(&self) -> u32 {
        self.pointers.len() as u32
    }
}

/// Positions in the shape of the ABI. The pointers are valid as long as this lives.
#[derive(Debug)]
pub struct LentPositions {
    _partitions: LentPartitions,
    _offsets: Vec<Offset>,
    _positions: Vec<Position>,
    pointers: Vec<*const Position>,
}

impl LentPositions {
    /// Lends these.
    #[must_use]
    pub fn new(of: &[StreamOffset]) -> Self {
        let partitions = LentPartitions::new(of.iter().map(|position| position.at.clone()).collect());
        let offsets: Vec<Offset> = of.iter().map(|position| position.offset.clone()).collect();
        let positions: Vec<Position> = partitions
            .pointers
            .iter()
            .zip(&offsets)
            .map(|(at, offset)| Position {
                struct_size: Position::SIZE,
                reserved: 0,
                at: *at,
                offset: Text::lend(offset.as_str()),
            })
            .collect();
        let pointers = positions.iter().map(std::ptr::from_ref).collect();
        Self { _partitions: partitions, _offsets: offsets, _positions: positions, pointers }
    }

    /// The array of pointers.
    #[must_use]
    pub fn as_ptr(&self) -> *const *const Position {
        self.pointers.as_ptr()
    }

    /// How many.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a call names far fewer than 2^32 positions")]
    pub fn count(&self) -> u32 {
        self.pointers.len() as u32
    }
}

/// A partition of the other side.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where it is null, has no parts or too many, or is no UTF-8.
///
/// # Safety
/// `at` is null or points to a `philotes_partition` that is valid during the call.
pub unsafe fn read_partition(at: *const Partition) -> Result<StreamPartition> {
    if at.is_null() {
        return Err(Error::internal("a partition is NULL"));
    }
    // SAFETY: not null, and the caller warrants the rest.
    let raw = unsafe { Partition::read(at) };
    if raw.part_count == 0 || raw.part_count > MAX_PARTS || raw.parts.is_null() {
        return Err(Error::internal(format!(
            "a stream's name has {} parts; 1 to {MAX_PARTS} are allowed",
            raw.part_count
        )));
    }
    // SAFETY: not null, and the caller warrants `part_count` texts.
    let parts = unsafe { std::slice::from_raw_parts(raw.parts, raw.part_count as usize) };
    let parts: Vec<&str> =
        // SAFETY: as above; texts are valid during the call.
        parts.iter().map(|part| unsafe { part.read("a part of a stream's name") }).collect::<Result<_>>()?;
    // SAFETY: as above.
    let partition = unsafe { raw.partition.read("a partition's name") }?.to_owned();
    Ok(StreamPartition { stream: StreamName::new(parts)?, partition })
}

/// Partitions of the other side.
///
/// # Errors
/// As [`read_partition`], and where the count makes no sense.
///
/// # Safety
/// `at` is null or points to `count` pointers, each as [`read_partition`] wants it.
pub unsafe fn read_partitions(at: *const *const Partition, count: u32) -> Result<Vec<StreamPartition>> {
    // SAFETY: the caller warrants it.
    unsafe { pointers(at, count, "partitions") }?
        .iter()
        // SAFETY: the caller warrants it.
        .map(|at| unsafe { read_partition(*at) })
        .collect()
}

/// Positions of the other side.
///
/// # Errors
/// As [`read_partition`], and where an offset is none.
///
/// # Safety
/// `at` is null or points to `count` pointers to `philotes_position` that are valid during the call.
pub unsafe fn read_positions(at: *const *const Position, count: u32) -> Result<Vec<StreamOffset>> {
    // SAFETY: the caller warrants it.
    unsafe { pointers(at, count, "positions") }?
        .iter()
        .map(|position| {
            if position.is_null() {
                return Err(Error::internal("a position is NULL"));
            }
            // SAFETY: not null, and the caller warrants the rest.
            let position = unsafe { Position::read(*position) };
            // SAFETY: as above.
            let at = unsafe { read_partition(position.at) }?;
            // SAFETY: as above.
            let offset = Offset::new(unsafe { position.offset.read("an offset") }?)?;
            Ok(StreamOffset { at, offset })
        })
        .collect()
}

/// # Safety
/// `items` is null or points to `count` pointers that are valid during the call.
unsafe fn pointers<'a, T>(items: *const *const T, count: u32, what: &str) -> Result<&'a [*const T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() || count > MAX_ITEMS {
        return Err(Error::internal(format!("an array of {count} {what} is NULL or too long")));
    }
    // SAFETY: not null, and the caller warrants the count.
    Ok(unsafe { std::slice::from_raw_parts(items, count as usize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(parts: &[&str], partition: &str) -> StreamPartition {
        StreamPartition { stream: StreamName::new(parts.to_vec()).unwrap(), partition: partition.into() }
    }

    #[test]
    fn what_is_lent_can_be_read_wherever_it_was_moved_to() {
        let names = vec![at(&["public", "orders"], "0"), at(&["größe"], ""), at(&["", "x"], "7")];
        let lent = Box::new(LentPartitions::new(names.clone()));
        // SAFETY: lent by ourselves.
        assert_eq!(unsafe { read_partitions(lent.as_ptr(), lent.count()) }.unwrap(), names);

        let offsets: Vec<_> = names
            .into_iter()
            .enumerate()
            .map(|(n, at)| StreamOffset { at, offset: Offset::from_value(&n).unwrap() })
            .collect();
        let lent = Box::new(LentPositions::new(&offsets));
        // SAFETY: lent by ourselves.
        assert_eq!(unsafe { read_positions(lent.as_ptr(), lent.count()) }.unwrap(), offsets);
    }

    #[test]
    fn garbage_is_refused() {
        let lent = LentPartitions::new(vec![at(&["a"], "0")]);
        // SAFETY: each pointer is null or ours; the counts are checked before anything is read.
        unsafe {
            assert!(read_partition(std::ptr::null()).is_err());
            assert!(read_partitions(std::ptr::null(), 1).is_err());
            assert!(read_partitions(lent.as_ptr(), u32::MAX).is_err());
            assert!(read_partitions(std::ptr::null(), 0).unwrap().is_empty());
            let mut one = Partition::read(lent.first());
            one.part_count = 0;
            assert!(read_partition(&raw const one).is_err());
            one.part_count = 65;
            assert!(read_partition(&raw const one).is_err());
            let bad = [Text { data: b"\xff".as_ptr(), length: 1 }];
            one.part_count = 1;
            one.parts = bad.as_ptr();
            let message = read_partition(&raw const one).unwrap_err().to_string();
            assert_eq!(message, "a part of a stream's name is no valid UTF-8");
        }
    }
}
