//! What a gate is told at its start.

use std::time::Duration;

use crate::index::EngineKind;
use crate::partition::PartitionId;
use crate::time::EventTime;

/// What proves that a zones partition was read up to some instant (DESIGN 4).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ProofKind {
    /// It was read to an end offset that was asked for at a known T.
    #[default]
    End,
    /// A marker of ours, or of another process, was read: all before it in the log has an earlier stamp or the same.
    Marker,
}

/// The configured rules of the zones side (`[gate]`, `[index]`, `zones.allow_empty`).
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// `gate.settle_margin_ms`, or `gate.create_time_margin_ms` where that is set.
    pub settle_margin: Duration,
    /// `gate.settle_margin_max_ms`.
    pub settle_margin_max: Duration,
    /// `gate.proof`.
    pub proof: ProofKind,
    /// `gate.max_schedule_ms`.
    pub max_schedule: Duration,
    /// `gate.history_bytes`.
    pub history_bytes_max: usize,
    /// `gate.floor`.
    pub floor: Option<EventTime>,
    /// `gate.staging_max`, in changes.
    pub staging_max: usize,
    /// `gate.staging_max_bytes`.
    pub staging_bytes_max: usize,
    /// `index.max_live_snapshots`.
    pub live_snapshots_max: usize,
    /// `index.engine`.
    pub engine: EngineKind,
    /// `zones.allow_empty`.
    pub allow_empty: bool,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            settle_margin: Duration::from_millis(250),
            settle_margin_max: Duration::from_secs(2),
            proof: ProofKind::End,
            max_schedule: Duration::from_millis(259_200_000),
            history_bytes_max: 536_870_912,
            floor: None,
            staging_max: 10_000,
            staging_bytes_max: 268_435_456,
            live_snapshots_max: 8,
            engine: EngineKind::Rtree,
            allow_empty: false,
        }
    }
}

/// What the cluster says of the zones topic.
#[derive(Clone, Debug)]
pub struct ZonesTopic {
    /// Its partitions.
    pub partitions: Vec<PartitionId>,
    /// `min.compaction.lag.ms` where the topic is compacted (zero if unknown); `None` where it is not.
    pub compaction_lag: Option<Duration>,
    /// `delete.retention.ms`: how long a tombstone can be read at least.
    pub delete_retention: Duration,
}
