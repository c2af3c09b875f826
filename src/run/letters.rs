//! The dead letters of the zones side: the record as it came, with what is wrong with it (DESIGN 3).

use std::collections::BTreeMap;

use crate::codec::headers::{DeadLetterHeaders, is_of_dead_letter};
use crate::enriched::output_timestamp;
use crate::kafka::EdgeError;
use crate::kafka::client::Settings;
use crate::kafka::writer::{Outgoing, TopicWriter};
use crate::partition::RecordPosition;
use crate::rejection::Rejection;
use crate::telemetry::{OwnedRecord, RecordTimestamp};
use crate::time::{EventTime, Now};

/// The dead letters of the zones side: once per process, outside any transaction (DESIGN 3).
pub(super) struct Letters {
    writer: TopicWriter,
    topic: String,
    zones_topic: String,
    headers: DeadLetterHeaders,
    /// The longest record that the topic takes.
    max_bytes: usize,
    /// How many were queued so far; numbers the receipts.
    sent: usize,
    failures: BTreeMap<String, u64>,
}

/// What a letter takes beside key, value and headers of its record, at most: the error headers and the batch around it.
const ERROR_BYTES: usize = 2_048;
/// What a header takes beside its name and value.
const HEADER_BYTES: usize = 10;

/// How much of a record fits into a letter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    /// The value, cut to so many bytes.
    Cut(usize),
    /// Nothing: the error headers say where the record is.
    Bare,
}

impl Extent {
    fn of(record: Option<&OwnedRecord>, max_bytes: usize) -> Self {
        let Some(record) = record else {
            return Self::Bare;
        };
        let headers: usize = record
            .headers()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + HEADER_BYTES)
            .sum();
        let frame = record.key.as_ref().map_or(0, |key| key.len()) + headers + ERROR_BYTES;
        let value = record.value.as_ref().map_or(0, |value| value.len());
        match max_bytes.checked_sub(frame) {
            Some(room) if value <= room => Self::Whole,
            Some(room) => Self::Cut(room),
            None => Self::Bare,
        }
    }

    fn truncated(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Cut(_) => Some("value"),
            Self::Bare => Some("key,value,headers"),
        }
    }
}

impl Letters {
    const IN_FLIGHT_MAX: usize = 10_000;

    pub(super) fn new(
        kafka: &Settings,
        topic: &str,
        max_bytes: usize,
        zones_topic: &str,
    ) -> Result<Self, EdgeError> {
        let config = kafka.producer(Self::IN_FLIGHT_MAX, 64 << 20);
        Ok(Self {
            writer: TopicWriter::with_config(&config, Self::IN_FLIGHT_MAX)?,
            topic: topic.to_owned(),
            zones_topic: zones_topic.to_owned(),
            headers: DeadLetterHeaders::new(),
            max_bytes,
            sent: 0,
            failures: BTreeMap::new(),
        })
    }

    pub(super) fn write(
        &mut self,
        position: RecordPosition,
        record: Option<&OwnedRecord>,
        rejection: &Rejection,
        now: Now,
    ) {
        let timestamp = record.map_or(RecordTimestamp::Missing, |record| record.timestamp);
        let extent = Extent::of(record, self.max_bytes);
        let record = record.filter(|_| extent != Extent::Bare);
        let value = record.and_then(|record| record.value.as_deref());
        let value = match extent {
            Extent::Cut(len) => value.map(|value| &value[..len]),
            _ => value,
        };
        self.headers.fill(
            rejection,
            &self.zones_topic,
            position,
            timestamp,
            extent.truncated(),
        );
        let headers: Vec<_> = record
            .into_iter()
            .flat_map(OwnedRecord::headers)
            .filter(|(name, _)| !is_of_dead_letter(name))
            .chain(self.headers.iter().map(|(name, value)| (name, Some(value))))
            .collect();
        let letter = Outgoing {
            topic: &self.topic,
            partition: None,
            key: record.and_then(|record| record.key.as_deref()),
            value,
            timestamp: output_timestamp(timestamp.instant(), now.wall).map(EventTime::millis),
            headers: &headers,
        };
        match self.writer.send(&letter, self.sent) {
            Ok(true) => self.sent += 1,
            // The rejection is in the log, the status and the gauge; the copy is what is lost.
            Ok(false) => tracing::error!(%position, "dead letter not written: too many wait"),
            Err(error) => tracing::error!(%position, %error, "dead letter not written"),
        }
    }

    pub(super) fn take_receipts(&mut self) {
        for receipt in self.writer.receipts() {
            if let Err(error) = receipt.outcome {
                let count = self.failures.entry(error.to_string()).or_insert(0);
                *count += 1;
                if count.is_power_of_two() {
                    tracing::error!(%error, count, "dead letters of zone changes were not written");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fs_42_a_letter_is_cut_to_what_its_topic_takes() {
        let record = OwnedRecord {
            timestamp: RecordTimestamp::Missing,
            key: Some(b"zone".as_slice().into()),
            value: Some(vec![b'x'; 10_000].into()),
            headers: Box::new([("name".into(), Some(b"v".as_slice().into()))]),
        };
        let frame = 4 + 4 + 1 + HEADER_BYTES + ERROR_BYTES;
        let extent = |max| Extent::of(Some(&record), max);
        assert_eq!(extent(frame + 10_000), Extent::Whole);
        assert_eq!(extent(frame + 9_999), Extent::Cut(9_999));
        assert_eq!(extent(frame), Extent::Cut(0));
        assert_eq!(extent(frame - 1), Extent::Bare);
        assert_eq!(Extent::of(None, 1_000_000), Extent::Bare);
    }
}
