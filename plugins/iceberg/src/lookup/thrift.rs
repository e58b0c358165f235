//! The footer of a Parquet file, passed without making anything of it: the library makes room for as many items as a list says.

/// The longest footer.
pub(super) const MAX_FOOTER: u64 = 64 << 20;
/// How deep structs and lists may stand in one another. Those of Parquet are eight deep.
const MAX_DEPTH: usize = 32;
/// What a struct of a list takes at least: those of Parquet all have a field.
const LEAST_STRUCT: usize = 3;

/// Whether it is one struct in Thrift's compact protocol that says no more of itself than there is.
pub(super) fn is_sound(mut footer: &[u8]) -> bool {
    pass(&mut footer, STRUCT, MAX_DEPTH).is_some()
}

const STRUCT: u8 = 12;

/// Passes a value of this type.
fn pass(rest: &mut &[u8], kind: u8, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match kind {
        // A boolean in a list.
        1..=3 => skip(rest, 1),
        4..=6 => varint(rest).map(drop),
        7 => skip(rest, 8),
        8 => {
            let length = varint(rest)?;
            skip(rest, usize::try_from(length).ok()?)
        }
        9 | 10 => {
            let (head, after) = rest.split_first()?;
            *rest = after;
            let (count, kind) = (head >> 4, head & 15);
            let count = if count == 15 { usize::try_from(varint(rest)?).ok()? } else { usize::from(count) };
            let least = if kind == STRUCT { LEAST_STRUCT } else { 1 };
            if count.checked_mul(least)? > rest.len() {
                return None;
            }
            (0..count).try_for_each(|_| pass(rest, kind, depth))
        }
        11 => {
            let count = usize::try_from(varint(rest)?).ok().filter(|count| *count <= rest.len())?;
            if count == 0 {
                return Some(());
            }
            let (kinds, after) = rest.split_first()?;
            *rest = after;
            (0..count).try_for_each(|_| {
                pass(rest, kinds >> 4, depth)?;
                pass(rest, kinds & 15, depth)
            })
        }
        STRUCT => loop {
            let (head, after) = rest.split_first()?;
            *rest = after;
            if *head == 0 {
                return Some(());
            }
            if head >> 4 == 0 {
                varint(rest)?;
            }
            match head & 15 {
                // A boolean field is its type.
                1 | 2 => {}
                kind => pass(rest, kind, depth)?,
            }
        },
        13 => skip(rest, 16),
        _ => None,
    }
}

fn skip(rest: &mut &[u8], count: usize) -> Option<()> {
    *rest = rest.get(count..)?;
    Some(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
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

    /// The bytes are the compact protocol's: field 1 as a list of structs is 0x19, a list of two of them 0x2c, of many 0xfc.
    #[test]
    fn what_says_more_than_there_is_is_refused() {
        assert!(is_sound(&[0x15, 0x02, 0x19, 0x2c, 0x18, 0x01, b'a', 0x00, 0x18, 0x00, 0x00, 0x00]));
        assert!(is_sound(&[0x11, 0x12, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x1b, 0x01, 0x88, 0x01, b'k', 0x01, b'v', 0x00]));
        // Two thousand million row groups in seven bytes.
        assert!(!is_sound(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]));
        assert!(!is_sound(&[0x18, 0x05, b'a', 0x00]), "a text that is cut off");
        assert!(!is_sound(&[0x1c; 100_000]), "structs without an end");
        assert!(!is_sound(&[]) && !is_sound(&[0x1e, 0x00]));
    }
}
