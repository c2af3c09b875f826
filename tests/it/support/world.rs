//! Gate and engine together over logs in memory: what `run` wires, without threads, and with every step in the hands of
//! the test: reading, asking for end offsets, answering, building, matching, acknowledging, committing, crashing.
//!
//! Time is true time in milliseconds; each zone partition's broker and our own host may have clocks that differ from it.
//! [`World::truth`] remembers every change ever written, whatever compaction takes away: the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringfence::codec::headers;
use ringfence::codec::zone_change::{self, ZoneRules, zone_of_key};
use ringfence::gate::clock_guard::ClockGuard;
use ringfence::gate::{
    BuildRequest, EndAnswer, Gate, GateConfig, GateEffect, GateInput, LiveIndexes, MaxTimestamp,
    ProofKind, ProofRound, RetireList, Snapshot, SnapshotCell, StopReason, ZoneRecord, ZonesTopic,
};
use ringfence::geometry::{Position, ShapeRules};
use ringfence::partition::{Offset, PartitionId, RecordPosition};
use ringfence::pipeline::PipelineConfig;
use ringfence::rejection::Rejection;
use ringfence::telemetry::{RecordRef, RecordTimestamp};
use ringfence::time::{EventTime, MonoTime, Now};

use crate::support::log::PartitionLog;
use crate::support::worker::{Worker, Written, event};
use crate::support::zones::{PlainZones, change, t};

/// What a world is made of.
pub(crate) struct WorldConfig {
    pub(crate) zone_partitions: usize,
    pub(crate) telemetry_partitions: usize,
    pub(crate) start: i64,
    pub(crate) gate: GateConfig,
    pub(crate) pipeline: PipelineConfig,
    /// `min.compaction.lag.ms`; `None` = the zones topic is not compacted.
    pub(crate) compaction_lag: Option<Duration>,
}

impl WorldConfig {
    pub(crate) fn new(start: i64) -> Self {
        Self {
            zone_partitions: 2,
            telemetry_partitions: 2,
            start,
            gate: GateConfig::default(),
            pipeline: crate::support::worker::config(),
            compaction_lag: None,
        }
    }
}

/// Logs, a gate, and at most one worker.
pub(crate) struct World {
    pub(crate) config: WorldConfig,
    /// True time.
    pub(crate) now: i64,
    /// Our host's clock less true time.
    pub(crate) wall_ahead: i64,
    /// Each zone partition's broker's clock less true time.
    pub(crate) broker_ahead: Vec<i64>,
    pub(crate) zones: Vec<PartitionLog>,
    pub(crate) telemetry: Vec<PartitionLog>,
    pub(crate) truth: PlainZones,
    pub(crate) gate: Gate,
    guard: ClockGuard,
    zone_positions: Vec<i64>,
    /// Partitions that the gate knows of.
    known_partitions: usize,
    /// Partitions that the published index was read from.
    pub(crate) served_partitions: usize,
    /// Until then a partition's leader neither gives records nor answers.
    pub(crate) slow_until: Vec<i64>,
    /// Up to where each partition was read by this process, whatever it reads again.
    met: Vec<i64>,
    /// Changes that were stamped at or below as_of when this process met them first: what I16 must count.
    pub(crate) met_late: u64,
    building: BTreeMap<u64, Vec<RecordPosition>>,
    built: BTreeSet<RecordPosition>,
    /// The changes that the published index was built from.
    pub(crate) in_index: BTreeSet<RecordPosition>,
    pub(crate) zones_paused: bool,
    /// Builds that wait to be run.
    pub(crate) builds: VecDeque<BuildRequest>,
    cell: SnapshotCell,
    retired: RetireList,
    live: LiveIndexes,
    pub(crate) bootstrapped: bool,
    pub(crate) stopped: Option<StopReason>,
    pub(crate) start_overs: usize,
    pub(crate) late_changes: Vec<RecordPosition>,
    /// Those of them that stood in a partition which the published index was not read from.
    pub(crate) late_in_new: Vec<RecordPosition>,
    pub(crate) rejected: Vec<(RecordPosition, Rejection)>,
    pub(crate) worker: Option<Worker<Snapshot>>,
    /// The group's offsets: they outlive a crash.
    pub(crate) committed: BTreeMap<i32, i64>,
    telemetry_positions: BTreeMap<i32, i64>,
    /// Everything that was ever written and acknowledged or not, by crashed workers too.
    pub(crate) outputs: Vec<Written>,
}

