//! `exactly_once` on a real Kafka (the mock stores no transactional offsets and fences nobody): FS-31 to FS-41.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::daemon::{Daemon, eventually, ringfence_ok};
use crate::support::kafka::bootstrap;

const PATIENCE: Duration = Duration::from_secs(90);

struct Stage {
    bootstrap: &'static str,
    folder: tempfile::TempDir,
    name: String,
}

impl Stage {
    /// Topics of its own, with one zone `a` over (0,0) to (1,1).
    ///
    /// `None` where no real Kafka is at hand.
    fn new(name: &str) -> Option<Self> {
        let stage = Self {
            bootstrap: bootstrap()?,
            folder: tempfile::tempdir().expect("a temporary folder"),
            name: format!("once-{name}-{}", std::process::id()),
        };
        let config = stage.config("tool", "");
        ringfence_ok(
            &config,
            &[
                "topics",
                "create",
                "--partitions",
                "2",
                "--zone-partitions",
                "1",
            ],
        );
        let zones = stage.folder.path().join("zones.geojson");
        std::fs::write(
            &zones,
            r#"{"type":"Feature","id":"a","properties":{},"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}}"#,
        )
        .expect("the folder is writable");
        ringfence_ok(
            &config,
            &["zones", "import", zones.to_str().expect("a path is text")],
        );
        Some(stage)
    }

    fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn config(&self, instance: &str, extra: &str) -> PathBuf {
        let name = &self.name;
        let path = self.folder.path().join(format!("{instance}.toml"));
        let text = format!(
            "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"{name}\"\n\n[kafka.consumer]\n\
             \"session.timeout.ms\" = \"6000\"\n\n[kafka.producer]\n\"transaction.timeout.ms\" = \"8000\"\n\n\
             [telemetry]\ntopic = \"{name}.telemetry\"\n\n[zones]\ntopic = \"{name}.zones\"\n\n\
             [enriched]\ntopic = \"{name}.enriched\"\n\n[dead_letter]\ntopic = \"{name}.dead\"\n\n\
             [delivery]\nmode = \"exactly_once\"\ninstance = \"{instance}\"\n\n\
             [workers]\ncount = 1\n\n[shutdown]\ndrain_timeout_ms = 5_000\n\n{extra}\n",
            self.bootstrap,
        );
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    fn start(&self, instance: &str, log: &str) -> Daemon {
        Daemon::start(&self.config(instance, ""), self.folder.path(), log)
    }

    /// Writes events numbered `numbers`; every tenth is invalid. Offsets are contiguous in each of the two partitions.
    fn produce(&self, numbers: std::ops::Range<usize>) {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set(
                "bootstrap.servers",
                bootstrap().expect("the stage is on it"),
            )
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        let topic = self.topic("telemetry");
        #[allow(clippy::disallowed_methods)]
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_millis();
        for number in numbers {
            let value = if number % 10 == 9 {
                format!("invalid {number}")
            } else {
                format!(r#"{{"id":"v","ts":{wall},"lat":0.5,"lon":0.5,"n":{number}}}"#)
            };
            producer
                .send(
                    BaseRecord::<str, str>::to(&topic)
                        .partition((number % 2) as i32)
                        .key("v")
                        .payload(&value),
                )
                .expect("the queue has room");
        }
        producer.flush(Duration::from_secs(30)).expect("written");
    }

    /// What a `read_committed` reader of the output sees of each source, in order: enriched and dead letters together.
    fn sources(&self) -> BTreeMap<i32, Vec<i64>> {
        let mut all: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for suffix in ["enriched", "dead"] {
            let mut of_topic: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
            for (partition, offset) in committed_sources(&self.topic(suffix)) {
                of_topic.entry(partition).or_default().push(offset);
            }
            for (partition, offsets) in of_topic {
                assert!(
                    offsets.is_sorted(),
                    "I8: {suffix} of source partition {partition} is in order"
                );
                all.entry(partition).or_default().extend(offsets);
            }
        }
        for offsets in all.values_mut() {
            offsets.sort_unstable();
        }
        all
    }

    /// Waits until `count` sources are there, then asserts that each is, once.
    fn assert_each_once(&self, count: usize) {
        let expected: BTreeMap<i32, Vec<i64>> = (0..2)
            .map(|partition| (partition, (0..(count as i64 / 2)).collect()))
            .collect();
        let seen = eventually("all output is committed", PATIENCE, || {
            let seen = self.sources();
            (seen.values().map(Vec::len).sum::<usize>() >= count).then_some(seen)
        });
        assert!(
            seen == expected,
            "lost or doubled: {}",
            difference(&seen, &expected)
        );
    }
}

fn difference(seen: &BTreeMap<i32, Vec<i64>>, expected: &BTreeMap<i32, Vec<i64>>) -> String {
    let mut text = String::new();
    for (partition, expected) in expected {
        let seen = seen.get(partition).cloned().unwrap_or_default();
        let doubled: Vec<_> = seen
            .windows(2)
            .filter(|two| two[0] == two[1])
            .map(|two| two[0])
            .take(5)
            .collect();
        let lost: Vec<_> = expected
            .iter()
            .filter(|offset| !seen.contains(offset))
            .take(5)
            .collect();
        text += &format!("partition {partition}: doubled {doubled:?}, lost {lost:?}; ");
    }
    text
}

/// The sources named in a topic's headers, as a reader of committed records sees them.
fn committed_sources(topic: &str) -> Vec<(i32, i64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set(
            "bootstrap.servers",
            bootstrap().expect("the stage is on it"),
        )
        .set("group.id", "once-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), Duration::from_secs(10))
        .expect("metadata");
    let partitions: Vec<i32> = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|p| p.id())
        .collect();
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning)
            .expect("a partition");
    }
    consumer.assign(&list).expect("an assignment");
    let mut sources = Vec::new();
    let mut ended = 0;
    while ended < partitions.len() {
        let message = match consumer.poll(Duration::from_secs(20)) {
            Some(Ok(message)) => message,
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {
                ended += 1;
                continue;
            }
            other => panic!("reading {topic}: {other:?}"),
        };
        let headers = message.headers().expect("outputs have headers");
        let text = |name: &str| {
            headers
                .iter()
                .find(|header| header.key == name)
                .and_then(|header| header.value)
                .map(|value| String::from_utf8(value.to_vec()).expect("headers are text"))
        };
        let source = match text("ringfence-source") {
            Some(source) => source,
            None => format!(
                "{}:{}",
                text("ringfence-error-partition").expect("a dead letter names its source"),
                text("ringfence-error-offset").expect("a dead letter names its source")
            ),
        };
        let (partition, offset) = source.split_once(':').expect("partition:offset");
        sources.push((
            partition.parse().expect("a number"),
            offset.parse().expect("a number"),
        ));
    }
    sources
}

#[test]
fn fs_31_killed_again_and_again_each_record_is_seen_once() {
    let Some(stage) = Stage::new("kills") else {
        return;
    };
    let mut written = 0;
    for round in 0..6 {
        let mut daemon = stage.start("one", &format!("round-{round}"));
        daemon.wait_ready();
        for _ in 0..4 {
            stage.produce(written..written + 500);
            written += 500;
        }
        // Somewhere amid its transactions: as soon as it has consumed some of these records.
        eventually("it consumes", PATIENCE, || {
            daemon
                .metric("ringfence_records_consumed_total", "")
                .filter(|count| *count > 0.0)
        });
        daemon.signal("KILL");
        daemon.wait_exit(Duration::from_secs(10));
    }
    let mut last = stage.start("one", "last");
    last.wait_ready();
    stage.assert_each_once(written);
    last.signal("TERM");
    assert!(last.wait_exit(Duration::from_secs(20)).success());
    stage.assert_each_once(written);
}

