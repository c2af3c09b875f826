//! What goes into a gate and what comes out: inputs, effects, the build it asks for, the reason why it stops.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::watermark::ProofRound;
use super::{Snapshot, ZoneRecord};
use crate::index::{BuildFailure, BuildRules, Built, Index};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::rejection::Rejection;
use crate::telemetry::{OwnedRecord, RecordTimestamp};
use crate::time::EventTime;
use crate::zone::StagedChange;

/// What a gate is told.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "moved once per build; a box would be an allocation per proof round"
)]
pub enum GateInput {
    /// A record was read.
    Record(Box<ZoneRecord>),
    /// A marker was read (`gate.proof = "marker"`), whoever wrote it.
    Marker {
        /// Where.
        position: RecordPosition,
        /// Its Kafka timestamp.
        timestamp: RecordTimestamp,
    },
    /// A partition's end was reached (the client's end-of-partition event).
    EndOfPartition {
        /// Which.
        partition: PartitionId,
        /// The offset that event carries.
        next_offset: Offset,
    },
    /// The reader's position: passes transaction markers, which are no records.
    Position {
        /// Which.
        partition: PartitionId,
        /// The next offset it will read.
        next_offset: Offset,
    },
    /// End offsets were asked for.
    Round(ProofRound),
    /// The partitions that the topic has now.
    Partitions(Vec<PartitionId>),
    /// The build of this number is done.
    Built(u64, Result<Built, BuildFailure>),
    /// So many published indexes are in memory, the published one included: to be told whenever it is not what the gate
    /// knows, which counts each new index that it publishes itself.
    LiveSnapshots(usize),
    /// The topic's id is another one.
    TopicRecreated,
    /// The reader's position is no longer in the log.
    OutOfRange(PartitionId),
    /// Time has passed.
    Tick,
}

/// A build to be run off the gate's thread; its result comes back as [`GateInput::Built`].
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Its number.
    pub number: u64,
    pub(super) index: Arc<Index>,
    pub(super) changes: Arc<[StagedChange]>,
    pub(super) as_of: EventTime,
    pub(super) rules: BuildRules,
}

impl BuildRequest {
    /// Builds. Takes as long as it takes.
    ///
    /// # Errors
    /// A [`BuildFailure`] where the index built does not answer as its changes demand, or the build panicked: one zone that
    /// brings out a defect of ours must not stop all others, and a restart would only meet it again (FS-30).
    pub fn run(&self) -> Result<Built, BuildFailure> {
        caught(|| self.index.promote(&self.changes, self.as_of, &self.rules))
    }

    /// The changes that are built in.
    #[must_use]
    pub fn changes(&self) -> &[StagedChange] {
        &self.changes
    }
}

/// A panic of `build` as a failure. Nothing is left half done by it: a build only reads what is shared.
pub(super) fn caught<T>(
    build: impl FnOnce() -> Result<T, BuildFailure>,
) -> Result<T, BuildFailure> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without a message");
        Err(BuildFailure {
            zone: None,
            detail: format!("the build panicked: {what}").into(),
        })
    })
}

/// Why a gate cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The log ends below what was read of it.
    Truncated {
        /// Which partition.
        partition: PartitionId,
        /// Read up to here.
        read_to: Offset,
        /// It ends here.
        log_end: Offset,
    },
    /// The topic was deleted and made again.
    Recreated,
    /// The reading position is out of the log's range.
    OutOfRange(PartitionId),
    /// The topic has fewer partitions than before.
    PartitionGone(PartitionId),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { partition, read_to, log_end } => write!(
                f,
                "partition {partition} of the zones topic ends at {log_end}, below {read_to} that was read already: \
                 it was truncated or the topic was deleted and made again; restart to read it anew"
            ),
            Self::Recreated => f.write_str(
                "the zones topic was deleted and made again (its topic id changed); restart to read it anew",
            ),
            Self::OutOfRange(partition) => write!(
                f,
                "the reading position in partition {partition} of the zones topic is out of range: records were \
                 deleted under it, or taken back by an unclean election; restart to read it anew"
            ),
            Self::PartitionGone(partition) => {
                write!(f, "partition {partition} of the zones topic is gone: the topic was made again")
            }
        }
    }
}

/// What a gate wants done.
#[derive(Debug)]
pub enum GateEffect {
    /// Run this build and hand the result back.
    Build(BuildRequest),
    /// Make this snapshot the current one.
    Publish(Arc<Snapshot>),
    /// Stop reading the zone partitions until told otherwise.
    PauseZones,
    /// Go on reading them.
    ResumeZones,
    /// A record was rejected that was not met before, by a gate that has published: dead-letter it.
    DeadLetter {
        /// Where it is.
        position: RecordPosition,
        /// Why.
        rejection: Rejection,
        /// As it came.
        record: Option<Arc<OwnedRecord>>,
    },
    /// The first snapshot is published: telemetry may be read (I14).
    Bootstrapped,
    /// Read these partitions again from their beginning.
    StartOver(Vec<PartitionId>),
    /// Stop the process with this error.
    Stop(StopReason),
    /// A late change was met (I16).
    LateChange {
        /// The record.
        position: RecordPosition,
        /// as_of less its commit time.
        lateness: Duration,
    },
}
