//! Dead letters fail closed: a topic of invalid records is held rather than drained (FS-44, FS-81), and a record that can
//! neither be written nor dead-lettered stops its worker and is not committed past (FS-43), in both delivery modes.

use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::kafka::client::Settings;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::worker::WorkerError;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::{Offset, PartitionId};
use ringfence::pipeline::{BreakerRules, PauseCause, PipelineConfig, StopReason};
use ringfence::telemetry::OwnedRecord;
use serde_json::Value;

use crate::kafka_faults::set_property;
use crate::support::daemon::{eventually, ringfence, ringfence_ok};
use crate::support::edge::{PATIENCE, Running, World, deliver, valid, wait_for};
use crate::support::kafka::bootstrap;
use crate::support::stage::Stage;

const DEAD: [&str; 2] = ["ringfence-error-partition", "ringfence-error-offset"];

fn breaker(pipeline: &mut PipelineConfig) {
    pipeline.breaker = BreakerRules {
        percent: 50,
        window: 100,
        retry: Duration::from_millis(400),
    };
}

/// 50 valid records, 150 invalid ones, 200 valid ones: 100 dead letters go, then the partition is held; probes of at most
/// 16 dead letters each find the valid ones.
fn held_and_on_again(world: &World, once: Option<&str>) {
    world.produce_as(0..400, |number| {
        if (50..200).contains(&number) {
            format!("of a bad deploy {number}")
        } else {
            valid(number)
        }
    });
    let worker = world.worker_with(|settings, pipeline| {
        deliver(settings, once);
        breaker(pipeline);
    });
    wait_for("the partition is held", || {
        let seen = worker.window.seen();
        let is_paused = seen.paused.contains(&(PauseCause::Invalid, 1));
        !seen.held_partitions.is_empty() && is_paused
    });
    let seen = worker.window.seen();
    assert_eq!(seen.held_partitions[0].partition, PartitionId(0));
    // 50 enriched, 100 dead letters, and those of a first probe.
    let counters = seen.counters;
    let written = counters.enriched + counters.dead_lettered.total() + counters.in_flight;
    assert!(written <= 50 + 100 + 16, "{counters:?}");
    world.wait_committed(400);
    wait_for("no partition is held any more", || {
        let seen = worker.window.seen();
        seen.held_partitions.is_empty() && !seen.paused.contains(&(PauseCause::Invalid, 1))
    });
    assert!(worker.window.seen().breaker_opened >= 3);
    worker.stop().unwrap();
    assert_eq!(world.audit(400), 0, "none twice");
    assert!(world.sources("dead", &DEAD)[&0].is_sorted());
}

#[test]
fn fs_44_fs_81_a_partition_of_invalid_records_is_held_and_goes_on_by_itself() {
    held_and_on_again(&World::new(1, 1), None);
}

#[test]
fn fs_44_fs_81_the_same_on_a_real_kafka_within_transactions() {
    if let Some(world) = World::real("breaker-once", 1) {
        held_and_on_again(&world, Some("breaker-once"));
    }
}

/// Waits for the worker's end, which must be an error.
fn ended(mut worker: Running) -> WorkerError {
    let thread = worker.thread.take().unwrap();
    wait_for("the worker ends by itself", || thread.is_finished());
    thread.join().unwrap().unwrap_err()
}

fn committed(world: &World) -> Option<Offset> {
    let admin = world.admin();
    let answer = admin.committed(&world.topic("telemetry"), &[PartitionId(0)]);
    answer.unwrap()[0].1
}

/// Records 0 to 9 are valid, 10 is not, 11 to 19 are valid.
fn one_invalid(world: &World) {
    world.produce_as(0..20, |number| {
        if number == 10 {
            "x".repeat(5_000)
        } else {
            valid(number)
        }
    });
}

/// The dead-letter topic takes nothing of the size that the worker was told.
fn stops_at_what_the_dead_letter_topic_refuses(test: &str, once: Option<&str>) {
    let Some(world) = World::real(test, 1) else {
        return;
    };
    set_property(&world, "dead", "max.message.bytes", "100");
    one_invalid(&world);
    for _ in 0..2 {
        // Started again, it stops there again: no hand, no loss.
        let worker = world.worker_with(|settings, _| deliver(settings, once));
        let error = ended(worker);
        let WorkerError::Stopped(stop) = &error else {
            panic!("{error}");
        };
        assert!(matches!(stop.reason, StopReason::Refused(_)), "{stop}");
        assert_eq!(stop.position.offset, Offset(10), "{stop}");
        assert!(!error.is_passing(), "the daemon ends with it, loudly");
        assert!(committed(&world) <= Some(Offset(10)), "not past it");
    }
    assert!(world.sources("dead", &DEAD).is_empty());
    // What was in the way is mended.
    set_property(&world, "dead", "max.message.bytes", "1000000");
    let worker = world.worker_with(|settings, _| deliver(settings, once));
    world.wait_committed(20);
    worker.stop().unwrap();
    let twice = world.audit(20);
    assert!(once.is_none() || twice == 0, "{twice} twice");
}

