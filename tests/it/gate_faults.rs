//! The zones side under faults that only show between rounds, reads and builds: answers that come late, builds that
//! overlap with new changes, a second reading from the start. FAULTS rows by number.

use std::time::Duration;

use ringfence::codec::headers::{self, Flag};
use ringfence::gate::{EndAnswer, GateInput, MaxTimestamp, ProofRound, StopReason};
use ringfence::geometry::Position;
use ringfence::partition::{Offset, PartitionId};

use crate::support::world::{World, WorldConfig};
use crate::support::zones::{rectangle, t};

const START: i64 = 1_700_000_000_000;
const PLACE: Position = Position { lon: 0.5, lat: 0.5 };

fn world() -> World {
    let mut world = World::new(WorldConfig::new(START));
    write(&mut world, "base", "");
    world.bootstrap();
    world
}

fn write(world: &mut World, id: &str, more: &str) {
    let zone = rectangle(id, 0.0, 0.0, 1.0, 1.0, more);
    world.write_zone(0, id, Some(&zone), 0);
}

/// The published snapshot answers as the log says, up to its `as_of`.
fn assert_i2(world: &World) {
    let snapshot = world.snapshot().unwrap();
    for at in [
        snapshot.as_of,
        snapshot.as_of.minus(Duration::from_millis(120)),
    ] {
        if at < snapshot.floor {
            continue;
        }
        let found = snapshot.index.zones_at(PLACE, at);
        let found: Vec<_> = found
            .iter()
            .map(|version| version.zone().id.clone())
            .collect();
        let expected = world.truth.at(PLACE, at);
        let expected: Vec<_> = expected.iter().map(|zone| zone.id.clone()).collect();
        assert_eq!(found, expected, "I2 at {at}");
    }
}

#[test]
fn i2_as_of_does_not_pass_what_was_built_while_the_next_build_has_begun() {
    let mut world = world();
    for step in 0..40 {
        write(&mut world, &format!("z{step}"), "");
        world.advance(100);
        let round = world.ask();
        world.read_zones(0, usize::MAX);
        world.read_zones(1, usize::MAX);
        world.answer(round);
        // One build a step, begun steps ago: there is always a next one waiting.
        if step % 3 != 0 {
            world.build_one();
        }
        assert_i2(&world);
    }
    assert!(world.late_changes.is_empty());
}

#[test]
fn fs_63_answer_older_than_what_was_read_meanwhile_is_no_truncation() {
    let mut world = world();
    let round = world.ask();
    for step in 0..5 {
        write(&mut world, &format!("z{step}"), "");
    }
    world.advance(10);
    world.read_zones(0, usize::MAX);
    world.answer(round);
    assert_eq!(world.stopped, None);
    world.round(50);
    assert_eq!(world.stopped, None);
}

#[test]
fn i1_i16_start_over_keeps_the_low_watermark_and_counts_only_changes_never_read_before() {
    let mut world = world();
    for _ in 0..20 {
        world.round(50);
    }
    let before = world.gate.status();
    world.add_zone_partition();
    assert_eq!(world.start_overs, 1);
    let after = world.gate.status();
    assert_eq!(after.low_watermark, before.low_watermark, "I1");
    assert_eq!(after.as_of, before.as_of, "I1");
    // Read again, it is no late change; one that was stamped long ago and is met only now is.
    world.broker_ahead[0] = -500;
    write(&mut world, "late", "");
    let stamped = t(world.now - 500);
    assert!(Some(stamped) <= after.as_of);
    world.advance(10);
    world.read_zones(0, usize::MAX);
    assert_eq!(world.late_changes.len(), 1, "I16: {:?}", world.late_changes);
    assert_eq!(world.gate.status().counters.violations, 1);
}

/// A round in which nothing is read: what a paused or a silent reader leaves.
fn only_proofs(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        world.advance(50);
        let round = world.ask();
        world.answer(round);
    }
}

