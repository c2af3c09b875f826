//! The rows of FAULTS.md on the real client: on mock brokers where they can show it, on a real Kafka
//! (`RINGFENCE_TEST_KAFKA`) where the mock accepts too much.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::kafka::admin::Admin;
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::telemetry::RecordRef;

use crate::support::daemon::{Daemon, eventually};
use crate::support::edge::{PATIENCE, World, valid, wait_for};
use crate::support::in_process::{InProcess, cluster};
use crate::support::zones::rectangle;

fn dead_letter_reasons(world: &World) -> Vec<String> {
    let reader = TopicReader::all(&world.settings, &world.admin(), &world.topic("dead")).unwrap();
    let mut reasons = Vec::new();
    reader
        .read_all(PATIENCE, |record| {
            let found = record
                .headers
                .iter()
                .find(|(name, _)| *name == "ringfence-error-reason");
            reasons.push(String::from_utf8_lossy(found.unwrap().1.unwrap()).into_owned());
        })
        .unwrap();
    reasons
}

/// The mock refuses requests, not records: after the first record of each partition, the first refusal is of a batch,
/// the second of the first record that is sent alone.
#[test]
fn fs_41_a_refused_batch_is_sent_again_one_by_one_and_the_record_at_fault_dead_lettered() {
    let mut world = World::new(1, 1);
    // The mock takes what follows a gap; a broker refuses it (below).
    world
        .settings
        .producer
        .insert("max.in.flight".into(), "1".into());
    world.produce_as(0..1_000, valid);
    let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &[none, refused, refused]);
    let worker = world.worker();
    world.wait_committed(1_000);
    let seen = worker.window.seen();
    assert_eq!(seen.batches_refused, 1);
    world.produce_as(1_000..1_500, valid);
    world.wait_committed(1_500);
    worker.stop().unwrap();
    world.audit(1_500);
    assert_eq!(dead_letter_reasons(&world), ["broker_refused"]);
    assert_eq!(
        world.sources(
            "dead",
            &["ringfence-error-partition", "ringfence-error-offset"]
        )[&0],
        [1]
    );
}

async fn alter(world: &World, topic: &str, name: &str, value: &str) {
    let mut config = rdkafka::ClientConfig::new();
    config.set(
        "bootstrap.servers",
        &world.settings.common["bootstrap.servers"],
    );
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = world.topic(topic);
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set(name, value)
        // The call replaces all properties.
        .set("retention.ms", "-1");
    let answers = admin
        .alter_configs(&[change], &AdminOptions::new())
        .await
        .unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

fn set_property(world: &World, topic: &str, name: &str, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(alter(world, topic, name, value));
}

/// The topic's limit is lowered while the worker runs: no check of ours knows. Its first batch of a new producer holds
/// the record at fault, so what follows it must not pass the broker before it (I8).
#[test]
fn fs_41_i8_batches_over_a_lowered_limit_keep_their_order_and_only_the_large_records_are_dead_lettered()
 {
    let Some(mut world) = World::real("refused-batch", 2) else {
        return;
    };
    // Small batches: some are always under way behind the one at fault.
    world
        .settings
        .producer
        .insert("batch.num.messages".into(), "20".into());
    set_property(&world, "enriched", "max.message.bytes", "3000");
    let large = |number: usize| {
        if number % 350 == 5 {
            let mut noise = number as u64 + 1;
            let text: String = (0..4_000)
                .map(|_| {
                    noise = noise
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    char::from(b'a' + (noise >> 33) as u8 % 26)
                })
                .collect();
            valid(number).replace(r#""n":"#, &format!(r#""text":"{text}","n":"#))
        } else {
            valid(number)
        }
    };
    world.produce_as(0..3_000, large);
    let worker = world.worker();
    world.wait_committed(3_000);
    assert!(worker.window.seen().batches_refused >= 1);
    worker.stop().unwrap();
    world.audit(3_000);
    let reasons = dead_letter_reasons(&world);
    let distinct: BTreeSet<_> = reasons.iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), ["too_large"]);
    assert!(reasons.len() >= 8, "{reasons:?}");
    let dead = world.sources(
        "dead",
        &["ringfence-error-partition", "ringfence-error-offset"],
    );
    let dead: BTreeSet<_> = dead
        .iter()
        .flat_map(|(partition, offsets)| {
            offsets
                .iter()
                .map(|offset| *offset as usize * 2 + *partition as usize)
        })
        .collect();
    assert_eq!(
        dead,
        (0..3_000).filter(|number| number % 350 == 5).collect()
    );
}

