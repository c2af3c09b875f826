//! `gate.proof = "marker"`, and zones that are written in transactions under both proofs, on a real Kafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use ringfence::partition::PartitionId;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::bootstrap;
use crate::support::stage::Stage;
use crate::support::zones::rectangle;

const PATIENCE: Duration = Duration::from_secs(60);
const MARKERS: [&str; 2] = ["gate.proof=marker", "gate.proof_interval_ms=200"];

fn as_of(daemon: &Daemon) -> f64 {
    daemon
        .metric("ringfence_as_of_timestamp_seconds", "")
        .unwrap_or(0.0)
}

/// The whole job by markers: four zone partitions that change a hundred times a second, two processes that share their
/// markers, and the audit.
#[test]
fn a_run_by_markers_is_clean_and_never_violates_the_gate() {
    let Some(stage) = Stage::new("markers", "") else {
        return;
    };
    stage.create_topics(4, &[]);
    let zone = rectangle("elsewhere", 50.0, 50.0, 51.0, 51.0, "");
    stage.write("zones", [(None, "elsewhere".to_owned(), zone)]);
    let mut daemons = ["a", "b"].map(|name| stage.daemon_with(name, &MARKERS));
    daemons.iter_mut().for_each(Daemon::wait_ready);
    let arguments = ["--rate", "1000", "--zone-rate", "100", "--for", "15s"];
    let summary = stage
        .beside("simulate", &arguments)
        .wait_written(Duration::from_secs(90));
    stage.wait_committed(stage.group(), Duration::from_secs(120));
    for daemon in &daemons {
        let violations = daemon.metric("ringfence_gate_violations_total", "");
        assert!(violations.unwrap_or(0.0) == 0.0, "{violations:?}");
    }
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["judged"], summary["events"], "{report:#}");
    // Two processes share their markers: one per partition and interval, not two.
    let ids: Vec<_> = (0..4).map(PartitionId).collect();
    let ends = || {
        let offsets = stage.admin.offsets(
            &stage.topic("zones"),
            &ids,
            ringfence::kafka::admin::End::Log,
        );
        let offsets = offsets.expect("the broker answers");
        offsets.iter().map(|(_, range)| range.to.0).sum::<i64>()
    };
    let (before, from) = (ends(), as_of(&daemons[0]));
    let to = eventually("ten seconds pass", PATIENCE, || {
        let to = as_of(&daemons[0]);
        (to >= from + 10.0).then_some(to)
    });
    let (written, most) = (ends() - before, (to - from + 3.0) * 5.0 * 4.0 * 1.5);
    assert!(written > 0, "markers go on");
    assert!((written as f64) < most, "{written} markers");
    daemons.iter_mut().for_each(Daemon::stop);
}

fn transactional(id: &str) -> Option<ThreadedProducer<DefaultProducerContext>> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap()?)
        .set("transactional.id", id)
        .create()
        .expect("a producer");
    producer
        .init_transactions(Duration::from_secs(30))
        .expect("registered");
    Some(producer)
}

fn writes_in_transactions_hold_the_gate_and_only_committed_ones_count(name: &str, keys: &[&str]) {
    let Some(stage) = Stage::new(name, "") else {
        return;
    };
    stage.create_topics(1, &[]);
    let zone = |id: &str| rectangle(id, 0.0, 0.0, 1.0, 1.0, "");
    stage.write("zones", [(Some(0), "first".to_owned(), zone("first"))]);
    let mut daemon = stage.daemon_with("one", keys);
    daemon.wait_ready();
    let producer = transactional(&stage.topic("writer")).expect("the stage is on it");
    let topic = stage.topic("zones");
    let write = |id: &str| {
        producer.begin_transaction().expect("begun");
        let value = zone(id);
        let record = BaseRecord::<str, str>::to(&topic).partition(2).key(id);
        producer.send(record.payload(&value)).expect("queued");
        producer.flush(PATIENCE).expect("written");
    };
    let enriched = |number: usize| {
        let value = format!(r#"{{"id":"v","ts":{},"lat":0.5,"lon":0.5}}"#, wall_ms());
        stage.write("telemetry", [(Some(0), "v".to_owned(), value)]);
        eventually("it is enriched", PATIENCE, || {
            let outputs = stage.read("enriched");
            let value: serde_json::Value =
                serde_json::from_slice(&outputs.get(number)?.value).expect("JSON");
            Some(value["zones"].to_string())
        })
    };
    let held = |daemon: &Daemon| {
        let status = daemon.status()?;
        let held = status["gate"]["held_by"].as_array()?.clone();
        let named = |one: &serde_json::Value| {
            (
                one["partition"].as_i64(),
                one["cause"].as_str().map(str::to_owned),
            )
        };
        Some(held.iter().map(named).collect::<Vec<_>>())
    };
    write("aborted");
    eventually("the open transaction holds the gate", PATIENCE, || {
        (held(&daemon)? == [(Some(2), Some("open_transaction".to_owned()))]).then_some(())
    });
    producer.abort_transaction(PATIENCE).expect("aborted");
    eventually("the gate moves on", PATIENCE, || {
        held(&daemon)?.is_empty().then_some(())
    });
    assert_eq!(enriched(0), r#"["first"]"#);
    write("second");
    producer.commit_transaction(PATIENCE).expect("committed");
    let begun = as_of(&daemon);
    eventually("the gate passes the commit", PATIENCE, || {
        (as_of(&daemon) > begun + 2.0).then_some(())
    });
    assert_eq!(enriched(1), r#"["first","second"]"#);
    daemon.stop();
}

#[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
fn wall_ms() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis()
}

#[test]
fn fs_58_zones_written_in_transactions_hold_the_gate_until_decided_and_aborted_ones_never_show() {
    writes_in_transactions_hold_the_gate_and_only_committed_ones_count("transactions", &[]);
}

#[test]
fn fs_58_by_markers_too_transactions_hold_the_gate_until_decided_and_aborted_ones_never_show() {
    writes_in_transactions_hold_the_gate_and_only_committed_ones_count("transactions-m", &MARKERS);
}
