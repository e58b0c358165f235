//! What lookups read of files, for tests/fuzz.

use flate2::Crc;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};

/// A deletion vector, with the length and the checksum that it should have.
pub(crate) fn vector(input: &[u8]) {
    let body = [&[0xd1, 0xd3, 0x39, 0x64][..], input].concat();
    let mut crc = Crc::new();
    crc.update(&body);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    if let Ok(rows) = super::vector::parse(&[&length[..], &body, &crc.sum().to_be_bytes()].concat()) {
        let _ = (rows.contains(0), rows.contains(u64::MAX), rows.len());
    }
}

/// The end of a Parquet file.
pub(crate) fn footer(input: &[u8]) {
    if !super::thrift::is_sound(input) {
        return;
    }
    let file = bytes::Bytes::copy_from_slice(
        &[b"PAR1", input, &u32::try_from(input.len()).unwrap_or(0).to_le_bytes(), b"PAR1"].concat(),
    );
    let read = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(&file);
    let _ = read.map(|read| read.row_groups().len());
}
