//! The rows of FAULTS.md that only real brokers show: logs cut short, open transactions, brokers that stand still or
//! restart, on a real Kafka.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use ringfence::clock::Clock;
use serde_json::Value;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::{Cluster, bootstrap, free_ports};
use crate::support::stage::Stage;
use crate::support::zones::rectangle;
use crate::torture::proxy::Proxy;

const LIMIT: Duration = Duration::from_secs(60);

/// A zone over (0, 0) to (1, 1).
fn zone(id: &str) -> String {
    rectangle(id, 0.0, 0.0, 1.0, 1.0, "")
}

fn write_zone(stage: &Stage, partition: i32, id: &str) {
    stage.write("zones", [(Some(partition), id.to_owned(), zone(id))]);
}

/// Writes events of now, inside of the zones.
fn write_events(stage: &Stage, count: usize) {
    let now = Clock::wall().millis();
    let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5}}"#);
    let events = std::iter::repeat_n((Some(0), "v".to_owned(), value), count);
    stage.write("telemetry", events);
}

/// The zones of the enriched events, of each once that there are `count`.
fn zones_of_events(stage: &Stage, count: usize) -> Vec<Value> {
    eventually("all events are enriched", LIMIT, || {
        let records = stage.read("enriched");
        (records.len() >= count).then(|| {
            records
                .iter()
                .map(|record| {
                    assert_eq!(record.header("ringfence-flags"), None, "{record:?}");
                    let value: Value = serde_json::from_slice(&record.value).unwrap();
                    value["zones"].clone()
                })
                .collect()
        })
    })
}

fn is_ready(daemon: &Daemon) -> bool {
    daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
}

fn is_alive(daemon: &Daemon) -> bool {
    daemon.get("/livez").is_some_and(|(code, _)| code == 200)
}

/// What the gate waits for.
fn waits_for(daemon: &Daemon) -> Option<String> {
    let status = daemon.status()?;
    Some(status["gate"]["waiting_for"].as_str()?.to_owned())
}

/// Removes the records of the zones topic's partition 0 below an offset, as retention or an operator does.
fn remove_zones_before(stage: &Stage, offset: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap().unwrap());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(&stage.topic("zones"), 0, Offset::Offset(offset))
        .unwrap();
    let removed = runtime
        .block_on(admin.delete_records(&offsets, &AdminOptions::new()))
        .unwrap();
    for element in removed.elements() {
        assert_eq!(element.error(), Ok(()));
        assert_eq!(element.offset(), Offset::Offset(offset), "the log start");
    }
}

/// Topics with two zone partitions, and one partition of everything else.
fn stage(name: &str) -> Option<Stage> {
    let stage = Stage::new(name, "")?;
    let properties = [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "-1"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.compaction.lag.ms", "604800000"),
    ];
    stage.create("zones", 2, &properties);
    for topic in ["telemetry", "enriched", "dead"] {
        stage.create(topic, 1, &[]);
    }
    Some(stage)
}

