//! The gate as a whole, driven by hand: a log of zone changes in, snapshots out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::geometry::{Area, Position, RawShape, ShapeRules};
use crate::index::BuildFailure;
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::{OwnedRecord, RecordTimestamp};
use crate::time::{EventTime, MonoTime, Now};
use crate::zone::{DecodedChange, Zone, ZoneChange, ZoneId};

fn t(millis: i64) -> EventTime {
    EventTime::clamped(millis)
}

fn now(millis: i64) -> Now {
    Now {
        mono: MonoTime::from_micros(u64::try_from(millis).expect("positive") * 1_000),
        wall: t(millis),
    }
}

fn zone(id: &str, lon: f64) -> ZoneChange {
    let corner = |x: f64, y: f64| Position {
        lon: lon + x,
        lat: y,
    };
    let ring = vec![
        corner(0.0, 0.0),
        corner(1.0, 0.0),
        corner(1.0, 1.0),
        corner(0.0, 1.0),
        corner(0.0, 0.0),
    ];
    let area = Area::new(
        RawShape::MultiPolygon(vec![vec![ring]]),
        &ShapeRules::default(),
    )
    .expect("a square is valid");
    ZoneChange::Upsert(Arc::new(Zone {
        id: ZoneId::new(id),
        id_json: format!("\"{id}\"").into(),
        area,
        properties_json: None,
        version: None,
    }))
}

/// A gate with its builder and its publisher, both at once unless told otherwise.
struct Shard {
    gate: Gate,
    published: Option<Arc<Snapshot>>,
    effects: Vec<GateEffect>,
    builds: Vec<BuildRequest>,
    hold_builds: bool,
    next_offset: Vec<i64>,
    now: Now,
}

impl Shard {
    fn with(partitions: usize, compaction_lag: Option<Duration>, config: GateConfig) -> Self {
        let topic = ZonesTopic {
            partitions: (0..partitions)
                .map(|p| PartitionId(i32::try_from(p).expect("few")))
                .collect(),
            compaction_lag,
            delete_retention: Duration::from_secs(3_600),
        };
        Self {
            gate: Gate::new(config, topic, now(0)),
            published: None,
            effects: Vec::new(),
            builds: Vec::new(),
            hold_builds: false,
            next_offset: vec![0; partitions],
            now: now(0),
        }
    }

    fn new(partitions: usize) -> Self {
        Self::with(partitions, None, GateConfig::default())
    }

    fn tell(&mut self, input: GateInput) {
        let mut effects = Vec::new();
        self.gate.handle(input, self.now, &mut effects);
        for effect in effects {
            match effect {
                GateEffect::Build(request) => self.builds.push(request),
                GateEffect::Publish(snapshot) => {
                    if let Some(before) = &self.published {
                        assert!(snapshot.as_of >= before.as_of, "I1");
                        assert!(
                            snapshot.epoch == before.epoch
                                || snapshot.epoch.0 == before.epoch.0 + 1,
                            "I3"
                        );
                    }
                    self.published = Some(snapshot);
                }
                other => self.effects.push(other),
            }
        }
        if !self.hold_builds {
            self.build();
        }
    }

    fn build(&mut self) {
        while let Some(request) = self.builds.pop() {
            let result = request.run();
            self.tell(GateInput::Built(request.number, result));
        }
    }

    fn record(
        &mut self,
        partition: usize,
        commit: i64,
        outcome: Result<DecodedChange, (Option<ZoneId>, Rejection)>,
    ) {
        let position = RecordPosition::new(
            i32::try_from(partition).expect("few"),
            self.next_offset[partition],
        );
        self.next_offset[partition] += 1;
        let timestamp = RecordTimestamp::LogAppend(t(commit));
        self.tell(GateInput::Record(Box::new(ZoneRecord {
            position,
            timestamp,
            outcome,
            bytes: 100,
            record: Some(Arc::new(OwnedRecord {
                timestamp,
                key: None,
                value: Some(format!("value of {position}").into_bytes().into()),
                headers: Box::default(),
            })),
        })));
    }

    fn change(
        &mut self,
        partition: usize,
        commit: i64,
        id: &str,
        change: ZoneChange,
        effective_at: Option<i64>,
    ) {
        let decoded = DecodedChange {
            zone_id: ZoneId::new(id),
            change,
            effective_at: effective_at.map(t),
            expires_at: None,
            version: None,
        };
        self.record(partition, commit, Ok(decoded));
    }

    fn ends(&self, except: Option<usize>) -> Vec<(PartitionId, EndAnswer)> {
        (0..self.next_offset.len())
            .filter(|partition| Some(*partition) != except)
            .map(|partition| {
                let end = self.next_offset[partition];
                let answer = EndAnswer {
                    log_start: Offset(0),
                    log_end: Offset(end),
                    max_timestamp: MaxTimestamp::At(Offset(end - 1)),
                };
                (PartitionId(i32::try_from(partition).expect("few")), answer)
            })
            .collect()
    }