fn as_of(world: &World) -> i64 {
    world.snapshot().unwrap().as_of.millis()
}

#[test]
fn fs_19_a_zone_partition_that_is_paused_with_records_to_read_is_not_taken_for_silent() {
    let mut config = WorldConfig::new(START);
    config.gate.staging_max = 4;
    let mut world = World::new(config);
    write(&mut world, "base", "");
    world.bootstrap();
    for step in 0..6 {
        write(&mut world, &format!("z{step}"), "");
    }
    let first_stamp = world.now;
    world.advance(10);
    world.read_zones(0, 4);
    assert!(world.zones_paused, "the builder has not come yet");
    only_proofs(&mut world, 200);
    assert!(as_of(&world) < first_stamp, "ten seconds are no proof");
    let held = world.gate.status().held_by;
    assert!(held.iter().any(|held| held.partition.0 == 0), "{held:?}");
    world.build_one();
    assert!(!world.zones_paused);
    for _ in 0..5 {
        world.round(50);
    }
    assert!(as_of(&world) > world.now - 400);
    assert_i2(&world);
}

#[test]
fn fs_20_the_zones_are_read_on_while_all_telemetry_is_paused_and_the_wait_ends_by_them() {
    let mut config = WorldConfig::new(START);
    config.pipeline.limits.hold_max = 4;
    let mut world = World::new(config);
    write(&mut world, "base", "");
    world.bootstrap();
    world.start_worker(&[0, 1]);
    for _ in 0..8 {
        // None of them is settled yet.
        world.write_event(0, world.now, PLACE.lon, PLACE.lat);
    }
    world.work(0, 100);
    world.work(0, 100);
    let worker = world.worker.as_ref().unwrap();
    assert_eq!((worker.flow.take, worker.counters().held), (0, 4), "full");
    assert!(!world.zones_paused);
    let stamp = world.now;
    write(&mut world, "meanwhile", "");
    for _ in 0..12 {
        world.round(50);
    }
    let worker = world.worker.as_ref().unwrap();
    assert_eq!(worker.written.len(), 8);
    assert!(worker.written.iter().all(|out| out.flags().is_empty()));
    assert!(as_of(&world) > stamp);
    assert_eq!(world.snapshot().unwrap().index.zone_count(), 2);
}

#[test]
fn fs_21_with_all_partitions_silent_the_watermark_follows_the_proofs_and_stops_with_them() {
    let mut world = world();
    for _ in 0..100 {
        world.round(50);
        let behind = world.now - as_of(&world);
        assert!(
            (251..=301).contains(&behind),
            "{behind} ms behind T, never ahead"
        );
    }
    let last = as_of(&world);
    // Nobody answers for an hour: nothing is proven.
    for _ in 0..3_600 {
        world.advance(1_000);
    }
    assert_eq!(as_of(&world), last);
}

#[test]
fn fs_22_without_a_partition_there_is_no_watermark_and_the_gate_waits_and_says_so() {
    let mut config = WorldConfig::new(START);
    config.zone_partitions = 0;
    config.gate.allow_empty = true;
    let mut world = World::new(config);
    only_proofs(&mut world, 100);
    let status = world.gate.status();
    assert_eq!((status.low_watermark, status.bootstrapped), (None, false));
    assert!(!status.waiting_for.is_empty());
    assert_eq!(world.stopped, None);
    // The first one that is found is read, and then the gate opens.
    world.add_zone_partition();
    world.bootstrap();
}

#[test]
fn fs_28_the_partition_that_holds_the_minimum_is_never_left_out_of_it() {
    // Zone partitions are assigned by hand: none is revoked, and one that vanishes means another topic.
    let mut world = world();
    write(&mut world, "new", "");
    for _ in 0..20 {
        world.advance(50);
        let mut round = world.ask();
        round.answers.retain(|(partition, _)| partition.0 == 0);
        world.read_zones(0, usize::MAX);
        world.answer(round);
        while !world.builds.is_empty() {
            world.build_one();
        }
    }
    let watermarks: Vec<_> = world.gate.status().partitions;
    assert!(watermarks[0].watermark > watermarks[1].watermark);
    assert_eq!(world.gate.status().low_watermark, watermarks[1].watermark);
    world.tell(GateInput::Partitions(vec![PartitionId(0)]));
    assert_eq!(
        world.stopped,
        Some(StopReason::PartitionGone(PartitionId(1)))
    );
}

