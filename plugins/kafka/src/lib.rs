//! The source `kafka`: topics to change batches, exactly once, by nothing but the table's own offsets.
//!
//! What a reader needs to know first: the consumer group only shares the partitions out. Where a partition goes on is what the
//! table says ([`begin`]); the group's committed offset follows it, for people's tools ([`offset`]).
//!
//! How messages flow: [`reader`], a thread of its own, takes them out of librdkafka's queue ([`native`]) and hands each to its topic's
//! decoder ([`decode`]); full batches are held back until their topic is known to be still the same one ([`verify`]), then they go
//! into the [`handover`], and [`KafkaSource::poll`] takes them out.
//!
//! [`KafkaSource::poll`]: philotes_sdk::Source::poll

mod begin;
mod client;
mod cluster;
mod config;
mod decode;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod handover;
mod http;
mod letters;
mod message;
mod native;
mod oauth;
mod offset;
mod partition;
mod reader;
mod regex;
mod registry;
mod source;
mod streams;
mod verify;

pub use config::{
    AutoOffsetReset, Config, DebeziumFormat, Envelope, FormatConfig, IsolationLevel, JsonFormat, MetadataColumn,
    OauthbearerConfig, Others, PasswordConfig, RawFormat, RegisteredFormat, RegistryConfig, RowFormat, SaslConfig,
    TlsMode,
};
pub use source::KafkaSource;

// One worker: it fetches tokens and schemas; the reader has a thread of its own, and librdkafka brings its own.
philotes_sdk::export_plugin! { id: "kafka", sources: [KafkaSource], worker_threads: 1 }
