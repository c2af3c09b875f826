//! Producing at the least cost that librdkafka has: topics that are looked up once, headers in a list of the right size,
//! and delivery reports taken a whole answer of the broker at a time, by the thread that sends: so the memory of a record
//! is freed where it was allocated, which costs a fifth of freeing it elsewhere, and no thread is woken for each answer.
//!
//! rdkafka's own producer finds the topic by its name for each record, under a lock that excludes the client's threads,
//! and hands out each report by itself.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::{Event, MessageRef, NO_ERROR, Queue, millis};
use crate::partition::PartitionId;
use crate::telemetry::{HeaderRef, RecordTimestamp};

/// Takes the delivery reports of a [`ReportingProducer`].
pub trait Reports: ProducerContext<DeliveryOpaque = usize> {
    /// Takes the reports of one answer of a broker.
    fn delivered<'e>(&self, reports: impl ExactSizeIterator<Item = Report<'e>>);
}

/// What became of a record.
pub struct Report<'e>(MessageRef<'e>);

impl Report<'_> {
    /// Why it was not delivered, if it was not.
    #[must_use]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        self.0.error()
    }

    /// [`Produced::opaque`].
    #[must_use]
    pub fn opaque(&self) -> usize {
        self.0.opaque()
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> String {
        self.0.topic()
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.0.partition()
    }

    /// Its timestamp, as the broker has it.
    #[must_use]
    pub fn timestamp(&self) -> RecordTimestamp {
        self.0.timestamp()
    }

    /// The headers that it was given; only once, and not where it was given none.
    #[must_use]
    pub fn take_headers(&self) -> Option<Headers> {
        let mut raw = ptr::null_mut();
        // SAFETY: a live message of a producer. The call takes the list out of what stands behind the message that is lent
        // here, so nothing that a reference to it covers is written. That only reports have it is on purpose: what a consumer
        // reads of a message's headers would end with its list.
        unsafe {
            let message = ptr::from_ref(self.0.raw).cast_mut();
            sys::rd_kafka_message_detach_headers(message, &raw mut raw);
        }
        NonNull::new(raw).map(|raw| Headers { raw })
    }
}

/// A producer whose reports come many at once.
pub struct ReportingProducer<R: Reports + 'static> {
    producer: Arc<BaseProducer<R>>,
    served: Served<R>,
}

impl<R: Reports + 'static> ReportingProducer<R> {
    /// This producer, whose reports [`Self::serve`] serves.
    #[must_use]
    pub fn new(producer: BaseProducer<R>) -> Self {
        let producer = Arc::new(producer);
        let served = Served {
            // SAFETY: a live handle, which the producer beside the queue keeps alive; the queue is a counted reference.
            queue: Queue {
                raw: NonNull::new(unsafe {
                    sys::rd_kafka_queue_get_main(producer.client().native_ptr())
                })
                .expect("a client has a main queue"),
            },
            producer: Arc::clone(&producer),
        };
        Self { producer, served }
    }

    /// Serves what reports and errors there are. An abort of a transaction waits until this was done elsewhere.
    pub fn serve(&mut self) {
        while self.served.serve() {}
    }

    /// The producer, for all but sending.
    #[must_use]
    pub fn base(&self) -> &Arc<BaseProducer<R>> {
        &self.producer
    }

    /// A topic of this producer; `None` where librdkafka takes the name for none.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<ProducerTopic<R>> {
        let text = CString::new(name).ok()?;
        // SAFETY: a live handle and a C string; without a configuration the topic has the producer's.
        let raw = unsafe {
            sys::rd_kafka_topic_new(
                self.producer.client().native_ptr(),
                text.as_ptr(),
                ptr::null_mut(),
            )
        };
        Some(ProducerTopic {
            raw: NonNull::new(raw)?,
            producer: Arc::clone(&self.producer),
        })
    }
}

/// Sends what lingers in a producer, and waits until nothing is in flight and all reports are served, at most so long.
///
/// It serves none of them; rdkafka's own flush does, and in steps of 100 ms.
pub fn flush<R: ProducerContext>(producer: &BaseProducer<R>, at_most: Duration) {
    // SAFETY: a live producer. Where time runs out it says so, which the reports tell better.
    unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), millis(at_most)) };
}

/// What is served.
struct Served<R: Reports + 'static> {
    // Declared, so dropped, before the producer.
    queue: Queue,
    producer: Arc<BaseProducer<R>>,
}

