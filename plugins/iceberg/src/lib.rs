//! Sink: Apache Iceberg tables.
//!
//! The table side (what is committed, and that it is committed exactly once): `sink` routes streams to tables, `table` holds
//! what a task knows of one and adopts states of it, `commit` is the protocol, `snapshot` builds one attempt out of
//! `manifests`, `token` and `expire`, `lineage` checks that a token still speaks of the data; `dead_letters` is the second
//! table that a commit may reach. `actions` is what an operator does by hand; removing orphans stands on `live` and `fence`.
//! `catalog` and `storage` are below all of it. The data side (what is in the files): `schema`, `partition`, `sort`, `writer`;
//! `lookup` reads rows back by their key, `overrides` is what the connector says of single columns, `layout` is how a table that
//! exists gets another partitioning or sort order, `format` which tables can be written to.

mod actions;
mod base;
mod catalog;
mod commit;
mod config;
mod create;
mod dead_letters;
mod error;
mod expire;
mod fence;
mod format;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod layout;
mod lineage;
mod live;
mod lookup;
mod manifests;
mod overrides;
mod partition;
mod plan;
mod schema;
mod sink;
mod snapshot;
mod sort;
mod storage;
mod table;
mod template;
mod token;
mod upsert;
mod writer;

pub use config::{
    CatalogConfig, Column, Config, Deletes, DroppedColumns, Evolve, Mode, RestCatalogConfig, Snapshots,
    SqlCatalogConfig, StorageConfig, Truncate,
};
pub use sink::IcebergSink;

// Files are sent by one worker while another keeps the catalog's answers coming.
philotes_sdk::export_plugin! { id: "iceberg", sinks: [IcebergSink], worker_threads: 2 }

#[cfg(test)]
mod tests;
