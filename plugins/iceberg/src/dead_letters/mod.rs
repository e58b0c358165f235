//! Dead letters: records that cannot be written, kept in a table of their own, exactly once too.
//!
//! Two tables cannot be changed in one commit. So the files with the letters are stored first, and the commit of the stream's
//! own table carries, beside rows and tokens, an [`Intent`]: a property that names these files under a number that only
//! grows. [`append`](table::append) then adds them to the table of dead letters, by a commit that asserts its head, if the
//! number that this table holds for the stream's table is lower, and sets that number. Whoever takes over a head with an
//! intent (a start, the next commit) completes it before the next commit; a commit before or after without an intent
//! would lose letters or double them. `tests/model/src/dead_letters.rs` checks it.
//!
//! An intent belongs to the connector and not to a task. It stays in place once it is completed: its number and how far it
//! reaches are what the next one counts from.

mod actions;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod intent;
mod letter;
mod ranges;
mod read;
mod replay;
mod sift;
mod table;

pub(crate) use actions::{DEAD_LETTERS, list, show};
pub(crate) use intent::{Intent, holds_letters, intents, read as read_intent};
pub(crate) use letter::{Letter, Letters};
pub(crate) use ranges::{Ranges, property as replayed_property};
#[cfg(test)]
pub(crate) use replay::replay_in;
pub(crate) use replay::{REPLAY, replay};
pub(crate) use sift::{Sifted, sift};
pub(crate) use table::{Main, append, remove, store};
