//! The rows of FAULTS.md on the real client: on mock brokers where they can show it, on a real Kafka
//! (`RINGFENCE_TEST_KAFKA`) where the mock accepts too much.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::Clock;
use ringfence::kafka::admin::{Admin, End, TopicSpec};
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::worker::WorkerError;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::telemetry::RecordRef;

use crate::support::daemon::{Daemon, eventually};
use crate::support::edge::{PATIENCE, World, valid, wait_for};
use crate::support::in_process::{InProcess, TOPICS, cluster, write_to};
use crate::support::stage::write_events;
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
    // As many as are sent at once: a second batch under way would take the answer that is meant for the record by itself.
    let worker = world.worker_with(|_, pipeline| pipeline.limits.in_flight_max = 100);
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

/// The broker and the client disagree on the sequence: a fatal error of the producer.
#[test]
fn fs_36_a_fatal_error_of_the_producer_is_outlived_by_a_new_one() {
    let mut world = World::new(1, 1);
    world
        .settings
        .producer
        .insert("max.in.flight".into(), "1".into());
    world.produce_as(0..1_000, valid);
    let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &[none, fatal]);
    let worker = world.worker();
    world.wait_committed(1_000);
    worker.stop().unwrap();
    world.audit(1_000);
    assert_eq!(dead_letter_reasons(&world), [""; 0]);
}

/// The producer that sends one by one fails too: nobody knows what would help.
#[test]
fn fs_36_a_fatal_error_that_comes_again_stops_the_worker_with_its_place_and_commits_nothing_past_it()
 {
    let mut world = World::new(1, 1);
    world
        .settings
        .producer
        .insert("max.in.flight".into(), "1".into());
    world.produce_as(0..1_000, valid);
    let mut answers = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR];
    answers.resize(
        50,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
    );
    answers.resize(100, RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED);
    world
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &answers);
    let mut worker = world.worker();
    let ended = worker.thread.take().unwrap().join().unwrap();
    let Err(error @ WorkerError::Stopped(_)) = ended else {
        panic!("{ended:?}");
    };
    assert!(error.to_string().contains("was not delivered"), "{error}");
    world
        .controls()
        .clear_request_errors(RDKafkaApiKey::Produce);
    let again = world.worker();
    world.wait_committed(1_000);
    again.stop().unwrap();
    world.audit(1_000);
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

pub(crate) fn set_property(world: &World, topic: &str, name: &str, value: &str) {
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
    let brokers = cluster(1);
    // Met in the bootstrap: listed, not dead-lettered.
    write_to(&brokers, "zones", [(0, "early", "not json".to_owned())]);
    let mut daemon = InProcess::start(brokers, |_| {});
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
fn file_for(cluster: &EmbeddedCluster, folder: &Path, drain_ms: u32) -> PathBuf {
    let path = folder.join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"g\"\n\
         [kafka.consumer]\n\"session.timeout.ms\" = \"{}\"\n\"heartbeat.interval.ms\" = \"100\"\n\
         [zones]\nallow_empty = true\n[gate]\ncreate_time_margin_ms = 250\n[workers]\ncount = 1\n[shutdown]\ndrain_timeout_ms = {drain_ms}\n",
        cluster.bootstrap_servers(),
        drain_ms.max(2_500)
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn fs_75_the_lag_is_told_by_partition_and_not_for_ever_after_a_partition_was_given_back() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let config = file_for(&cluster, folder.path(), 500);
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

/// The ids that an enriched record names.
fn zones_of(value: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(value).unwrap();
    value["zones"].as_array().unwrap().len()
}

#[test]
fn fs_60_changes_that_arrive_during_the_bootstrap_leave_no_event_with_half_of_the_zones() {
    const BEFORE: usize = 300;
    let cluster = cluster(1);
    let settings = Settings::new(&cluster.bootstrap_servers(), "ringfence");
    let writer = TopicWriter::new(&settings).unwrap();
    let write_zone = |number: usize| {
        let id = format!("z{number}");
        let shape = rectangle(&id, 0.0, 0.0, 1.0, 1.0, "");
        let change = Outgoing {
            topic: "zones",
            partition: Some(PartitionId((number % 2) as i32)),
            key: Some(id.as_bytes()),
            value: Some(shape.as_bytes()),
            ..Outgoing::default()
        };
        assert!(writer.send(&change, number).unwrap());
    };
    (0..BEFORE).for_each(write_zone);
    (0..BEFORE).for_each(|_| assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok()));
    write_events(&settings, "telemetry", 500);
    let mut daemon = InProcess::start(cluster, |_| {});
    let mut number = BEFORE;
    while !daemon.handle.is_ready() {
        assert!(!daemon.is_over(), "{:?}", daemon.take_end());
        write_zone(number);
        number += 1;
        assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
    }
    assert!(number > BEFORE + 10, "{number}: nothing arrived meanwhile");
    wait_for("all events are enriched", || {
        daemon.status()["records"]["enriched"] == 500
    });
    let admin = Admin::new(&settings, PATIENCE).unwrap();
    let reader = TopicReader::all(&settings, &admin, "telemetry.enriched").unwrap();
    let mut least = usize::MAX;
    reader
        .read_all(PATIENCE, |record| {
            least = least.min(zones_of(record.value.unwrap()))
        })
        .unwrap();
    assert!(least >= BEFORE, "an event has {least} zones");
    daemon.stop().unwrap();
}

#[test]
fn fs_65_a_daemon_waits_for_its_telemetry_topic_and_hears_of_the_zones_side_meanwhile() {
    let start = || {
        let cluster = EmbeddedCluster::start(1).unwrap();
        for topic in TOPICS.iter().filter(|topic| **topic != "telemetry") {
            cluster.create_topic(topic, 2).unwrap();
        }
        InProcess::start(cluster, |_| {})
    };
    let waits = |daemon: &InProcess| {
        daemon.status()["waiting_for"]
            .as_str()
            .unwrap_or("")
            .contains("`telemetry`")
    };
    let mut daemon = start();
    wait_for("it says what it waits for", || waits(&daemon));
    assert!(!daemon.handle.is_ready());
    daemon.cluster.create_topic("telemetry", 2).unwrap();
    daemon.wait_ready();
    daemon.stop().unwrap();

    let mut daemon = start();
    wait_for("it says what it waits for", || waits(&daemon));
    // A fetch error that no waiting mends ends the zones side.
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 50];
    daemon
        .cluster
        .controls()
        .request_errors(RDKafkaApiKey::Fetch, &refused);
    wait_for("the daemon ends", || daemon.is_over());
    let error = daemon.take_end().unwrap_err().to_string();
    assert!(error.contains("zones"), "{error}");
}

