//! FAULTS A on the real client: rebalances, pauses and commits, on mock brokers and, where those accept too much, on a
//! real Kafka (`RINGFENCE_TEST_KAFKA`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::Clock;
use ringfence::kafka::ffi::MockTuning;
use ringfence::kafka::worker::WorkerSettings;
use ringfence::pipeline::PipelineConfig;

use crate::support::edge::{Running, World, valid, wait_for};

fn paused(worker: &Running) -> usize {
    let seen = worker.window.seen();
    seen.paused.iter().map(|(_, count)| count).sum()
}

/// Partitions are paused as nothing can be delivered; one goes to a second worker, and comes back while the first is
/// still paused: it must be paused there too, and run again with the others.
#[test]
fn fs_01_fs_02_pauses_are_our_own_whatever_the_group_does_meanwhile() {
    let world = World::new(1, 2);
    world.produce(0..4_000);
    world.hold_output_back();
    let tight = |worker: &mut WorkerSettings, pipeline: &mut PipelineConfig| {
        worker.drain_timeout = Duration::from_millis(100);
        pipeline.limits.in_flight_max = 100;
    };
    let first = world.worker_with(tight);
    wait_for("both are paused", || paused(&first) == 2);
    let second = world.worker_with(tight);
    wait_for("each has one, paused", || {
        [&first, &second]
            .iter()
            .all(|worker| worker.owned().len() == 1 && paused(worker) == 1)
    });
    second.stop().unwrap();
    wait_for("the first has both, paused", || {
        let seen = first.window.seen();
        assert!(seen.counters.in_flight <= 100, "I7: {:?}", seen.counters);
        first.owned().len() == 2 && paused(&first) == 2
    });
    // The stall ends while the other has it again: it comes back with the client's pause on it, and must run.
    let second = world.worker_with(tight);
    wait_for("each has one, paused", || {
        [&first, &second]
            .iter()
            .all(|worker| worker.owned().len() == 1 && paused(worker) == 1)
    });
    world.let_output_go();
    world.wait_committed(4_000);
    wait_for("nothing is paused any more", || paused(&first) == 0);
    second.stop().unwrap();
    wait_for("the first has both", || first.owned().len() == 2);
    world.produce(4_000..5_000);
    world.wait_committed(5_000);
    first.stop().unwrap();
    world.audit(5_000);
}

/// The worker's thread stands still for longer than `max.poll.interval.ms`: the group gives its partitions to another.
fn stands_still(mut world: World) {
    for (name, value) in [
        ("max.poll.interval.ms", "3000"),
        ("session.timeout.ms", "2500"),
    ] {
        world.settings.consumer.insert(name.into(), value.into());
    }
    world.produce(0..500);
    let first = world.worker();
    world.wait_committed(500);
    let before = first.window.beat();
    first.stands.store(true, Ordering::Release);
    world.produce(500..1_000);
    // The loop's age shows it (FS-06: what `/livez` looks at); another worker takes over meanwhile.
    let second = world.worker();
    wait_for("the second has all", || second.owned().len() == 2);
    world.wait_committed(1_000);
    assert!(Clock::mono().since(first.window.beat()) >= Duration::from_secs(2));
    assert!(first.window.beat().micros() < before.micros() + 500_000);
    let committed = first.window.seen().counters.consumed;
    first.stands.store(false, Ordering::Release);
    wait_for("the first is a member again", || {
        first.owned().len() == 1 && second.owned().len() == 1
    });
    world.produce(1_000..2_000);
    world.wait_committed(2_000);
    assert!(first.window.seen().counters.consumed > committed);
    second.stop().unwrap();
    first.stop().unwrap();
    world.audit(2_000);
}

#[test]
fn fs_06_fs_11_a_worker_that_stood_still_lost_its_partitions_and_commits_nothing_of_them() {
    stands_still(World::new(1, 2));
}

#[test]
fn fs_06_fs_11_a_worker_that_stood_still_lost_its_partitions_on_a_real_kafka() {
    if let Some(world) = World::real("stood-still", 2) {
        stands_still(world);
    }
}

