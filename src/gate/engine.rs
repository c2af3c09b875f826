//! The gate itself: inputs in, effects out. See the module's head for what it owns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::admission::{self, Admitted};
use super::floor::Floor;
use super::margin::Margin;
use super::promotion::Promotion;
use super::rejected::{RejectedZone, RejectedZones};
use super::staging::Staging;
use super::watermark::{PartitionWatermark, ProofRound};
use super::{
    Degraded, Epoch, GateConfig, GateCounters, GateEffect, GateInput, StopReason, ZoneRecord,
    ZonesTopic,
};
use crate::index::Index;
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::telemetry::{OwnedRecord, RecordTimestamp};
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
    degraded: Degraded,
}

/// A build under way.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct InFlight {
    number: u64,
    /// Whether it makes an index that can be asked of one that was only filed into.
    is_first_search: bool,
}

/// The zones side of one shard.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    topic: ZonesTopic,
    partitions: BTreeMap<PartitionId, PartitionWatermark>,
    /// While starting over: what was read of each partition before. Below it nothing is new.
    read_before: BTreeMap<PartitionId, Offset>,
    /// Partitions found since the start over began: what stands in them says nothing of clocks and replication.
    new_partitions: BTreeSet<PartitionId>,
    low_watermark: Option<EventTime>,
    low_watermark_before: Option<EventTime>,
    margin: Margin,
    staging: Staging,
    promotion: Option<Promotion>,
    /// The promotion's build; `None` while it waits to be tried again.
    in_flight: Option<InFlight>,
    builds: u64,
    /// All changes taken from the staging are in here; not visible yet where it differs from the published one.
    index: Arc<Index>,
    floor: Floor,
    epoch: Epoch,
    published: Option<Published>,
    /// Here the index at hand has no zone in force, as was found.
    no_zones_at: Option<EventTime>,
    starting_over: bool,
    /// Reading from the start, each part is built as it comes: the one build at the end has failed, and finds no culprit.
    builds_in_parts: bool,
    /// Published indexes in memory.
    live_snapshots: usize,
    newest_stamp: Option<EventTime>,
    clock_difference_ms: Option<i64>,
    rejected_zones: RejectedZones,
    counters: GateCounters,
    stopped: bool,
    now: Now,
    /// The latest T since the reading from the start began, with when that was.
    latest_t: Now,
    /// T when the first reading began.
    began_at: EventTime,
}

impl Gate {
    /// A gate that has read nothing yet.
    #[must_use]
    pub fn new(config: GateConfig, topic: ZonesTopic, now: Now) -> Self {
        let partitions = topic
            .partitions
            .iter()
            .map(|partition| {
                let state = PartitionWatermark::new(config.proof, now.mono);
                (*partition, state)
            })
            .collect();
        Self {
            partitions,
            read_before: BTreeMap::new(),
            new_partitions: BTreeSet::new(),
            low_watermark: None,
            low_watermark_before: None,
            margin: Margin::new(config.settle_margin, config.settle_margin_max),
            staging: Staging::new(config.staging_max, config.staging_bytes_max),
            promotion: None,
            in_flight: None,
            builds: 0,
            index: Arc::new(Index::empty(config.engine)),
            floor: Floor::new(config.floor),
            epoch: Epoch(0),
            published: None,
            no_zones_at: None,
            starting_over: false,
            builds_in_parts: false,
            live_snapshots: 0,
            newest_stamp: None,
            clock_difference_ms: None,
            rejected_zones: RejectedZones::default(),
            counters: GateCounters::default(),
            stopped: false,
            now,
            latest_t: now,
            began_at: now.wall,
            config,
            topic,
        }
    }

