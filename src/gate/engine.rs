//! The gate itself: inputs in, effects out. See the module's head for what it owns.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{self, Admitted};
use super::floor::Floor;
use super::margin::Margin;
use super::promotion::{Promotion, Step};
use super::staging::Staging;
use super::watermark::{LastAnswer, PartitionWatermark, ProofRound};
use super::{
    Epoch, GateConfig, GateCounters, GateStatus, Held, HeldCause, PartitionStatus, RejectedZone,
    Snapshot, ZoneRecord, ZonesTopic,
};
use crate::index::{BuildFailure, BuildRules, Built, Index};
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::rejection::{Rejection, RejectionReason};
use crate::time::{EventTime, MonoTime, Now};
use crate::zone::{StagedChange, ZoneId};

/// A watermark further behind T than the margin by this much holds the gate back.
const HELD_AFTER: Duration = Duration::from_secs(1);
/// So many rejected zones are kept by name; beyond it they are only counted.
const REJECTED_ZONES_MAX: usize = 10_000;
/// So many of them are told in a status.
const REJECTED_ZONES_TOLD: usize = 1_000;

/// What a gate is told.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "moved once per build; a box would be an allocation per proof round"
)]
pub enum GateInput {
    /// A record was read.
    Record(Box<ZoneRecord>),
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
    /// So many snapshots live.
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
    index: Arc<Index>,
    changes: Arc<[StagedChange]>,
    as_of: EventTime,
    rules: BuildRules,
}

impl BuildRequest {
    /// Builds. Takes as long as it takes.
    ///
    /// # Errors
    /// A [`BuildFailure`] where the index built does not answer as its changes demand.
    pub fn run(&self) -> Result<Built, BuildFailure> {
        self.index.promote(&self.changes, self.as_of, &self.rules)
    }

