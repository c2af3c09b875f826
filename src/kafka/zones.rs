//! Reads the zones topic: partitions assigned by hand, from the start, `read_committed`, never committing (DESIGN 2).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as RawOffset, TopicPartitionList};

use super::client::{Logged, PlainConsumer, Settings, create};
use super::ffi::SharedQueue;
use super::{EdgeError, is_transient};
use crate::partition::{Offset, PartitionId};
use crate::telemetry::RecordRef;

const BATCH: usize = 500;

/// What is met in the log.
#[derive(Clone, Debug)]
pub enum ZoneEvent<'a> {
    /// A record.
    Record(RecordRef<'a>),
    /// The end of a partition, once per end. It may stand above what the records say: markers and holes.
    End {
        /// Which.
        partition: PartitionId,
        /// The offset of the end.
        next_offset: Offset,
    },
    /// The position is no longer in the log.
    OutOfRange(PartitionId),
}

/// The consumer of the zones topic.
pub struct ZoneConsumer {
    queue: SharedQueue<Logged>,
    topic: String,
}

impl ZoneConsumer {
    /// A consumer that reads nothing yet.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(settings: &Settings, topic: &str) -> Result<Self, EdgeError> {
        let consumer: PlainConsumer = create(&settings.zones_consumer(), Logged::default())?;
        Ok(Self {
            queue: SharedQueue::new(Arc::new(consumer), BATCH),
            topic: topic.to_owned(),
        })
    }

    /// Reads these partitions from their beginning; what was read before is dropped, also what is under way.
    ///
    /// # Errors
    /// What the client says against it.
    pub fn read_from_start(&self, partitions: &[PartitionId]) -> Result<(), EdgeError> {
        let doing = || format!("read topic `{}`", self.topic);
        let forward_all = || {
            for partition in partitions {
                self.queue.forward(&self.topic, *partition);
            }
        };
        let consumer = self.queue.consumer();
        consumer.unassign().map_err(EdgeError::cluster(doing()))?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(&self.topic, partition.0, RawOffset::Beginning)
                .map_err(EdgeError::cluster(doing()))?;
        }
        // Twice. Before: else the first assignment of all sends records to the consumer's own queue. And after: the stop
        // of what was assigned until now runs behind `unassign`, on the client's thread, and takes the forwarding away
        // (`rd_kafka_toppar_fetch_stop`); only `assign` is answered behind it. What came in between is moved here.
        forward_all();
        consumer
            .assign(&list)
            .map_err(EdgeError::cluster(doing()))?;
        forward_all();
        Ok(())
    }

    /// Serves the client's own events; to be called in every turn, also while nothing is taken (I9).
    ///
    /// # Errors
    /// What no waiting mends.
    pub fn serve(&self) -> Result<(), EdgeError> {
        match self.queue.consumer().poll(Duration::ZERO) {
            // A partition's forwarding was lost: to drop its record would be to lose it.
            Some(Ok(_)) => Err(EdgeError::cluster(format!(
                "read topic `{}` past the shared queue",
                self.topic
            ))(KafkaError::MessageConsumption(
                RDKafkaErrorCode::State,
            ))),
            Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_transient) => Err(
                EdgeError::cluster(format!("read topic `{}`", self.topic))(error),
            ),
            _ => Ok(()),
        }
    }

    /// Hands what is at hand to `all`, in order, waiting at most `timeout` for the first.
    ///
    /// # Errors
    /// What no waiting mends.
    pub fn take<T>(
        &mut self,
        timeout: Duration,
        all: impl FnOnce(&[ZoneEvent<'_>]) -> T,
    ) -> Result<T, EdgeError> {
        let batch = self.queue.take(BATCH, timeout);
        // All headers first: records lend their parts of them.
        let mut headers = Vec::new();
        let mut ends = Vec::with_capacity(BATCH);
        for message in batch.messages() {
            if message.error().is_none() {
                message.headers(&mut headers);
            }
            ends.push(headers.len());
        }
        let mut events = Vec::with_capacity(ends.len());
        let mut begin = 0;
        for (message, end) in batch.messages().zip(ends) {
            let (partition, offset) = (message.partition(), message.offset());
            match message.error() {
                None => events.push(ZoneEvent::Record(RecordRef {
                    partition,
                    offset,
                    timestamp: message.timestamp(),
                    key: message.key(),
                    value: message.value(),
                    headers: &headers[begin..end],
                })),
                Some(RDKafkaErrorCode::PartitionEOF) => events.push(ZoneEvent::End {
                    partition,
                    next_offset: offset,
                }),
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    events.push(ZoneEvent::OutOfRange(partition));
                }
                Some(code) if is_transient(code) => {}
                Some(code) => {
                    let doing = format!("read partition {partition} of topic `{}`", self.topic);
                    return Err(EdgeError::cluster(doing)(KafkaError::MessageConsumption(
                        code,
                    )));
                }
            }
            begin = end;
        }
        Ok(all(&events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::writer::{Outgoing, TopicWriter};

    #[test]
    fn read_from_the_start_again_and_again_each_record_is_met_each_time() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("zones", 3).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let writer = TopicWriter::new(&settings).unwrap();
        for number in 0..6 {
            let record = Outgoing {
                topic: "zones",
                partition: Some(PartitionId(number % 3)),
                value: Some(b"{}"),
                ..Outgoing::default()
            };
            assert!(writer.send(&record, 0).unwrap());
            let receipt = writer.receipt(Duration::from_secs(20)).unwrap();
            receipt.outcome.unwrap();
        }
        let mut reader = ZoneConsumer::new(&settings, "zones").unwrap();
        let partitions: Vec<_> = (0..3).map(PartitionId).collect();
        for round in 0..40 {
            reader.read_from_start(&partitions).unwrap();
            let mut met = [0; 3];
            let begun = Clock::mono();
            while met != [2; 3] {
                reader.serve().unwrap();
                reader
                    .take(Duration::from_millis(10), |events| {
                        for event in events {
                            if let ZoneEvent::Record(record) = event {
                                met[record.partition.0 as usize] += 1;
                            }
                        }
                    })
                    .unwrap();
                let waited = Clock::mono().since(begun);
                assert!(waited < Duration::from_secs(20), "round {round}: {met:?}");
            }
        }
    }
}