#[test]
fn fs_38_two_processes_of_one_name_end_with_one_that_says_it_is_fenced() {
    let Some(stage) = Stage::new("name") else {
        return;
    };
    let mut first = stage.start("same", "first");
    first.wait_ready();
    stage.produce(0..100);
    stage.assert_each_once(100);
    let mut second = stage.start("same", "second");
    second.wait_ready();
    let mut written = 100;
    // The first one hears of it with its next transaction.
    eventually("the first one is fenced", PATIENCE, || {
        stage.produce(written..written + 20);
        written += 20;
        first.log().contains("fenced").then_some(())
    });
    assert_eq!(first.wait_exit(Duration::from_secs(20)).code(), Some(1));
    stage.assert_each_once(written);
    assert!(!second.log().contains("fenced"));
}

#[test]
fn fs_32_a_zombie_ends_with_a_clear_message_and_nothing_of_it_is_seen() {
    let Some(stage) = Stage::new("zombie") else {
        return;
    };
    let mut zombie = stage.start("zombie", "zombie");
    zombie.wait_ready();
    stage.produce(0..1_000);
    eventually("it consumes", PATIENCE, || {
        zombie
            .metric("ringfence_records_consumed_total", "")
            .filter(|count| *count > 0.0)
    });
    zombie.signal("STOP");
    stage.produce(1_000..2_000);
    let mut heir = stage.start("heir", "heir");
    heir.wait_ready();
    stage.assert_each_once(2_000);
    zombie.signal("CONT");
    assert_eq!(zombie.wait_exit(Duration::from_secs(30)).code(), Some(1));
    assert!(zombie.log().contains("stood still"), "{}", zombie.log());
    stage.produce(2_000..2_100);
    stage.assert_each_once(2_100);
}

#[test]
fn fs_41_a_record_that_the_broker_refuses_is_dead_lettered_and_the_others_are_seen_once() {
    let Some(stage) = Stage::new("large") else {
        return;
    };
    let mut daemon = stage.start("one", "one");
    daemon.wait_ready();
    stage.produce(0..100);
    stage.assert_each_once(100);
    // Lowered behind the daemon's back: what it measured at its start lets the record through.
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set(
            "bootstrap.servers",
            bootstrap().expect("the stage is on it"),
        )
        .create()
        .expect("an admin client");
    let resource = AlterConfig::new(ResourceSpecifier::Topic(Box::leak(
        stage.topic("enriched").into_boxed_str(),
    )))
    .set("max.message.bytes", "20000");
    futures(admin.alter_configs([&resource], &AdminOptions::new())).expect("altered");
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set(
            "bootstrap.servers",
            bootstrap().expect("the stage is on it"),
        )
        .create()
        .expect("a producer");
    // Not to be compressed away.
    let mut noise = 88_172_645_463_325_252_u64;
    let text: String = (0..60_000)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            char::from(b'A' + (noise % 26) as u8)
        })
        .collect();
    let value = format!(r#"{{"id":"v","ts":1,"lat":0.5,"lon":0.5,"text":"{text}"}}"#);
    producer
        .send(
            BaseRecord::<str, str>::to(&stage.topic("telemetry"))
                .partition(0)
                .key("v")
                .payload(&value),
        )
        .expect("queued");
    producer.flush(Duration::from_secs(10)).expect("written");
    stage.produce(101..200);
    eventually("all of it is out", PATIENCE, || {
        let seen = stage.sources();
        (seen.values().map(Vec::len).sum::<usize>() >= 200).then_some(())
    });
    let seen = stage.sources();
    for (partition, offsets) in &seen {
        assert!(
            offsets.windows(2).all(|two| two[0] + 1 == two[1]),
            "partition {partition}: {offsets:?}"
        );
    }
    assert!(
        committed_sources(&stage.topic("dead")).contains(&(0, 50)),
        "the refused record is a dead letter"
    );
}

fn futures<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}