/// Its configuration, and `zones.allow_empty`.
fn config_that_allows_empty(stage: &Stage) -> PathBuf {
    let text = std::fs::read_to_string(&stage.config).unwrap();
    let text = text.replace("[zones]\n", "[zones]\nallow_empty = true\n");
    let path = stage.path().join("empty.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn fs_59_a_zones_log_that_lost_its_first_records_or_all_of_them_is_read_from_where_it_starts() {
    let Some(stage) = stage("cut-zones") else {
        return;
    };
    write_zone(&stage, 0, "a");
    write_zone(&stage, 0, "b");
    remove_zones_before(&stage, 1);
    let mut daemon = stage.daemon("cut");
    daemon.wait_ready();
    write_events(&stage, 1);
    assert_eq!(zones_of_events(&stage, 1), [serde_json::json!(["b"])]);
    daemon.stop();

    remove_zones_before(&stage, 2);
    let mut waiting = stage.daemon("waiting");
    eventually("it has read all there is", LIMIT, || {
        waits_for(&waiting).filter(|what| what.contains("a zone in force"))
    });
    assert!(!is_ready(&waiting));
    let mut allowed = Daemon::start(&config_that_allows_empty(&stage), stage.path(), "allowed");
    allowed.wait_ready();
    write_events(&stage, 1);
    let expected = [["b"].as_slice(), &[]].map(|zones| serde_json::json!(zones));
    assert_eq!(zones_of_events(&stage, 2), expected);
    allowed.stop();
    assert!(!is_ready(&waiting), "still no zone");

    write_zone(&stage, 0, "c");
    waiting.wait_ready();
    write_events(&stage, 1);
    let expected = [["b"].as_slice(), &[], &["c"]].map(|zones| serde_json::json!(zones));
    assert_eq!(zones_of_events(&stage, 3), expected);
    waiting.stop();
}

/// DESIGN 4: a bootstrap waits for open transactions, and says so.
#[test]
fn fs_58_a_bootstrap_waits_for_an_open_transaction_names_it_and_takes_what_it_committed() {
    for is_committed in [true, false] {
        let Some(stage) = stage(&format!("open-transaction-{is_committed}")) else {
            return;
        };
        write_zone(&stage, 0, "a");
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap().unwrap())
            .set("transactional.id", stage.group())
            .create()
            .unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        let (topic, value) = (stage.topic("zones"), zone("b"));
        let record = BaseRecord::to(&topic).partition(1).key("b").payload(&value);
        producer.send(record).map_err(|(why, _)| why).unwrap();
        producer.flush(LIMIT).unwrap();
        // In the log behind it, and hidden by it.
        write_zone(&stage, 1, "c");

        let mut daemon = stage.daemon("run");
        eventually("the transaction is named", LIMIT, || {
            waits_for(&daemon).filter(|what| what.contains("partition 1 (open_transaction)"))
        });
        let status = daemon.status().unwrap();
        let held = status["gate"]["held_by"].as_array().unwrap();
        assert_eq!(held.len(), 1, "{status:#}");
        assert_eq!(held[0]["partition"], 1);
        assert_eq!(held[0]["cause"], "open_transaction");
        assert!(!is_ready(&daemon) && is_alive(&daemon));
        if is_committed {
            producer.commit_transaction(LIMIT).unwrap();
        } else {
            producer.abort_transaction(LIMIT).unwrap();
        }
        daemon.wait_ready();
        write_events(&stage, 1);
        let zones = if is_committed {
            serde_json::json!(["a", "b", "c"])
        } else {
            serde_json::json!(["a", "c"])
        };
        assert_eq!(zones_of_events(&stage, 1), [zones]);
        daemon.stop();
    }
}

/// How long a stop took, and the exit code.
fn terminate(daemon: &mut Daemon) -> (Duration, Option<i32>) {
    let begun = Clock::mono();
    daemon.signal("TERM");
    let code = daemon.wait_exit(LIMIT).code();
    (Clock::mono().since(begun), code)
}

