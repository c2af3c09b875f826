//! The only `unsafe` of the crate: the calls of librdkafka that rdkafka 0.39 does not wrap.
//!
//! - [`SharedQueue`]: partitions forwarded to one queue, read in batches of borrowed messages (RDKAFKA 0.3, 7).
//! - [`AdminQueue`]: ListOffsets and Describe calls as questions whose answers are polled for, so that a slow broker
//!   holds up nobody but itself.
//! - [`ReportingProducer`]: topics looked up once, delivery reports taken many at a time.
//! - [`tune_mock`]: the settings of the embedded mock cluster that are reachable by its raw pointer only.
//!
//! Lifetimes: both queues own an `Arc` of their client and are destroyed before they let go of it, as
//! `rd_kafka_destroy` hangs for ever on a queue that outlives it (RDKAFKA 0.6). Messages are destroyed with their
//! [`Batch`], which borrows the queue.
#![allow(unsafe_code)]

mod describe;
#[cfg(test)]
mod fetched;
mod lists;
#[cfg(test)]
mod noting;
mod produce;

use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::fetch::{LINE, fetch};
use crate::partition::{Offset, PartitionId};
use crate::telemetry::{HeaderRef, RecordTimestamp};
use crate::time::EventTime;
pub use describe::{DescribedTopic, Operation};
pub use lists::HeaderLists;
pub use produce::{Headers, Produced, ProducerTopic, Report, ReportingProducer, Reports, flush};

const NO_ERROR: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;

fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// The generation (KIP-848: epoch) of a consumer's membership; zero or below without one.
#[must_use]
pub fn generation<C: ClientContext>(client: &Client<C>) -> i32 {
    // SAFETY: live handle; what it gives is ours, looked into and destroyed once. Null = no consumer.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(client.native_ptr());
        if metadata.is_null() {
            return -1;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation
    }
}

/// A queue of librdkafka that belongs to a client.
struct Queue {
    raw: NonNull<sys::rd_kafka_queue_t>,
}

impl Queue {
    /// # Safety
    /// `client` is a live handle, and outlives the queue.
    unsafe fn new(client: *mut sys::rd_kafka_t) -> Self {
        // SAFETY: `client` is live. librdkafka allocates with an abort on failure: never null.
        let raw = unsafe { sys::rd_kafka_queue_new(client) };
        Self {
            raw: NonNull::new(raw).expect("rd_kafka_queue_new returns a queue"),
        }
    }

    fn raw(&self) -> *mut sys::rd_kafka_queue_t {
        self.raw.as_ptr()
    }
}

// SAFETY: librdkafka's queues may be used from any thread (INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once, while its client still lives (see the owners below).
        unsafe { sys::rd_kafka_queue_destroy(self.raw()) }
    }
}

/// One queue for the messages of all partitions that are forwarded to it.
///
/// Only partition queues ever flow into it, so `rd_kafka_consume_batch_queue` meets no rebalance (RDKAFKA 7); events
/// of the group stay on the consumer's own queue, which is to be polled too.
pub struct SharedQueue<C: ConsumerContext + 'static> {
    // Declared, so dropped, before the consumer.
    queue: Queue,
    slots: Vec<*mut sys::rd_kafka_message_t>,
    filled: usize,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: `slots` holds pointers only within one `Batch`, which borrows the queue; the rest is `Send`.
unsafe impl<C: ConsumerContext + 'static> Send for SharedQueue<C> {}