#[test]
fn fs_43_a_letter_that_its_topic_refuses_stops_the_worker_before_it() {
    stops_at_what_the_dead_letter_topic_refuses("closed-least", None);
}

#[test]
fn fs_43_a_letter_that_its_topic_refuses_stops_the_worker_before_it_within_transactions() {
    stops_at_what_the_dead_letter_topic_refuses("closed-once", Some("closed-once"));
}

/// The dead-letter topic goes away while the worker is at work.
fn stops_without_its_dead_letter_topic(test: &str, once: Option<&str>) {
    let Some(world) = World::real(test, 1) else {
        return;
    };
    world.produce_as(0..10, valid);
    let worker = world.worker_with(|settings, _| deliver(settings, once));
    world.wait_committed(10);
    world.admin().delete_topic(&world.topic("dead")).unwrap();
    world.produce_as(10..20, |number| format!("invalid {number}"));
    let error = ended(worker);
    let shown = error.to_string();
    assert!(shown.contains("telemetry record 0:10"), "{shown}");
    // At least once the log names the topic beside it.
    assert!(
        once.is_none() || shown.contains(&world.topic("dead")),
        "{shown}"
    );
    assert!(!error.is_passing(), "the daemon ends with it: {shown}");
    assert_eq!(committed(&world), Some(Offset(10)), "not past it: {shown}");
}

#[test]
fn fs_43_a_dead_letter_topic_that_is_deleted_stops_the_worker() {
    stops_without_its_dead_letter_topic("gone-least", None);
}

#[test]
fn fs_43_a_dead_letter_topic_that_is_deleted_stops_the_worker_within_transactions() {
    stops_without_its_dead_letter_topic("gone-once", Some("gone-once"));
}

/// A stage whose daemon starts without a zone; `more` goes into its `[dead_letter]` section.
fn stage(name: &str, more: &str) -> Option<Stage> {
    let stage = Stage::new(name, "")?;
    let text = std::fs::read_to_string(&stage.config).unwrap();
    let text = text
        .replace("[zones]\n", "[zones]\nallow_empty = true\n")
        .replace("[dead_letter]\n", &format!("[dead_letter]\n{more}\n"));
    std::fs::write(&stage.config, text).unwrap();
    stage.create_topics(2, &[]);
    Some(stage)
}