    /// The partitions that it reads.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.keys().copied()
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
            GateInput::Marker {
                position,
                timestamp,
            } => self.marker(position, timestamp),
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
        self.stamped(record.timestamp);
        match admission::admit(record, self.config.max_schedule, self.topic.compaction_lag) {
            Admitted::Change { change, clipped } => {
                if self.is_new(position) {
                    self.counters.accepted += 1;
                    self.counters.clipped += u64::from(clipped);
                }
                self.rejected_zones.mended(&change.zone_id);
                self.stage(change, effects);
            }
            Admitted::Rejected {
                zone_id,
                rejection,
                removal,
                record,
            } => {
                let ends_at = removal.as_ref().map(|removal| removal.valid_from);
                let rejected = RejectedZone {
                    position,
                    rejection,
                    ends_at,
                };
                self.rejected(zone_id, rejected, record, effects);
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

    fn marker(&mut self, position: RecordPosition, timestamp: RecordTimestamp) {
        self.stamped(timestamp);
        let margin = self.margin.current();
        if let Some(state) = self.partitions.get_mut(&position.partition) {
            // A producer's own stamp orders nothing.
            if let RecordTimestamp::LogAppend(stamp) = timestamp {
                state.marker(position.offset, stamp, self.now.mono);
            }
            state.read_to(position.offset.next(), margin, self.now.mono);
        }
    }

    /// Takes note of a broker's stamp.
    fn stamped(&mut self, timestamp: RecordTimestamp) {
        if let RecordTimestamp::LogAppend(stamp) = timestamp
            && self.newest_stamp.is_none_or(|newest| newest < stamp)
        {
            self.newest_stamp = Some(stamp);
            if !self.is_reading_from_start() {
                // What a reading from the start meets was stamped long ago and says nothing of clocks.
                self.clock_difference_ms = Some(self.now.wall.millis() - stamp.millis());
            }
        }
    }

    fn stage(&mut self, change: StagedChange, effects: &mut Vec<GateEffect>) {
        let is_new = self.is_new(change.position);
        if is_new && change.commit_time > self.now.wall.plus(self.margin.current()) {
            self.counters.future += 1;
        }
        if self.is_reading_from_start() {
            self.floor.read(&change);
        }
        if let Some(published) = &self.published
            && is_new
            && change.commit_time <= published.as_of
        {
            // I16: counted, whatever it changes.
            let lateness = published.as_of.since(change.commit_time);
            self.counters.violations += 1;
            self.counters.lateness_max = self.counters.lateness_max.max(lateness);
            if self.new_partitions.contains(&change.position.partition) {
                // No margin would have helped, but answers were wrong for as long all the same.
                self.margin.doubt(lateness);
            } else {
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

    /// Whether the record is met for the first time: not so when a start over reads it again.
    fn is_new(&self, position: RecordPosition) -> bool {
        self.read_before
            .get(&position.partition)
            .is_none_or(|read_to| position.offset >= *read_to)
    }

    /// Takes note of a rejected record.
    ///
    /// "Those met in bootstrap are counted and listed only" (DESIGN 3): a process that starts reads what others have
    /// dead-lettered long ago. A start over reads that too, but whatever it meets for the first time was written under a
    /// running process, and nobody else need have been there: it is dead-lettered as if met live.
    fn rejected(
        &mut self,
        zone_id: Option<ZoneId>,
        rejected: RejectedZone,
        record: Option<Arc<OwnedRecord>>,
        effects: &mut Vec<GateEffect>,
    ) {
        if self.is_new(rejected.position) {
            self.counters.rejected += 1;
            if self.published.is_some() {
                effects.push(GateEffect::DeadLetter {
                    position: rejected.position,
                    rejection: rejected.rejection.clone(),
                    record,
                });
            }
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
        // What is built is published before the next build begins, which then knows how much room there is.
        self.take_promoted();
        self.advance_as_of(effects);
        self.advance_builds(effects);
        let (held, held_bytes) = self.held_by_builder();
        match self.staging.turn(held, held_bytes) {
            Some(true) => effects.push(GateEffect::PauseZones),
            Some(false) => effects.push(GateEffect::ResumeZones),
            None => {}
        }
    }

    /// Changes and bytes that the builder has taken from the staging and not yet built.
    fn held_by_builder(&self) -> (usize, usize) {
        self.promotion
            .as_ref()
            .map_or((0, 0), |promotion| (promotion.len(), promotion.bytes()))
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
