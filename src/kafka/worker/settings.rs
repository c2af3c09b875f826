//! What a worker is told beside its engine's configuration.

use std::time::Duration;

use super::ExactlyOnce;
use crate::kafka::client::CommitBy;

/// Where a partition without a committed offset, or with one that is out of range, is read from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At its log start.
    Earliest,
    /// At its log end.
    Latest,
}

/// What a worker is told beside its engine's configuration.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The topics.
    pub telemetry_topic: String,
    /// Where enriched records go.
    pub enriched_topic: String,
    /// Where refused records go.
    pub dead_letter_topic: Option<String>,
    /// `telemetry.start`.
    pub start: StartAt,
    /// Partitions from this number on came after the process had started: they are read from their start whatever
    /// `start` says, as nothing of them may be missed (FS-64).
    pub partitions_at_start: i32,
    /// `telemetry.on_out_of_range`; `None` = stop.
    pub on_out_of_range: Option<StartAt>,
    /// `delivery.commit_ms`.
    pub commit_interval: Duration,
    /// `delivery.mode = "exactly_once"`.
    pub exactly_once: Option<ExactlyOnce>,
    /// `delivery.static_member`: the `group.instance.id`.
    pub static_member: Option<String>,
    /// `shutdown.drain_timeout_ms`: bounds the drain of a revoke too.
    pub drain_timeout: Duration,
}

impl WorkerSettings {
    /// The settings of worker `number` of its process: its ids are its own, and the same after a restart.
    #[must_use]
    pub fn for_worker(&self, number: usize) -> Self {
        let mut settings = self.clone();
        if let Some(once) = &mut settings.exactly_once {
            once.transactional_id = format!("{}.{number}", once.transactional_id);
        }
        if let Some(id) = &mut settings.static_member {
            *id = format!("{id}.{number}");
        }
        settings
    }

    pub(super) fn commit_by(&self) -> CommitBy {
        match &self.exactly_once {
            Some(_) => CommitBy::Transaction,
            None => CommitBy::Interval(self.commit_interval),
        }
    }
}
