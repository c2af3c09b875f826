//! The zones side under faults that only show between rounds, reads and builds: answers that come late, builds that
//! overlap with new changes, a second reading from the start. FAULTS rows by number.

use std::time::Duration;

use ringfence::geometry::Position;

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