impl World {
    pub(crate) fn new(config: WorldConfig) -> Self {
        let now = Now {
            mono: MonoTime::default(),
            wall: t(config.start),
        };
        let topic = ZonesTopic {
            partitions: partitions(config.zone_partitions),
            compaction_lag: config.compaction_lag,
            delete_retention: Duration::from_secs(7 * 86_400),
        };
        Self {
            now: config.start,
            wall_ahead: 0,
            broker_ahead: vec![0; config.zone_partitions],
            zones: vec![PartitionLog::default(); config.zone_partitions],
            telemetry: vec![PartitionLog::default(); config.telemetry_partitions],
            truth: PlainZones::new(0),
            gate: Gate::new(config.gate.clone(), topic, now),
            guard: ClockGuard::new(now.wall, now.mono),
            zone_positions: vec![0; config.zone_partitions],
            known_partitions: config.zone_partitions,
            served_partitions: config.zone_partitions,
            slow_until: vec![i64::MIN; config.zone_partitions],
            met: vec![0; config.zone_partitions],
            met_late: 0,
            building: BTreeMap::new(),
            built: BTreeSet::new(),
            in_index: BTreeSet::new(),
            zones_paused: false,
            builds: VecDeque::new(),
            cell: SnapshotCell::default(),
            retired: RetireList::default(),
            live: LiveIndexes::default(),
            bootstrapped: false,
            stopped: None,
            start_overs: 0,
            late_changes: Vec::new(),
            late_in_new: Vec::new(),
            rejected: Vec::new(),
            worker: None,
            committed: BTreeMap::new(),
            telemetry_positions: BTreeMap::new(),
            outputs: Vec::new(),
            config,
        }
    }

    /// Both clocks, guarded, as the edge reads them.
    pub(crate) fn clocks(&mut self) -> Now {
        let elapsed = u64::try_from(self.now - self.config.start).unwrap();
        let mono = MonoTime::from_micros(elapsed * 1_000);
        let wall = EventTime::clamped(self.now + self.wall_ahead);
        Now {
            mono,
            wall: self.guard.read(wall, mono, self.gate.newest_stamp()),
        }
    }

    pub(crate) fn advance(&mut self, millis: i64) {
        self.now += millis;
        // As the promoter does every 10 ms: a reader may have left.
        self.retired.reclaim();
        let live = self.live.count();
        self.tell(GateInput::LiveSnapshots(live));
        self.tell(GateInput::Tick);
    }

    /// Writes a zone record, readable after `delay`; `value` = `None` is a tombstone. The value must be valid.
    pub(crate) fn write_zone(
        &mut self,
        partition: usize,
        id: &str,
        value: Option<&str>,
        delay: i64,
    ) {
        let stamp = self.now + self.broker_ahead[partition];
        let log = &mut self.zones[partition];
        let offset = log.append(
            stamp,
            self.now + delay,
            Some(id.as_bytes()),
            value.map(str::as_bytes),
        );
        self.truth
            .changes
            .push(change(partition as i32, offset, stamp, id, value));
    }

    /// Writes a marker, as this process or another one does, readable after `delay`.
    pub(crate) fn write_marker(&mut self, partition: usize, delay: i64) {
        self.write_marker_ahead(partition, delay, 0);
    }

    /// A marker that is stamped later than it may be.
    pub(crate) fn write_marker_ahead(&mut self, partition: usize, delay: i64, ahead: i64) {
        let stamp = self.now + self.broker_ahead[partition] + ahead;
        let key = Some(zone_change::MARKER_KEY);
        self.zones[partition].append(stamp, self.now + delay, key, None);
    }

    /// Writes a telemetry record with a producer's stamp.
    pub(crate) fn write_event(&mut self, partition: usize, time: i64, lon: f64, lat: f64) {
        let value = event(time, lon, lat);
        self.telemetry[partition].append(self.now, self.now, Some(b"bus"), Some(value.as_bytes()));
    }