#[test]
fn fs_72_a_stop_with_a_broker_that_stands_still_ends_in_time_and_loses_nothing() {
    if bootstrap().is_none() {
        return;
    }
    let port = free_ports(4);
    let cluster = Cluster::start_at(port, 1, Some(port + 3), "");
    let proxy = Proxy::start(port + 3, cluster.behind_proxy(1, 1));
    let stage = Stage::on(cluster.address(), "stuck", "");
    stage.create_topics(4, &[]);
    let arguments = [["--rate", "300"], ["--zone-rate", "10"], ["--for", "20s"]];
    let mut simulation = stage.beside("simulate", &arguments.concat());
    let address = format!("kafka.bootstrap.servers=127.0.0.1:{}", proxy.port());
    let mut daemon = stage.daemon_with("run", &[&address]);
    daemon.wait_ready();
    eventually("it enriches", LIMIT, || {
        daemon
            .metric("ringfence_records_enriched_total", "")
            .filter(|count| *count > 500.0)
    });
    // First its output only: a broker that stands still brings no events either, and then nothing need be in flight.
    proxy.stall_output(true);
    eventually("it has output in flight", LIMIT, || {
        daemon
            .metric("ringfence_records_in_flight", "")
            .filter(|count| *count > 20.0)
    });
    // What writes beside the daemon is done before the broker stands still: its own time-outs are not looked at here.
    let summary = simulation.wait_written(Duration::from_secs(120));
    cluster.signal(1, "STOP");
    let mut starting = stage.daemon("starting");
    // `drain_timeout_ms` of the stage, 10 s more, and what a busy machine takes.
    let in_time = Duration::from_secs(5 + 10 + 5);
    let (took, code) = terminate(&mut daemon);
    assert!(took < in_time, "{took:?}");
    assert_eq!(code, Some(1), "not all is committed");
    let log = daemon.log();
    for said in [
        "not all output was acknowledged",
        "error: not drained within 15 s",
    ] {
        assert!(log.contains(said), "{said}");
    }
    let (took, code) = terminate(&mut starting);
    assert!(took < in_time, "{took:?}");
    assert_eq!(code, Some(0), "there was nothing to drain");
    // What was held back is lost with the connection.
    proxy.cut();
    drop(proxy);
    cluster.signal(1, "CONT");
    let mut daemon = stage.daemon("again");
    stage.wait_committed(stage.group(), Duration::from_secs(120));
    daemon.stop();
    let report = stage.verify(&[]);
    eprintln!("{report:#}");
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["judged"], summary["events"], "{report:#}");
    let findings = report["findings"].as_object().unwrap();
    assert!(
        findings.keys().all(|kind| kind == "duplicate"),
        "{report:#}"
    );
}

/// Seconds of processor time that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    // `utime` and `stime`, in the 100 ticks a second of Linux.
    let fields = after_name.split(' ').skip(11).take(2);
    fields
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

/// Watches a daemon for so long: alive all the time. Gives the seconds of processor time that it used.
fn watch_alive(daemon: &Daemon, duration: Duration) -> f64 {
    let (begun, used) = (Clock::mono(), cpu_seconds(daemon.pid()));
    while Clock::mono().since(begun) < duration {
        assert!(is_alive(daemon));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    cpu_seconds(daemon.pid()) - used
}

/// Writes 200 events to each of four partitions.
fn write_round(stage: &Stage) {
    let now = Clock::wall().millis();
    let events = (0..800).map(|number| {
        let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5,"n":{number}}}"#);
        (Some(number % 4), "v".to_owned(), value)
    });
    stage.write("telemetry", events);
}

/// How long the brokers are away beyond what it takes to come to rest. `RINGFENCE_TEST_OUTAGE` = seconds: ten minutes
/// are for nights.
fn outage() -> Duration {
    let said = std::env::var("RINGFENCE_TEST_OUTAGE");
    Duration::from_secs(said.map_or(5, |text| text.parse().expect("a number of seconds")))
}

/// Two processes, of which one is started with all three brokers down; then each of these is restarted in turn.
#[test]
fn fs_66_three_brokers_that_go_away_and_restart_in_turn_cost_time_and_no_record() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    let stage = Stage::on(cluster.address(), "rolling", "");
    stage.create_topics(4, &[]);
    let zones = (0..20).map(|number| (None, format!("z{number}"), zone(&format!("z{number}"))));
    stage.write("zones", zones);
    let mut first = stage.daemon("first");
    first.wait_ready();
    write_round(&stage);
    cluster.down();
    let mut second = stage.daemon("second");
    eventually("it is alive", LIMIT, || is_alive(&second).then_some(()));
    eventually("each partition holds the gate, and is named", LIMIT, || {
        let status = first.status()?;
        (status["gate"]["held_by"].as_array()?.len() == 4).then_some(())
    });
    for daemon in [&first, &second] {
        // Questions under way keep librdkafka busy until they are given up, after 8 s (`kafka::ends`), and longer where the
        // machine is: it comes to rest, and then it rests.
        eventually("it comes to rest", LIMIT, || {
            let used = watch_alive(daemon, Duration::from_secs(5));
            (used < 0.25 * 5.0).then_some(())
        });
        let used = watch_alive(daemon, outage());
        eprintln!("{used:.2} s of processor time in {:?}", outage());
        assert!(used < 0.5 * outage().as_secs_f64(), "{used} s");
    }
    assert!(!is_ready(&second));
    cluster.up();
    write_round(&stage);
    second.wait_ready();
    eventually("both are at work", LIMIT, || {
        let owned = [&first, &second].map(owned_count);
        (owned == [Some(2), Some(2)]).then_some(())
    });

    for node in 1..=3 {
        cluster.end(node, "TERM");
        assert!(is_alive(&first) && is_alive(&second));
        write_round(&stage);
        cluster.up();
        write_round(&stage);
    }
    stage.wait_committed(stage.group(), LIMIT);
    assert!(is_alive(&first) && is_alive(&second));
    first.stop();
    second.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["judged"], 8 * 800, "{report:#}");
}

