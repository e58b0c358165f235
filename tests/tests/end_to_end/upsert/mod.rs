//! `mode: upsert`: the table is kept equal to the source table.

mod compacted;
mod workload;
