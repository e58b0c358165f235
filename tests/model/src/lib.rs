//! The delivery protocol as models, whose states are all visited.
//!
//! `cargo test -p philotes-model -- --nocapture` shows how many states each run visited, and for each rule that is left out the
//! shortest way to lose or double a row. `PHILOTES_MODEL_DEEP=1` visits larger bounds; that takes minutes.
//!
//! - [`commits`] is DESIGN §3: tasks, a table, its catalog and the network between them, and strangers at the table.
//! - [`buffer`] is DESIGN §7: rows, late ids, batches, epochs and acknowledgements, on a PostgreSQL that crashes.
//! - [`dead_letters`] is rule 9 of DESIGN §3, which no code follows yet.
//!
//! Models are about the rules, not about the code: that the code keeps them is what the other tests are for. What a model
//! leaves out is said where it begins. States are told apart by hashes of 64 bits; that two of millions collide, and one
//! is missed, has a chance of less than one in a million.

pub mod buffer;
pub mod check;
pub mod commits;
pub mod dead_letters;
