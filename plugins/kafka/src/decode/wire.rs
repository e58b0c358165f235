//! Confluent's wire format: a zero byte, the schema's id in four bytes, the highest first, and the value.

use super::Refusal;

const MAGIC: u8 = 0;

/// The id of the schema, and the value's bytes.
pub(super) fn split(bytes: &[u8]) -> Result<(u32, &[u8]), Refusal> {
    let Some((head, value)) = bytes.split_first_chunk::<5>() else {
        return Err(Refusal::said(format!(
            "{} bytes, which cannot be Confluent's wire format: a zero byte, four bytes of the schema's id, the value",
            bytes.len()
        )));
    };
    let [MAGIC, id @ ..] = *head else {
        return Err(Refusal::said(format!(
            "its first byte is {}, and 0 in Confluent's wire format: a zero byte, four bytes of the schema's id, the value",
            head[0]
        )));
    };
    Ok((u32::from_be_bytes(id), value))
}

/// The same of a key, which may also be plain text: that has no zero bytes.
pub(super) fn split_key(bytes: &[u8]) -> Option<(u32, &[u8])> {
    if bytes.first() == Some(&MAGIC) { split(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_before_the_value() {
        assert_eq!(split(&[0, 0, 0, 1, 2, 7, 8]), Ok((258, &[7, 8][..])));
        assert_eq!(split(&[0, 0xff, 0xff, 0xff, 0xfe]), Ok((4_294_967_294, &[][..])));
        for length in 0..5 {
            assert!(split(&[0; 5][..length]).is_err());
        }
        // JSON in the clear is what people meet who name the wrong format.
        assert!(split(b"{\"id\": 1}").unwrap_err().reason.starts_with("its first byte is 123, and 0 in Confluent's"));
        assert_eq!(split_key(b"plain text"), None);
        assert_eq!(split_key(&[0, 0]), None);
        assert_eq!(split_key(&[0, 0, 0, 0, 9]), Some((9, &[][..])));
    }
}
