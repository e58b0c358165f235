//! `mode: upsert`: the table is kept equal to the source table.

mod changes;
mod compacted;
mod keys;
mod moves;
mod workload;
