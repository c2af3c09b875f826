//! Writes the markers of `gate.proof = "marker"` to the zones topic; the gate's schedule says when.

use std::time::Duration;

use crate::codec::zone_change::MARKER_KEY;
use crate::gate::marker::MarkerSchedule;
use crate::kafka::EdgeError;
use crate::kafka::client::Settings;
use crate::kafka::writer::{Outgoing, TopicWriter};
use crate::partition::PartitionId;
use crate::time::MonoTime;

/// How often it is said at most that markers cannot be written.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// The markers that this process writes.
pub(super) struct Markers {
    writer: TopicWriter,
    topic: String,
    schedule: MarkerSchedule,
    complained_at: Option<MonoTime>,
}

impl Markers {
    pub(super) fn new(
        kafka: &Settings,
        topic: &str,
        interval: Duration,
    ) -> Result<Self, EdgeError> {
        Ok(Self {
            writer: TopicWriter::new(kafka)?,
            topic: topic.to_owned(),
            schedule: MarkerSchedule::new(interval),
            complained_at: None,
        })
    }

    /// A marker was read, whoever wrote it.
    pub(super) fn read(&mut self, partition: PartitionId, now: MonoTime) {
        self.schedule.read(partition, now);
    }

    /// Writes what is due. A marker that cannot be written holds the gate back, which status and metrics tell.
    pub(super) fn turn(
        &mut self,
        partitions: impl IntoIterator<Item = PartitionId>,
        now: MonoTime,
    ) {
        let failed: Vec<_> = self
            .writer
            .receipts()
            .filter_map(|receipt| Some((receipt.tag, receipt.outcome.err()?)))
            .collect();
        for (tag, error) in failed {
            let partition = i32::try_from(tag).expect("the tag is the partition");
            self.failed(PartitionId(partition), &error, now);
        }
        for partition in self.schedule.due(partitions, now) {
            let marker = Outgoing {
                topic: &self.topic,
                partition: Some(partition),
                key: Some(MARKER_KEY),
                ..Outgoing::default()
            };
            let tag = usize::try_from(partition.0).expect("partitions are numbered from 0");
            match self.writer.send(&marker, tag) {
                Ok(true) => {}
                // Its queue is full of markers that no broker takes.
                Ok(false) => self.schedule.failed(partition, now),
                Err(error) => self.failed(partition, &error, now),
            }
        }
    }

    fn failed(&mut self, partition: PartitionId, error: &dyn std::error::Error, now: MonoTime) {
        self.schedule.failed(partition, now);
        if self
            .complained_at
            .is_none_or(|at| now.since(at) >= COMPLAIN_EVERY)
        {
            self.complained_at = Some(now);
            tracing::error!(%partition, %error, topic = self.topic,
                "a marker could not be written to the zones topic; without markers the gate stands");
        }
    }
}
