//! The gate itself: inputs in, effects out. See the module's head for what it owns.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::{self, Admitted};
use super::floor::Floor;
use super::margin::Margin;
use super::promotion::Promotion;
use super::rejected::{RejectedZone, RejectedZones};
use super::staging::Staging;
use super::watermark::{PartitionWatermark, ProofRound};
use super::{
    Epoch, GateConfig, GateCounters, GateEffect, GateInput, StopReason, ZoneRecord, ZonesTopic,
};
use crate::index::Index;
use crate::partition::{Offset, PartitionId};
use crate::time::{EventTime, Now};
use crate::zone::{StagedChange, ZoneId};

mod promoting;
mod publishing;
mod start_over;
mod telling;

/// What is published.
#[derive(Clone, Debug)]
struct Published {
    index: Arc<Index>,
    as_of: EventTime,
    floor: EventTime,
    degraded: bool,
}

/// The zones side of one shard.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    topic: ZonesTopic,
    partitions: BTreeMap<PartitionId, PartitionWatermark>,
    /// While starting over: what was read of each partition before. Below it nothing is new; in a partition that is not
    /// here everything is.
    read_before: BTreeMap<PartitionId, Offset>,
    low_watermark: Option<EventTime>,
    low_watermark_before: Option<EventTime>,
    margin: Margin,
    staging: Staging,
    promotion: Option<(u64, Promotion)>,
    builds: u64,
    /// All changes taken from the staging are in here; not visible yet where it differs from the published one.
    index: Arc<Index>,
    floor: Floor,
    epoch: Epoch,
    published: Option<Published>,
    starting_over: bool,
    live_snapshots: usize,
    newest_stamp: Option<EventTime>,
    rejected_zones: RejectedZones,
    counters: GateCounters,
    stopped: bool,
    now: Now,
    /// The latest T since the reading from the start began, with when that was.
    latest_t: Now,
}

