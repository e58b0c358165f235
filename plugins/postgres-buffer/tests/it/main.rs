//! The source against a real PostgreSQL, driven as the host drives it.

mod actions;
mod capture;
mod conformance;
mod delivery;
mod driver;
mod protocol;
mod reading;
mod red_team;
mod server;
mod tls;
mod types;