    /// Time goes on to `millis`, and a round is answered by all partitions but `except`.
    fn round(&mut self, millis: i64, except: Option<usize>) {
        self.now = now(millis);
        let answers = self.ends(except);
        self.tell(GateInput::Round(ProofRound {
            asked_at: t(millis),
            answers,
        }));
    }

    fn zones(&self, lon: f64, at: i64) -> Vec<String> {
        let snapshot = self.published.as_ref().expect("published");
        assert!(
            t(at) <= snapshot.as_of,
            "I15: {at} is above {:?}",
            snapshot.as_of
        );
        snapshot
            .index
            .zones_at(Position { lon, lat: 0.5 }, t(at))
            .iter()
            .map(|version| version.zone().id.as_str().to_owned())
            .collect()
    }

    /// Time goes on by so much.
    fn wait(&mut self, millis: i64) {
        self.now = now(self.now.wall.millis() + millis);
        self.tell(GateInput::Tick);
    }

    /// The topic gets one more partition, and everything is read again.
    fn add_partition(&mut self) {
        self.next_offset.push(0);
        let all = 0..self.next_offset.len();
        let all = all.map(|p| PartitionId(i32::try_from(p).expect("few")));
        self.tell(GateInput::Partitions(all.collect()));
    }

    /// What was dead-lettered, by partition and offset.
    fn letters(&self) -> Vec<(i32, i64)> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                GateEffect::DeadLetter { position, .. } => {
                    Some((position.partition.0, position.offset.0))
                }
                _ => None,
            })
            .collect()
    }

    fn epoch(&self) -> u64 {
        self.published
            .as_ref()
            .map_or(0, |snapshot| snapshot.epoch.0)
    }

    fn as_of(&self) -> Option<i64> {
        self.published
            .as_ref()
            .map(|snapshot| snapshot.as_of.millis())
    }

    fn floor(&self) -> i64 {
        self.published.as_ref().expect("published").floor.millis()
    }
}

/// A shard that has bootstrapped with zone `base` (lon 0 to 1) in partition 0.
fn running(partitions: usize) -> Shard {
    let mut shard = Shard::new(partitions);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    assert_eq!(shard.as_of(), Some(9_749));
    shard
}

#[test]
fn i14_nothing_is_published_before_every_partition_has_met_its_first_proof() {
    let mut shard = Shard::new(2);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, Some(1));
    assert_eq!(shard.as_of(), None);
    assert!(
        shard.gate.status().waiting_for.contains("partition 1"),
        "{}",
        shard.gate.status().waiting_for
    );
    shard.round(10_050, None);
    assert_eq!(shard.as_of(), Some(9_799), "both have answered this round");
    assert!(
        matches!(shard.effects[..], [GateEffect::Bootstrapped]),
        "{:?}",
        shard.effects
    );
}

#[test]
fn how_far_a_reading_from_the_start_has_come_is_told_until_it_is_done() {
    let mut shard = Shard::new(2);
    let reading = |shard: &Shard| {
        let reading = shard.gate.status().reading;
        reading.map(|Reading { read, of, .. }| (read, of))
    };
    assert_eq!(reading(&shard), None, "no end is known");
    // Partition 0 begins at 100, as retention has left it; of both some is read.
    for (partition, offset) in [(0, 119), (1, 9)] {
        shard.tell(GateInput::Position {
            partition: PartitionId(partition),
            next_offset: Offset(offset + 1),
        });
    }
    let answer = |start, end| EndAnswer {
        log_start: Offset(start),
        log_end: Offset(end),
        max_timestamp: MaxTimestamp::Unsupported,
    };
    let ends = [(0, answer(100, 150)), (1, answer(0, 30))];
    let round = |asked_at| ProofRound {
        asked_at: EventTime::clamped(asked_at),
        answers: (ends.iter())
            .map(|(partition, answer)| (PartitionId(*partition), *answer))
            .collect(),
    };
    shard.tell(GateInput::Round(round(10_000)));
    assert_eq!(reading(&shard), Some((30, 80)));
    let said = shard.gate.status().waiting_for;
    assert!(said.ends_with("; 30 of 80 records read"), "{said}");
    for (partition, end) in [(0, 150), (1, 30)] {
        shard.tell(GateInput::EndOfPartition {
            partition: PartitionId(partition),
            next_offset: Offset(end),
        });
    }
    assert_eq!(
        reading(&shard),
        Some((80, 80)),
        "an end may stand above what is read"
    );
    let mut shard = Shard::new(1);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    assert_eq!(shard.gate.status().reading, None);
    shard.round(10_000, None);
    assert_eq!(shard.gate.status().reading, None, "it is published");
}

