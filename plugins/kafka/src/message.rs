//! A message as the broker keeps it.

/// One message of a topic. Everything is borrowed from librdkafka, which frees it after the message was decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// When it was made or appended, whichever the topic keeps, in milliseconds since 1970 UTC.
    pub(crate) timestamp_millis: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// Only filled where `_kafka_headers` is wanted.
    pub(crate) headers: &'a [Header<'a>],
}

/// A header of a message; several may have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Option<&'a [u8]>,
}
