//! Workers with the real client, on mock brokers or on a real Kafka: topics, events, and an audit of what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::{Clock, GuardedTime};
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::kafka::admin::{Admin, End, TopicSpec};
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::worker::{
    ExactlyOnce, StartAt, Worker, WorkerError, WorkerSettings, WorkerWindow,
};
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::pipeline::PipelineConfig;
use ringfence::shutdown::Shutdown;

use super::zones::{PlainZones, change, rectangle};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Three topics and a group, on mock brokers or a real Kafka.
pub(crate) struct World {
    cluster: Option<EmbeddedCluster>,
    pub(crate) settings: Settings,
    pub(crate) partitions: i32,
    prefix: String,
    zones: Arc<PlainZones>,
}

/// A worker in its thread.
pub(crate) struct Running {
    pub(crate) shutdown: Shutdown,
    pub(crate) window: Arc<WorkerWindow>,
    pub(crate) thread: Option<JoinHandle<Result<(), WorkerError>>>,
    /// While it is set, the worker stands still in the middle of a turn.
    pub(crate) stands: Arc<AtomicBool>,
}

impl Running {
    pub(crate) fn stop(mut self) -> Result<(), WorkerError> {
        self.shutdown.request();
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn owned(&self) -> BTreeSet<i32> {
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
        self.stands.store(false, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Clock::mono();
    while !done() {
        assert!(
            Clock::mono().since(begun) < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Settings that let a test wait for a rebalance.
fn quick(bootstrap: &str, group: &str) -> Settings {
    let mut settings = Settings::new(bootstrap, group);
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
    settings
}

fn one_zone() -> Arc<PlainZones> {
    let mut zones = PlainZones::new(i64::from(i32::MAX));
    zones.changes.push(change(
        0,
        0,
        1,
        "a",
        Some(&rectangle("a", 0.0, 0.0, 1.0, 1.0, "")),
    ));
    Arc::new(zones)
}

/// Sets the delivery mode; in `exactly_once` the worker's transactional id is that of the test.
pub(crate) fn deliver(settings: &mut WorkerSettings, once: Option<&str>) {
    settings.exactly_once = once.map(|name| ExactlyOnce {
        transactional_id: transactional_id(name),
        transaction_timeout: Duration::from_secs(10),
        session_timeout: Duration::from_secs(6),
    });
}

/// The transactional id of the worker of the test of this name.
pub(crate) fn transactional_id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// A valid event.
pub(crate) fn valid(number: usize) -> String {
    format!(
        r#"{{"id":"v","ts":{},"lat":0.5,"lon":0.5,"n":{number}}}"#,
        stamp(number)
    )
}

/// Its time.
fn stamp(number: usize) -> i64 {
    1_000 + number as i64
}

impl World {
    /// On mock brokers of its own.
    pub(crate) fn new(brokers: u16, partitions: i32) -> Self {
        let cluster = EmbeddedCluster::start(brokers).unwrap();
        for topic in ["telemetry", "enriched", "dead"] {
            cluster.create_topic(topic, partitions).unwrap();
        }
        let settings = quick(&cluster.bootstrap_servers(), "g");
        Self {
            cluster: Some(cluster),
            settings,
            partitions,
            prefix: String::new(),
            zones: one_zone(),
        }
    }

    /// On the real Kafka of `RINGFENCE_TEST_KAFKA`, if there is one, with topics of its own: `test` is unique.
    pub(crate) fn real(test: &str, partitions: i32) -> Option<Self> {
        let bootstrap = super::kafka::bootstrap()?.to_owned();
        Some(Self::at(&bootstrap, test, partitions))
    }

    /// On the real Kafka at this address.
    pub(crate) fn at(bootstrap: &str, test: &str, partitions: i32) -> Self {
        let prefix = format!("{test}-{}.", std::process::id());
        let world = Self {
            cluster: None,
            settings: quick(bootstrap, &format!("{prefix}group")),
            partitions,
            prefix,
            zones: one_zone(),
        };
        let admin = world.admin();
        for topic in ["telemetry", "enriched", "dead"] {
            let spec = TopicSpec {
                name: world.topic(topic),
                partitions,
                replication: Some(1),
                // Stamps of the tests are old.
                properties: vec![("retention.ms".to_owned(), "-1".to_owned())],
            };
            admin.create_topic(&spec, false).unwrap();
        }
        world
    }

    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(&self.settings, Duration::from_secs(10)).unwrap()
    }

    pub(crate) fn mock(&self) -> &EmbeddedCluster {
        self.cluster.as_ref().expect("a test on mock brokers")
    }

    pub(crate) fn controls(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.mock().controls()
    }

    pub(crate) fn worker_with(
        &self,
        tune: impl FnOnce(&mut WorkerSettings, &mut PipelineConfig),
    ) -> Running {
        let fields = Fields::new(&FieldRules::default()).unwrap();
        let mut pipeline = PipelineConfig::new(fields, "telemetry");
        let mut worker = WorkerSettings {
            telemetry_topic: self.topic("telemetry"),
            enriched_topic: self.topic("enriched"),
            dead_letter_topic: Some(self.topic("dead")),
            start: StartAt::Earliest,
            partitions_at_start: self.partitions,
            on_out_of_range: None,
            commit_interval: Duration::from_millis(50),
            exactly_once: None,
            static_member: None,
            drain_timeout: Duration::from_secs(10),
        };
        tune(&mut worker, &mut pipeline);
        let (shutdown, window) = (Shutdown::new(), Arc::new(WorkerWindow::default()));
        let (zones, time) = (Arc::clone(&self.zones), Arc::new(GuardedTime::default()));
        let stands = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stands);
        let load = move || {
            while stopped.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            Arc::clone(&zones)
        };
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
            stands,
        }
    }

    pub(crate) fn worker(&self) -> Running {
        self.worker_with(|_, _| {})
    }

    /// From now on nothing can be delivered, and what is in flight stays so (mock brokers).
    pub(crate) fn hold_output_back(&self) {
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 10_000];
        self.controls()
            .request_errors(RDKafkaApiKey::Produce, &refused);
    }

    pub(crate) fn let_output_go(&self) {
        self.controls().clear_request_errors(RDKafkaApiKey::Produce);
    }

    /// Writes events numbered `numbers`, spread over the partitions; every tenth is invalid.
    pub(crate) fn produce(&self, numbers: std::ops::Range<usize>) {
        self.produce_as(numbers, |number| {
            if number % 10 == 9 {
                format!("invalid {number}")
            } else {
                valid(number)
            }
        });
    }

    /// Writes events numbered `numbers`, spread over the partitions.
    pub(crate) fn produce_as(
        &self,
        numbers: std::ops::Range<usize>,
        value: impl Fn(usize) -> String,
    ) {
        let writer = TopicWriter::new(&self.settings).unwrap();
        let topic = self.topic("telemetry");
        let count = numbers.len();
        for number in numbers {
            let value = value(number);
            let record = Outgoing {
                topic: &topic,
                partition: Some(PartitionId((number % self.partitions as usize) as i32)),
                key: Some(b"v"),
                value: Some(value.as_bytes()),
                timestamp: Some(stamp(number)),
                ..Outgoing::default()
            };
            assert!(writer.send(&record, number).unwrap());
        }
        for _ in 0..count {
            let receipt = writer.receipt(PATIENCE).expect("acknowledged");
            assert!(receipt.outcome.is_ok(), "{receipt:?}");
        }
    }

    /// The sources (`partition:offset`) of what stands in a topic, in order, by partition of the source.
    pub(crate) fn sources(&self, topic: &str, header: &[&str]) -> BTreeMap<i32, Vec<i64>> {
        let admin = self.admin();
        let mut sources: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let reader = TopicReader::all(&self.settings, &admin, &self.topic(topic)).unwrap();
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
    pub(crate) fn wait_committed(&self, count: usize) {
        let admin = self.admin();
        let partitions: Vec<_> = (0..self.partitions).map(PartitionId).collect();
        wait_for("all offsets are committed", || {
            let committed = admin
                .committed(&self.topic("telemetry"), &partitions)
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
    pub(crate) fn audit(&self, count: usize) -> usize {
        let enriched = self.sources("enriched", &["ringfence-source"]);
        let dead = self.sources(
            "dead",
            &["ringfence-error-partition", "ringfence-error-offset"],
        );
        let admin = self.admin();
        let partitions: Vec<_> = (0..self.partitions).map(PartitionId).collect();
        let (mut twice, mut all) = (0, 0);
        for (partition, range) in admin
            .offsets(&self.topic("telemetry"), &partitions, End::Log)
            .unwrap()
        {
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
            let wrong: Vec<_> = seen.symmetric_difference(&expected).take(20).collect();
            assert!(
                wrong.is_empty(),
                "I5: partition {partition}, not answered for or unknown: {wrong:?}"
            );
            all += expected.len();
        }
        assert_eq!(all, count);
        twice
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.cluster.is_none() {
            let admin = self.admin();
            for topic in ["telemetry", "enriched", "dead"] {
                drop(admin.delete_topic(&self.topic(topic)));
            }
        }
    }
}