#[test]
fn fs_44_a_held_partition_is_seen_in_readiness_status_and_metrics() {
    let Some(stage) = stage(
        "held-seen",
        "breaker_records = 100\nbreaker_retry_ms = 2_000",
    ) else {
        return;
    };
    let mut daemon = stage.daemon("held");
    daemon.wait_ready();
    let limit = Duration::from_secs(60);
    let bad = (0..80).map(|number| (Some(1), "k".to_owned(), format!("bad {number}")));
    stage.write("telemetry", bad);
    let (_, checks) = eventually("not ready", limit, || {
        daemon.get("/readyz").filter(|(code, _)| *code == 503)
    });
    assert!(checks.contains("held partitions: 1 (not_json)"), "{checks}");
    let status = daemon.status().unwrap();
    let held = &status["workers"][0]["held_as_invalid"][0];
    assert_eq!(
        (&held["partition"], &held["reason"]),
        (&1.into(), &"not_json".into()),
        "{status}"
    );
    assert!(held["since"].is_string(), "{status}");
    eventually("the metrics say so", limit, || {
        let paused = daemon.metric("ringfence_partitions_paused", "invalid")?;
        let opened = daemon.metric("ringfence_dead_letter_breaker_opened_total", "")?;
        (paused >= 1.0 && opened >= 1.0).then_some(())
    });
    assert!(
        daemon.log().contains("the partition is held"),
        "{}",
        daemon.log()
    );
    // Mended upstream: valid records come behind the bad ones, and it goes on by itself.
    let wall = Clock::wall().millis();
    let good = (0..100).map(|_| {
        let value = format!(r#"{{"id":"v","ts":{wall},"lat":0.5,"lon":0.5}}"#);
        (Some(1), "k".to_owned(), value)
    });
    stage.write("telemetry", good);
    stage.wait_committed(stage.group(), limit);
    eventually("ready again", limit, || {
        daemon.get("/readyz").filter(|(code, _)| *code == 200)
    });
    daemon.stop();
    assert_eq!(stage.read("dead").len(), 80);
    assert_eq!(stage.read("enriched").len(), 100);
}

/// The whole daemon: it ends with 1, says which record and why, and a restart meets the same.
#[test]
fn fs_43_a_daemon_that_cannot_write_a_dead_letter_ends_and_names_the_record() {
    for mode in ["at_least_once", "exactly_once"] {
        let name = format!("closed-daemon-{mode}");
        let Some(stage) = Stage::new(
            &name,
            &format!("[delivery]\nmode = \"{mode}\"\ninstance = \"{name}\""),
        ) else {
            return;
        };
        let text = std::fs::read_to_string(&stage.config).unwrap();
        let text = text.replace("[zones]\n", "[zones]\nallow_empty = true\n");
        std::fs::write(&stage.config, text).unwrap();
        // Not even a letter without its record fits.
        stage.create("dead", 1, &[("max.message.bytes", "100")]);
        stage.create_topics(1, &[]);
        let wall = Clock::wall().millis();
        let records = (0..5).map(|number| match number {
            3 => (Some(0), "k".to_owned(), "not json".to_owned()),
            _ => (
                Some(0),
                "k".to_owned(),
                format!(r#"{{"id":1,"ts":{wall},"lat":1,"lon":2}}"#),
            ),
        });
        stage.write("telemetry", records);
        for run in ["first", "second"] {
            let mut daemon = stage.daemon(run);
            let status = daemon.wait_exit(Duration::from_secs(90));
            assert_eq!(status.code(), Some(1), "{mode} {run}: {}", daemon.log());
            let log = daemon.log();
            assert!(
                log.contains("telemetry record 0:3") && log.contains("dead letter"),
                "{log}"
            );
            let committed = stage
                .admin
                .committed(&stage.topic("telemetry"), &[PartitionId(0)]);
            assert!(
                committed.unwrap()[0].1 <= Some(Offset(3)),
                "{mode} {run}: not past it"
            );
        }
        assert!(stage.read("dead").is_empty());
    }
}

/// Everything of a partition, as it stands there.
fn records(settings: &Settings, stage: &Stage, suffix: &str) -> Vec<OwnedRecord> {
    let reader = TopicReader::all(settings, &stage.admin, &stage.topic(suffix)).unwrap();
    let mut all = Vec::new();
    let each = |record: &ringfence::telemetry::RecordRef<'_>| {
        all.push((record.partition, OwnedRecord::from(record)))
    };
    reader.read_all(PATIENCE, each).unwrap();
    all.sort_by_key(|(partition, _)| *partition);
    all.into_iter().map(|(_, record)| record).collect()
}

fn write(settings: &Settings, topic: &str, partition: i32, record: &OwnedRecord) {
    let writer = TopicWriter::new(settings).unwrap();
    let headers: Vec<_> = record.headers().collect();
    let outgoing = Outgoing {
        topic,
        partition: Some(PartitionId(partition)),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        timestamp: record.timestamp.instant().map(|at| at.millis()),
        headers: &headers,
    };
    assert!(writer.send(&outgoing, 0).unwrap());
    writer.receipt(PATIENCE).unwrap().outcome.unwrap();
}

fn sent(key: Option<&[u8]>, value: Option<&[u8]>, age_s: u64) -> OwnedRecord {
    use ringfence::telemetry::RecordTimestamp;
    OwnedRecord {
        timestamp: RecordTimestamp::Create(Clock::wall().minus(Duration::from_secs(age_s))),
        key: key.map(Into::into),
        value: value.map(Into::into),
        headers: Box::new([
            ("traceparent".into(), Some(b"00-1".as_slice().into())),
            ("empty".into(), None),
        ]),
    }
}

fn with_header(record: &OwnedRecord, name: &str, value: &str) -> OwnedRecord {
    let mut record = record.clone();
    let mut headers: Vec<_> = record.headers.into_vec();
    headers.retain(|(known, _)| &**known != name);
    headers.push((name.into(), Some(value.as_bytes().into())));
    record.headers = headers.into();
    record
}

/// The lines of `dead-letters list --json` with these filters.
fn listed(stage: &Stage, filters: &[&str]) -> Vec<Value> {
    let arguments: Vec<_> = ["--json", "dead-letters", "list"]
        .iter()
        .chain(filters)
        .copied()
        .collect();
    let out = ringfence_ok(&stage.config, &arguments);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Replays, and gives the report.
fn replayed(stage: &Stage, arguments: &[&str]) -> Value {
    let all: Vec<_> = ["--json", "dead-letters", "replay"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    serde_json::from_str(&ringfence_ok(&stage.config, &all)).unwrap()
}

#[test]
fn dead_letters_are_listed_by_filter_and_replayed_as_they_came() {
    let Some(stage) = stage("letters", "") else {
        return;
    };
    let settings = Settings::new(bootstrap().unwrap(), stage.group());
    let telemetry = stage.topic("telemetry");
    let bad = [
        sent(None, Some(b"\xff\x00 not json"), 3_600),
        sent(Some(b"b"), None, 1_800),
        sent(
            Some(b"c"),
            Some(br#"{"id":1,"ts":"noon","lat":1,"lon":2}"#),
            60,
        ),
    ];
    for record in &bad {
        write(&settings, &telemetry, 1, record);
    }
    let mut daemon = stage.daemon("letters");
    daemon.wait_ready();
    stage.wait_committed(stage.group(), Duration::from_secs(60));
    daemon.stop();

    let all = listed(&stage, &[]);
    let shown: Vec<_> = all
        .iter()
        .map(|letter| {
            (
                letter["offset"].as_i64().unwrap(),
                letter["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [(0, "not_json"), (1, "null_value"), (2, "time_range")]
    );
    for (letter, record) in all.iter().zip(&bad) {
        assert_eq!(letter["topic"], telemetry.as_str());
        assert_eq!(letter["partition"], 1);
        let stamp = record.timestamp.instant().unwrap().millis();
        assert_eq!(letter["timestamp"], stamp, "{letter}");
        assert!(letter["truncated"].is_null() && letter["detail"].is_string());
    }
    let half_an_hour = Clock::wall().minus(Duration::from_secs(2_000)).to_string();
    assert_eq!(listed(&stage, &["--from", &half_an_hour]).len(), 2);
    assert_eq!(listed(&stage, &["--until", &half_an_hour]).len(), 1);
    assert_eq!(
        listed(&stage, &["--reason", "null_value", "--reason", "late"]).len(),
        1
    );
    assert_eq!(listed(&stage, &["--partition", "0"]).len(), 0);
    assert_eq!(listed(&stage, &["--limit", "2"]).len(), 2);
    let text = ringfence_ok(&stage.config, &["dead-letters", "list"]);
    assert!(
        text.contains("1:2") && text.contains("time_range"),
        "{text}"
    );

    // The first letter once more, as at least once may write it; one that was cut; and a record of somebody else.
    let dead = stage.topic("dead");
    let letters = records(&settings, &stage, "dead");
    write(&settings, &dead, 0, &letters[0]);
    let cut = with_header(&letters[2], "ringfence-error-offset", "99");
    write(
        &settings,
        &dead,
        0,
        &with_header(&cut, "ringfence-error-truncated", "value"),
    );
    write(&settings, &dead, 0, &bad[0]);
    assert_eq!(listed(&stage, &[]).len(), 4);

    let refused = ringfence(&stage.config, &["dead-letters", "replay"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("1 records are not whole"), "{said}");
    let dry = replayed(&stage, &["--skip-truncated", "--dry-run"]);
    assert_eq!(
        (&dry["written"], &dry["skipped"], &dry["duplicates"]),
        (&3.into(), &1.into(), &1.into()),
        "{dry}"
    );
    assert_eq!(
        records(&settings, &stage, "telemetry").len(),
        3,
        "nothing was written"
    );

    let some = ["--reason", "not_json", "--reason", "null_value"];
    let report = replayed(&stage, &some);
    assert_eq!(
        (&report["written"], &report["failed"]),
        (&2.into(), &0.into()),
        "{report}"
    );
    let now = records(&settings, &stage, "telemetry");
    assert_eq!(now[..3], bad, "what was there");
    assert_eq!(
        now[3..],
        bad[..2],
        "and again as it came: key, value, headers, stamp"
    );
    let ends = stage.admin.offsets(
        &telemetry,
        &[PartitionId(0)],
        ringfence::kafka::admin::End::Log,
    );
    assert_eq!(
        ends.unwrap()[0].1.to,
        Offset(0),
        "in the partition it came from"
    );

    stage.create("mended", 1, &[]);
    let other = stage.topic("mended");
    let report = replayed(&stage, &["--include-truncated", "--to", &other]);
    assert_eq!(report["written"], 4, "{report}");
    assert_eq!(records(&settings, &stage, "mended").len(), 4);
    let looped = ringfence(&stage.config, &["dead-letters", "replay", "--to", &dead]);
    assert_eq!(looped.status.code(), Some(2));
}