#[test]
fn fs_59_a_bootstrap_without_a_zone_in_force_waits_unless_empty_is_allowed() {
    let mut shard = Shard::new(1);
    shard.change(0, 1_000, "soon", zone("soon", 0.0), Some(20_000));
    shard.round(10_000, None);
    assert_eq!(shard.as_of(), None, "scheduled is not in force");
    shard.round(20_251, None);
    assert_eq!(shard.as_of(), Some(20_000));
    let mut shard = Shard::with(
        1,
        None,
        GateConfig {
            allow_empty: true,
            ..GateConfig::default()
        },
    );
    shard.round(10_000, None);
    assert_eq!(shard.as_of(), Some(9_749));
}

#[test]
fn a_change_becomes_visible_only_at_a_cut_complete_over_all_partitions() {
    let mut shard = running(2);
    shard.change(0, 10_500, "new", zone("new", 0.0), None);
    shard.round(11_000, Some(1));
    assert_eq!(
        shard.as_of(),
        Some(9_749),
        "partition 1 may still bring something"
    );
    shard.round(11_050, None);
    assert_eq!(shard.as_of(), Some(10_799));
    assert_eq!(shard.zones(0.5, 10_499), ["base"]);
    assert_eq!(shard.zones(0.5, 10_500), ["base", "new"]);
}

#[test]
fn fs_18_a_partition_that_holds_the_gate_is_named_with_its_cause() {
    let mut shard = running(2);
    shard.round(12_000, Some(1));
    shard.round(14_000, Some(1));
    let held = shard.gate.status().held_by;
    assert_eq!(held.len(), 1);
    assert_eq!(
        (held[0].partition, held[0].cause),
        (PartitionId(1), HeldCause::NoAnswer)
    );
    assert_eq!(held[0].held_for, Duration::from_secs(4));
}

#[test]
fn as_of_stands_before_a_change_that_is_still_being_built() {
    let mut shard = running(1);
    shard.hold_builds = true;
    shard.change(0, 10_500, "new", zone("new", 0.0), None);
    shard.round(12_000, None);
    assert_eq!(
        shard.as_of(),
        Some(10_499),
        "complete up to the change that is not visible yet"
    );
    shard.build();
    assert_eq!(shard.as_of(), Some(11_749));
    assert_eq!(
        shard.published.as_ref().map(|snapshot| snapshot.epoch),
        Some(Epoch(2))
    );
    shard.round(12_100, None);
    assert_eq!(
        shard.published.as_ref().map(|snapshot| snapshot.epoch),
        Some(Epoch(2)),
        "only as_of moved"
    );
}

#[test]
fn two_zones_with_one_effective_at_in_two_partitions_change_together() {
    let mut shard = running(2);
    shard.change(0, 10_100, "west", zone("west", 2.0), None);
    shard.change(1, 10_100, "east", zone("east", 3.0), None);
    // The zones swap places at one instant.
    shard.change(0, 10_200, "west", zone("west", 3.0), Some(11_000));
    shard.change(1, 10_210, "east", zone("east", 2.0), Some(11_000));
    shard.round(12_000, None);
    assert_eq!(
        (shard.zones(2.5, 10_999), shard.zones(3.5, 10_999)),
        (vec!["west".into()], vec!["east".into()])
    );
    assert_eq!(
        (shard.zones(2.5, 11_000), shard.zones(3.5, 11_000)),
        (vec!["east".into()], vec!["west".into()])
    );
}

#[test]
fn i16_a_late_change_is_counted_widens_the_margin_and_acts_at_its_own_time() {
    let mut shard = running(1);
    shard.round(12_000, None);
    assert_eq!(shard.as_of(), Some(11_749));
    shard.change(0, 11_649, "late", zone("late", 0.0), None);
    let status = shard.gate.status();
    assert_eq!(status.counters.violations, 1);
    assert_eq!(status.counters.lateness_max, Duration::from_millis(100));
    assert_eq!(status.settle_margin, Duration::from_millis(450));
    shard.round(13_000, None);
    assert_eq!(shard.zones(0.5, 11_648), ["base"]);
    assert_eq!(
        shard.zones(0.5, 11_649),
        ["base", "late"],
        "as every re-read will say"
    );
}

#[test]
fn a_change_more_than_a_minute_late_degrades_until_restart() {
    let mut shard = running(1);
    shard.round(100_000, None);
    shard.change(0, 30_000, "late", zone("late", 0.0), None);
    shard.round(101_000, None);
    assert!(
        shard
            .published
            .as_ref()
            .is_some_and(|snapshot| snapshot.degraded.is_flagged())
    );
}

