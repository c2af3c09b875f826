//! Workers on librdkafka's mock brokers: the real client, groups, commits, pauses and injected errors, no Docker.
//! Names cite the rows of FAULTS.md. What the mock cannot show (transactions, compaction, time look-ups) is in `broker`
//! and `kafka_faults`.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::Clock;
use ringfence::kafka::client::CommitBy;
use ringfence::kafka::member::{GroupEvent, Member, Start};
use ringfence::kafka::worker::{StartAt, WorkerError};
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;

use crate::support::edge::{PATIENCE, World, wait_for};
use crate::support::in_process::{InProcess, cluster};
use crate::support::zones::rectangle;

#[test]
fn every_record_is_answered_for_once_in_order_and_committed() {
    let world = World::new(2, 4);
    world.produce(0..2_000);
    let worker = world.worker();
    world.wait_committed(2_000);
    world.produce(2_000..3_000);
    world.wait_committed(3_000);
    let counters = worker.window.seen().counters;
    worker.stop().unwrap();
    assert_eq!(counters.enriched, 2_700);
    assert_eq!(counters.dead_lettered.total(), 300);
    assert_eq!(world.audit(3_000), 0);
}

#[test]
fn fs_09_a_second_worker_takes_its_share_and_nothing_is_lost() {
    let world = World::new(1, 4);
    world.produce(0..1_000);
    let first = world.worker();
    world.wait_committed(1_000);
    wait_for("the first has all four", || first.owned().len() == 4);
    let second = world.worker();
    wait_for("each has two partitions", || {
        first.owned().len() == 2 && second.owned().len() == 2
    });
    assert!(first.owned().is_disjoint(&second.owned()));
    world.produce(1_000..2_000);
    world.wait_committed(2_000);
    second.stop().unwrap();
    wait_for("the first has all again", || first.owned().len() == 4);
    world.produce(2_000..3_000);
    world.wait_committed(3_000);
    first.stop().unwrap();
    world.audit(3_000);
}

#[test]
fn produce_errors_that_pass_lose_nothing() {
    let world = World::new(1, 2);
    world.produce(0..500);
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &passing);
    let worker = world.worker();
    world.wait_committed(500);
    worker.stop().unwrap();
    world.audit(500);
}

#[test]
fn a_produce_error_that_stays_stops_the_worker_and_commits_nothing_past_it() {
    let world = World::new(1, 1);
    world.produce(0..50);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 20];
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &refused);
    let mut worker = world.worker();
    let ended = worker.thread.take().unwrap().join().unwrap();
    assert!(matches!(ended, Err(WorkerError::Stopped(_))), "{ended:?}");
    world
        .controls()
        .clear_request_errors(RDKafkaApiKey::Produce);
    let again = world.worker();
    world.wait_committed(50);
    again.stop().unwrap();
    world.audit(50);
}

#[test]
fn failed_commits_are_repeated() {
    let world = World::new(1, 2);
    world.produce(0..200);
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT; 3];
    world
        .controls()
        .request_errors(RDKafkaApiKey::OffsetCommit, &errors);
    let worker = world.worker();
    world.wait_committed(200);
    worker.stop().unwrap();
    assert_eq!(world.audit(200), 0);
}

#[test]
fn fs_05_fs_40_a_slow_broker_bounds_what_is_in_flight_and_the_member_stays() {
    let world = World::new(1, 2);
    world.produce(0..3_000);
    let worker = world.worker_with(|_, pipeline| pipeline.limits.in_flight_max = 100);
    wait_for("the partitions are assigned", || worker.owned().len() == 2);
    // Longer than a stall lasts before it pauses.
    world
        .controls()
        .broker_round_trip_time(1, Duration::from_millis(1_500))
        .unwrap();
    let begun = Clock::mono();
    let mut paused = false;
    while Clock::mono().since(begun) < Duration::from_secs(5) {
        let seen = worker.window.seen();
        assert!(seen.counters.in_flight <= 100, "I7: {:?}", seen.counters);
        paused |= seen.paused.iter().any(|(_, count)| *count > 0);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    world
        .controls()
        .broker_round_trip_time(1, Duration::ZERO)
        .unwrap();
    assert_eq!(worker.owned().len(), 2, "I9: the member stays");
    world.wait_committed(3_000);
    assert!(worker.window.seen().counters.released == 0 || paused);
    worker.stop().unwrap();
    world.audit(3_000);
}

#[test]
fn fs_61_a_position_out_of_range_stops_the_worker_with_its_place() {
    let world = World::new(1, 1);
    world.produce(0..100);
    let worker = world.worker();
    world.wait_committed(100);
    worker.stop().unwrap();
    let error = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE; 3];
    world
        .controls()
        .request_errors(RDKafkaApiKey::Fetch, &error);
    let mut worker = world.worker();
    let ended = worker.thread.take().unwrap().join().unwrap();
    let text = ended.unwrap_err().to_string();
    assert!(
        text.contains("partition 0") && text.contains("on_out_of_range"),
        "{text}"
    );
}