impl<C: ConsumerContext + 'static> SharedQueue<C> {
    /// A queue for `consumer`, read in batches of at most `batch_max` messages.
    #[must_use]
    pub fn new(consumer: Arc<BaseConsumer<C>>, batch_max: usize) -> Self {
        // SAFETY: the `Arc` beside the queue keeps the handle alive until after the queue is destroyed.
        let queue = unsafe { Queue::new(consumer.client().native_ptr()) };
        Self {
            queue,
            slots: vec![ptr::null_mut(); batch_max.max(1)],
            filled: 0,
            consumer,
        }
    }

    /// The consumer whose partitions it reads.
    #[must_use]
    pub fn consumer(&self) -> &Arc<BaseConsumer<C>> {
        &self.consumer
    }

    /// The log end offset of a partition as the client last heard of it with a fetch; `None` before the first. Asks
    /// nobody.
    #[must_use]
    pub fn known_log_end(&self, topic: &str, partition: PartitionId) -> Option<Offset> {
        let topic = CString::new(topic).ok()?;
        let (mut start, mut end) = (-1, -1);
        // SAFETY: live handle, C string and two places to write to.
        let error = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.0,
                &raw mut start,
                &raw mut end,
            )
        };
        (error == NO_ERROR && end >= 0).then_some(Offset(end))
    }

    /// Forwards the messages of a partition to this queue.
    ///
    /// To be done before every assignment of the partition: a revoke undoes it (RDKAFKA 0.7).
    pub fn forward(&self, topic: &str, partition: PartitionId) {
        let Ok(topic) = CString::new(topic) else {
            return;
        };
        // SAFETY: live handle and C string; the partition's queue is a counted reference that is given back at once.
        unsafe {
            let source = sys::rd_kafka_queue_get_partition(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.0,
            );
            if !source.is_null() {
                sys::rd_kafka_queue_forward(source, self.queue.raw());
                sys::rd_kafka_queue_destroy(source);
            }
        }
    }

    /// Takes the messages at hand, at most `max`, waiting at most `timeout` for the first.
    pub fn take(&mut self, max: usize, timeout: Duration) -> Batch<'_, C> {
        // SAFETY: live queue; `slots` has room for `slots.len()` pointers.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.raw(),
                millis(timeout),
                self.slots.as_mut_ptr(),
                self.slots.len().min(max),
            )
        };
        self.filled = usize::try_from(taken).unwrap_or(0);
        Batch { queue: self }
    }
}

/// A message is asked for so many messages before it is looked at, and where it stands as many before that.
const AHEAD: usize = 4;
/// Bytes of a value that are asked for, at most: what reads a longer one goes straight through it, which processors notice.
const FETCHED_MAX: usize = 1_024;

/// Messages lent by librdkafka; given back when the batch is dropped.
pub struct Batch<'q, C: ConsumerContext + 'static> {
    queue: &'q mut SharedQueue<C>,
}

impl<C: ConsumerContext + 'static> Batch<'_, C> {
    /// How many messages there are, errors included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.filled
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.filled == 0
    }

    /// The messages in the order of the queue: of one partition, in offset order.
    pub fn messages(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.filled().iter().map(|raw| {
            // SAFETY: librdkafka filled these slots with live messages; they are destroyed by `drop` only, and the
            // reference lives no longer than the borrow of the batch.
            MessageRef {
                raw: unsafe { &**raw },
            }
        })
    }

    /// [`Self::messages`] for the first look at them. The client's thread has written them, so they are far away: each is
    /// asked for while those before it are looked at, its value (the beginning of a long one) and its headers, which stand
    /// behind the value, too.
    pub fn fetched(&self) -> impl Iterator<Item = MessageRef<'_>> {
        let slots = self.filled();
        self.messages().enumerate().map(|(place, message)| {
            if let Some(later) = slots.get(place + 2 * AHEAD) {
                fetch(later.cast::<u8>());
                fetch(later.cast::<u8>().wrapping_add(LINE));
            }
            if let Some(later) = slots.get(place + AHEAD) {
                // SAFETY: as in `messages`.
                let later = unsafe { &**later };
                let value = later.payload.cast::<u8>();
                for line in (0..later.len.min(FETCHED_MAX)).step_by(LINE) {
                    fetch(value.wrapping_add(line));
                }
                fetch(value.wrapping_add(later.len));
            }
            message
        })
    }

    fn filled(&self) -> &[*mut sys::rd_kafka_message_t] {
        &self.queue.slots[..self.queue.filled]
    }
}

impl<C: ConsumerContext + 'static> Drop for Batch<'_, C> {
    fn drop(&mut self) {
        for raw in &mut self.queue.slots[..self.queue.filled] {
            // SAFETY: each was filled by `take` and is destroyed once; no `MessageRef` outlives the batch.
            unsafe { sys::rd_kafka_message_destroy(*raw) };
            *raw = ptr::null_mut();
        }
        self.queue.filled = 0;
    }
}

/// A message of a batch, or an error that took its place.
#[derive(Copy, Clone)]
pub struct MessageRef<'b> {
    raw: &'b sys::rd_kafka_message_t,
}