impl Gate {
    /// A gate that has read nothing yet.
    #[must_use]
    pub fn new(config: GateConfig, topic: ZonesTopic, now: Now) -> Self {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| (*partition, PartitionWatermark::new(now.mono)))
            .collect();
        Self {
            partitions,
            read_before: BTreeMap::new(),
            low_watermark: None,
            low_watermark_before: None,
            margin: Margin::new(config.settle_margin, config.settle_margin_max),
            staging: Staging::new(config.staging_max, config.staging_bytes_max),
            promotion: None,
            builds: 0,
            index: Arc::new(Index::empty(config.engine)),
            floor: Floor::new(config.floor),
            epoch: Epoch(0),
            published: None,
            starting_over: false,
            live_snapshots: 0,
            newest_stamp: None,
            rejected_zones: RejectedZones::default(),
            counters: GateCounters::default(),
            stopped: false,
            now,
            latest_t: now,
            config,
            topic,
        }
    }

    /// The newest LogAppendTime stamp read: what [`super::clock_guard::ClockGuard`] is fed with.
    #[must_use]
    pub fn newest_stamp(&self) -> Option<EventTime> {
        self.newest_stamp
    }

    /// Takes an input and adds what follows from it to `effects`. After a [`GateEffect::Stop`] it does nothing more.
    pub fn handle(&mut self, input: GateInput, now: Now, effects: &mut Vec<GateEffect>) {
        if self.stopped {
            return;
        }
        self.now = now;
        if now.wall >= self.latest_t_by_now() {
            self.latest_t = now;
        }
        self.margin.tick(now.mono);
        match input {
            GateInput::Record(record) => self.record(*record, effects),
            GateInput::EndOfPartition {
                partition,
                next_offset,
            } => {
                let margin = self.margin.current();
                if let Some(state) = self.partitions.get_mut(&partition) {
                    state.end_reached(next_offset, margin, now.mono);
                }
            }
            GateInput::Position {
                partition,
                next_offset,
            } => {
                let margin = self.margin.current();
                if let Some(state) = self.partitions.get_mut(&partition) {
                    state.read_to(next_offset, margin, now.mono);
                }
            }
            GateInput::Round(round) => self.round(&round, effects),
            GateInput::Partitions(partitions) => self.found_partitions(&partitions, effects),
            GateInput::Built(number, result) => self.built(number, result, effects),
            GateInput::LiveSnapshots(count) => self.live_snapshots = count,
            GateInput::TopicRecreated => self.stop(StopReason::Recreated, effects),
            GateInput::OutOfRange(partition) => {
                self.stop(StopReason::OutOfRange(partition), effects)
            }
            GateInput::Tick => self.check_deadlines(effects),
        }
        self.advance(effects);
    }

    fn stop(&mut self, reason: StopReason, effects: &mut Vec<GateEffect>) {
        self.stopped = true;
        effects.push(GateEffect::Stop(reason));
    }

    fn record(&mut self, record: ZoneRecord, effects: &mut Vec<GateEffect>) {
        let position = record.position;
        if !self.partitions.contains_key(&position.partition) {
            // Read before a start over was carried out: it will be read again.
            return;
        }
        if let crate::telemetry::RecordTimestamp::LogAppend(stamp) = record.timestamp {
            self.newest_stamp = Some(self.newest_stamp.map_or(stamp, |newest| newest.max(stamp)));
        }
        match admission::admit(record, self.config.max_schedule, self.topic.compaction_lag) {
            Admitted::Change { change, clipped } => {
                self.counters.accepted += 1;
                self.counters.clipped += u64::from(clipped);
                self.rejected_zones.mended(&change.zone_id);
                self.stage(change, effects);
            }
            Admitted::Rejected {
                zone_id,
                rejection,
                removal,
            } => {
                let ends_at = removal.as_ref().map(|removal| removal.valid_from);
                let rejected = RejectedZone {
                    position,
                    rejection,
                    ends_at,
                };
                self.rejected(zone_id, rejected, effects);
                if let Some(removal) = removal {
                    self.stage(removal, effects);
                }
            }
        }
        let margin = self.margin.current();
        if let Some(state) = self.partitions.get_mut(&position.partition) {
            state.read_to(position.offset.next(), margin, self.now.mono);
        }
    }

    fn stage(&mut self, change: StagedChange, effects: &mut Vec<GateEffect>) {
        if change.commit_time > self.now.wall.plus(self.margin.current()) {
            self.counters.future += 1;
        }
        if self.is_reading_from_start() {
            self.floor.read(&change);
        }
        let read_before = self.read_before.get(&change.position.partition);
        let is_new = read_before.is_none_or(|read_to| change.position.offset >= *read_to);
        if let Some(published) = &self.published
            && is_new
            && change.commit_time <= published.as_of
        {
            let lateness = published.as_of.since(change.commit_time);
            self.counters.violations += 1;
            self.counters.lateness_max = self.counters.lateness_max.max(lateness);
            if !self.starting_over || read_before.is_some() {
                // A new partition's old changes say nothing of clocks and replication.
                self.margin.late(lateness, self.now.mono);
            }
            effects.push(GateEffect::LateChange {
                position: change.position,
                lateness,
            });
        }
        self.staging.stage(change);
    }

    fn is_reading_from_start(&self) -> bool {
        self.published.is_none() || self.starting_over
    }

    fn rejected(
        &mut self,
        zone_id: Option<ZoneId>,
        rejected: RejectedZone,
        effects: &mut Vec<GateEffect>,
    ) {
        self.counters.rejected += 1;
        if !self.is_reading_from_start() {
            effects.push(GateEffect::DeadLetter {
                position: rejected.position,
                rejection: rejected.rejection.clone(),
            });
        }
        self.rejected_zones.add(zone_id, rejected);
    }

    fn round(&mut self, round: &ProofRound, effects: &mut Vec<GateEffect>) {
        let margin = self.margin.current();
        for (partition, answer) in &round.answers {
            let Some(state) = self.partitions.get_mut(partition) else {
                continue;
            };
            if let Err(truncated) = state.answered(round.asked_at, answer, margin, self.now.mono) {
                let reason = StopReason::Truncated {
                    partition: *partition,
                    read_to: truncated.read_to,
                    log_end: truncated.log_end,
                };
                return self.stop(reason, effects);
            }
        }
        self.check_deadlines(effects);
    }

    /// Moves on whatever can move: the low watermark, builds, `as_of`, pausing.
    fn advance(&mut self, effects: &mut Vec<GateEffect>) {
        if self.stopped {
            return;
        }
        self.advance_low_watermark();
        self.advance_builds(effects);
        self.advance_as_of(effects);
        let (held, held_bytes) = self.promotion.as_ref().map_or((0, 0), |(_, promotion)| {
            (promotion.changes(), promotion.bytes())
        });
        match self.staging.turn(held, held_bytes) {
            Some(true) => effects.push(GateEffect::PauseZones),
            Some(false) => effects.push(GateEffect::ResumeZones),
            None => {}
        }
    }

    fn advance_low_watermark(&mut self) {
        let low = self
            .partitions
            .values()
            .map(PartitionWatermark::watermark)
            .min()
            .flatten();
        if let Some(low) = low {
            let before = self.low_watermark.unwrap_or(low);
            assert!(low >= before, "I1: the low watermark never goes back");
            self.low_watermark = Some(low);
        }
    }
}
