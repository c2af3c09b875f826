//! Reads partitions of a topic, assigned by hand and without a trace in the group: for commands and the audit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as RawOffset, TopicPartitionList};

use super::admin::{Admin, End};
use super::client::{Logged, PlainConsumer, Settings, create};
use super::ffi::SharedQueue;
use super::{EdgeError, is_transient};
use crate::clock::Clock;
use crate::partition::{Offset, OffsetRange, PartitionId};
use crate::telemetry::RecordRef;

const BATCH: usize = 1_000;

/// Reads ranges of a topic's partitions; with no end, it follows them.
pub struct TopicReader {
    topic: String,
    queue: SharedQueue<Logged>,
    /// Where each partition is: the larger of its next offset and its last end of partition.
    positions: BTreeMap<PartitionId, Offset>,
    ends: BTreeMap<PartitionId, Offset>,
}

impl TopicReader {
    /// Reads each partition's range.
    ///
    /// # Errors
    /// [`EdgeError::Settings`], or an assignment that librdkafka refuses.
    pub fn ranges(
        settings: &Settings,
        topic: &str,
        ranges: &[(PartitionId, OffsetRange)],
    ) -> Result<Self, EdgeError> {
        let starts: Vec<_> = ranges.iter().map(|(id, range)| (*id, range.from)).collect();
        let mut reader = Self::following(settings, topic, &starts)?;
        reader.ends = ranges.iter().map(|(id, range)| (*id, range.to)).collect();
        Ok(reader)
    }

    /// Reads all that the topic holds now and `read_committed` may see.
    ///
    /// # Errors
    /// As for [`Self::ranges`]; no such topic; no answer.
    pub fn all(settings: &Settings, admin: &Admin, topic: &str) -> Result<Self, EdgeError> {
        let partitions = admin.existing(topic)?.ids();
        Self::ranges(
            settings,
            topic,
            &admin.offsets(topic, &partitions, End::Stable)?,
        )
    }

    /// Reads each partition from its offset on, for ever.
    ///
    /// # Errors
    /// As for [`Self::ranges`].
    pub fn following(
        settings: &Settings,
        topic: &str,
        starts: &[(PartitionId, Offset)],
    ) -> Result<Self, EdgeError> {
        let mut config = settings.tool_consumer();
        // An end of partition says that there is nothing more, also where compaction took the last records (DESIGN 4).
        config.set("enable.partition.eof", "true");
        let consumer: PlainConsumer = create(&config, Logged::default())?;
        let queue = SharedQueue::new(Arc::new(consumer), BATCH);
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (partition, offset) in starts {
            queue.forward(topic, *partition);
            list.add_partition_offset(topic, partition.0, RawOffset::Offset(offset.0))
                .map_err(EdgeError::cluster(format!("read topic `{topic}`")))?;
        }
        queue
            .consumer()
            .assign(&list)
            .map_err(EdgeError::cluster(format!("read topic `{topic}`")))?;
        Ok(Self {
            topic: topic.to_owned(),
            queue,
            positions: starts.iter().copied().collect(),
            ends: BTreeMap::new(),
        })
    }

    /// Where each partition is: the next offset to read; everything below it was handed out, or is not there.
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<PartitionId, Offset> {
        &self.positions
    }

    /// Whether every range is read to its end. A reader that follows has none.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.ends.is_empty()
            && self
                .ends
                .iter()
                .all(|(id, end)| self.positions.get(id).is_some_and(|at| at >= end))
    }

    /// Hands the records at hand to `each`, waiting at most `timeout` for the first; returns how many they were.
    /// Records past the end of a range are left out.
    ///
    /// # Errors
    /// What no waiting mends.
    pub fn poll(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(&RecordRef<'_>),
    ) -> Result<usize, EdgeError> {
        let doing = || format!("read topic `{}`", self.topic);
        if let Some(Err(error)) = self.queue.consumer().poll(Duration::ZERO)
            && !error.rdkafka_error_code().is_some_and(is_transient)
        {
            return Err(EdgeError::cluster(doing())(error));
        }
        let batch = self.queue.take(BATCH, timeout);
        let mut headers = Vec::new();
        let mut count = 0;
        for message in batch.messages() {
            let (partition, offset) = (message.partition(), message.offset());
            let position = self.positions.entry(partition).or_insert(offset);
            match message.error() {
                None => {}
                Some(RDKafkaErrorCode::PartitionEOF) => {
                    *position = (*position).max(offset);
                    continue;
                }
                Some(code) if is_transient(code) => continue,
                Some(code) => {
                    return Err(EdgeError::cluster(doing())(KafkaError::MessageConsumption(
                        code,
                    )));
                }
            }
            *position = (*position).max(offset.next());
            if self.ends.get(&partition).is_some_and(|end| offset >= *end) {
                continue;
            }
            headers.clear();
            message.headers(&mut headers);
            each(&RecordRef {
                partition,
                offset,
                timestamp: message.timestamp(),
                key: message.key(),
                value: message.value(),
                headers: &headers,
            });
            count += 1;
        }
        Ok(count)
    }

    /// Reads every range to its end. Nothing new for `patience` is an error.
    ///
    /// # Errors
    /// As for [`Self::poll`]; [`EdgeError::TimedOut`].
    pub fn read_all(
        mut self,
        patience: Duration,
        mut each: impl FnMut(&RecordRef<'_>),
    ) -> Result<(), EdgeError> {
        let mut last = (Clock::mono(), self.positions.clone());
        while !self.is_complete() && !self.ends.is_empty() {
            self.poll(Duration::from_millis(100), &mut each)?;
            let now = Clock::mono();
            if self.positions != last.1 {
                last = (now, self.positions.clone());
            } else if now.since(last.0) > patience {
                return Err(EdgeError::TimedOut(format!("read topic `{}`", self.topic)));
            }
        }
        Ok(())
    }
}