impl<'b> MessageRef<'b> {
    /// The error that stands in the place of a message.
    #[must_use]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        (self.raw.err != NO_ERROR).then(|| self.raw.err.into())
    }

    /// What a produced message was given to tell it by.
    #[must_use]
    pub fn opaque(&self) -> usize {
        self.raw._private as usize
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> String {
        // SAFETY: a live message; its topic, where it has one, lives as long.
        unsafe {
            if self.raw.rkt.is_null() {
                return String::new();
            }
            CStr::from_ptr(sys::rd_kafka_topic_name(self.raw.rkt))
                .to_string_lossy()
                .into_owned()
        }
    }

    /// The partition it is from.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        PartitionId(self.raw.partition)
    }

    /// Its own offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.raw.offset)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&'b [u8]> {
        // SAFETY: librdkafka sets pointer and length together; the bytes live as long as the message.
        unsafe { slice(self.raw.key, self.raw.key_len) }
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> Option<&'b [u8]> {
        // SAFETY: as for the key.
        unsafe { slice(self.raw.payload, self.raw.len) }
    }

    /// Its timestamp with what it means.
    #[must_use]
    pub fn timestamp(&self) -> RecordTimestamp {
        use sys::rd_kafka_timestamp_type_t as Kind;
        let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a live message.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.raw, &raw mut kind) };
        super::record_timestamp(
            millis,
            match kind {
                Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => None,
                Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME => Some(RecordTimestamp::Create),
                Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Some(RecordTimestamp::LogAppend),
            },
        )
    }

    /// Appends its headers to `out`, in order. One whose name is not UTF-8, which Kafka requires, is left out.
    pub fn headers(&self, out: &mut Vec<HeaderRef<'b>>) {
        let mut headers = ptr::null_mut();
        // SAFETY: a live message; the headers it yields belong to it.
        if unsafe { sys::rd_kafka_message_headers(self.raw, &raw mut headers) } != NO_ERROR {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: live headers; past the last one the call says so. Name and value live as long as the message.
            let name = unsafe {
                if sys::rd_kafka_header_get_all(
                    headers,
                    index,
                    &raw mut name,
                    &raw mut value,
                    &raw mut len,
                ) != NO_ERROR
                {
                    break;
                }
                CStr::from_ptr::<'b>(name)
            };
            if let Ok(name) = name.to_str() {
                // SAFETY: pointer and length of one header value.
                out.push((name, unsafe { slice(value, len) }));
            }
        }
    }
}

/// # Safety
/// `start` is null or points to `len` bytes that live for `'b`.
unsafe fn slice<'b>(start: *const c_void, len: usize) -> Option<&'b [u8]> {
    // SAFETY: by the contract above.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// Which offset of a partition is asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The log end offset (isolation `read_uncommitted`: the broker's replicated end).
    Latest,
    /// The offset of the record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first offset with a timestamp at or after this instant (not before 1970).
    At(EventTime),
}

impl OffsetSpec {
    fn raw(self) -> i64 {
        use sys::rd_kafka_OffsetSpec_t as Spec;
        match self {
            Self::Earliest => Spec::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
            Self::Latest => Spec::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
            Self::MaxTimestamp => Spec::RD_KAFKA_OFFSET_SPEC_MAX_TIMESTAMP as i64,
            Self::At(instant) => instant.millis().max(0),
        }
    }
}

/// What a partition answered to ListOffsets; `offset` is `None` where there is no such record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The partition.
    pub partition: PartitionId,
    /// The offset asked for, or what the partition's broker answered instead.
    pub offset: Result<Option<Offset>, RDKafkaErrorCode>,
}

/// An answer to one of the questions of an [`AdminQueue`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// The tag that the question was given.
    pub tag: usize,
    /// What was answered.
    pub body: Result<AnswerBody, RDKafkaErrorCode>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub enum AnswerBody {
    /// To [`AdminQueue::ask_offsets`].
    Offsets(Vec<ListedOffset>),
    /// To [`AdminQueue::ask_topic`].
    Topic(DescribedTopic),
    /// To [`AdminQueue::ask_group`]: what may be done with it; `None` where the cluster does not tell.
    Group(Option<Vec<Operation>>),
}