    /// The changes that are built in.
    #[must_use]
    pub fn changes(&self) -> &[StagedChange] {
        &self.changes
    }
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
                 deleted under it; restart to read it anew"
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
    /// A record was rejected live: dead-letter it.
    DeadLetter {
        /// Where it is.
        position: RecordPosition,
        /// Why.
        rejection: Rejection,
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
    rejected_zones: BTreeMap<ZoneId, RejectedZone>,
    unnamed_rejections: usize,
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
            rejected_zones: BTreeMap::new(),
            unnamed_rejections: 0,
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
                self.rejected_zones.remove(&change.zone_id);
                self.stage(change, effects);
            }
            Admitted::Rejected {
                zone_id,
                rejection,
                removal,
            } => {
                self.rejected(zone_id, position, rejection, removal, effects);
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
        position: RecordPosition,
        rejection: Rejection,
        removal: Option<StagedChange>,
        effects: &mut Vec<GateEffect>,
    ) {
        self.counters.rejected += 1;
        match zone_id {
            Some(id) if self.rejected_zones.len() < REJECTED_ZONES_MAX => {
                let ends_at = removal.as_ref().map(|removal| removal.valid_from);
                self.rejected_zones.insert(
                    id,
                    RejectedZone {
                        position,
                        rejection: rejection.clone(),
                        ends_at,
                    },
                );
            }
            _ => self.unnamed_rejections += 1,
        }
        if !self.is_reading_from_start() {
            effects.push(GateEffect::DeadLetter {
                position,
                rejection,
            });
        }
        if let Some(removal) = removal {
            self.stage(removal, effects);
        }
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

    fn found_partitions(&mut self, found: &[PartitionId], effects: &mut Vec<GateEffect>) {
        if let Some(gone) = self.partitions.keys().find(|known| !found.contains(known)) {
            return self.stop(StopReason::PartitionGone(*gone), effects);
        }
        let added: Vec<PartitionId> = found
            .iter()
            .filter(|partition| !self.partitions.contains_key(partition))
            .copied()
            .collect();
        if !added.is_empty() {
            for partition in added {
                self.partitions
                    .insert(partition, PartitionWatermark::new(self.now.mono));
            }
            self.start_over(effects);
        }
    }

    /// A partition not read to its end for so long may have lost tombstones that were never read.
    fn check_deadlines(&mut self, effects: &mut Vec<GateEffect>) {
        let Some(lag) = self.topic.compaction_lag else {
            return;
        };
        if self.is_reading_from_start() {
            return;
        }
        let mut limit = self.topic.delete_retention;
        if !lag.is_zero() {
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
            self.start_over(effects);
        }
    }

    fn start_over(&mut self, effects: &mut Vec<GateEffect>) {
        self.counters.starts_over += 1;
        self.latest_t = self.now;
        for (partition, state) in &mut self.partitions {
            let read_to = state.staged_to();
            if self.published.is_some() && read_to > Offset(0) {
                let before = self.read_before.entry(*partition).or_default();
                *before = read_to.max(*before);
            }
            *state = PartitionWatermark::new(self.now.mono);
        }
        // What is read anew has no watermark yet; the one that was reached stands in the status (I1).
        self.low_watermark_before = self.low_watermark_before.max(self.low_watermark.take());
        let was_paused = self.staging.is_paused();
        self.staging = Staging::new(self.config.staging_max, self.config.staging_bytes_max);
        self.promotion = None;
        self.index = Arc::new(Index::empty(self.config.engine));
        self.floor = Floor::new(self.config.floor);
        self.rejected_zones.clear();
        self.unnamed_rejections = 0;
        effects.push(GateEffect::StartOver(
            self.partitions.keys().copied().collect(),
        ));
        if was_paused {
            effects.push(GateEffect::ResumeZones);
        }
        self.starting_over = self.published.is_some();
        if let Some(published) = &self.published
            && !published.degraded
        {
            let degraded = Published {
                degraded: true,
                ..published.clone()
            };
            self.publish(degraded, effects);
        }
    }

    fn built(
        &mut self,
        number: u64,
        result: Result<Built, BuildFailure>,
        effects: &mut Vec<GateEffect>,
    ) {
        // A build from before a start over is nobody's any more.
        let Some((expected, mut promotion)) = self.promotion.take() else {
            return;
        };
        if expected != number {
            self.promotion = Some((expected, promotion));
            return;
        }
        let mut step = match result {
            Ok(built) => {
                self.counters.version_regressions += built.report.version_regressions;
                self.counters.foreign_partition += built.report.foreign_partition_changes;
                if let Some(end) = built.report.dropped_history_end {
                    self.floor.raise(end);
                }
                promotion.built(built)
            }
            Err(failure) => {
                self.counters.build_failures += 1;
                promotion.failed(failure)
            }
        };
        if let Step::Refused(change, failure) = step {
            let rejection = Rejection::new(RejectionReason::BuildFailed, failure.to_string());
            self.refuse_built(&change, rejection, &mut promotion, effects);
            step = promotion.next();
        }
        match step {
            Step::Build(index, changes) => {
                self.promotion = Some((0, promotion));
                self.request(index, changes, effects);
            }
            Step::Done(index) => self.index = index,
            Step::Refused(..) => unreachable!("`next` refuses nothing"),
        }
    }

    fn refuse_built(
        &mut self,
        change: &StagedChange,
        rejection: Rejection,
        promotion: &mut Promotion,
        effects: &mut Vec<GateEffect>,
    ) {
        self.counters.accepted = self.counters.accepted.saturating_sub(1);
        let removal = admission::removal(
            &change.zone_id,
            change.position,
            change.commit_time,
            self.topic.compaction_lag,
        );
        self.rejected(
            Some(change.zone_id.clone()),
            change.position,
            rejection,
            None,
            effects,
        );
        if let Some(named) = self.rejected_zones.get_mut(&change.zone_id) {
            named.ends_at = removal.as_ref().map(|removal| removal.valid_from);
        }
        if let Some(removal) = removal
            && !matches!(change.change, crate::zone::ZoneChange::Remove)
        {
            promotion.replace(removal);
        }
    }

    fn request(
        &mut self,
        index: Arc<Index>,
        changes: Arc<[StagedChange]>,
        effects: &mut Vec<GateEffect>,
    ) {
        self.builds += 1;
        if let Some((number, _)) = &mut self.promotion {
            *number = self.builds;
        }
        let as_of = self
            .published
            .as_ref()
            .map_or(EventTime::MIN, |published| published.as_of);
        effects.push(GateEffect::Build(BuildRequest {
            number: self.builds,
            index,
            changes,
            as_of,
            rules: BuildRules {
                history_bytes_max: self.config.history_bytes_max,
            },
        }));
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

    fn advance_builds(&mut self, effects: &mut Vec<GateEffect>) {
        if self.promotion.is_some() || self.live_snapshots > self.config.live_snapshots_max {
            return;
        }
        let changes = if self.staging.should_build_ahead() {
            self.staging.take_all()
        } else {
            match (self.low_watermark, self.staging.earliest()) {
                (Some(low), Some(earliest)) if earliest <= low => self.staging.take_until(low),
                _ => return,
            }
        };
        if changes.is_empty() {
            return;
        }
        let promotion = Promotion::new(self.index.clone(), changes);
        if let Step::Build(index, changes) = promotion.next() {
            self.promotion = Some((0, promotion));
            self.request(index, changes, effects);
        }
    }

    /// The low watermark up to which everything is in the index at hand.
    fn complete_to(&self) -> Option<EventTime> {
        let building = self
            .promotion
            .as_ref()
            .and_then(|(_, promotion)| promotion.earliest());
        let waiting = [self.staging.earliest(), building]
            .into_iter()
            .flatten()
            .min();
        let before_waiting = waiting.map(|first| first.minus(Duration::from_millis(1)));
        let low = self.low_watermark?;
        Some(before_waiting.map_or(low, |before| low.min(before)))
    }

    fn advance_as_of(&mut self, effects: &mut Vec<GateEffect>) {
        let Some(complete_to) = self.complete_to() else {
            return;
        };
        let degraded = self.margin.is_degraded();
        match &self.published {
            None => {
                // The bootstrap is whole: one build at its end, nothing left that the watermark has passed.
                let is_whole = self.low_watermark == Some(complete_to) && self.promotion.is_none();
                if is_whole && self.has_zones(complete_to) {
                    self.end_bootstrap(complete_to);
                    self.publish_new(complete_to, degraded, effects);
                    effects.push(GateEffect::Bootstrapped);
                }
            }
            Some(published) if self.starting_over => {
                let is_whole = self.low_watermark == Some(complete_to) && self.promotion.is_none();
                if is_whole && complete_to >= published.as_of {
                    self.end_bootstrap(complete_to);
                    self.starting_over = false;
                    self.read_before.clear();
                    self.publish_new(complete_to, degraded, effects);
                }
            }
            Some(published) => {
                if self.live_snapshots > self.config.live_snapshots_max {
                    return;
                }
                let as_of = published.as_of.max(complete_to);
                let floor = self.floor.get().unwrap_or(published.floor);
                // `complete_to` speaks of the index at hand: the published one may lack what was built last, although the
                // next build has begun meanwhile.
                if !Arc::ptr_eq(&published.index, &self.index) {
                    self.publish_new(as_of, degraded, effects);
                } else if as_of > published.as_of
                    || floor > published.floor
                    || degraded != published.degraded
                {
                    // Answers above the history that the next index has dropped are the same in this one.
                    let head = Published {
                        index: published.index.clone(),
                        as_of,
                        floor,
                        degraded,
                    };
                    self.publish(head, effects);
                }
            }
        }
    }

    fn has_zones(&self, at: EventTime) -> bool {
        self.config.allow_empty || self.index.zones_in_force(at).next().is_some()
    }

    /// The latest T, and the time that has passed since.
    fn latest_t_by_now(&self) -> EventTime {
        let Now { mono, wall } = self.latest_t;
        wall.plus(self.now.mono.since(mono))
    }

    fn end_bootstrap(&mut self, as_of: EventTime) {
        // T may have stepped back just now. Compaction went by the brokers' clocks all the same, and a floor too high only
        // flags an answer, where one too low promises a wrong one.
        let t = self.latest_t_by_now().max(self.now.wall);
        let t = self.newest_stamp.map_or(t, |stamp| t.max(stamp));
        self.floor
            .bootstrapped(as_of, t, self.margin.current(), self.topic.compaction_lag);
    }

    fn publish_new(&mut self, as_of: EventTime, degraded: bool, effects: &mut Vec<GateEffect>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let floor = self.floor.get().unwrap_or(as_of);
        self.publish(
            Published {
                index: self.index.clone(),
                as_of,
                floor,
                degraded,
            },
            effects,
        );
    }

    fn publish(&mut self, published: Published, effects: &mut Vec<GateEffect>) {
        if let Some(before) = &self.published {
            assert!(published.as_of >= before.as_of, "I1: as_of never goes back");
        }
        effects.push(GateEffect::Publish(Arc::new(Snapshot {
            index: published.index.clone(),
            epoch: self.epoch,
            as_of: published.as_of,
            floor: published.floor,
            degraded: published.degraded,
        })));
        self.published = Some(published);
    }

    /// What it would tell a person.
    #[must_use]
    pub fn status(&self) -> GateStatus {
        let (held, held_bytes) = self.promotion.as_ref().map_or((0, 0), |(_, promotion)| {
            (promotion.changes(), promotion.bytes())
        });
        let published = self.published.as_ref();
        GateStatus {
            bootstrapped: published.is_some(),
            waiting_for: self.waiting_for(),
            starting_over: self.starting_over,
            degraded: published.is_some_and(|published| published.degraded),
            t: self.now.wall,
            low_watermark: self.low_watermark.max(self.low_watermark_before),
            as_of: published.map(|published| published.as_of),
            floor: published.map(|published| published.floor),
            settle_margin: self.margin.current(),
            epoch: self.epoch,
            zones: published.map_or(0, |published| published.index.zone_count()),
            staged: self.staging.len() + held,
            staged_bytes: self.staging.bytes() + held_bytes,
            paused: self.staging.is_paused(),
            newest_stamp: self.newest_stamp,
            held_by: self.held_by(),
            partitions: self
                .partitions
                .iter()
                .map(|(partition, state)| PartitionStatus {
                    partition: *partition,
                    watermark: state.watermark(),
                    next_offset: state.next_offset(),
                    log_end: match state.last_answer {
                        LastAnswer::End(end) => Some(end),
                        _ => None,
                    },
                })
                .collect(),
            rejected_zones: self
                .rejected_zones
                .iter()
                .take(REJECTED_ZONES_TOLD)
                .map(|(id, zone)| (id.clone(), zone.clone()))
                .collect(),
            rejected_zone_count: self.rejected_zones.len() + self.unnamed_rejections,
            counters: self.counters,
        }
    }

    fn held_by(&self) -> Vec<Held> {
        let behind = self.now.wall.minus(self.margin.current() + HELD_AFTER);
        self.partitions
            .iter()
            .filter(|(_, state)| state.watermark().is_none_or(|watermark| watermark < behind))
            .map(|(partition, state)| Held {
                partition: *partition,
                cause: self.cause(state),
                held_for: self.held_for(state, self.now.mono),
            })
            .collect()
    }

    fn held_for(&self, state: &PartitionWatermark, now: MonoTime) -> Duration {
        now.since(state.reached_end_at)
    }

    fn cause(&self, state: &PartitionWatermark) -> HeldCause {
        if self.now.mono.since(state.last_answer_at) > HELD_AFTER {
            return HeldCause::NoAnswer;
        }
        match state.last_answer {
            LastAnswer::None => HeldCause::NoAnswer,
            LastAnswer::Unanswered => HeldCause::LargestTimestamp,
            LastAnswer::End(_) if self.staging.is_paused() => HeldCause::Paused,
            // Read to where the client sees the end, but not to the end: only a transaction hides what is between.
            LastAnswer::End(end)
                if state.staged_to() < end
                    && state.end_of_partition() >= state.next_offset()
                    && state.end_of_partition() > Offset(0) =>
            {
                HeldCause::OpenTransaction
            }
            LastAnswer::End(_) => HeldCause::BehindEnd,
        }
    }

    fn waiting_for(&self) -> String {
        if self.published.is_some() && !self.starting_over {
            return String::new();
        }
        let waiting: Vec<String> = self
            .partitions
            .iter()
            .filter(|(_, state)| state.watermark().is_none())
            .map(|(partition, state)| {
                format!("partition {partition} ({})", self.cause(state).as_str())
            })
            .collect();
        if !waiting.is_empty() {
            format!("zones topic to be read to its end: {}", waiting.join(", "))
        } else if self.promotion.is_some() || self.staging.len() > 0 {
            "index to be built".to_owned()
        } else if self.starting_over {
            "the new reading to reach the published as_of".to_owned()
        } else {
            "a zone in force (or set `zones.allow_empty`)".to_owned()
        }
    }
}
