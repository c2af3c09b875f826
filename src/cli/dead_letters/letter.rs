//! A dead letter as its headers tell it.

use crate::codec::headers::{
    self, ERROR_DETAIL, ERROR_OFFSET, ERROR_PARTITION, ERROR_REASON, ERROR_TIMESTAMP, ERROR_TOPIC,
    ERROR_TRUNCATED,
};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::telemetry::{HeaderRef, RecordRef};
use crate::time::EventTime;

/// A letter of Ringfence.
#[derive(Copy, Clone, Debug)]
pub(super) struct Letter<'a> {
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
    /// The topic of the refused record.
    pub(super) topic: &'a str,
    /// Where the refused record is in it.
    pub(super) position: RecordPosition,
    /// The refused record's own.
    pub(super) timestamp: Option<EventTime>,
    /// What was cut to fit.
    pub(super) truncated: Option<&'a str>,
}

impl<'a> Letter<'a> {
    /// `None` = it is none.
    pub(super) fn read(record: &RecordRef<'a>) -> Option<Self> {
        // Ours are the last, whoever else put headers of these names before them.
        let header = |name: &str| {
            let (_, value) = record
                .headers
                .iter()
                .rev()
                .find(|(known, _)| *known == name)?;
            std::str::from_utf8((*value)?).ok()
        };
        Some(Self {
            reason: header(ERROR_REASON)?,
            detail: header(ERROR_DETAIL).unwrap_or_default(),
            topic: header(ERROR_TOPIC)?,
            position: RecordPosition {
                partition: PartitionId(header(ERROR_PARTITION)?.parse().ok()?),
                offset: Offset(header(ERROR_OFFSET)?.parse().ok()?),
            },
            timestamp: header(ERROR_TIMESTAMP)
                .and_then(|millis| EventTime::from_millis(millis.parse().ok()?)),
            truncated: header(ERROR_TRUNCATED),
        })
    }

    /// Whether the value is there in part.
    pub(super) fn is_cut(&self) -> bool {
        self.truncated == Some("value")
    }

    /// Whether nothing of the record is there.
    pub(super) fn is_bare(&self) -> bool {
        self.truncated.is_some() && !self.is_cut()
    }
}

/// The headers that the refused record came with.
pub(super) fn original_headers<'a>(record: &RecordRef<'a>) -> Vec<HeaderRef<'a>> {
    let is_own = |(name, _): &&HeaderRef<'a>| !headers::is_of_dead_letter(name);
    record.headers.iter().filter(is_own).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::headers::DeadLetterHeaders;
    use crate::rejection::{Rejection, RejectionReason};
    use crate::telemetry::RecordTimestamp;

    #[test]
    fn what_the_daemon_writes_is_read_back_and_taken_off_again() {
        let mut own = DeadLetterHeaders::new();
        let position = RecordPosition::new(3, 42);
        let stamp = RecordTimestamp::Create(EventTime::clamped(7));
        let rejection = Rejection::new(RejectionReason::Late, "why");
        own.fill(&rejection, "telemetry", position, stamp, Some("value"));
        let original: [HeaderRef<'_>; 2] = [("a", None), (ERROR_REASON, Some(b"of its own"))];
        let headers: Vec<HeaderRef<'_>> = original
            .into_iter()
            .chain(own.iter().map(|(name, value)| (name, Some(value))))
            .collect();
        let mut record = RecordRef {
            partition: PartitionId(0),
            offset: Offset(0),
            timestamp: RecordTimestamp::Missing,
            key: None,
            value: None,
            headers: &headers,
        };
        let letter = Letter::read(&record).unwrap();
        assert_eq!((letter.reason, letter.detail), ("late", "why"));
        assert_eq!((letter.topic, letter.position), ("telemetry", position));
        assert_eq!(letter.timestamp, stamp.instant());
        assert!(letter.is_cut() && !letter.is_bare());
        assert_eq!(original_headers(&record), [("a", None)]);
        record.headers = &headers[..1];
        assert!(Letter::read(&record).is_none());
    }
}
