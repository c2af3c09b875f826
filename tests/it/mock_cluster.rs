//! Workers on librdkafka's mock brokers: the real client, groups, commits, pauses and injected errors, no Docker.
//! Names cite the rows of FAULTS.md. What the mock cannot show (transactions, compaction, time look-ups) is in `broker`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::{Clock, GuardedTime};
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::kafka::admin::{Admin, End};
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::worker::{StartAt, Worker, WorkerError, WorkerSettings, WorkerWindow};
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::pipeline::PipelineConfig;
use ringfence::shutdown::Shutdown;

use crate::support::zones::{PlainZones, change, rectangle};

const PATIENCE: Duration = Duration::from_secs(60);

/// A mock cluster with the three topics, and a group.
struct World {
    cluster: EmbeddedCluster,
    settings: Settings,
    partitions: i32,
    zones: Arc<PlainZones>,
}

/// A worker in its thread.
struct Running {
    shutdown: Shutdown,
    window: Arc<WorkerWindow>,
    thread: Option<JoinHandle<Result<(), WorkerError>>>,
}

impl Running {
    fn stop(mut self) -> Result<(), WorkerError> {
        self.shutdown.request();
        self.thread.take().unwrap().join().unwrap()
    }

    fn owned(&self) -> BTreeSet<i32> {
        self.window
            .seen()
            .owned
            .iter()
            .map(|(id, _)| id.0)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Clock::mono();
    while !done() {
        assert!(
            Clock::mono().since(begun) < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

impl World {
    fn new(brokers: u16, partitions: i32) -> Self {
        let cluster = EmbeddedCluster::start(brokers).unwrap();
        for topic in ["telemetry", "enriched", "dead"] {
            cluster.create_topic(topic, partitions).unwrap();
        }
        let mut settings = Settings::new(&cluster.bootstrap_servers(), "g");
        // The mock ends a running group's generation only by the session time-out (RDKAFKA 9).
        for (name, value) in [
            ("session.timeout.ms", "2500"),
            ("heartbeat.interval.ms", "100"),
            ("fetch.wait.max.ms", "20"),
        ] {
            settings.consumer.insert(name.into(), value.into());
        }
        settings
            .common
            .insert("socket.timeout.ms".into(), "3000".into());
        let mut zones = PlainZones::new(i64::from(i32::MAX));
        zones.changes.push(change(
            0,
            0,
            1,
            "a",
            Some(&rectangle("a", 0.0, 0.0, 1.0, 1.0, "")),
        ));
        Self {
            cluster,
            settings,
            partitions,
            zones: Arc::new(zones),
        }
    }

    fn controls(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.cluster.controls()
    }

    fn worker_with(&self, tune: impl FnOnce(&mut WorkerSettings, &mut PipelineConfig)) -> Running {
        let fields = Fields::new(&FieldRules::default()).unwrap();
        let mut pipeline = PipelineConfig::new(fields, "telemetry");
        let mut worker = WorkerSettings {
            telemetry_topic: "telemetry".into(),
            enriched_topic: "enriched".into(),
            dead_letter_topic: Some("dead".into()),
            start: StartAt::Earliest,
            partitions_at_start: self.partitions,
            on_out_of_range: None,
            commit_interval: Duration::from_millis(50),
            drain_timeout: Duration::from_secs(10),
        };
        tune(&mut worker, &mut pipeline);
        let (shutdown, window) = (Shutdown::new(), Arc::new(WorkerWindow::default()));
        let (zones, time) = (Arc::clone(&self.zones), Arc::new(GuardedTime::default()));
        let load = move || Arc::clone(&zones);
        let made = Worker::new(
            &self.settings,
            worker,
            pipeline,
            load,
            time,
            Arc::clone(&window),
        )
        .unwrap();
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || made.run(&stop));
        Running {
            shutdown,
            window,
            thread: Some(thread),
        }
    }

    fn worker(&self) -> Running {
        self.worker_with(|_, _| {})
    }

    /// Writes events numbered `numbers`, spread over the partitions; every tenth is invalid.
    fn produce(&self, numbers: std::ops::Range<usize>) {
        let writer = TopicWriter::new(&self.settings).unwrap();
        let count = numbers.len();
        for number in numbers {
            let value = if number % 10 == 9 {
                format!("invalid {number}")
            } else {
                format!(
                    r#"{{"id":"v","ts":{},"lat":0.5,"lon":0.5,"n":{number}}}"#,
                    1_000 + number
                )
            };
            let record = Outgoing {
                topic: "telemetry",
                partition: Some(PartitionId((number % self.partitions as usize) as i32)),
                key: Some(b"v"),
                value: Some(value.as_bytes()),
                timestamp: Some(1_000 + number as i64),
                ..Outgoing::default()
            };
            assert!(writer.send(&record, number).unwrap());
        }
        for _ in 0..count {
            assert!(
                writer
                    .receipt(PATIENCE)
                    .expect("acknowledged")
                    .outcome
                    .is_ok()
            );
        }
    }

    /// The sources (`partition:offset`) of what stands in a topic, in order, by partition of the source.
    fn sources(&self, topic: &str, header: &[&str]) -> BTreeMap<i32, Vec<i64>> {
        let admin = Admin::new(&self.settings, Duration::from_secs(10)).unwrap();
        let mut sources: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let reader = TopicReader::all(&self.settings, &admin, topic).unwrap();
        reader
            .read_all(PATIENCE, |record| {
                let named = |name: &str| {
                    let (_, value) = record
                        .headers
                        .iter()
                        .find(|(known, _)| *known == name)
                        .unwrap();
                    std::str::from_utf8(value.unwrap()).unwrap().to_owned()
                };
                let source = match header {
                    [one] => named(one),
                    [partition, offset] => format!("{}:{}", named(partition), named(offset)),
                    _ => unreachable!("one header or two"),
                };
                let (partition, offset) = source.split_once(':').unwrap();
                sources
                    .entry(partition.parse().unwrap())
                    .or_default()
                    .push(offset.parse().unwrap());
                if topic == "enriched" {
                    let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                    assert!(text.ends_with(r#","zones":["a"]}"#), "{text}");
                }
            })
            .unwrap();
        sources
    }

    /// Waits until `count` telemetry records are committed.
    fn wait_committed(&self, count: usize) {
        let admin = Admin::new(&self.settings, Duration::from_secs(10)).unwrap();
        let partitions: Vec<_> = (0..self.partitions).map(PartitionId).collect();
        wait_for("all offsets are committed", || {
            let committed = admin
                .committed("telemetry", &partitions)
                .unwrap_or_default();
            let sum: i64 = committed
                .iter()
                .map(|(_, offset)| offset.map_or(0, |offset| offset.0))
                .sum();
            assert!(
                sum <= count as i64,
                "I6: committed past the end: {committed:?}"
            );
            sum == count as i64
        });
    }

    /// Asserts that `count` records are all answered for, in order; gives how many were written twice.
    fn audit(&self, count: usize) -> usize {
        let enriched = self.sources("enriched", &["ringfence-source"]);
        let dead = self.sources(
            "dead",
            &["ringfence-error-partition", "ringfence-error-offset"],
        );
        let admin = Admin::new(&self.settings, Duration::from_secs(10)).unwrap();
        let partitions: Vec<_> = (0..self.partitions).map(PartitionId).collect();
        let (mut twice, mut all) = (0, 0);
        for (partition, range) in admin.offsets("telemetry", &partitions, End::Log).unwrap() {
            let mut first = Vec::new();
            let mut seen = BTreeSet::new();
            for offset in enriched.get(&partition.0).into_iter().flatten() {
                if seen.insert(*offset) {
                    first.push(*offset);
                } else {
                    twice += 1;
                }
            }
            assert!(
                first.is_sorted(),
                "I8: partition {partition} is out of order"
            );
            for offset in dead.get(&partition.0).into_iter().flatten() {
                twice += usize::from(!seen.insert(*offset));
            }
            let expected: BTreeSet<i64> = (range.from.0..range.to.0).collect();
            assert_eq!(
                seen, expected,
                "I5: partition {partition} is not answered for"
            );
            all += expected.len();
        }
        assert_eq!(all, count);
        twice
    }
}

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
    world.cluster.create_topic("later", 2).unwrap();
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

/// A daemon in this process on a mock cluster of two brokers, each leading one zones partition.
#[test]
fn fs_18_a_slow_leader_holds_back_the_gate_and_is_named() {
    let cluster = EmbeddedCluster::start(2).unwrap();
    for topic in [
        "telemetry",
        "telemetry.enriched",
        "telemetry.dead-letter",
        "zones",
    ] {
        cluster.create_topic(topic, 2).unwrap();
    }
    for (partition, broker) in [(0, 1), (1, 2)] {
        cluster
            .controls()
            .partition_leader("zones", partition, Some(broker))
            .unwrap();
    }
    let mut config = ringfence::config::Config::defaults();
    config
        .kafka
        .set_common("bootstrap.servers", &cluster.bootstrap_servers());
    config.http.listen = "127.0.0.1:0".to_owned();
    config.zones.allow_empty = true;
    config.workers.count = 1;
    config.gate.create_time_margin = Some(Duration::from_millis(250));
    let handle = ringfence::run::Handle::new();
    let (running, settings) = (handle.clone(), config.clone());
    let daemon = std::thread::spawn(move || ringfence::run::run(&settings, &running));
    wait_for("the daemon is ready", || handle.is_ready());
    let held = || {
        let status = handle.status().unwrap_or_default();
        let held = status["gate"]["held_by"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        held.iter()
            .filter_map(|held| held["partition"].as_i64())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(), [0_i64; 0]);
    cluster
        .controls()
        .broker_round_trip_time(2, Duration::from_secs(2))
        .unwrap();
    wait_for("the slow partition is named, and it alone", || {
        held() == [1]
    });
    cluster
        .controls()
        .broker_round_trip_time(2, Duration::ZERO)
        .unwrap();
    wait_for("the gate goes on", || held().is_empty());
    handle.stop();
    daemon.join().unwrap().unwrap();
}