/// One of two partitions is revoked while nothing can be delivered. What was in flight of it is acknowledged after the
/// revoke, to nobody; of the one that stays, nothing is written twice.
#[test]
fn fs_07_fs_10_fs_12_acknowledgements_after_a_revoke_are_stale_and_those_of_other_partitions_survive()
 {
    let world = World::new(1, 2);
    world.produce_as(0..1_000, valid);
    world.hold_output_back();
    let hasty = |worker: &mut WorkerSettings, _: &mut PipelineConfig| {
        worker.drain_timeout = Duration::from_millis(1);
    };
    let first = world.worker_with(hasty);
    wait_for("all is in flight", || {
        first.window.seen().counters.in_flight == 1_000
    });
    let second = world.worker();
    wait_for("each has one", || {
        first.owned().len() == 1 && second.owned().len() == 1
    });
    let stays = *first.owned().first().unwrap();
    assert_eq!(first.window.seen().counters.released, 500);
    world.let_output_go();
    world.wait_committed(1_000);
    wait_for("the late acknowledgements are known as such", || {
        first.window.seen().counters.stale_acks == 500
    });
    assert_eq!(first.window.seen().counters.in_flight, 0);
    first.stop().unwrap();
    second.stop().unwrap();
    assert!(
        world.audit(1_000) > 0,
        "the other partition was written by both"
    );
    let sources = world.sources("enriched", &["ringfence-source"]);
    assert_eq!(sources[&stays], (0..500).collect::<Vec<_>>());
}

#[test]
fn fs_14_a_commit_refused_in_a_rebalance_is_repeated_and_the_assignment_kept() {
    let world = World::new(1, 2);
    world.produce(0..200);
    let worker = world.worker();
    world.wait_committed(200);
    let refused = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
    ];
    world
        .controls()
        .request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    world.produce(200..400);
    world.wait_committed(400);
    let seen = worker.window.seen();
    assert_eq!((seen.assignments, worker.owned().len()), (1, 2));
    worker.stop().unwrap();
    assert_eq!(world.audit(400), 0);
}

/// Its client asks once, and once more as it closes: the third request must be the worker's own.
#[test]
fn fs_14_a_last_commit_refused_in_a_rebalance_is_repeated_before_the_worker_leaves() {
    let world = World::new(1, 2);
    world.produce(0..200);
    let worker = world.worker_with(|worker, _| worker.commit_interval = Duration::from_secs(60));
    wait_for("all is written", || {
        let counters = worker.window.seen().counters;
        counters.consumed == 200 && counters.held + counters.in_flight == 0
    });
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 2];
    world
        .controls()
        .request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    worker.stop().unwrap();
    world.wait_committed(200);
    assert_eq!(world.audit(200), 0);
}

/// The client is on its way into a new generation as the worker leaves, and its commit still names the old one.
#[test]
fn fs_14_a_last_commit_refused_for_its_generation_is_repeated_while_the_client_joins_anew() {
    const JOIN_GROUP: i16 = 11;
    let mut world = World::new(1, 2);
    let heartbeat = ("heartbeat.interval.ms".into(), "100".into());
    world.settings.consumer.extend([heartbeat]);
    world.produce(0..200);
    let worker = world.worker_with(|worker, _| worker.commit_interval = Duration::from_secs(60));
    wait_for("all is written", || {
        let counters = worker.window.seen().counters;
        counters.consumed == 200 && counters.held + counters.in_flight == 0
    });
    world.mock().tune(MockTuning::DelayRequest {
        broker: 1,
        api_key: JOIN_GROUP,
        rtt: Duration::from_secs(3),
    });
    let rebalances = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS];
    world
        .controls()
        .request_errors(RDKafkaApiKey::Heartbeat, &rebalances);
    let begun = Clock::mono();
    let asked = Duration::from_secs(1);
    wait_for("some heartbeats later", || {
        Clock::mono().since(begun) > asked
    });
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION; 2];
    world
        .controls()
        .request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    worker.stop().unwrap();
    world.wait_committed(200);
    assert_eq!(world.audit(200), 0);
}

#[test]
fn fs_14_a_commit_of_an_old_generation_joins_anew_and_loses_nothing() {
    let world = World::new(1, 2);
    world.produce(0..200);
    let worker = world.worker();
    world.wait_committed(200);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION];
    world
        .controls()
        .request_errors(RDKafkaApiKey::OffsetCommit, &refused);
    world.produce(200..400);
    world.wait_committed(400);
    worker.stop().unwrap();
    world.audit(400);
}

#[test]
fn fs_15_twenty_members_that_start_together_settle_after_few_rebalances() {
    const MEMBERS: usize = 20;
    let Some(world) = World::real("storm", MEMBERS as i32) else {
        return;
    };
    world.produce(0..2_000);
    let workers: Vec<_> = (0..MEMBERS).map(|_| world.worker()).collect();
    wait_for("each has its partition", || {
        workers.iter().all(|worker| worker.owned().len() == 1)
    });
    world.wait_committed(2_000);
    let assignments = workers
        .iter()
        .map(|worker| worker.window.seen().assignments)
        .sum::<u64>();
    println!("{assignments} assignments");
    assert!(assignments <= 10 * MEMBERS as u64, "{assignments}");
    for worker in workers {
        worker.stop().unwrap();
    }
    world.audit(2_000);
}