#[test]
fn fs_26_the_difference_to_the_newest_broker_stamp_is_told_from_the_first_live_record_on() {
    let mut shard = running(1);
    assert_eq!(shard.gate.status().clock_difference_ms, None);
    shard.change(0, 10_300, "new", zone("new", 0.0), None);
    assert_eq!(shard.gate.status().clock_difference_ms, Some(-300));
    shard.round(12_000, None);
    shard.change(0, 10_200, "older", zone("older", 0.0), None);
    assert_eq!(shard.gate.status().clock_difference_ms, Some(-300));
    shard.change(0, 11_990, "newer", zone("newer", 0.0), None);
    assert_eq!(shard.gate.status().clock_difference_ms, Some(10));
}

#[test]
fn fs_27_a_commit_time_in_the_future_blocks_nothing_and_is_not_in_force_yet() {
    let mut shard = running(2);
    let before = shard.gate.status().counters.future;
    shard.change(0, 86_400_000, "future", zone("future", 0.0), None);
    shard.change(0, 10_100, "after", zone("after", 0.0), None);
    shard.round(11_000, None);
    assert_eq!(shard.as_of(), Some(10_749));
    assert_eq!(shard.zones(0.5, 10_749), ["after", "base"]);
    assert_eq!(shard.gate.status().counters.future, before + 1);
}

#[test]
fn a_full_staging_pauses_the_zones_is_built_ahead_and_resumes_at_half() {
    let config = GateConfig {
        staging_max: 4,
        ..GateConfig::default()
    };
    let mut shard = Shard::with(1, None, config);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    shard.effects.clear();
    shard.hold_builds = true;
    for n in 0..4 {
        shard.change(0, 50_000, &format!("bulk-{n}"), zone("bulk", 0.0), None);
    }
    assert!(
        matches!(shard.effects[..], [GateEffect::PauseZones]),
        "{:?}",
        shard.effects
    );
    assert_eq!(shard.gate.status().staged, 4);
    shard.build();
    assert!(
        matches!(
            shard.effects[..],
            [GateEffect::PauseZones, GateEffect::ResumeZones]
        ),
        "{:?}",
        shard.effects
    );
    assert_eq!(
        shard.gate.status().staged,
        0,
        "equal stamps cannot lock the gate"
    );
    shard.round(11_000, None);
    assert_eq!(
        shard.zones(0.5, 10_749),
        ["base"],
        "built ahead is not visible"
    );
}

#[test]
fn a_build_that_fails_three_times_is_split_and_the_change_at_fault_refused() {
    let mut shard = running(1);
    shard.hold_builds = true;
    for (n, id) in ["a", "b", "bad", "d", "e"].into_iter().enumerate() {
        shard.change(
            0,
            10_100 + i64::try_from(n).expect("few"),
            id,
            zone(id, 0.0),
            None,
        );
    }
    shard.round(11_000, None);
    let mut tries = 0;
    while shard.gate.status().staged > 0 {
        let Some(request) = shard.builds.pop() else {
            shard.wait(1_000);
            continue;
        };
        tries += 1;
        assert!(tries < 50, "it ends");
        let is_bad = request
            .changes()
            .iter()
            .any(|change| change.zone_id.as_str() == "bad");
        let result = if is_bad {
            Err(BuildFailure {
                zone: None,
                detail: "planted".into(),
            })
        } else {
            request.run()
        };
        shard.tell(GateInput::Built(request.number, result));
        let visible = shard.published.as_ref().map(|snapshot| snapshot.epoch);
        assert!(
            visible == Some(Epoch(1)) || shard.gate.status().staged == 0,
            "nothing of the cut is visible before all of it"
        );
    }
    let refused: Vec<_> = shard
        .effects
        .iter()
        .filter_map(|effect| match effect {
            GateEffect::DeadLetter {
                position,
                rejection,
                record,
            } => {
                let value = record.as_ref().and_then(|record| record.value.clone());
                let value = value.expect("it is kept until the build");
                Some((position.offset, rejection.reason, value))
            }
            _ => None,
        })
        .collect();
    let value = b"value of 0:3".as_slice().into();
    assert_eq!(refused, [(Offset(3), RejectionReason::BuildFailed, value)]);
    assert_eq!(shard.zones(0.5, 10_749), ["a", "b", "base", "d", "e"]);
}

