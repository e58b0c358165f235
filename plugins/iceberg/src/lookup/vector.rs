//! Deletion vectors, as Puffin files hold them: the specification's blob `deletion-vector-v1`.

use flate2::Crc;
use philotes_sdk::{Error, Result};
use roaring::RoaringTreemap;

/// What stands before the bitmap: its length, which counts the magic number, and that.
const MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];

/// The positions of the deleted rows.
pub(super) fn parse(blob: &[u8]) -> Result<RoaringTreemap> {
    let damaged = |what: &str| Error::data(format!("it is no deletion vector that is whole: {what}"));
    let (length, rest) = blob.split_first_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (body, checksum) = rest.split_at_checked(length).ok_or_else(|| damaged("it is shorter than it says"))?;
    if checksum.len() != 4 {
        return Err(damaged("its length is another than it says"));
    }
    let mut crc = Crc::new();
    crc.update(body);
    if checksum != crc.sum().to_be_bytes() {
        return Err(damaged("its checksum is wrong"));
    }
    let bitmap = body.strip_prefix(&MAGIC).ok_or_else(|| damaged("it begins with another number"))?;
    RoaringTreemap::deserialize_from(bitmap).map_err(|e| damaged("its bitmap does not read").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::tests::deleting::{SPARKS_VECTOR, bytes};

    #[test]
    fn what_spark_wrote_is_read() {
        let positions: Vec<u64> = parse(&bytes(SPARKS_VECTOR)).unwrap().iter().collect();
        assert_eq!(positions, [0, 3, 65_535, 65_536, 131_072, 199_999]);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let whole = bytes(SPARKS_VECTOR);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(parse(&damaged).is_err(), "byte {at}");
            assert!(parse(&whole[..at]).is_err(), "{at} bytes");
        }
        assert!(parse(&[whole, vec![0]].concat()).is_err());
    }
}
