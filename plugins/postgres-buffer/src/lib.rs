//! The source `postgres-buffer`: change batches out of the CDC buffer table that Philotes writers fill.
//!
//! What a reader needs to know first: ids of the buffer are handed out before their transactions commit, so a lower id
//! can appear after a higher one was read. There is therefore no floor and no maximum, only what was delivered
//! ([`seen`]). Which rows a batch holds is written down in the database ([`registrar`]) before the host sees the batch,
//! and acknowledging ([`acknowledge`]) goes by that list.
//!
//! How rows flow: [`reader`] takes snapshots of the buffer by COPY and hands each row to its stream's decoder
//! ([`decode`]); full batches go to the [`registrar`], from there to the [`ready`] queue, and [`PostgresBuffer::poll`]
//! takes them out. Every session that is lost ends the instance: the host reopens it, with a new epoch ([`claim`]).
//!
//! [`PostgresBuffer::poll`]: philotes_sdk::Source::poll

mod acknowledge;
mod actions;
mod claim;
mod columns;
mod config;
mod connect;
mod copy;
mod decode;
mod describe;
mod dsn;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod letters;
mod offset;
mod ranges;
mod reader;
mod ready;
mod registrar;
mod sample;
mod seen;
mod source;
mod sql;
mod unreadable;
mod waiting;

pub use columns::{ColumnConfig, ColumnsConfig};
pub use config::{Acknowledge, Config, TlsMode, Unrouted};
pub use key::KeyConfig;
pub use source::PostgresBuffer;

// One worker: the reader keeps it busy, writing down and acknowledging wait for the server most of the time, and the host's
// own thread runs what it calls.
philotes_sdk::export_plugin! { id: "postgres-buffer", sources: [PostgresBuffer], worker_threads: 1 }
