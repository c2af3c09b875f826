//! What the gate tells of itself: for `/v1/status`, the metrics and the logs.

use std::time::Duration;

use super::{Epoch, RejectedZone};
use crate::partition::{Offset, PartitionId};
use crate::time::EventTime;
use crate::zone::ZoneId;

/// Why a partition holds the gate back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HeldCause {
    /// Its broker does not answer.
    NoAnswer,
    /// The record with the largest timestamp is not readable yet: a replica is dead or slow.
    LargestTimestamp,
    /// An open transaction: what stands behind it cannot be read yet.
    OpenTransaction,
    /// Reading is paused until the builder has emptied the staging.
    Paused,
    /// It is not read to its end.
    BehindEnd,
    /// Read to its end, and no marker came: none can be written, or it is held back by its replicas.
    NoMarker,
}

impl HeldCause {
    /// The stable text of the cause.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::LargestTimestamp => "largest_timestamp",
            Self::OpenTransaction => "open_transaction",
            Self::Paused => "paused",
            Self::BehindEnd => "behind_end",
            Self::NoMarker => "no_marker",
        }
    }
}

/// A partition that holds the gate back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub partition: PartitionId,
    /// Why.
    pub cause: HeldCause,
    /// For how long.
    pub held_for: Duration,
}

/// One zones partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which.
    pub partition: PartitionId,
    /// No change with commit time ≤ it is still to come.
    pub watermark: Option<EventTime>,
    /// Up to where it is read: all below is staged, or there is nothing.
    pub next_offset: Offset,
    /// The end offset last heard of.
    pub log_end: Option<Offset>,
}

/// How far a reading from the start has come. Offsets are counted: compaction has left holes, so a part of it may go fast.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Records read.
    pub read: u64,
    /// Records that there are.
    pub of: u64,
    /// Zones found in them until now.
    pub zones: usize,
}

/// Counts since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct GateCounters {
    /// Changes accepted.
    pub accepted: u64,
    /// Changes rejected.
    pub rejected: u64,
    /// Changes read with commit time ≤ as_of (I16).
    pub violations: u64,
    /// The largest lateness of those.
    pub lateness_max: Duration,
    /// `effective_at` before the commit time.
    pub clipped: u64,
    /// Commit times ahead of T.
    pub future: u64,
    /// `version` numbers that did not rise.
    pub version_regressions: u64,
    /// Changes of a zone that also lives in another partition.
    pub foreign_partition: u64,
    /// Builds that failed.
    pub build_failures: u64,
    /// Starts over.
    pub starts_over: u64,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct GateStatus {
    /// Whether a snapshot is published.
    pub bootstrapped: bool,
    /// What the bootstrap waits for, in words; empty when done.
    pub waiting_for: String,
    /// How far it has come while the zones topic is read from its start, once the ends of all partitions are known.
    pub reading: Option<Reading>,
    /// Whether it is reading all over again.
    pub starting_over: bool,
    /// Whether answers are flagged `degraded`.
    pub degraded: bool,
    /// T.
    pub t: EventTime,
    /// The low watermark.
    pub low_watermark: Option<EventTime>,
    /// What is published.
    pub as_of: Option<EventTime>,
    /// From here on answers are exact.
    pub floor: Option<EventTime>,
    /// The settle margin as it is now.
    pub settle_margin: Duration,
    /// The published index.
    pub epoch: Epoch,
    /// Zones in force (or scheduled).
    pub zones: usize,
    /// Changes staged or being built.
    pub staged: usize,
    /// Their bytes.
    pub staged_bytes: usize,
    /// Whether reading is paused.
    pub paused: bool,
    /// The newest stamp read.
    pub newest_stamp: Option<EventTime>,
    /// T less the newest stamp, in ms, when that was read: our clock against the brokers', with what the way took.
    pub clock_difference_ms: Option<i64>,
    /// Partitions that hold the gate back.
    pub held_by: Vec<Held>,
    /// All partitions.
    pub partitions: Vec<PartitionStatus>,
    /// Zones whose newest change was rejected, at most 1,000 of them.
    pub rejected_zones: Vec<(ZoneId, RejectedZone)>,
    /// How many those are in all.
    pub rejected_zone_count: usize,
    /// Counts since the start.
    pub counters: GateCounters,
}

impl GateStatus {
    /// How many partitions have not been answered for, for at least so long.
    #[must_use]
    pub fn silent_for(&self, at_least: Duration) -> usize {
        let is_silent =
            |held: &&Held| held.cause == HeldCause::NoAnswer && held.held_for >= at_least;
        self.held_by.iter().filter(is_silent).count()
    }
}