#[test]
fn fs_46_a_rejected_change_leaves_the_previous_version_until_the_compaction_lag_is_over() {
    for (lag, ends) in [(None, false), (Some(Duration::from_secs(5)), true)] {
        let mut shard = Shard::with(1, lag, GateConfig::default());
        shard.change(0, 9_000, "base", zone("base", 0.0), None);
        shard.change(0, 9_000, "other", zone("other", 0.0), None);
        shard.round(10_000, None);
        let poison = Rejection::new(RejectionReason::NotJson, "planted");
        shard.record(0, 10_000, Err((Some(ZoneId::new("base")), poison)));
        assert!(
            shard
                .effects
                .iter()
                .any(|effect| matches!(effect, GateEffect::DeadLetter { .. })),
            "live: dead-lettered"
        );
        shard.round(20_000, None);
        assert_eq!(shard.zones(0.5, 14_999), ["base", "other"]);
        assert_eq!(shard.zones(0.5, 15_000).contains(&"base".to_owned()), !ends);
        let status = shard.gate.status();
        assert_eq!(status.rejected_zone_count, 1);
        assert_eq!(status.rejected_zones[0].1.ends_at, ends.then(|| t(15_000)));
        shard.change(0, 20_000, "base", zone("base", 0.0), None);
        assert_eq!(shard.gate.status().rejected_zone_count, 0, "mended");
    }
}

#[test]
fn fs_46_what_is_rejected_in_the_bootstrap_is_listed_and_not_dead_lettered() {
    let mut shard = Shard::new(1);
    shard.record(
        0,
        500,
        Err((
            Some(ZoneId::new("bad")),
            Rejection::new(RejectionReason::NotJson, ""),
        )),
    );
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    assert!(
        matches!(shard.effects[..], [GateEffect::Bootstrapped]),
        "{:?}",
        shard.effects
    );
    assert_eq!(shard.gate.status().rejected_zone_count, 1);
}

#[test]
fn fs_48_tombstones_of_unknown_zones_and_a_return_in_one_batch_are_idempotent() {
    let mut shard = running(1);
    shard.change(0, 10_100, "never", ZoneChange::Remove, None);
    shard.change(0, 10_110, "base", ZoneChange::Remove, None);
    shard.change(0, 10_120, "base", ZoneChange::Remove, None);
    shard.change(0, 10_130, "base", zone("base", 0.0), None);
    shard.round(11_000, None);
    assert_eq!(shard.zones(0.5, 10_109), ["base"]);
    assert!(shard.zones(0.5, 10_125).is_empty());
    assert_eq!(shard.zones(0.5, 10_130), ["base"]);
}

#[test]
fn an_effective_at_beyond_the_schedule_is_refused_and_one_before_the_commit_time_is_clipped_and_counted()
 {
    let mut shard = running(1);
    shard.change(
        0,
        10_100,
        "far",
        zone("far", 0.0),
        Some(10_101 + 259_200_000),
    );
    shard.change(0, 10_100, "past", zone("past", 0.0), Some(5_000));
    shard.round(11_000, None);
    let status = shard.gate.status();
    assert_eq!((status.counters.rejected, status.counters.clipped), (1, 1));
    assert_eq!(shard.zones(0.5, 10_099), ["base"]);
    assert_eq!(shard.zones(0.5, 10_100), ["base", "past"]);
}

#[test]
fn the_floor_is_the_first_valid_from_and_on_a_compacted_topic_the_edge() {
    let shard = running(1);
    assert_eq!(
        shard.floor(),
        1_000,
        "so that the first import counts whole"
    );
    let mut shard = Shard::with(1, Some(Duration::from_secs(3)), GateConfig::default());
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    assert_eq!(shard.floor(), 10_000 + 250 - 3_000, "T + margin - lag");
    let mut shard = Shard::with(1, Some(Duration::from_secs(3)), GateConfig::default());
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.change(0, 6_000, "scheduled", zone("scheduled", 0.0), Some(8_000));
    shard.round(10_000, None);
    assert_eq!(
        shard.floor(),
        8_000,
        "the last valid_from of a change committed before the edge"
    );
    let mut shard = Shard::with(
        1,
        None,
        GateConfig {
            floor: Some(t(4_000)),
            ..GateConfig::default()
        },
    );
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    assert_eq!(shard.floor(), 4_000, "the operator's");
}