/// How many telemetry partitions a process of one worker owns.
fn owned_count(daemon: &Daemon) -> Option<usize> {
    let status = daemon.status()?;
    Some(status["workers"][0]["partitions"].as_array()?.len())
}

/// The leader of a topic's only partition, and its other replica.
fn replicas(cluster: &Cluster, topic: &str) -> (u16, u16) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.address());
    let asker: BaseConsumer = config.create().unwrap();
    let metadata = asker.fetch_metadata(Some(topic), LIMIT).unwrap();
    let partition = &metadata.topics()[0].partitions()[0];
    let leader = partition.leader();
    let other = partition.replicas().iter().find(|id| **id != leader);
    let node = |id: i32| u16::try_from(id).unwrap();
    (node(leader), node(*other.unwrap()))
}

/// How far a process has read the zones partition.
fn zones_read(daemon: &Daemon) -> Option<i64> {
    daemon.status()?["gate"]["partitions"][0]["next_offset"].as_i64()
}

/// It ends with one of these errors.
fn assert_stops(daemon: &mut Daemon, whys: &[&str]) {
    let code = daemon.wait_exit(LIMIT).code();
    assert_eq!(code, Some(1), "{}", daemon.log());
    let log = daemon.log();
    let says_why = |line: &str| whys.iter().any(|why| line.contains(why));
    assert!(
        log.lines()
            .any(|line| line.starts_with("error: ") && says_why(line)),
        "{log}"
    );
}

/// A replica that lacks the newest zones becomes the leader. One process sees the log end below what it has read: by the
/// end that it asks for or by the refused fetch, whichever the new leader answers first. The other stands still until the
/// new leader's log is longer than the old one was: the ends say nothing to it.
#[test]
fn fs_62_zones_that_an_unclean_election_took_back_stop_the_processes_that_had_read_them() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    let stage = Stage::on(cluster.address(), "unclean", "");
    let properties = [
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "true"),
    ];
    stage.create_replicated("zones", 1, 2, &properties);
    for topic in ["telemetry", "enriched", "dead"] {
        stage.create_replicated(topic, 1, 3, &[]);
    }
    let write_zones = |prefix: &str, count: usize| {
        let ids = (0..count).map(|number| format!("{prefix}{number}"));
        stage.write("zones", ids.map(|id| (Some(0), id.clone(), zone(&id))));
    };
    write_zones("kept", 5);
    let (leader, lacking) = replicas(&cluster, &stage.topic("zones"));
    cluster.end(lacking, "TERM");
    write_zones("lost", 10);
    let mut daemons = ["sees", "stands"].map(|name| stage.daemon(name));
    for daemon in &mut daemons {
        daemon.wait_ready();
        eventually("it has read all", LIMIT, || {
            (zones_read(daemon)? == 15).then_some(())
        });
    }
    let [mut sees, mut stands] = daemons;
    stands.signal("STOP");
    cluster.signal(leader, "STOP");
    cluster.up();
    eventually("the other replica leads", LIMIT, || {
        (replicas(&cluster, &stage.topic("zones")).0 == lacking).then_some(())
    });
    let (ends_below, out_of_range) = (
        "ends at 5, below 15 that was read already",
        "is out of range",
    );
    assert_stops(&mut sees, &[ends_below, out_of_range]);
    write_zones("new", 15);
    stands.signal("CONT");
    assert_stops(&mut stands, &[out_of_range]);
    cluster.signal(leader, "CONT");
}
