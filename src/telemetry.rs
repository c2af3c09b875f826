//! Domain values of the telemetry side: a record as the source hands it over, and what the pipeline reads of it.

use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::time::EventTime;

/// A Kafka record timestamp with what it means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RecordTimestamp {
    /// The record has none.
    Missing,
    /// Set by the producer: says nothing about when the record was stored.
    Create(EventTime),
    /// Set by the broker when it stored the record: nothing happens after it.
    LogAppend(EventTime),
}

impl RecordTimestamp {
    /// The instant, whoever set it.
    #[must_use]
    pub fn instant(self) -> Option<EventTime> {
        match self {
            Self::Missing => None,
            Self::Create(at) | Self::LogAppend(at) => Some(at),
        }
    }
}

/// A header of a record: its name and its value, which Kafka allows to be null.
pub type HeaderRef<'a> = (&'a str, Option<&'a [u8]>);

/// A record as the source lends it for the length of one batch.
#[derive(Copy, Clone, Debug)]
pub struct RecordRef<'a> {
    /// The telemetry partition it is in.
    pub partition: PartitionId,
    /// Its own offset.
    pub offset: Offset,
    /// Its Kafka timestamp.
    pub timestamp: RecordTimestamp,
    /// Its key: the entity.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` = null.
    pub value: Option<&'a [u8]>,
    /// Its headers in order.
    pub headers: &'a [HeaderRef<'a>],
}

impl RecordRef<'_> {
    /// Where it stands in its topic.
    #[must_use]
    pub fn position(&self) -> RecordPosition {
        RecordPosition {
            partition: self.partition,
            offset: self.offset,
        }
    }

    /// Bytes of key, value and headers: what the queue bounds count.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + self
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
                .sum::<usize>()
    }
}

/// A header that is kept.
pub type OwnedHeader = (Box<str>, Option<Box<[u8]>>);

/// A record that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its Kafka timestamp.
    pub timestamp: RecordTimestamp,
    /// Its key.
    pub key: Option<Box<[u8]>>,
    /// Its value; `None` = null.
    pub value: Option<Box<[u8]>>,
    /// Its headers in order.
    pub headers: Box<[OwnedHeader]>,
}

impl From<&RecordRef<'_>> for OwnedRecord {
    fn from(record: &RecordRef<'_>) -> Self {
        let header = |(name, value): &HeaderRef<'_>| ((*name).into(), value.map(Into::into));
        Self {
            timestamp: record.timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

impl OwnedRecord {
    /// Its headers, lent.
    pub fn headers(&self) -> impl Iterator<Item = HeaderRef<'_>> {
        self.headers
            .iter()
            .map(|(name, value)| (&**name, value.as_deref()))
    }
}

/// Where and when an event happened.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Event {
    /// The event's own time.
    pub time: EventTime,
    /// Degrees east, -180 to 180.
    pub lon: f64,
    /// Degrees north, -90 to 90.
    pub lat: f64,
}
