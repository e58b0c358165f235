//! The source `kafka`.

mod config;
mod decode;
mod message;
mod registry;
