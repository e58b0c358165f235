//! The delivery protocol as models, whose states are all visited.
//!
//! `cargo test -p philotes-model -- --nocapture` shows how many states each run visited, and for each rule that is left out the
//! shortest way to lose or double a row. `PHILOTES_MODEL_DEEP=1` visits larger bounds; that takes minutes.
//!
//! - [`commits`] is DESIGN §3: tasks, a table, its catalog and the network between them, and strangers at the table.
//! - [`buffer`] is DESIGN §7: rows, late ids, batches, epochs and acknowledgements, on a PostgreSQL that crashes.
//! - [`dead_letters`] is rule 9.
//! - [`expiry`] is the sink that expires snapshots beside others who make tags (DESIGN §10).
//! - [`moves`] is what becomes of rows whose keys others take over, in tables of mode upsert.
//!
//! DESIGN is the project's design document; each model names the rules that it can leave out, and says what they are. A change
//! of the protocol begins here: a rule goes only where the models still hold without it.
//!
//! Models are about the rules, not about the code: that the code keeps them is what the other tests are for. What a model
//! leaves out is said where it begins. Nothing is shown beyond a run's bounds, which its test names. States are told apart
//! by hashes of 64 bits; that two of five million are taken for one, and something is missed, has a chance of one in a million.

pub mod buffer;
pub mod check;
pub mod commits;
pub mod dead_letters;
pub mod expiry;
pub mod moves;
