//! The source `kafka`.
