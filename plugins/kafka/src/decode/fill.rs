//! Reads the members of a JSON object into the columns of a batch.

use philotes_sdk::json::{Entry, Scanner, Value};

use super::Refusal;
use super::batch::OpenBatch;
use super::unavailable::Unavailable;

const NONE: usize = usize::MAX;

/// Reads the object that the scanner has entered up to its end. `other` is given the members that are no columns.
#[inline]
pub(super) fn fill<'a>(
    batch: &mut OpenBatch,
    scanner: &mut Scanner<'a>,
    unavailable: Option<&Unavailable>,
    mut other: impl FnMut(&mut OpenBatch, &str, Value<'a>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    // Members come in the order of the row before, most often, and those that are optional may lack.
    let mut slot = 0;
    loop {
        let expected = batch.next.get(slot).copied().unwrap_or(NONE);
        let token = batch.columns.get(expected).map_or(&[][..], |column| &column.token);
        let Some(entry) = scanner.entry(token)? else { return Ok(()) };
        let at = match entry {
            Entry::Expected => expected,
            Entry::Other(key) => {
                let Some(at) = batch.index.get(key.as_ref()).copied() else {
                    let value = scanner.value()?;
                    other(batch, &key, value)?;
                    continue;
                };
                batch.next.resize(batch.columns.len() + 1, NONE);
                batch.next[slot] = at;
                at
            }
        };
        let value = scanner.value()?;
        if unavailable.is_some_and(|unavailable| unavailable.is_in(&batch.columns[at], value)) {
            batch.left_out.push(at);
        } else {
            batch.append(at, value)?;
        }
        slot = at + 1;
    }
}

/// Takes from the row before what the row left out.
pub(super) fn fill_left_out(batch: &mut OpenBatch, before: &str, unavailable: &Unavailable) -> Result<(), Refusal> {
    let mut scanner = Scanner::enter(before, b'{')?;
    while let Some(Entry::Other(key)) = scanner.entry(b"")? {
        let value = scanner.value()?;
        let Some(at) = batch.index.get(key.as_ref()).copied() else { continue };
        // A value that was too large to be sent is not null.
        if value == Value::Null || unavailable.is_in(&batch.columns[at], value) {
            continue;
        }
        if let Some(found) = batch.left_out.iter().position(|left_out| *left_out == at) {
            batch.left_out.remove(found);
            batch.append(at, value)?;
        }
    }
    Ok(())
}
