//! The connector host as a library, so that tests reach its parts; `main` only starts it.

pub mod plugin;
