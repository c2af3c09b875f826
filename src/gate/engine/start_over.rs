//! Reading the zones topic again from its start (DESIGN 4, *Start over*): on a new partition, and on one that was not read
//! to its end for so long that tombstones may have gone. Meanwhile the published `as_of` serves, flagged `degraded`.

use std::sync::Arc;

use super::super::Degraded;
use super::super::floor::Floor;
use super::super::rejected::RejectedZones;
use super::super::staging::Staging;
use super::super::watermark::PartitionWatermark;
use super::{Gate, GateEffect, Published, StopReason};
use crate::index::Index;
use crate::partition::PartitionId;

impl Gate {
    pub(super) fn found_partitions(
        &mut self,
        found: &[PartitionId],
        effects: &mut Vec<GateEffect>,
    ) {
        if let Some(gone) = self.partitions.keys().find(|known| !found.contains(known)) {
            return self.stop(StopReason::PartitionGone(*gone), effects);
        }
        let added: Vec<PartitionId> = found
            .iter()
            .filter(|partition| !self.partitions.contains_key(partition))
            .copied()
            .collect();
        if !added.is_empty() {
            self.start_over(&added, effects);
        }
    }

    /// A partition not read to its end for so long may have lost tombstones that were never read.
    pub(super) fn check_deadlines(&mut self, effects: &mut Vec<GateEffect>) {
        let Some(lag) = self.topic.compaction_lag else {
            return;
        };
        let mut limit = self.topic.delete_retention;
        // While all is read from the start only tombstones can be missed: whatever else goes lies before the edge, which is
        // set at the end (DESIGN 4, *Floor*). And a short lag must not keep a long bootstrap from ever ending.
        if !lag.is_zero() && !self.is_reading_from_start() {
            limit = limit.min(lag);
        }
        let limit = limit / 2;
        let now = self.now.mono;
        if !limit.is_zero()
            && self
                .partitions
                .values()
                .any(|state| now.since(state.reached_end_at) > limit)
        {
            self.start_over(&[], effects);
        }
    }

    /// Reads everything anew, the `added` partitions too. What is published serves until the new reading has reached it.
    pub(super) fn start_over(&mut self, added: &[PartitionId], effects: &mut Vec<GateEffect>) {
        self.counters.starts_over += 1;
        self.latest_t = self.now;
        for (partition, state) in &mut self.partitions {
            let read_to = state.staged_to();
            let before = self.read_before.entry(*partition).or_default();
            *before = read_to.max(*before);
            state.start_over(self.now.mono);
        }
        for partition in added {
            self.partitions.insert(
                *partition,
                PartitionWatermark::new(self.config.proof, self.now.mono),
            );
            self.new_partitions.insert(*partition);
        }
        // What is read anew has no watermark yet; the one that was reached stands in the status (I1).
        self.low_watermark_before = self.low_watermark_before.max(self.low_watermark.take());
        let was_paused = self.staging.is_paused();
        self.staging = Staging::new(self.config.staging_max, self.config.staging_bytes_max);
        self.promotion = None;
        self.in_flight = None;
        self.index = Arc::new(Index::empty(self.config.engine));
        self.no_zones_at = None;
        self.floor = Floor::new(self.config.floor);
        self.rejected_zones = RejectedZones::default();
        effects.push(GateEffect::StartOver(
            self.partitions.keys().copied().collect(),
        ));
        if was_paused {
            effects.push(GateEffect::ResumeZones);
        }
        self.starting_over = self.published.is_some();
        if let Some(published) = &self.published
            && published.degraded != Degraded::AtOnce
        {
            let degraded = Published {
                degraded: Degraded::AtOnce,
                ..published.clone()
            };
            self.publish(degraded, effects);
        }
    }
}