/// Questions to the cluster that do not wait for their answers.
pub struct AdminQueue<C: ConsumerContext + 'static> {
    // Declared, so dropped, before the client.
    queue: Queue,
    client: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext + 'static> AdminQueue<C> {
    /// A queue for the answers to `client`.
    #[must_use]
    pub fn new(client: Arc<BaseConsumer<C>>) -> Self {
        // SAFETY: the `Arc` beside the queue keeps the handle alive until after the queue is destroyed.
        let queue = unsafe { Queue::new(client.client().native_ptr()) };
        Self { queue, client }
    }

    /// Asks for an offset of each of `partitions`, isolation `read_uncommitted`: one request to each of their leaders.
    pub fn ask_offsets(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        spec: OffsetSpec,
        timeout: Duration,
        tag: usize,
    ) {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(topic, partition.0);
        }
        let options = Options::new(
            self.client.client(),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            tag,
        );
        // SAFETY: live client, list, options and queue; librdkafka copies list and options before it returns.
        unsafe {
            for index in 0..list.count() {
                // Set here: the safe setter reads negative numbers as its own, other special offsets.
                let elements = (*list.ptr()).elems;
                (*elements.add(index)).offset = spec.raw();
            }
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(
                options.0.as_ptr(),
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
            );
            debug_assert!(error.is_null(), "ListOffsets takes an isolation level");
            sys::rd_kafka_ListOffsets(
                self.client.client().native_ptr(),
                list.ptr(),
                options.0.as_ptr(),
                self.queue.raw(),
            );
        }
    }

    /// The next answer, waiting for it at most `timeout`.
    #[must_use]
    pub fn answer(&self, timeout: Duration) -> Option<Answer> {
        // SAFETY: a live queue; the event is ours and destroyed by `Event`'s drop, after everything was copied out.
        let event = Event(NonNull::new(unsafe {
            sys::rd_kafka_queue_poll(self.queue.raw(), millis(timeout))
        })?);
        // SAFETY: a live event.
        let (tag, error, kind) = unsafe {
            (
                sys::rd_kafka_event_opaque(event.raw()) as usize,
                sys::rd_kafka_event_error(event.raw()),
                sys::rd_kafka_event_type(event.raw()),
            )
        };
        if error != NO_ERROR {
            return Some(Answer {
                tag,
                body: Err(error.into()),
            });
        }
        let body = match kind {
            sys::RD_KAFKA_EVENT_LISTOFFSETS_RESULT => Ok(AnswerBody::Offsets(event.offsets())),
            sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT => event.topic().map(AnswerBody::Topic),
            sys::RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT => {
                event.group().map(AnswerBody::Group)
            }
            _ => Err(RDKafkaErrorCode::InvalidArgument),
        };
        Some(Answer { tag, body })
    }
}

struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    fn new<C: ClientContext>(
        client: &Client<C>,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
        tag: usize,
    ) -> Self {
        let mut text = [0; 256];
        // SAFETY: live client; the options are destroyed by drop; `text` has the length that is passed.
        unsafe {
            let raw = sys::rd_kafka_AdminOptions_new(client.native_ptr(), operation);
            let options = Self(NonNull::new(raw).expect("the operation is known to librdkafka"));
            sys::rd_kafka_AdminOptions_set_request_timeout(
                raw,
                millis(timeout),
                text.as_mut_ptr(),
                text.len(),
            );
            sys::rd_kafka_AdminOptions_set_opaque(raw, tag as *mut c_void);
            options
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    fn raw(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    fn offsets(&self) -> Vec<ListedOffset> {
        let mut count = 0;
        // SAFETY: a ListOffsets event; the array and what it points to live as long as the event.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(self.raw());
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            (0..count)
                .map(|index| {
                    let place =
                        &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
                    ListedOffset {
                        partition: PartitionId(place.partition),
                        offset: match place.err {
                            NO_ERROR => Ok((place.offset >= 0).then_some(Offset(place.offset))),
                            error => Err(error.into()),
                        },
                    }
                })
                .collect()
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: polled from our queue, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.raw()) }
    }
}

/// Settings of a mock cluster that the safe wrapper does not reach.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MockTuning {
    /// How long a new consumer group waits for more members (the mock's own default is 3 s).
    GroupInitialRebalanceDelay(Duration),
    /// The next request of this kind (Kafka's ApiKey) to this broker is answered after this time, with no error.
    DelayRequest {
        /// The broker.
        broker: i32,
        /// Kafka's number of the request kind.
        api_key: i16,
        /// The round trip of that one request.
        rtt: Duration,
    },
}

/// Raises a fatal error in a client, as a broker that fences it off does.
#[cfg(test)]
pub(super) fn raise_fatal_error<C: ClientContext>(client: &Client<C>) {
    // SAFETY: a live client and a C string.
    unsafe {
        sys::rd_kafka_test_fatal_error(
            client.native_ptr(),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            c"raised by a test".as_ptr(),
        );
    }
}

/// Tunes the mock cluster that `client` runs (`test.mock.num.brokers`); false where it runs none.
pub fn tune_mock<C: ClientContext>(client: &Client<C>, tuning: MockTuning) -> bool {
    // SAFETY: a live client, which owns the cluster that it hands out; the pointer is not kept.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if cluster.is_null() {
            return false;
        }
        match tuning {
            MockTuning::GroupInitialRebalanceDelay(delay) => {
                sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, millis(delay));
            }
            MockTuning::DelayRequest {
                broker,
                api_key,
                rtt,
            } => {
                let none: std::ffi::c_int = 0;
                sys::rd_kafka_mock_broker_push_request_error_rtts(
                    cluster,
                    broker,
                    api_key,
                    1,
                    none,
                    millis(rtt),
                );
            }
        }
        true
    }
}