#[test]
fn fs_64_a_new_partition_starts_over_and_serves_the_old_as_of_degraded_until_the_new_one_reaches_it()
 {
    let mut shard = running(1);
    shard.next_offset.push(0);
    shard.tell(GateInput::Partitions(vec![PartitionId(0), PartitionId(1)]));
    assert!(
        shard
            .published
            .as_ref()
            .is_some_and(|snapshot| snapshot.degraded.is_flagged())
    );
    assert!(
        shard
            .effects
            .iter()
            .any(|effect| matches!(effect, GateEffect::StartOver(all) if all.len() == 2))
    );
    // Everything is read again; the new partition holds a change from before as_of.
    shard.next_offset = vec![0, 0];
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.change(1, 2_000, "hidden", zone("hidden", 0.0), None);
    assert_eq!(
        shard.gate.status().counters.violations,
        1,
        "I16: as_of had promised what was not known"
    );
    assert_eq!(
        shard.gate.status().settle_margin,
        Duration::from_millis(250),
        "the margin is not to blame"
    );
    assert_eq!(shard.as_of(), Some(9_749));
    shard.round(9_800, None);
    assert!(
        shard
            .published
            .as_ref()
            .is_some_and(|snapshot| snapshot.degraded.is_flagged()),
        "9,549 is below the old as_of"
    );
    shard.round(10_500, None);
    assert_eq!(shard.as_of(), Some(10_249));
    assert!(
        shard
            .published
            .as_ref()
            .is_some_and(|snapshot| !snapshot.degraded.is_flagged())
    );
    assert_eq!(shard.zones(0.5, 2_000), ["base", "hidden"]);
}

#[test]
fn a_compacted_partition_not_read_to_its_end_for_too_long_starts_over() {
    let mut shard = Shard::with(1, Some(Duration::from_secs(100)), GateConfig::default());
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    shard.now = now(59_000);
    shard.tell(GateInput::Tick);
    assert_eq!(shard.gate.status().counters.starts_over, 0);
    shard.now = now(60_100);
    shard.tell(GateInput::Tick);
    assert_eq!(
        shard.gate.status().counters.starts_over,
        1,
        "half of the lag has passed"
    );
}

#[test]
fn fs_63_a_recreated_or_truncated_topic_stops_with_a_reason_and_nothing_follows() {
    let mut shard = running(1);
    shard.next_offset[0] = 0;
    shard.round(11_000, None);
    assert!(
        shard
            .effects
            .iter()
            .any(|effect| matches!(effect, GateEffect::Stop(StopReason::Truncated { .. }))),
        "{:?}",
        shard.effects
    );
    let count = shard.effects.len();
    shard.change(0, 11_000, "more", zone("more", 0.0), None);
    assert_eq!(shard.effects.len(), count);
    let mut shard = running(1);
    shard.tell(GateInput::TopicRecreated);
    assert!(matches!(
        shard.effects.last(),
        Some(GateEffect::Stop(StopReason::Recreated))
    ));
}

#[test]
fn an_open_transaction_is_named_as_the_cause() {
    let mut shard = running(1);
    shard.tell(GateInput::EndOfPartition {
        partition: PartitionId(0),
        next_offset: Offset(1),
    });
    for millis in [12_000, 14_000] {
        shard.now = now(millis);
        let answer = EndAnswer {
            log_start: Offset(0),
            log_end: Offset(3),
            max_timestamp: MaxTimestamp::At(Offset(2)),
        };
        shard.tell(GateInput::Round(ProofRound {
            asked_at: t(millis),
            answers: vec![(PartitionId(0), answer)],
        }));
    }
    assert_eq!(
        shard.gate.status().held_by[0].cause,
        HeldCause::OpenTransaction
    );
}

#[test]
fn at_most_max_live_snapshots_hold_an_index_and_heads_of_the_published_one_cost_nothing() {
    let config = GateConfig {
        live_snapshots_max: 2,
        ..GateConfig::default()
    };
    let mut shard = Shard::with(1, None, config);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.round(10_000, None);
    // A reader keeps the first index while the second is published: that makes two.
    shard.change(0, 10_100, "second", zone("second", 0.0), None);
    shard.round(11_000, None);
    assert_eq!(shard.epoch(), 2, "the second of two");
    shard.change(0, 11_100, "third", zone("third", 0.0), None);
    shard.round(12_000, None);
    assert_eq!(shard.epoch(), 2, "a third would be one too many");
    assert_eq!(
        shard.as_of(),
        Some(11_099),
        "as_of goes on up to the change that waits: a head shares the index"
    );
    shard.tell(GateInput::LiveSnapshots(1));
    assert_eq!((shard.epoch(), shard.as_of()), (3, Some(11_749)));
}

#[test]
fn fs_30_a_failed_build_is_tried_again_after_a_pause_that_grows_up_to_a_second() {
    let mut shard = running(1);
    shard.hold_builds = true;
    shard.change(0, 10_100, "new", zone("new", 0.0), None);
    shard.change(0, 10_110, "other", zone("other", 0.0), None);
    shard.round(11_000, None);
    let mut pauses = Vec::new();
    while let Some(request) = shard.builds.pop() {
        let failure = BuildFailure {
            zone: None,
            detail: "planted".into(),
        };
        shard.tell(GateInput::Built(request.number, Err(failure)));
        assert!(shard.builds.is_empty(), "not at once");
        assert_eq!(shard.epoch(), 1, "the old index stays");
        let failed_at = shard.now;
        for _ in 0..1_001 {
            if !shard.builds.is_empty() || shard.gate.status().staged == 0 {
                break;
            }
            shard.wait(1);
        }
        pauses.push(shard.now.mono.since(failed_at.mono).as_millis());
        assert!(pauses.len() < 20, "it ends");
    }
    // Both changes are refused in the end: tried three times together, then each alone.
    assert_eq!(pauses, [10, 20, 40, 80, 0]);
    let mut pause = std::time::Duration::ZERO;
    for failures in 1..100 {
        pause = super::promotion::pause_after(failures);
    }
    assert_eq!(pause, Duration::from_secs(1), "bounded");
}

