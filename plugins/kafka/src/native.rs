//! What librdkafka offers and the crate `rdkafka` does not wrap: messages from a queue beside the consumer's own, the end of a partition together
//! with its topic, and the ids of topics.
//!
//! With `regex` the only module of this plugin with unsafe code. Whatever holds a pointer here holds the consumer as well, so that librdkafka's
//! client outlives it.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use philotes_sdk::{Error, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use crate::client::Consumer;
use crate::message::{Header, Message};

type ErrorCode = sys::rd_kafka_resp_err_t;
const OK: ErrorCode = ErrorCode::RD_KAFKA_RESP_ERR_NO_ERROR;

fn native_client(consumer: &Consumer) -> *mut sys::rd_kafka_t {
    consumer.client().native_ptr()
}

/// A queue of librdkafka.
struct Queue {
    pointer: NonNull<sys::rd_kafka_queue_t>,
    consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's queues may be used from every thread, and from several at once.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    fn new(consumer: &Arc<Consumer>) -> Result<Self> {
        // SAFETY: the client lives, for the consumer holds it.
        let pointer = unsafe { sys::rd_kafka_queue_new(native_client(consumer)) };
        let pointer = NonNull::new(pointer).ok_or_else(|| Error::internal("librdkafka makes no queue"))?;
        Ok(Self { pointer, consumer: Arc::clone(consumer) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is this value's own, and its client still lives.
        unsafe { sys::rd_kafka_queue_destroy(self.pointer.as_ptr()) }
    }
}

/// Where the messages of the assigned partitions come together. They do not come out of the consumer's own queue, so that whoever
/// leaves them here for a while, because there is no room for them, can go on serving the group.
pub(crate) struct Messages(Queue);

/// What was taken out of the queue, as long as it is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Taken<'a>(&'a sys::rd_kafka_message_t);

/// What came out of the queue.
pub(crate) enum Arrived<'a> {
    Message(Message<'a>),
    /// The partition has no more messages; `offset` is the next one's.
    End {
        topic: &'a str,
        partition: i32,
        offset: i64,
    },
    /// The partition cannot be read.
    Failed {
        topic: &'a str,
        partition: i32,
        code: RDKafkaErrorCode,
        reason: String,
    },
}

/// Names a partition for as long as the client lives, cheaper to compare than its topic's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey(usize, i32);

impl Messages {
    pub(crate) fn new(consumer: &Arc<Consumer>) -> Result<Self> {
        Queue::new(consumer).map(Self)
    }

    /// Lets the messages of a partition come here. To be called before the partition is assigned.
    pub(crate) fn gather(&self, topic: &str, partition: i32) -> Result<()> {
        let name = CString::new(topic).map_err(|_| Error::internal("a topic's name with a zero byte"))?;
        // SAFETY: the client lives, and the name through the call.
        let of_partition =
            unsafe { sys::rd_kafka_queue_get_partition(native_client(&self.0.consumer), name.as_ptr(), partition) };
        if of_partition.is_null() {
            return Err(Error::internal(format!("librdkafka has no queue for {topic}/{partition}")));
        }
        // SAFETY: both queues live; librdkafka counts its own reference to the second one. What was got is given back.
        unsafe {
            sys::rd_kafka_queue_forward(of_partition, self.0.pointer.as_ptr());
            sys::rd_kafka_queue_destroy(of_partition);
        }
        Ok(())
    }

    /// Takes out the next message or event; waits so long for one.
    ///
    /// One by one. librdkafka's function for batches takes the end of a partition for a message, and goes on behind the next one after a
    /// rebalance; its function that calls back takes the whole queue out meanwhile, so that its bound means nothing.
    pub(crate) fn next(&self, patience: Duration) -> Option<Owned<'_>> {
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue lives.
        let message = unsafe { sys::rd_kafka_consume_queue(self.0.pointer.as_ptr(), milliseconds) };
        NonNull::new(message).map(|message| Owned { message, _of: PhantomData })
    }
}

/// A message that was taken out.
pub(crate) struct Owned<'q> {
    message: NonNull<sys::rd_kafka_message_t>,
    /// It holds a share of the client's memory.
    _of: PhantomData<&'q Messages>,
}

impl Owned<'_> {
    pub(crate) fn look(&self) -> Taken<'_> {
        // SAFETY: the message is this value's own until it is dropped.
        Taken(unsafe { self.message.as_ref() })
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: it is freed once.
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) }
    }
}

impl<'a> Taken<'a> {
    /// Which partition it is of.
    pub(crate) fn key(self) -> PartitionKey {
        PartitionKey(self.0.rkt as usize, self.0.partition)
    }

    /// What it is.
    pub(crate) fn read(self) -> Arrived<'a> {
        let message = self.0;
        // SAFETY: the topic lives as long as the message, and its name is one of Kafka's: ASCII.
        let topic = unsafe { text(sys::rd_kafka_topic_name(message.rkt)) };
        let (partition, offset) = (message.partition, message.offset);
        match message.err {
            OK => {}
            ErrorCode::RD_KAFKA_RESP_ERR__PARTITION_EOF => return Arrived::End { topic, partition, offset },
            code => {
                // SAFETY: the message is valid.
                let reason = unsafe { text(sys::rd_kafka_message_errstr(message)) }.to_owned();
                return Arrived::Failed { topic, partition, code: code.into(), reason };
            }
        }
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
        Arrived::Message(Message {
            topic,
            partition,
            offset,
            timestamp_millis: (timestamp >= 0).then_some(timestamp),
            // SAFETY: key and value live as long as the message, and have these lengths.
            key: unsafe { bytes(message.key, message.key_len) },
            // SAFETY: as above.
            value: unsafe { bytes(message.payload, message.len) },
            headers: &[],
        })
    }

    /// The message's headers.
    pub(crate) fn headers(self) -> Vec<Header<'a>> {
        let mut headers = ptr::null_mut();
        let mut found = Vec::new();
        // SAFETY: the message is valid; librdkafka parses its headers once and keeps them with it.
        if unsafe { sys::rd_kafka_message_headers(self.0, &raw mut headers) } != OK {
            return found;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the headers live as long as the message; beyond the last one an error is returned.
        while unsafe {
            sys::rd_kafka_header_get_all(headers, found.len(), &raw mut name, &raw mut value, &raw mut size)
        } == OK
        {
            // SAFETY: name and value live as long as the message.
            found.push(unsafe { Header { name: text(name), value: bytes(value, size) } });
        }
        found
    }
}