/// Seconds of processor time that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks = |place: usize| {
        after_name
            .split(' ')
            .nth(place)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    // `utime` and `stime`, in the 100 ticks a second of Linux.
    (ticks(11) + ticks(12)) / 100.0
}

/// Spends `duration` asking `each`.
fn watch_for(duration: Duration, mut each: impl FnMut()) {
    let begun = Clock::mono();
    while Clock::mono().since(begun) < duration {
        each();
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn fs_66_fs_80_brokers_that_are_away_are_waited_for_without_haste_and_nothing_is_lost() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let config = file_for(&cluster, folder.path(), 2_000);
    let settings = Settings::new(&cluster.bootstrap_servers(), "g");
    write_events(&settings, "telemetry", 500);
    cluster.controls().broker_down(1).unwrap();
    let mut daemon = Daemon::start(&config, folder.path(), "one");
    let is_alive = |daemon: &Daemon| daemon.get("/livez").is_some_and(|(code, _)| code == 200);
    wait_for("it is alive", || is_alive(&daemon));
    let outage = Duration::from_secs(5);
    let mut used = cpu_seconds(daemon.pid());
    let quiet = |daemon: &Daemon| {
        assert!(is_alive(daemon));
        assert_eq!(daemon.get("/readyz").map(|(code, _)| code), Some(503));
    };
    watch_for(outage, || quiet(&daemon));
    used = cpu_seconds(daemon.pid()) - used;
    assert!(
        used < 1.5,
        "started with the broker down, it used {used} s of {outage:?}"
    );
    cluster.controls().broker_up(1).unwrap();
    daemon.wait_ready();
    let enriched = |daemon: &Daemon| daemon.metric("ringfence_records_enriched_total", "");
    wait_for("all is enriched", || enriched(&daemon) == Some(500.0));

    cluster.controls().broker_down(1).unwrap();
    // Questions under way keep the client busy until they are given up; after that it must be calm.
    watch_for(Duration::from_secs(18), || assert!(is_alive(&daemon)));
    // An outage takes no process out, but none says that all is well.
    let (code, ready) = daemon.get("/readyz").expect("it answers");
    assert_eq!(code, 200, "{ready}");
    assert!(ready.contains("do not answer now"), "{ready}");
    used = cpu_seconds(daemon.pid());
    watch_for(outage, || assert!(is_alive(&daemon)));
    used = cpu_seconds(daemon.pid()) - used;
    assert!(
        used < 1.5,
        "with the broker gone, it used {used} s of {outage:?}"
    );
    cluster.controls().broker_up(1).unwrap();
    write_events(&settings, "telemetry", 500);
    wait_for("the rest is enriched", || {
        enriched(&daemon) >= Some(1_000.0)
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn fs_72_a_second_signal_ends_a_drain_that_is_stuck_at_once_with_its_number() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let cluster = cluster(1);
        let folder = tempfile::tempdir().unwrap();
        let config = file_for(&cluster, folder.path(), 30_000);
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let mut daemon = Daemon::start(&config, folder.path(), "one");
        daemon.wait_ready();
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 5_000];
        write_events(&settings, "telemetry", 100);
        cluster
            .controls()
            .request_errors(RDKafkaApiKey::Produce, &refused);
        let writer = TopicWriter::new(&settings).unwrap();
        drop(writer);
        daemon.signal(signal);
        wait_for("it drains", || daemon.log().contains("draining"));
        daemon.signal(signal);
        let begun = Clock::mono();
        assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(code));
        assert!(Clock::mono().since(begun) < Duration::from_secs(5));
    }
}