impl<R: Reports + 'static> Served<R> {
    /// Serves one event; whether there was one.
    fn serve(&self) -> bool {
        // SAFETY: a live queue; the event is ours, and destroyed by `Event`'s drop.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.raw(), 0) };
        let Some(event) = NonNull::new(event).map(Event) else {
            return false;
        };
        // SAFETY: a live event.
        match unsafe { sys::rd_kafka_event_type(event.raw()) } {
            sys::RD_KAFKA_EVENT_DR => {
                let mut slots = Vec::new();
                // SAFETY: a live event; the messages that it lends live as long as it does, and `slots` has room for
                // all of them.
                unsafe {
                    let count = sys::rd_kafka_event_message_count(event.raw());
                    slots.reserve_exact(count);
                    let filled =
                        sys::rd_kafka_event_message_array(event.raw(), slots.as_mut_ptr(), count);
                    slots.set_len(filled);
                }
                // SAFETY: as above; the references end with this call.
                let reports = slots.into_iter().map(|raw| {
                    Report(MessageRef {
                        raw: unsafe { &*raw },
                    })
                });
                self.producer.context().delivered(reports);
            }
            sys::RD_KAFKA_EVENT_ERROR => {
                // SAFETY: a live event, its text lives as long as it does.
                let (code, text) = unsafe {
                    (
                        sys::rd_kafka_event_error(event.raw()),
                        CStr::from_ptr(sys::rd_kafka_event_error_string(event.raw())),
                    )
                };
                let error = KafkaError::Global(code.into());
                self.producer
                    .context()
                    .error(error, text.to_string_lossy().trim());
            }
            // Statistics, which nobody asked for, and token refreshes, which librdkafka does by itself.
            _ => {}
        }
        true
    }
}

/// A topic, found once, of a producer.
pub struct ProducerTopic<R: Reports + 'static> {
    raw: NonNull<sys::rd_kafka_topic_t>,
    producer: Arc<BaseProducer<R>>,
}

// SAFETY: a topic handle may be used from any thread, like the client it belongs to.
unsafe impl<R: Reports + 'static> Send for ProducerTopic<R> {}

impl<R: Reports + 'static> Drop for ProducerTopic<R> {
    fn drop(&mut self) {
        // SAFETY: from `rd_kafka_topic_new`, destroyed once, before the producer.
        unsafe { sys::rd_kafka_topic_destroy(self.raw.as_ptr()) }
    }
}

/// A record to produce; key and value are copied.
#[derive(Copy, Clone, Debug)]
pub struct Produced<'a> {
    /// Comes back with its report.
    pub opaque: usize,
    /// Its partition; `None` = the client's partitioner decides.
    pub partition: Option<PartitionId>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its timestamp in milliseconds; `None` = now.
    pub timestamp: Option<i64>,
}

impl<R: Reports + 'static> ProducerTopic<R> {
    /// Queues a record, and takes its headers; never blocks.
    ///
    /// # Errors
    /// Why it was not queued; the headers are left where they are.
    pub fn produce(
        &self,
        record: &Produced<'_>,
        headers: &mut Option<Headers>,
    ) -> Result<(), RDKafkaErrorCode> {
        use sys::rd_kafka_vtype_t as Part;
        let part = |bytes: Option<&[u8]>| {
            bytes.map_or((ptr::null(), 0), |bytes| {
                (bytes.as_ptr().cast::<c_void>(), bytes.len())
            })
        };
        let (key, key_len) = part(record.key);
        let (value, value_len) = part(record.value);
        // SAFETY: live producer, topic and headers; each part is followed by what `rdkafka.h` says, of that type. With
        // F_COPY key and value are only read, during the call.
        let error = unsafe {
            sys::rd_kafka_producev(
                self.producer.client().native_ptr(),
                Part::RD_KAFKA_VTYPE_RKT,
                self.raw.as_ptr(),
                Part::RD_KAFKA_VTYPE_PARTITION,
                record.partition.map_or(UNASSIGNED, |partition| partition.0),
                Part::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                Part::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Part::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Part::RD_KAFKA_VTYPE_OPAQUE,
                record.opaque as *mut c_void,
                Part::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp.unwrap_or(0),
                Part::RD_KAFKA_VTYPE_HEADERS,
                headers
                    .as_ref()
                    .map_or(ptr::null_mut(), |headers| headers.raw.as_ptr()),
                Part::RD_KAFKA_VTYPE_END,
            )
        };
        if error == NO_ERROR {
            // They are the message's now.
            std::mem::forget(headers.take());
            Ok(())
        } else {
            Err(error.into())
        }
    }
}

/// librdkafka's word for a partition that its partitioner is to choose (`RD_KAFKA_PARTITION_UA`).
const UNASSIGNED: i32 = -1;

/// Headers of a record to produce.
pub struct Headers {
    raw: NonNull<sys::rd_kafka_headers_t>,
}

// SAFETY: a list of its own, of memory that belongs to no thread.
unsafe impl Send for Headers {}