#[test]
fn fs_46_rejects_met_for_the_first_time_in_a_start_over_are_dead_lettered_and_others_only_listed() {
    let poison = |id| {
        Err((
            Some(ZoneId::new(id)),
            Rejection::new(RejectionReason::NotJson, "planted"),
        ))
    };
    let mut shard = Shard::new(2);
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.record(0, 1_001, poison("in the bootstrap"));
    shard.round(10_000, None);
    shard.record(0, 10_100, poison("live"));
    assert_eq!(shard.letters(), [(0, 2)]);
    shard.add_partition();
    shard.next_offset = vec![0; 3];
    shard.change(0, 1_000, "base", zone("base", 0.0), None);
    shard.record(0, 1_001, poison("in the bootstrap"));
    shard.record(0, 10_100, poison("live"));
    assert_eq!(shard.letters(), [(0, 2)], "met before");
    shard.record(0, 10_200, poison("while it starts over"));
    shard.record(1, 10_200, poison("in a partition that was empty"));
    shard.record(2, 10_200, poison("in the new one"));
    assert_eq!(shard.letters(), [(0, 2), (0, 3), (1, 0), (2, 0)]);
    let status = shard.gate.status();
    assert_eq!(status.rejected_zone_count, 5);
    assert_eq!(status.counters.rejected, 5, "each is counted once");
}

#[test]
fn a_new_partition_with_a_change_from_more_than_a_minute_ago_degrades_until_restart() {
    for (commit, degrades) in [(40_000, false), (39_000, true)] {
        let mut shard = running(1);
        shard.round(100_000, None);
        shard.add_partition();
        shard.next_offset = vec![0; 2];
        shard.change(0, 1_000, "base", zone("base", 0.0), None);
        shard.change(1, commit, "hidden", zone("hidden", 0.0), None);
        shard.round(101_000, None);
        assert!(!shard.gate.status().starting_over);
        let published = shard.published.clone().expect("published");
        assert_eq!(
            published.degraded,
            if degrades {
                Degraded::Flagged
            } else {
                Degraded::No
            },
            "{commit}"
        );
        assert_eq!(
            shard.gate.status().settle_margin,
            Duration::from_millis(250)
        );
    }
}

#[test]
fn a_truncation_is_noticed_during_a_start_over_too() {
    let mut shard = running(1);
    shard.change(0, 10_100, "new", zone("new", 0.0), None);
    shard.round(11_000, None);
    shard.add_partition();
    shard.next_offset = vec![1, 0];
    shard.round(12_000, None);
    assert!(
        matches!(
            shard.effects.last(),
            Some(GateEffect::Stop(StopReason::Truncated { .. }))
        ),
        "{:?}",
        shard.effects
    );
}

#[test]
fn history_is_bounded_in_the_bootstrap_too_and_the_floor_says_so() {
    let config = GateConfig {
        history_bytes_max: 1,
        ..GateConfig::default()
    };
    let topic = ZonesTopic {
        partitions: vec![PartitionId(0)],
        compaction_lag: None,
        delete_retention: Duration::from_secs(3_600),
    };
    let mut shard = Shard::with(1, None, config.clone());
    // The process starts long after the changes were written.
    shard.now = now(100_000);
    shard.gate = Gate::new(config, topic, shard.now);
    for version in 0..10 {
        shard.change(0, 1_000 + version, "base", zone("base", 0.0), None);
    }
    shard.round(100_100, None);
    assert_eq!(shard.floor(), 1_009);
    let snapshot = shard.published.as_ref().expect("published");
    assert_eq!(snapshot.index.version_count(), 1);
}

#[test]
fn fs_30_a_build_that_panics_is_a_failed_build() {
    let mut shard = running(1);
    shard.hold_builds = true;
    shard.change(0, 10_100, "new", zone("new", 0.0), None);
    shard.round(11_000, None);
    let request = shard.builds.pop().expect("asked for");
    let failure =
        super::messages::caught::<()>(|| panic!("planted {}", 7)).expect_err("it panicked");
    assert!(failure.detail.contains("planted 7"), "{failure}");
    shard.tell(GateInput::Built(request.number, Err(failure)));
    shard.wait(10);
    shard.build();
    assert_eq!(shard.zones(0.5, 10_749), ["base", "new"]);
}

