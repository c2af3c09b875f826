//! Where a record is: partitions, offsets, half-open offset ranges. An [`Offset`] is always the next one to read;
//! the `+ 1` from "last processed" happens once, at the Kafka edge.

use std::fmt;

/// A partition number of one topic. Which topic is clear from where it stands: the zones side knows only the
/// zones topic, the pipeline only the telemetry topic.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub i32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in a partition's log: of a record, or the next one to read (an exclusive end).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset right after this record: the only `+ 1` of the core.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The position of one record, printed `partition:offset` as the headers and the HTTP answers do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPosition {
    /// The partition the record is in.
    pub partition: PartitionId,
    /// The record's own offset.
    pub offset: Offset,
}

impl RecordPosition {
    /// The position `partition:offset`.
    #[must_use]
    pub const fn new(partition: i32, offset: i64) -> Self {
        Self {
            partition: PartitionId(partition),
            offset: Offset(offset),
        }
    }
}

impl fmt::Display for RecordPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// Records `[from, to)` of one partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    /// The first offset of the range.
    pub from: Offset,
    /// The first offset after the range.
    pub to: Offset,
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.from, self.to)
    }
}