#[test]
fn fs_60_changes_that_come_during_the_bootstrap_are_in_it_or_applied_after_and_nothing_is_half_seen()
 {
    let mut world = World::new(WorldConfig::new(START));
    for step in 0..30 {
        write(&mut world, &format!("z{step}"), "");
    }
    world.advance(100);
    // What the proof asks for stands now; more comes while it is read, a record at a time.
    let round = world.ask();
    world.answer(round);
    let mut number = 30;
    while !world.bootstrapped {
        assert!(number < 200, "it ends");
        assert!(
            world.snapshot().is_none(),
            "I14: nothing half read is shown"
        );
        assert!(!world.gate.status().bootstrapped);
        write(&mut world, &format!("z{number}"), "");
        number += 1;
        world.advance(20);
        world.read_zones(0, 3);
        world.read_zones(1, 3);
        let round = world.ask();
        world.answer(round);
        while !world.builds.is_empty() {
            world.build_one();
        }
    }
    assert_i2(&world);
    assert!(world.snapshot().unwrap().index.zone_count() >= 30);
    for _ in 0..20 {
        world.round(50);
    }
    assert_eq!(world.snapshot().unwrap().index.zone_count(), number);
    assert_i2(&world);
    assert!(world.late_changes.is_empty());
}

#[test]
fn fs_59_a_log_whose_first_offsets_are_gone_is_read_from_where_it_starts_and_proven_by_its_end() {
    for (allow_empty, opens) in [(true, true), (false, false)] {
        let mut config = WorldConfig::new(START);
        config.gate.allow_empty = allow_empty;
        let mut world = World::new(config);
        for _ in 0..10 {
            world.advance(50);
            for partition in [0, 1].map(PartitionId) {
                // All records were removed: low = high = 7.
                let answer = EndAnswer {
                    log_start: Offset(7),
                    log_end: Offset(7),
                    max_timestamp: MaxTimestamp::Unanswered,
                };
                world.tell(GateInput::EndOfPartition {
                    partition,
                    next_offset: Offset(7),
                });
                world.tell(GateInput::Round(ProofRound {
                    asked_at: t(world.now),
                    answers: vec![(partition, answer)],
                }));
            }
        }
        assert_eq!(world.bootstrapped, opens);
        assert!(world.gate.status().low_watermark.is_some());
    }
}

#[test]
fn fs_82_while_it_starts_over_every_output_says_degraded_and_as_of_when() {
    let mut world = world();
    world.start_worker(&[0, 1]);
    let stands = as_of(&world);
    world.add_zone_partition();
    for _ in 0..5 {
        world.advance(100);
        world.write_event(0, world.now, PLACE.lon, PLACE.lat);
        world.work(0, 10);
        world.turn();
    }
    let written = &world.worker.as_ref().unwrap().written;
    assert_eq!(written.len(), 5, "matched at once, at the old as_of");
    for out in written {
        assert!(out.flags().has(Flag::Degraded));
        let said = (out.header(headers::AT), out.header(headers::AS_OF));
        let stands = stands.to_string();
        assert_eq!(said, (Some(&*stands), Some(&*stands)));
    }
    for _ in 0..10 {
        world.round(50);
    }
    world.write_event(0, world.now, PLACE.lon, PLACE.lat);
    for _ in 0..10 {
        world.round(50);
    }
    let written = &world.worker.as_ref().unwrap().written;
    assert!(written.last().unwrap().flags().is_empty());
}
