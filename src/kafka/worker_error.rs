//! Why a worker ended before it was told to, and whether one made anew may do better.

use std::time::Duration;

use rdkafka::error::KafkaError;

use super::EdgeError;
use crate::partition::{Offset, PartitionId};
use crate::pipeline::Stop;

/// Why a worker ended before it was told to.
#[derive(Debug)]
pub enum WorkerError {
    /// The engine met what it can neither write nor commit past.
    Stopped(Stop),
    /// The client or the cluster failed for good.
    Edge(EdgeError),
    /// Another process has this transactional id.
    Fenced(String),
    /// The process stood still for longer than the group waits (`exactly_once`).
    StoodStill(Duration),
    /// A transaction ended in a way that only new clients can resolve.
    Transaction(EdgeError),
    /// The same, after the cluster had let it wait for as long as a transaction may last.
    Outage(EdgeError),
    /// Transaction after transaction was aborted: why the last one was.
    Aborted(String),
    /// An output of a transaction that no further try can deliver: a topic that is gone, or may not be written.
    Undelivered(EdgeError),
    /// A committed offset is no longer in the log.
    OutOfRange {
        /// The partition.
        partition: PartitionId,
        /// Where it was to be read from.
        position: Option<Offset>,
    },
}

impl WorkerError {
    /// Whether a worker made anew may do better: its client has failed, or the cluster did not answer.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Edge(EdgeError::Cluster {
                source: KafkaError::MessageConsumptionFatal(_),
                ..
            }) => true,
            Self::Edge(error) => error.is_retryable(),
            Self::Transaction(_) | Self::Outage(_) | Self::Aborted(_) => true,
            Self::Stopped(_)
            | Self::OutOfRange { .. }
            | Self::Fenced(_)
            | Self::StoodStill(_)
            | Self::Undelivered(_) => false,
        }
    }

    /// Whether it comes of waiting for the cluster, which took its time: it is waited for without a bound (FS-80), and the
    /// next try cannot come at once.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Outage(_))
    }

    /// [`EdgeError::is_fenced_member`] of what failed.
    #[must_use]
    pub fn is_fenced_member(&self) -> bool {
        matches!(self, Self::Edge(error) if error.is_fenced_member())
    }
}

impl std::fmt::Display for WorkerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopped(stop) => stop.fmt(f),
            Self::Edge(error)
            | Self::Transaction(error)
            | Self::Outage(error)
            | Self::Undelivered(error) => error.fmt(f),
            Self::Aborted(why) => {
                write!(
                    f,
                    "transaction after transaction was aborted, the last one as: {why}"
                )
            }
            Self::Fenced(id) => write!(
                f,
                "fenced: another process writes as `{id}`; each process needs a `delivery.instance` of its own"
            ),
            Self::StoodStill(time) => write!(
                f,
                "the process stood still for {} s, longer than the group waits: its partitions, and maybe its name, are \
                 another's by now; start it anew",
                time.as_secs()
            ),
            Self::OutOfRange {
                partition,
                position,
            } => {
                write!(f, "the telemetry log of partition {partition} ")?;
                match position {
                    Some(position) => write!(
                        f,
                        "no longer holds offset {position}, where reading was to go on"
                    )?,
                    None => f.write_str("no longer holds the offset where reading was to go on")?,
                }
                f.write_str("; `telemetry.on_out_of_range` = \"earliest\" or \"latest\" goes on, and counts it")
            }
        }
    }
}

impl std::error::Error for WorkerError {}

impl From<EdgeError> for WorkerError {
    fn from(error: EdgeError) -> Self {
        Self::Edge(error)
    }
}