#[test]
fn fs_61_out_of_range_goes_on_where_it_is_told_to_and_is_counted() {
    let world = World::new(1, 1);
    world.produce(0..100);
    let error = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE];
    world
        .controls()
        .request_errors(RDKafkaApiKey::Fetch, &error);
    let worker = world.worker_with(|worker, _| worker.on_out_of_range = Some(StartAt::Earliest));
    world.wait_committed(100);
    wait_for("it is counted", || worker.window.seen().out_of_range == 1);
    worker.stop().unwrap();
    world.audit(100);
}

#[test]
fn fs_65_a_telemetry_topic_that_comes_later_is_waited_for() {
    let world = World::new(1, 1);
    let worker = world.worker_with(|worker, _| worker.telemetry_topic = "later".into());
    wait_for("the worker turns", || worker.window.beat().micros() > 0);
    world.mock().create_topic("later", 2).unwrap();
    wait_for("its partitions are assigned", || worker.owned().len() == 2);
    worker.stop().unwrap();
}

#[test]
fn start_latest_reads_what_comes_after_and_new_partitions_from_their_start() {
    let world = World::new(1, 2);
    world.produce(0..100);
    // Partition 1 counts as one that came after the start (FS-64).
    let worker = world.worker_with(|worker, _| {
        worker.start = StartAt::Latest;
        worker.partitions_at_start = 1;
    });
    wait_for("partition 1 is read from its start", || {
        worker.window.seen().counters.consumed == 50
    });
    world.produce(100..200);
    wait_for("then both", || {
        worker.window.seen().counters.consumed == 150
    });
    worker.stop().unwrap();
}

/// A daemon on two brokers, each leading one zones partition.
#[test]
fn fs_18_a_slow_leader_holds_back_the_gate_and_is_named() {
    let cluster = cluster(2);
    for (partition, broker) in [(0, 1), (1, 2)] {
        cluster
            .controls()
            .partition_leader("zones", partition, Some(broker))
            .unwrap();
    }
    let mut daemon = InProcess::start(cluster, |_| {});
    daemon.wait_ready();
    let held = || {
        let status = daemon.status();
        let held = status["gate"]["held_by"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        held.iter()
            .filter_map(|held| held["partition"].as_i64())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(), [0_i64; 0]);
    daemon
        .cluster
        .controls()
        .broker_round_trip_time(2, Duration::from_secs(2))
        .unwrap();
    wait_for("the slow partition is named, and it alone", || {
        held() == [1]
    });
    daemon
        .cluster
        .controls()
        .broker_round_trip_time(2, Duration::ZERO)
        .unwrap();
    wait_for("the gate goes on", || held().is_empty());
    daemon.stop().unwrap();
}

/// Zone changes stream in while the ends are asked for: an answer is often older than what was read meanwhile.
#[test]
fn fs_63_an_end_that_was_passed_before_its_answer_came_is_no_truncated_log() {
    let mut daemon = InProcess::start(cluster(1), |_| {});
    daemon.wait_ready();
    let writer = TopicWriter::new(&daemon.settings()).unwrap();
    // Its key is not its id: read, rejected, and nothing to build.
    let shape = rectangle("id", 0.0, 0.0, 1.0, 1.0, "");
    for number in 0..800 {
        let change = Outgoing {
            topic: "zones",
            partition: Some(PartitionId(number % 2)),
            key: Some(b"key"),
            value: Some(shape.as_bytes()),
            ..Outgoing::default()
        };
        assert!(writer.send(&change, 0).unwrap());
        assert!(writer.receipt(PATIENCE).is_some());
        assert!(!daemon.is_over(), "{number}: {:?}", daemon.take_end());
    }
    wait_for("all of them are read", || {
        daemon.status()["gate"]["changes"]["rejected"] == 800
    });
    daemon.stop().unwrap();
}

/// A worker may end over an event of its group, or with some that wait behind a transaction's end.
#[test]
fn a_member_that_ends_with_its_events_unanswered_is_not_waited_for_by_its_own_client() {
    let world = World::new(1, 2);
    let join = || {
        let by = CommitBy::Interval(Duration::from_millis(100));
        Member::join(&world.settings, &world.topic("telemetry"), 10, by).unwrap()
    };
    let member = join();
    let mut events = Vec::new();
    wait_for("the member hears of its partitions", || {
        member.poll(&mut events).unwrap();
        !events.is_empty()
    });
    member
        .assign(&[0, 1].map(|id| (PartitionId(id), Start::LogStart)))
        .unwrap();
    events.clear();
    let second = join();
    wait_for("it is asked for one of them", || {
        second.poll(&mut Vec::new()).unwrap();
        member.poll(&mut events).unwrap();
        matches!(events[..], [GroupEvent::Revoked(_)])
    });
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(member);
        done.send(()).unwrap();
    });
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(()));
}
