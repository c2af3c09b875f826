//! Writes records and says what became of each: for commands, and for the dead letters of the zone reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::client::{Logged, Settings, create};
use super::{EdgeError, timestamp_of};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::telemetry::RecordTimestamp;

/// What became of a record.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The number that the record was given.
    pub tag: usize,
    /// Where it is and its stamp (the broker's own on a LogAppendTime topic), or why it is not.
    pub outcome: Result<(RecordPosition, RecordTimestamp), KafkaError>,
}

/// A record to write.
#[derive(Copy, Clone, Debug, Default)]
pub struct Outgoing<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` = by key, as Java clients do.
    pub partition: Option<PartitionId>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` = null.
    pub value: Option<&'a [u8]>,
    /// The record timestamp in ms; `None` = now.
    pub timestamp: Option<i64>,
    /// The headers in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

struct Receipts {
    logged: Logged,
    sender: Sender<Receipt>,
    in_flight: Arc<AtomicUsize>,
}

impl ClientContext for Receipts {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let outcome = match result {
            Ok(message) => Ok((
                RecordPosition {
                    partition: PartitionId(message.partition()),
                    offset: Offset(message.offset()),
                },
                timestamp_of(message.timestamp()),
            )),
            Err((error, _)) => Err(error.clone()),
        };
        // The writer is gone only when nobody asks any more.
        drop(self.sender.send(Receipt { tag, outcome }));
        self.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// Writes records, at most so many at once, and hands out their receipts.
pub struct TopicWriter {
    producer: ThreadedProducer<Receipts>,
    receipts: Receiver<Receipt>,
    in_flight: Arc<AtomicUsize>,
    in_flight_max: usize,
}

impl TopicWriter {
    /// A writer for commands: a record that cannot be written in a minute fails.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(settings: &Settings) -> Result<Self, EdgeError> {
        Self::with_config(&settings.tool_producer(), 50_000)
    }

    /// A writer with these settings and this bound.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn with_config(config: &ClientConfig, in_flight_max: usize) -> Result<Self, EdgeError> {
        let (sender, receipts) = unbounded();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let context = Receipts {
            logged: Logged::default(),
            sender,
            in_flight: Arc::clone(&in_flight),
        };
        Ok(Self {
            producer: create(config, context)?,
            receipts,
            in_flight,
            in_flight_max: in_flight_max.max(1),
        })
    }

    /// Records sent and not yet answered for.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Queues a record; false where the bound is reached, then take receipts and try again.
    ///
    /// # Errors
    /// A record that librdkafka refuses (too large, no such topic or partition).
    pub fn send(&self, record: &Outgoing<'_>, tag: usize) -> Result<bool, EdgeError> {
        if self.in_flight() >= self.in_flight_max {
            return Ok(false);
        }
        let mut raw: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, tag);
        raw.partition = record.partition.map(|partition| partition.0);
        raw.key = record.key;
        raw.payload = record.value;
        raw.timestamp = record.timestamp;
        raw.headers = owned_headers(record.headers.iter().copied());
        // Counted before it can be answered for.
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        match self.producer.send(raw) {
            Ok(()) => Ok(true),
            Err((error, _)) => {
                self.in_flight.fetch_sub(1, Ordering::AcqRel);
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => Ok(false),
                    _ => Err(EdgeError::cluster(format!(
                        "write to topic `{}`",
                        record.topic
                    ))(error)),
                }
            }
        }
    }

    /// The next receipt, waiting for it at most `timeout`.
    #[must_use]
    pub fn receipt(&self, timeout: Duration) -> Option<Receipt> {
        self.receipts.recv_timeout(timeout).ok()
    }

    /// The receipts at hand.
    pub fn receipts(&self) -> impl Iterator<Item = Receipt> {
        self.receipts.try_iter()
    }

    /// The partition count of a topic as this producer sees it.
    ///
    /// # Errors
    /// No answer, or no such topic.
    pub fn partition_count(&self, topic: &str, timeout: Duration) -> Result<usize, EdgeError> {
        let metadata = self
            .producer
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(EdgeError::cluster(format!("ask for topic `{topic}`")))?;
        let count = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic)
            .map_or(0, |found| found.partitions().len());
        if count == 0 {
            Err(EdgeError::NoSuchTopic(topic.to_owned()))
        } else {
            Ok(count)
        }
    }
}

/// rdkafka's headers; `None` where there is none, so that records without cost nothing.
pub(crate) fn owned_headers<'a>(
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> Option<OwnedHeaders> {
    let mut owned: Option<OwnedHeaders> = None;
    for (key, value) in headers {
        owned = Some(owned.unwrap_or_default().insert(Header { key, value }));
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::admin::Admin;
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::reader::TopicReader;

    #[test]
    fn what_was_written_is_read_back_with_key_value_headers_and_stamp() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 2).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let writer = TopicWriter::new(&settings).unwrap();
        for tag in 0..100 {
            let record = Outgoing {
                topic: "t",
                partition: Some(PartitionId((tag % 2) as i32)),
                key: Some(b"k"),
                value: (tag != 4).then_some(&b"value"[..]),
                timestamp: Some(1_000 + tag as i64),
                headers: &[("a", Some(b"1")), ("b", None)],
            };
            assert!(writer.send(&record, tag).unwrap());
        }
        let mut answered = 0;
        while let Some(receipt) = writer.receipt(Duration::from_secs(20)) {
            assert!(receipt.outcome.is_ok(), "{receipt:?}");
            answered += 1;
            if answered == 100 {
                break;
            }
        }
        assert_eq!(answered, 100);
        let admin = Admin::new(&settings, Duration::from_secs(10)).unwrap();
        let reader = TopicReader::all(&settings, &admin, "t").unwrap();
        let mut seen = Vec::new();
        reader
            .read_all(Duration::from_secs(20), |record| {
                assert_eq!(record.key, Some(&b"k"[..]));
                assert_eq!(record.headers, [("a", Some(&b"1"[..])), ("b", None)]);
                let RecordTimestamp::Create(at) = record.timestamp else {
                    panic!("{record:?}")
                };
                assert_eq!(record.value.is_none(), at.millis() == 1_004);
                seen.push(at.millis());
            })
            .unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (1_000..1_100).collect::<Vec<_>>());
    }
}
