//! The connector host as a library, so that tests reach its parts; `main` only starts it.

pub mod admin;
mod allocator;
pub mod cli;
pub mod config;
pub mod error_policy;
pub mod libraries;
pub mod live;
pub mod logging;
pub mod plugin;
pub mod run;
pub mod status;
pub mod stop;
mod supervisor;
mod task;

#[cfg(test)]
mod testing;