    /// The zones reader takes at most `max` records of a partition.
    pub(crate) fn read_zones(&mut self, partition: usize, max: usize) {
        let is_known = partition < self.known_partitions;
        if self.zones_paused || self.stopped.is_some() || !is_known || self.is_slow(partition) {
            return;
        }
        let from = self.zone_positions[partition];
        let read = self.zones[partition].read(from, max, self.now);
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
        let id = PartitionId(partition as i32);
        self.zone_positions[partition] = read.next_offset;
        for record in read.records {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            if zone_change::is_marker(key, value) {
                self.tell(GateInput::Marker {
                    position: RecordPosition {
                        partition: id,
                        offset: Offset(record.offset),
                    },
                    timestamp: RecordTimestamp::LogAppend(t(record.stamp)),
                });
                continue;
            }
            if record.offset >= self.met[partition] {
                self.met[partition] = record.offset + 1;
                let as_of = self.cell.load().map(|snapshot| snapshot.as_of);
                self.met_late += u64::from(as_of.is_some_and(|as_of| t(record.stamp) <= as_of));
            }
            let outcome = zone_change::decode(key, value, &rules);
            let input = ZoneRecord {
                position: RecordPosition {
                    partition: id,
                    offset: Offset(record.offset),
                },
                timestamp: RecordTimestamp::LogAppend(t(record.stamp)),
                outcome: outcome.map_err(|rejection| (zone_of_key(key), rejection)),
                bytes: key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len),
                record: None,
            };
            self.tell(GateInput::Record(Box::new(input)));
        }
        let next_offset = Offset(read.next_offset);
        self.tell(GateInput::Position {
            partition: id,
            next_offset,
        });
        if read.at_end {
            // The event carries the end that the reader may see, also where compaction has emptied the tail.
            let next_offset = Offset(self.zones[partition].stable_end(self.now));
            self.tell(GateInput::EndOfPartition {
                partition: id,
                next_offset,
            });
        }
    }

    pub(crate) fn is_slow(&self, partition: usize) -> bool {
        self.now < self.slow_until[partition]
    }

    /// Asks all zone partitions for their ends, now; to be answered then or later with [`Self::answer`].
    pub(crate) fn ask(&mut self) -> ProofRound {
        let asked_at = self.clocks().wall;
        let now = self.now;
        let answer = |log: &PartitionLog| EndAnswer {
            log_start: Offset(0),
            log_end: Offset(log.log_end(now)),
            max_timestamp: log
                .max_timestamp(now)
                .map_or(MaxTimestamp::Unanswered, |offset| {
                    MaxTimestamp::At(Offset(offset))
                }),
        };
        let ids = partitions(self.known_partitions);
        ProofRound {
            asked_at,
            answers: ids.into_iter().zip(self.zones.iter().map(answer)).collect(),
        }
    }

    pub(crate) fn answer(&mut self, round: ProofRound) {
        self.tell(GateInput::Round(round));
    }

    /// Runs the build that has waited longest.
    pub(crate) fn build_one(&mut self) {
        if let Some(build) = self.builds.pop_front() {
            let result = build.run();
            if result.is_ok() {
                // One from before a start over is nobody's any more.
                let positions = self.building.remove(&build.number).unwrap_or_default();
                self.built.extend(positions);
            }
            self.tell(GateInput::Built(build.number, result));
        }
    }

    /// Tells the gate, and does what it says.
    pub(crate) fn tell(&mut self, input: GateInput) {
        let now = self.clocks();
        let mut effects = Vec::new();
        self.gate.handle(input, now, &mut effects);
        let mut published = false;
        for effect in effects {
            match effect {
                GateEffect::Build(build) => {
                    let positions = build.changes().iter().map(|change| change.position);
                    self.building.insert(build.number, positions.collect());
                    self.builds.push_back(build);
                }
                GateEffect::Publish(snapshot) => {
                    self.note_published(&snapshot);
                    self.live.published(&snapshot);
                    // Here, where a reader, the one before and the new one meet.
                    let (live, most) = (self.live.count(), self.config.gate.live_snapshots_max);
                    assert!(live <= most, "I7: {live} indexes live, at most {most}");
                    if let Some(before) = self.cell.publish(snapshot) {
                        self.retired.retire(before);
                    }
                    published = true;
                }
                GateEffect::PauseZones => self.zones_paused = true,
                GateEffect::ResumeZones => self.zones_paused = false,
                GateEffect::DeadLetter {
                    position,
                    rejection,
                    ..
                } => {
                    self.rejected.push((position, rejection));
                }
                GateEffect::Bootstrapped => self.bootstrapped = true,
                GateEffect::StartOver(again) => {
                    self.start_overs += 1;
                    self.building.clear();
                    self.built.clear();
                    for partition in again {
                        self.zone_positions[partition.0 as usize] = 0;
                    }
                }
                GateEffect::Stop(reason) => self.stopped = Some(reason),
                GateEffect::LateChange { position, .. } => {
                    self.late_changes.push(position);
                    if position.partition.0 as usize >= self.served_partitions {
                        self.late_in_new.push(position);
                    }
                }
            }
        }
        if published {
            self.retired.reclaim();
            let live = self.live.count();
            self.tell(GateInput::LiveSnapshots(live));
        }
    }

    fn note_published(&mut self, snapshot: &Snapshot) {
        let before = self.cell.load();
        let (epoch, is_new) = match &before {
            Some(before) => (before.epoch.0, !Arc::ptr_eq(&before.index, &snapshot.index)),
            None => (0, true),
        };
        assert_eq!(snapshot.epoch.0, epoch + u64::from(is_new), "I3");
        if is_new {
            self.in_index = self.built.clone();
        }
        if !self.gate.status().starting_over {
            self.served_partitions = self.known_partitions;
        }
    }

    /// What a reader holds for the length of its batch.
    pub(crate) fn reader(&self) -> Option<Arc<Snapshot>> {
        self.cell.load()
    }

    /// Published indexes in memory.
    pub(crate) fn live_indexes(&mut self) -> usize {
        self.live.count()
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.cell.load().map(|snapshot| (*snapshot).clone())
    }

    /// A worker joins and owns these partitions from their committed offsets on (I14: not before the bootstrap).
    pub(crate) fn start_worker(&mut self, owned: &[i32]) {
        let snapshot = self
            .snapshot()
            .expect("I14: a process joins after its bootstrap");
        let now = self.clocks();
        let mut worker = Worker::new(self.config.pipeline.clone(), snapshot, 0, &[]);
        worker.now = now;
        self.worker = Some(worker);
        self.assign(owned);
    }

    pub(crate) fn assign(&mut self, owned: &[i32]) {
        for partition in owned {
            let start = self.committed.get(partition).copied().unwrap_or(0);
            self.telemetry_positions.insert(*partition, start);
        }
        self.refresh().assign(owned);
    }

    /// Gives the worker the clocks and the snapshot of now.
    fn refresh(&mut self) -> &mut Worker<Snapshot> {
        let now = self.clocks();
        let snapshot = self.snapshot().expect("published since the worker joined");
        let worker = self.worker.as_mut().expect("a worker was started");
        (worker.now, worker.zones) = (now, snapshot);
        worker
    }

    /// The worker takes at most `max` records of an owned partition, as far as it may.
    pub(crate) fn work(&mut self, partition: i32, max: usize) {
        let position = self.telemetry_positions[&partition];
        let log = self.telemetry[partition as usize].clone();
        let now = self.now;
        let worker = self.refresh();
        if worker.client_paused.contains(&PartitionId(partition)) {
            return;
        }
        let read = log.read(position, max.min(worker.flow.take), now);
        let batch: Vec<_> = read
            .records
            .iter()
            .map(|record| RecordRef {
                partition: PartitionId(partition),
                offset: Offset(record.offset),
                timestamp: RecordTimestamp::Create(t(record.stamp)),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &[],
            })
            .collect();
        worker.ingest(&batch);
        worker.ask_flow();
        self.telemetry_positions.insert(partition, read.next_offset);
    }

    pub(crate) fn turn(&mut self) {
        self.refresh().turn();
    }

    /// Commits what may be committed.
    pub(crate) fn commit(&mut self) {
        let worker = self.worker.as_mut().expect("a worker was started");
        worker.commit(0);
        for (partition, offset) in &worker.commits {
            let before = self.committed.insert(partition.0, offset.0);
            assert!(
                before <= Some(offset.0),
                "I6: the group's offsets do not go back"
            );
        }
    }

    /// The zones topic gets one more partition, and the gate hears of it.
    pub(crate) fn add_zone_partition(&mut self) {
        self.create_zone_partition();
        self.discover_partitions();
    }

    /// The zones topic gets one more partition, of which the gate does not know yet.
    pub(crate) fn create_zone_partition(&mut self) {
        self.zones.push(PartitionLog::default());
        self.broker_ahead.push(0);
        self.zone_positions.push(0);
        self.slow_until.push(i64::MIN);
        self.met.push(0);
    }

    /// The gate hears of all partitions.
    pub(crate) fn discover_partitions(&mut self) {
        self.known_partitions = self.zones.len();
        self.tell(GateInput::Partitions(partitions(self.zones.len())));
    }

    /// The process is gone, worker and gate, and another one starts; logs and committed offsets stay.
    pub(crate) fn restart(&mut self) {
        if self.worker.is_some() {
            self.crash();
        }
        let mono = self.clocks().mono;
        let now = Now {
            mono,
            wall: EventTime::clamped(self.now + self.wall_ahead),
        };
        let topic = ZonesTopic {
            partitions: partitions(self.zones.len()),
            compaction_lag: self.config.compaction_lag,
            delete_retention: Duration::from_secs(7 * 86_400),
        };
        self.gate = Gate::new(self.config.gate.clone(), topic, now);
        self.guard = ClockGuard::new(now.wall, now.mono);
        self.zone_positions.fill(0);
        self.known_partitions = self.zones.len();
        self.served_partitions = self.zones.len();
        self.met.fill(0);
        self.met_late = 0;
        self.late_changes.clear();
        self.late_in_new.clear();
        self.building.clear();
        self.built.clear();
        self.in_index.clear();
        self.zones_paused = false;
        self.builds.clear();
        self.cell = SnapshotCell::default();
        self.retired = RetireList::default();
        self.live = LiveIndexes::default();
        self.bootstrapped = false;
    }

    /// The worker is gone with all that it knew; what it has written stays.
    pub(crate) fn crash(&mut self) {
        let worker = self.worker.take().expect("a worker was started");
        self.outputs.extend(worker.written);
    }

    /// One round of everything, `millis` later: what a healthy process does.
    pub(crate) fn round(&mut self, millis: i64) {
        self.advance(millis);
        let round = self.ask();
        for partition in 0..self.zones.len() {
            if self.config.gate.proof == ProofKind::Marker {
                self.write_marker(partition, 0);
            }
            self.read_zones(partition, usize::MAX);
        }
        self.answer(round);
        while !self.builds.is_empty() {
            self.build_one();
        }
        if let Some(worker) = &self.worker {
            for partition in worker.engine.owned() {
                self.work(partition.0, 1_000);
            }
            self.turn();
            self.worker.as_mut().expect("it was there").ack_all();
            self.commit();
        }
    }

    /// Rounds until the bootstrap is done.
    pub(crate) fn bootstrap(&mut self) {
        for _ in 0..1_000 {
            if self.bootstrapped {
                return;
            }
            self.round(50);
        }
        panic!("no bootstrap after 50 s: {:?}", self.gate.status());
    }

    /// The ids that the truth has for an output, as its value shows them.
    pub(crate) fn expected_zones(&self, position: Position, out: &Written) -> Vec<String> {
        self.expected_zones_without(&[], position, out)
    }

    /// The same, had these records not been written.
    pub(crate) fn expected_zones_without(
        &self,
        without: &[RecordPosition],
        position: Position,
        out: &Written,
    ) -> Vec<String> {
        let at = out.header(headers::AT).expect("an enriched record");
        let at = EventTime::clamped(at.parse().unwrap());
        self.truth
            .at_without(without, position, at)
            .iter()
            .map(|zone| zone.id.to_string())
            .collect()
    }
}