/// Partitions are added while the daemon runs: `auto` follows, and what is written by either rule is complete.
#[test]
fn fs_64_auto_partitioning_follows_the_partition_counts_while_the_daemon_runs() {
    let Some(world) = World::real("recount", 2) else {
        return;
    };
    let admin = world.admin();
    let spec = TopicSpec {
        name: world.topic("zones"),
        partitions: 1,
        replication: Some(1),
        properties: vec![(
            "message.timestamp.type".to_owned(),
            "LogAppendTime".to_owned(),
        )],
    };
    admin.create_topic(&spec, false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"{}\"\n[telemetry]\ntopic = \"{}\"\nstart = \"latest\"\n\
         [zones]\ntopic = \"{}\"\nallow_empty = true\n[enriched]\ntopic = \"{}\"\n[dead_letter]\ntopic = \"{}\"\n\
         [workers]\ncount = 1\n",
        world.settings.common["bootstrap.servers"],
        world.settings.group(),
        world.topic("telemetry"),
        world.topic("zones"),
        world.topic("enriched"),
        world.topic("dead"),
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Daemon::start(&config, folder.path(), "one");
    daemon.wait_ready();
    wait_for("both partitions are read", || {
        daemon.status().is_some_and(|status| {
            status["workers"][0]["partitions"]
                .as_array()
                .is_some_and(|all| all.len() == 2)
        })
    });
    let committed = |partitions: i32, each: i64| {
        let all: Vec<_> = (0..partitions).map(PartitionId).collect();
        wait_for("all is committed", || {
            let committed = admin
                .committed(&world.topic("telemetry"), &all)
                .unwrap_or_default();
            committed.len() == all.len()
                && committed
                    .iter()
                    .all(|(_, offset)| offset.is_some_and(|offset| offset.0 == each))
        });
    };
    // The same key in all partitions: by key, all of it goes to one.
    let write = |partitions: i32, per_partition: usize| {
        let writer = TopicWriter::new(&world.settings).unwrap();
        let now = Clock::wall().millis();
        let topic = world.topic("telemetry");
        let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5}}"#);
        for number in 0..per_partition * partitions as usize {
            let event = Outgoing {
                topic: &topic,
                partition: Some(PartitionId(number as i32 % partitions)),
                key: Some(b"21"),
                value: Some(value.as_bytes()),
                ..Outgoing::default()
            };
            assert!(writer.send(&event, number).unwrap());
            assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
        }
    };
    let per_partition = || -> Vec<i64> {
        let topic = world.topic("enriched");
        let ids = admin.existing(&topic).unwrap().ids();
        let ranges = admin.offsets(&topic, &ids, End::Log).unwrap();
        ranges
            .iter()
            .map(|(_, range)| range.to.0 - range.from.0)
            .collect()
    };
    write(2, 10);
    committed(2, 10);
    assert_eq!(per_partition(), [10, 10], "the same number as its source");

    let changes = || {
        daemon
            .log()
            .matches("partition counts have changed")
            .count()
    };
    admin
        .set_partition_count(&world.topic("telemetry"), 3)
        .unwrap();
    // Before the daemon knows: what came since the start is read from its start, whatever `telemetry.start` says.
    write(3, 10);
    wait_for("the new count is heard of", || changes() == 1);
    let all: Vec<_> = (0..3).map(PartitionId).collect();
    wait_for("the new partition is read too", || {
        let committed = admin
            .committed(&world.topic("telemetry"), &all)
            .unwrap_or_default();
        committed
            .iter()
            .map(|(_, offset)| offset.map_or(0, |offset| offset.0))
            .collect::<Vec<_>>()
            == [20, 20, 10]
    });
    let before = per_partition();
    assert!(before.iter().sum::<i64>() >= 50, "{before:?}");
    write(3, 10);
    wait_for("by key, all of it goes to one", || {
        let now = per_partition();
        let grown: Vec<_> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        grown.contains(&0) && grown.contains(&30)
    });

    admin
        .set_partition_count(&world.topic("enriched"), 3)
        .unwrap();
    wait_for("the new count is heard of", || changes() == 2);
    let before = per_partition();
    write(3, 10);
    wait_for("the same number again", || {
        let now = per_partition();
        let grown: Vec<_> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        grown == [10, 10, 10]
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));
    drop(admin.delete_topic(&world.topic("zones")));
}