#[test]
fn fs_46_a_zone_rejected_live_is_dead_lettered_once_as_it_came() {
    let mut daemon = InProcess::start(cluster(1), |_| {});
    // Met in the bootstrap: listed, not dead-lettered.
    daemon.write("zones", [(0, "early", "not json".to_owned())]);
    daemon.wait_ready();
    let early = || daemon.status()["gate"]["changes"]["rejected"] == 1;
    wait_for("the first is read", early);
    let overlong = rectangle("other", 0.0, 0.0, 1.0, 1.0, "");
    daemon.write("zones", [(1, "a", "{".to_owned()), (0, "b", overlong)]);
    let settings = daemon.settings();
    let admin = Admin::new(&settings, PATIENCE).unwrap();
    let mut letters = BTreeMap::new();
    wait_for("both are dead-lettered", || {
        letters.clear();
        let reader = TopicReader::all(&settings, &admin, "telemetry.dead-letter").unwrap();
        let each = |record: &RecordRef<'_>| {
            let header = |name: &str| {
                let (_, value) = record.headers.iter().find(|(known, _)| *known == name)?;
                Some(String::from_utf8_lossy((*value)?).into_owned())
            };
            let told = [
                "source",
                "ringfence-error-topic",
                "ringfence-error-partition",
                "ringfence-error-offset",
                "ringfence-error-reason",
            ];
            let told: Vec<_> = told.into_iter().map(|name| header(name).unwrap()).collect();
            let key = String::from_utf8_lossy(record.key.unwrap()).into_owned();
            let value = String::from_utf8_lossy(record.value.unwrap()).into_owned();
            let before = letters.insert(key, (value, told.join(" ")));
            assert_eq!(before, None, "once");
        };
        reader.read_all(PATIENCE, each).unwrap();
        letters.len() >= 2
    });
    assert_eq!(
        letters["a"],
        ("{".to_owned(), "test zones 1 0 not_json".to_owned())
    );
    assert_eq!(letters["b"].1, "test zones 0 1 key_mismatch");
    assert_eq!(letters.len(), 2);
    daemon.stop().unwrap();
}

/// The configuration file of processes on the mock brokers of this test.
fn file_for(cluster: &EmbeddedCluster, folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"g\"\n\
         [kafka.consumer]\n\"session.timeout.ms\" = \"2500\"\n\"heartbeat.interval.ms\" = \"100\"\n\
         [zones]\nallow_empty = true\n[gate]\ncreate_time_margin_ms = 250\n[workers]\ncount = 1\n{more}",
        cluster.bootstrap_servers()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn write_events(settings: &Settings, topic: &str, count: usize) {
    let writer = TopicWriter::new(settings).unwrap();
    for number in 0..count {
        let value = valid(number);
        let event = Outgoing {
            topic,
            partition: Some(PartitionId((number % 2) as i32)),
            value: Some(value.as_bytes()),
            ..Outgoing::default()
        };
        assert!(writer.send(&event, number).unwrap());
    }
    for _ in 0..count {
        assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
    }
}

#[test]
fn fs_75_the_lag_is_told_by_partition_and_not_for_ever_after_a_partition_was_given_back() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let config = file_for(
        &cluster,
        folder.path(),
        "[shutdown]\ndrain_timeout_ms = 500\n",
    );
    let settings = Settings::new(&cluster.bootstrap_servers(), "g");
    write_events(&settings, "telemetry", 200);
    write_events(&settings, "zones", 20);
    // Nothing can be delivered: all that is read stays unfinished.
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 5_000];
    cluster
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &refused);
    let mut first = Daemon::start(&config, folder.path(), "one");
    first.wait_ready();
    let name = "ringfence_consumer_lag_records";
    let lag = |daemon: &Daemon, labels: &str| daemon.metric(name, labels);
    wait_for("both partitions lag", || {
        [0, 1].iter().all(|partition| {
            lag(
                &first,
                &format!("topic=\"telemetry\",partition=\"{partition}\""),
            ) == Some(100.0)
        })
    });
    assert_eq!(lag(&first, "topic=\"zones\",partition=\"1\""), Some(0.0));
    let mut second = Daemon::start(&config, folder.path(), "two");
    second.wait_ready();
    wait_for("the second process has one of them", || {
        lag(&second, "topic=\"telemetry\"") == Some(100.0)
    });
    // Sooner than a series ends by itself.
    eventually(
        "the first tells of the other only",
        Duration::from_secs(10),
        || (lag(&first, "topic=\"telemetry\"") == Some(100.0)).then_some(()),
    );
    cluster
        .controls()
        .clear_request_errors(RDKafkaApiKey::Produce);
    wait_for("nothing lags any more", || {
        [&first, &second]
            .iter()
            .all(|daemon| lag(daemon, "topic=\"telemetry\"") == Some(0.0))
    });
}
