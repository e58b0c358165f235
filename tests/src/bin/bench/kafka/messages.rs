//! The topic and its messages: orders of seven members, 200 bytes each, none like another.

use anyhow::{Result, bail};
use philotes_tests::kafka::{Client, Record};
use philotes_tests::services::kafka::Kafka;

pub(super) const TOPIC: &str = "orders";
pub(super) const PARTITIONS: i32 = 8;
pub(super) const BYTES: usize = 200;
/// What the topic's batches are compressed with.
pub(super) const CODEC: &str = "lz4";

/// Names and Iceberg types of the members.
pub(super) const COLUMNS: [(&str, &str); 7] = [
    ("id", "long"),
    ("customer", "long"),
    ("status", "string"),
    ("amount", "decimal(12,2)"),
    ("placed_at", "timestamptz"),
    ("email", "string"),
    ("note", "string"),
];

/// Writes the message of a number over the buffer.
pub(super) fn write(id: u64, buffer: &mut String) -> Result<()> {
    use std::fmt::Write;
    let random = mixed(id);
    let customer = random % 100_000;
    let status = ["new", "paid", "shipped", "cancelled"][(id % 4) as usize];
    let (second, micros) = (id / 1000 % 86_400, random % 1_000_000);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    buffer.clear();
    write!(
        buffer,
        "{{\"id\":{id},\"customer\":{customer},\"status\":\"{status}\",\"amount\":{}.{:02},\
         \"placed_at\":\"2026-01-01T{hour:02}:{minute:02}:{second:02}.{micros:06}Z\",\
         \"email\":\"customer{customer}@example.com\",\"note\":\"",
        random % 1_000_000,
        random % 100,
    )?;
    let mut part = random;
    while buffer.len() < BYTES - 2 {
        part = mixed(part);
        write!(buffer, "{part:016x}")?;
    }
    buffer.truncate(BYTES - 2);
    buffer.push_str("\"}");
    Ok(())
}

/// A number that looks drawn by lot (SplitMix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Makes the topic and fills it with messages 0 to `messages`, partitions in turn.
pub(super) fn fill(kafka: &Kafka, messages: u64) -> Result<()> {
    let client = Client::new(&kafka.bootstrap())?;
    client.create_topic(TOPIC, PARTITIONS)?;
    let producer = client.producer_with(&[("compression.type", CODEC), ("linger.ms", "50")])?;
    let mut message = String::new();
    for id in 0..messages {
        write(id, &mut message)?;
        producer.send(
            TOPIC,
            i32::try_from(id % u64::from(PARTITIONS.cast_unsigned()))?,
            &Record::of(message.as_bytes()),
        )?;
    }
    producer.flush()?;
    let mut found = 0;
    for partition in 0..PARTITIONS {
        let (begin, end) = client.bounds(TOPIC, partition)?;
        found += (end - begin).cast_unsigned();
    }
    if found != messages {
        bail!("{found} messages are in the topic, not {messages}");
    }
    Ok(())
}