fn partitions(count: usize) -> Vec<PartitionId> {
    (0..count as i32).map(PartitionId).collect()
}

/// The ids in an output's value.
pub(crate) fn zones_of(out: &Written) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(out.text()).unwrap();
    serde_json::from_value(value["zones"].clone()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::zones::rectangle;

    const START: i64 = 1_700_000_000_000;
    const PLACE: Position = Position {
        lon: 0.25,
        lat: 0.5,
    };

    /// `l` and `r` share a border, in two partitions.
    fn jigsaw() -> World {
        let mut world = World::new(WorldConfig::new(START));
        write_halves(&mut world, 0.0, "", 0);
        world.advance(1_000);
        world.bootstrap();
        world.start_worker(&[0, 1]);
        world
    }

    fn write_halves(world: &mut World, border: f64, more: &str, delay: i64) {
        let left = rectangle("l", -1.0, 0.0, border - 1e-6, 1.0, more);
        let right = rectangle("r", border, 0.0, 1.0, 1.0, more);
        world.write_zone(0, "l", Some(&left), 0);
        world.write_zone(1, "r", Some(&right), delay);
    }

    fn check_outputs(world: &World, outputs: &[Written]) {
        for out in outputs {
            let zones = zones_of(out);
            assert_eq!(
                zones,
                world.expected_zones(PLACE, out),
                "I10: {:?}",
                out.source
            );
            assert_eq!(zones.len(), 1, "the jigsaw: {:?} {zones:?}", out.source);
        }
    }

    #[test]
    fn a_border_that_moves_in_two_partitions_moves_at_one_instant() {
        let mut world = jigsaw();
        let effective_at = world.now + 400;
        // One half gets visible 150 ms after the other.
        write_halves(
            &mut world,
            0.5,
            &format!(r#""effective_at":{effective_at}"#),
            150,
        );
        for _ in 0..30 {
            world.write_event(0, world.now, PLACE.lon, PLACE.lat);
            world.round(50);
        }
        for _ in 0..20 {
            world.round(50);
        }
        let worker = world.worker.as_ref().unwrap();
        assert_eq!((worker.written.len(), world.late_changes.len()), (30, 0));
        assert!(worker.written.iter().all(|out| out.flags().is_empty()));
        check_outputs(&world, &worker.written);
        let zones: Vec<_> = worker
            .written
            .iter()
            .map(|out| zones_of(out).remove(0))
            .collect();
        assert!(
            zones.is_sorted_by(|a, b| a >= b) && zones[0] == "r" && zones[29] == "l",
            "{zones:?}"
        );
        assert_eq!(world.committed.get(&0), Some(&30));
    }

    #[test]
    fn silent_zone_partitions_make_nothing_unsettled() {
        let mut world = jigsaw();
        for _ in 0..1_200 {
            world.write_event(1, world.now, PLACE.lon, PLACE.lat);
            world.round(50);
        }
        let worker = world.worker.as_ref().unwrap();
        assert!(worker.written.len() > 1_180);
        assert!(worker.written.iter().all(|out| out.flags().is_empty()));
    }

    #[test]
    fn i10_a_second_run_after_a_crash_writes_the_same_bytes() {
        let mut world = jigsaw();
        for step in 0..40 {
            world.write_event(0, world.now - step * 7, PLACE.lon, PLACE.lat);
            if step == 20 {
                let more = format!(r#""effective_at":{}"#, world.now + 100);
                write_halves(&mut world, 0.5, &more, 0);
            }
            world.round(50);
        }
        world.crash();
        world.committed.clear();
        world.start_worker(&[0]);
        for _ in 0..20 {
            world.round(50);
        }
        let again = &world.worker.as_ref().unwrap().written;
        assert_eq!(again.len(), 40);
        check_outputs(&world, again);
        let unflagged = world.outputs.iter().filter(|out| out.flags().is_empty());
        for (first, second) in unflagged.zip(again) {
            assert_eq!((first.source, &first.value), (second.source, &second.value));
        }
    }
}
