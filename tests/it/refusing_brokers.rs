//! Brokers that take no output: a dead-letter topic that may not be written (FS-43), and a disk that is full, stood in for by
//! the error that a produce request gets then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::kafka::ffi::Operation;
use ringfence::kafka::permission::{Allowed, Questions};
use ringfence::kafka::worker::WorkerError;
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::PauseCause;

use crate::check::{AUTHORIZER, DESCRIBE, READ, TOPIC, WRITE, allow_only};
use crate::support::edge::{PATIENCE, World, deliver, valid, wait_for};
use crate::support::kafka::Cluster;
use crate::support::stage::Stage;

fn committed(world: &World) -> Option<Offset> {
    let admin = world.admin();
    let answer = admin.committed(&world.topic("telemetry"), &[PartitionId(0)]);
    answer.unwrap()[0].1
}

/// Waits until the broker knows whether the topic may be written: ACLs reach it a moment after they were accepted.
fn wait_writable(settings: &ringfence::kafka::client::Settings, topic: &str, is_writable: bool) {
    let questions = Questions::new(settings, Duration::from_secs(10)).unwrap();
    wait_for("the broker knows the ACL", || {
        match questions.allowed_on_topic(topic) {
            Ok(Allowed::Told(operations)) => operations.contains(&Operation::Write) == is_writable,
            _ => false,
        }
    });
}

#[test]
fn fs_43_a_dead_letter_topic_that_may_not_be_written_stops_the_worker_until_it_may() {
    let Some(cluster) = Cluster::start_with(1, AUTHORIZER) else {
        return;
    };
    for once in [None, Some("refused-once")] {
        let world = World::at(cluster.address(), once.unwrap_or("refused-least"), 1);
        let dead = world.topic("dead");
        world.produce_as(0..10, valid);
        let worker = world.worker_with(|settings, _| deliver(settings, once));
        world.wait_committed(10);
        allow_only(cluster.address(), TOPIC, &dead, DESCRIBE);
        wait_writable(&world.settings, &dead, false);
        world.produce_as(10..20, |number| match number {
            13 => "no event".to_owned(),
            _ => valid(number),
        });
        let mut workers = vec![worker];
        for run in 0..2 {
            // Started again, it stops there again.
            let mut worker = workers
                .pop()
                .unwrap_or_else(|| world.worker_with(|settings, _| deliver(settings, once)));
            let thread = worker.thread.take().unwrap();
            wait_for("the worker ends by itself", || thread.is_finished());
            let error = thread.join().unwrap().unwrap_err();
            println!("{once:?} {run}: {error}");
            assert!(!error.is_passing(), "the daemon ends with it: {error}");
            if let WorkerError::Stopped(stop) = &error {
                assert_eq!(stop.position.offset, Offset(13), "{stop}");
            }
            assert!(
                committed(&world) <= Some(Offset(13)),
                "not past it: {error}"
            );
        }
        for operation in [READ, WRITE] {
            allow_only(cluster.address(), TOPIC, &dead, operation);
        }
        wait_writable(&world.settings, &dead, true);
        let worker = world.worker_with(|settings, _| deliver(settings, once));
        world.wait_committed(20);
        worker.stop().unwrap();
        let twice = world.audit(20);
        assert!(once.is_none() || twice == 0, "{twice} twice");
    }
}

/// The whole daemon ends with 1, names the record and why, and a restart meets the same.
#[test]
fn fs_43_a_daemon_that_may_not_write_a_dead_letter_ends_and_says_why() {
    let Some(cluster) = Cluster::start_with(1, AUTHORIZER) else {
        return;
    };
    for mode in ["at_least_once", "exactly_once"] {
        let name = format!("unauthorised-{mode}");
        let extra = format!("[delivery]\nmode = \"{mode}\"\ninstance = \"{name}\"");
        let stage = Stage::on(cluster.address(), &name, &extra);
        let text = std::fs::read_to_string(&stage.config).unwrap();
        let text = text.replace("[zones]\n", "[zones]\nallow_empty = true\n");
        std::fs::write(&stage.config, text).unwrap();
        stage.create_topics(1, &["--replication", "1"]);
        let dead = stage.topic("dead");
        allow_only(cluster.address(), TOPIC, &dead, DESCRIBE);
        let settings = ringfence::kafka::client::Settings::new(cluster.address(), "asks");
        wait_writable(&settings, &dead, false);
        let records = ["{}", "not json"].map(|value| (Some(0), "k".to_owned(), value.to_owned()));
        stage.write("telemetry", records);
        for run in ["first", "second"] {
            let mut daemon = stage.daemon(run);
            let status = daemon.wait_exit(PATIENCE);
            let log = daemon.log();
            assert_eq!(status.code(), Some(1), "{mode} {run}: {log}");
            assert!(
                log.contains(&dead) && log.to_lowercase().contains("authoriz"),
                "{log}"
            );
            let committed = stage
                .admin
                .committed(&stage.topic("telemetry"), &[PartitionId(0)]);
            assert!(
                committed.unwrap()[0].1 <= Some(Offset(0)),
                "{mode} {run}: not past it"
            );
        }
    }
}

/// Every produce request fails with what a broker says whose disk is full.
#[test]
fn a_full_disk_of_a_broker_costs_time_and_no_record() {
    let world = World::new(1, 2);
    world.produce(0..200);
    let worker = world.worker_with(|_, pipeline| pipeline.limits.in_flight_max = 50);
    world.wait_committed(200);
    let full = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 20_000];
    // The events are written while the disk is not full yet: it is the output that finds it so.
    worker.stands.store(true, Ordering::Release);
    world.produce(200..2_000);
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &full);
    worker.stands.store(false, Ordering::Release);
    wait_for("the output stands and its partitions are paused", || {
        let seen = worker.window.seen();
        assert!(seen.counters.in_flight <= 50, "I7: {:?}", seen.counters);
        seen.paused.contains(&(PauseCause::InFlight, 2))
    });
    let thread = worker.thread.as_ref().unwrap();
    assert!(
        !thread.is_finished(),
        "it waits for the disk, and is a member all the while"
    );
    assert_eq!(worker.owned().len(), 2, "I9");
    world
        .controls()
        .clear_request_errors(RDKafkaApiKey::Produce);
    world.wait_committed(2_000);
    worker.stop().unwrap();
    assert_eq!(world.audit(2_000), 0);
}