#[test]
fn a_refused_change_is_not_listed_where_a_good_one_of_its_zone_has_followed() {
    let mut shard = running(1);
    shard.hold_builds = true;
    shard.change(0, 10_100, "mended", zone("mended", 0.0), None);
    shard.change(0, 10_110, "mended", zone("mended", 0.0), None);
    shard.round(11_000, None);
    for _ in 0..50 {
        let Some(request) = shard.builds.pop() else {
            if shard.gate.status().staged == 0 {
                break;
            }
            shard.wait(1_000);
            continue;
        };
        let is_bad = request
            .changes()
            .iter()
            .any(|change| change.position.offset == Offset(1));
        let result = if is_bad {
            Err(BuildFailure {
                zone: None,
                detail: "planted".into(),
            })
        } else {
            request.run()
        };
        shard.tell(GateInput::Built(request.number, result));
    }
    assert_eq!(shard.letters(), [(0, 1)]);
    assert_eq!(shard.gate.status().rejected_zone_count, 0);
    assert_eq!(shard.zones(0.5, 10_749), ["base", "mended"]);
}

fn staging_of_four() -> GateConfig {
    GateConfig {
        staging_max: 4,
        ..GateConfig::default()
    }
}

#[test]
fn a_bootstrap_files_what_it_reads_and_builds_the_index_once_at_its_end() {
    let mut shard = Shard::with(1, None, staging_of_four());
    shard.hold_builds = true;
    let (mut filed, mut built) = (0, 0);
    let mut run = |shard: &mut Shard| {
        while let Some(request) = shard.builds.pop() {
            filed += usize::from(request.rules.filing);
            built += usize::from(!request.rules.filing);
            shard.tell(GateInput::Built(request.number, request.run()));
        }
    };
    for n in 0..25 {
        let id = format!("z{n}");
        shard.change(0, 1_000 + n, &id, zone(&id, 0.0), None);
        run(&mut shard);
    }
    assert!(shard.published.is_none());
    shard.round(10_000, None);
    run(&mut shard);
    assert_eq!(shard.zones(0.5, 9_749).len(), 25);
    assert!(filed > 5, "{filed}");
    assert_eq!(built, 1);
}

#[test]
fn a_bootstrap_whose_one_build_fails_reads_again_and_finds_the_culprit_in_parts() {
    let mut shard = Shard::with(1, None, staging_of_four());
    shard.hold_builds = true;
    // Only where it is looked for by position: what is filed is not looked at.
    let run = |shard: &mut Shard| {
        while let Some(request) = shard.builds.pop() {
            let has_bad = |request: &BuildRequest| {
                let named = |change: &crate::zone::StagedChange| change.zone_id.as_str() == "z3";
                let filed = request.index.timeline("z3");
                let is_filed =
                    filed.is_some_and(|all| all.entries().iter().any(|e| e.slot().is_some()));
                !request.rules.filing
                    && (request.changes().iter().any(|change| {
                        named(change) && matches!(change.change, ZoneChange::Upsert(_))
                    }) || (is_filed && !request.index.is_searchable()))
            };
            let result = if has_bad(&request) {
                Err(BuildFailure {
                    zone: None,
                    detail: "planted".into(),
                })
            } else {
                request.run()
            };
            shard.tell(GateInput::Built(request.number, result));
        }
    };
    for _ in 0..2 {
        shard.next_offset = vec![0];
        for n in 0..12 {
            let id = format!("z{n}");
            shard.change(0, 1_000 + n, &id, zone(&id, 0.0), None);
            run(&mut shard);
        }
        for wait in 0..40 {
            shard.round(10_000 + wait * 2_000, None);
            run(&mut shard);
            if shard
                .effects
                .iter()
                .any(|effect| matches!(effect, GateEffect::StartOver(_)))
            {
                break;
            }
        }
        if shard.published.is_some() {
            break;
        }
        assert!(
            matches!(
                shard.effects[..],
                [GateEffect::StartOver(_)] | [GateEffect::PauseZones, .., GateEffect::StartOver(_)]
            ),
            "{:?}",
            shard.effects
        );
        shard.effects.clear();
    }
    let as_of = shard.as_of().expect("published in the end");
    let zones = shard.zones(0.5, as_of);
    assert_eq!(zones.len(), 11);
    assert!(!zones.contains(&"z3".to_owned()));
    assert!(
        shard.letters().is_empty(),
        "of a bootstrap they are listed only"
    );
    assert_eq!(shard.gate.status().rejected_zone_count, 1);
}
