//! The connector host as a library, so that tests reach its parts; `main` only starts it.

pub mod admin;
mod allocator;
pub mod cli;
pub mod config;
pub mod error_policy;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod libraries;
pub mod live;
pub mod logging;
pub mod plugin;
mod printable;
pub mod run;
pub mod status;
pub mod stop;
mod supervisor;
mod task;

/// A message as it may be printed on one line of a terminal.
#[must_use]
pub fn shown(message: &str) -> std::borrow::Cow<'_, str> {
    printable::line(message)
}

#[cfg(test)]
mod testing;
