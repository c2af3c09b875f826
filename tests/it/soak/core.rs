//! The pure core: memory of the test's own process through ten thousand rebalances, and with workers that stopped while
//! each held a snapshot.

use std::sync::Arc;
use std::time::Duration;

use ringfence::gate::Snapshot;
use ringfence::pipeline::AckResult;

use super::resident::{Resident, mib};
use crate::support::worker::{Worker, config, event};
use crate::support::world::{World, WorldConfig};
use crate::support::zones::{PlainZones, change, rectangle};

const MIB: u64 = 1 << 20;
const START: i64 = 1_700_000_000_000;

/// Each finds records in flight, held, acknowledged and not. With a leak, the test keeps what was written.
pub(super) fn rebalances(count: usize, has_leak: bool) {
    const AS_OF: i64 = 1_000_000;
    let mut zones = PlainZones::new(AS_OF);
    let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
    zones.changes.push(change(0, 0, 1, "a", Some(&zone)));
    let mut worker = Worker::new(config(), zones, AS_OF, &[0, 1]);
    let resident = Resident::of("self");
    let mut kept = Vec::new();
    let mut early = 0;
    for number in 0..count {
        for partition in [0, 1] {
            for step in 0..8 {
                // The last two wait for an instant that does not come.
                let at = if step < 6 {
                    AS_OF - step
                } else {
                    AS_OF + 1_000
                };
                worker.read(partition, &event(at, 0.5, 0.5));
            }
        }
        let some = worker.unacked.iter().step_by(2).copied();
        for token in some.collect::<Vec<_>>() {
            worker.ack(token, AckResult::Delivered);
        }
        let partition = i32::from(number % 2 == 1);
        let commits = worker.revoke(&[partition]);
        // What was under way is acknowledged to nobody.
        worker.ack_all();
        worker.commit(1 - partition);
        worker.assign(&[partition]);
        let committed = commits.iter().find(|(id, _)| id.0 == partition);
        let next = committed.map(|(_, offset)| offset.0);
        let known = worker
            .commits
            .get(&ringfence::partition::PartitionId(partition));
        let next = next.or(known.map(|offset| offset.0)).unwrap_or(0);
        worker.seek(partition, next);
        let written = std::mem::take(&mut worker.written);
        assert!(
            !written.is_empty(),
            "a rebalance in which nothing happens proves nothing"
        );
        if has_leak {
            kept.extend(written);
        }
        if number + 1 == count / 10 {
            early = resident.now();
        }
    }
    let late = resident.now();
    println!(
        "{count} rebalances: {} MiB after a tenth of them, {} MiB after all; {} records enriched, {} released",
        mib(early),
        mib(late),
        worker.counters().enriched,
        worker.counters().released
    );
    assert!(
        late <= early + 8 * MIB,
        "{} MiB, then {} MiB",
        mib(early),
        mib(late)
    );
}

/// Every new snapshot is loaded by a worker that never lets go of it: builds wait, changes stay in their topic, and all goes
/// on once the workers do.
pub(super) fn snapshots_held_by_workers_that_stopped() {
    const CHANGES: usize = 30_000;
    /// So many changes are read at once.
    const READ: usize = 50;
    let mut config = WorldConfig::new(START);
    config.zone_partitions = 1;
    config.gate.live_snapshots_max = 4;
    config.gate.staging_max = 500;
    config.gate.history_bytes_max = 1 << 20;
    config.compaction_lag = Some(Duration::ZERO);
    let (live_max, staging_max) = (config.gate.live_snapshots_max, config.gate.staging_max);
    let mut world = World::new(config);
    let resident = Resident::of("self");
    let mut stopped: Vec<Arc<Snapshot>> = Vec::new();
    let (mut early, mut staged, mut live) = (0, 0, 0);
    for number in 0..CHANGES {
        let id = format!("zone-{}", number % 200);
        let west = (number % 7) as f64 / 10.0;
        let zone = rectangle(&id, west, 0.0, west + 1.0, 1.0, "");
        world.write_zone(0, &id, Some(&zone), 0);
        // The oracle is not asked here.
        world.truth.changes.clear();
        if number % READ == 0 {
            world.round(50);
            let now = world.now;
            world.zones[0].compact(now, i64::MIN, now);
            let newest = world.reader();
            if let Some(newest) = newest
                && stopped
                    .last()
                    .is_none_or(|held| !Arc::ptr_eq(&held.index, &newest.index))
            {
                stopped.push(newest);
            }
            (staged, live) = (
                world.gate.status().staged.max(staged),
                world.live_indexes().max(live),
            );
        }
        if number == CHANGES / 10 {
            early = resident.now();
        }
    }
    let late = resident.now();
    println!(
        "{} workers stopped with a snapshot each, {CHANGES} changes: {live} live of {live_max}, {staged} staged of \
         {staging_max}; {} MiB after a tenth of them, {} MiB after all",
        stopped.len(),
        mib(early),
        mib(late)
    );
    // What was read already when the partition was paused is staged all the same.
    assert!(live <= live_max && staged <= staging_max + READ, "I7");
    assert!(
        stopped.len() >= live_max - 1,
        "the workers hold what there may be"
    );
    assert!(
        late <= early + 8 * MIB,
        "{} MiB, then {} MiB",
        mib(early),
        mib(late)
    );
    stopped.clear();
    for _ in 0..200 {
        world.round(50);
    }
    let as_of = world.gate.status().as_of.expect("there are zones");
    assert!(
        as_of.millis() > world.now - 5_000,
        "it goes on once they do: {:?}",
        world.gate.status()
    );
}