/// # Safety
/// `text` is null or a C string that lives for `'a`.
unsafe fn text<'a>(text: *const std::ffi::c_char) -> &'a str {
    if text.is_null() {
        return "";
    }
    // SAFETY: the caller warrants it.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("(no UTF-8)")
}

/// # Safety
/// `start` is null or points to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller warrants it.
    NonNull::new(start.cast_mut()).map(|start| unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), length) })
}

/// The newest end of a partition that a fetch has told, without asking anybody.
pub(crate) fn known_end(consumer: &Consumer, topic: &str, partition: i32) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives, and the name through the call.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            native_client(consumer),
            name.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (code == OK && high >= 0).then_some(high)
}

/// What the cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Described {
    /// Its id in base64, as Kafka's tools print it; `None` where the brokers know no ids.
    Id(Option<String>),
    /// There is no such topic.
    Missing,
    /// It may not be looked at.
    Forbidden,
    /// It is not known just now.
    Unclear(String),
}

/// Asks the cluster for the ids of topics, one question at a time.
pub(crate) struct TopicIds {
    queue: Queue,
}

impl TopicIds {
    /// How long an answer may take.
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(crate) fn new(consumer: &Arc<Consumer>) -> Result<Self> {
        Ok(Self { queue: Queue::new(consumer)? })
    }

    /// Sends the question; the answer comes out of [`answer`](Self::answer).
    pub(crate) fn ask<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Result<()> {
        let names: Vec<CString> = topics
            .map(|topic| CString::new(topic).map_err(|_| Error::internal("a topic's name with a zero byte")))
            .collect::<Result<_>>()?;
        let mut pointers: Vec<*const std::ffi::c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let client = native_client(&self.queue.consumer);
        let patience = i32::try_from(Self::PATIENCE.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: client and queue live; the names live through the call, which copies them; options and collection are freed here.
        unsafe {
            let options =
                sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let _ = sys::rd_kafka_AdminOptions_set_request_timeout(options, patience, ptr::null_mut(), 0);
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(client, collection, options, self.queue.pointer.as_ptr());
            sys::rd_kafka_TopicCollection_destroy(collection);
            sys::rd_kafka_AdminOptions_destroy(options);
        }
        Ok(())
    }

    /// The answer to the last question, if it comes in time.
    pub(crate) fn answer(&self, patience: Duration) -> Option<Result<HashMap<String, Described>>> {
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue lives; the event is this function's own and freed once.
        unsafe {
            let event = NonNull::new(sys::rd_kafka_queue_poll(self.queue.pointer.as_ptr(), milliseconds))?;
            let answer = read_answer(event.as_ptr());
            sys::rd_kafka_event_destroy(event.as_ptr());
            Some(answer)
        }
    }

    /// Asks and waits.
    pub(crate) fn now<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Result<HashMap<String, Described>> {
        self.ask(topics)?;
        self.answer(Self::PATIENCE * 2)
            .unwrap_or_else(|| Err(Error::unavailable("the brokers do not say which topics they have")))
    }
}

/// # Safety
/// `event` is an event that lives.
unsafe fn read_answer(event: *mut sys::rd_kafka_event_t) -> Result<HashMap<String, Described>> {
    // SAFETY: the caller warrants the event; what is got from it lives as long as it does.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != OK {
            let reason = text(sys::rd_kafka_event_error_string(event));
            return Err(Error::unavailable(format!("the brokers do not describe topics: {reason}")));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(Error::internal("librdkafka answers another question than that for topics"));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut described = HashMap::with_capacity(count);
        for index in 0..count {
            let topic = *topics.add(index);
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() { OK } else { sys::rd_kafka_error_code(error) };
            let said = match code {
                OK => Described::Id(id(sys::rd_kafka_TopicDescription_topic_id(topic))),
                ErrorCode::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Described::Missing,
                ErrorCode::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Described::Forbidden,
                other => Described::Unclear(text(sys::rd_kafka_err2str(other)).to_owned()),
            };
            described.insert(text(sys::rd_kafka_TopicDescription_name(topic)).to_owned(), said);
        }
        Ok(described)
    }
}

/// # Safety
/// `id` is null or lives.
unsafe fn id(id: *const sys::rd_kafka_Uuid_t) -> Option<String> {
    // SAFETY: the caller warrants it; librdkafka keeps the text with the id.
    let text = unsafe { if id.is_null() { "" } else { text(sys::rd_kafka_Uuid_base64str(id)) } };
    // The zero id, in any spelling: none was given.
    // Kafka's tools print the alphabet that is safe in URLs.
    (!text.trim_matches(['A', '=']).is_empty()).then(|| text.trim_end_matches('=').replace('+', "-").replace('/', "_"))
}