impl Headers {
    /// A list of these headers, `count` of them: it is allocated once.
    pub fn new<'a>(count: usize, headers: impl Iterator<Item = HeaderRef<'a>>) -> Self {
        // SAFETY: librdkafka allocates with an abort on failure: never null.
        let raw = unsafe { sys::rd_kafka_headers_new(count) };
        let list = Self {
            raw: NonNull::new(raw).expect("rd_kafka_headers_new returns a list"),
        };
        for (name, value) in headers {
            let (start, len) = value.map_or((ptr::null(), 0), |value| {
                (value.as_ptr().cast::<c_void>(), value.len())
            });
            // SAFETY: a live list, pointers with their lengths; both are copied.
            let error = unsafe {
                sys::rd_kafka_header_add(
                    list.raw.as_ptr(),
                    name.as_ptr().cast::<c_char>(),
                    name.len().cast_signed(),
                    start,
                    len.cast_signed(),
                )
            };
            debug_assert!(error == NO_ERROR, "a list of our own can be written to");
        }
        list
    }

    /// Which list it is, as long as it lives.
    pub(in crate::kafka) const fn identity(&self) -> NonNull<c_void> {
        self.raw.cast()
    }

    /// Where the value of the header at `place` stands, as long as the list lives and nothing is added to it or removed.
    pub(super) fn value_at(&self, place: usize) -> Option<NonNull<u8>> {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: a live list; the three are written where there is such a header.
        unsafe {
            sys::rd_kafka_header_get_all(
                self.raw.as_ptr(),
                place,
                &raw mut name,
                &raw mut value,
                &raw mut len,
            );
        }
        NonNull::new(value.cast_mut().cast())
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once: a list that a message took over is forgotten.
        unsafe { sys::rd_kafka_headers_destroy(self.raw.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::admin::Admin;
    use crate::kafka::client::Settings;
    use crate::kafka::ffi::noting::{noting, wait_for};
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::reader::TopicReader;

    #[test]
    fn what_was_produced_is_read_back_and_each_record_is_reported_once() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 2).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let (mut producer, seen) = noting(&settings.producer(100_000, 1 << 26));
        let topic = producer.topic("t").unwrap();
        for number in 0..2_000 {
            let record = Produced {
                opaque: number,
                partition: Some(PartitionId((number % 2) as i32)),
                key: (number % 3 != 0).then_some(&b"key"[..]),
                value: (number % 5 != 0).then_some(&b"value"[..]),
                timestamp: Some(1_000 + number as i64),
            };
            let ours: [HeaderRef<'_>; 3] = [("a", Some(b"1")), ("b", None), ("a", Some(b""))];
            let mut headers = (number % 7 != 0).then(|| Headers::new(3, ours.into_iter()));
            topic.produce(&record, &mut headers).unwrap();
            assert!(headers.is_none(), "the record took them");
        }
        wait_for(&mut producer, &seen, 2_000);
        let mut reported = std::mem::take(&mut *seen.lock().unwrap());
        reported.sort_unstable_by_key(|one| one.opaque);
        for (number, one) in reported.iter().enumerate() {
            let report = (one.opaque, one.error, one.topic.as_str());
            assert_eq!(report, (number, None, "t"));
        }

        let admin = Admin::new(&settings, Duration::from_secs(10)).unwrap();
        let mut read = 0;
        TopicReader::all(&settings, &admin, "t")
            .unwrap()
            .read_all(Duration::from_secs(20), |record| {
                let number = record.timestamp.instant().unwrap().millis() - 1_000;
                assert_eq!(record.partition.0, (number % 2) as i32);
                assert_eq!(record.key.is_none(), number % 3 == 0, "{number}");
                assert_eq!(record.value.is_none(), number % 5 == 0, "{number}");
                let three: &[HeaderRef<'_>] = &[("a", Some(b"1")), ("b", None), ("a", Some(b""))];
                let none: &[HeaderRef<'_>] = &[];
                assert_eq!(record.headers, if number % 7 == 0 { none } else { three });
                read += 1;
            })
            .unwrap();
        assert_eq!(read, 2_000);
    }

    #[test]
    fn a_record_that_is_not_taken_leaves_its_headers_and_one_that_fails_is_reported_with_why() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 1).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let mut config = settings.producer(100_000, 1 << 26);
        config.set("message.max.bytes", "1000");
        let (mut producer, seen) = noting(&config);
        let topic = producer.topic("t").unwrap();
        let record = |opaque, value| Produced {
            opaque,
            partition: Some(PartitionId(0)),
            key: None,
            value: Some(value),
            timestamp: None,
        };
        let mut headers = Some(Headers::new(1, [("a", Some(&b"1"[..]))].into_iter()));
        let refused = topic.produce(&record(1, &[b'x'; 2_000]), &mut headers);
        assert_eq!(refused, Err(RDKafkaErrorCode::MessageSizeTooLarge));
        assert!(headers.is_some(), "for another try");
        topic.produce(&record(2, b"small"), &mut headers).unwrap();
        wait_for(&mut producer, &seen, 1);

        // Its leader takes nothing any more: the record is purged.
        cluster.controls().broker_down(1).unwrap();
        topic.produce(&record(3, b"small"), &mut None).unwrap();
        let all = rdkafka::producer::PurgeConfig::default().queue().inflight();
        producer.base().purge(all);
        wait_for(&mut producer, &seen, 2);
        let reports = seen.lock().unwrap();
        assert_eq!((reports[0].opaque, reports[0].error), (2, None));
        assert_eq!(reports[1].opaque, 3);
        assert!(
            matches!(
                reports[1].error,
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            ),
            "{:?}",
            reports[1].error
        );
    }
}
