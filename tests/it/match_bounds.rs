//! `gate.match_from` and `gate.match_until` in a whole daemon (DESIGN 4): every event is matched within them, and one that
//! lies above what the zones topic has settled at start is refused by name.

use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::config::Config;
use ringfence::kafka::admin::Admin;
use ringfence::kafka::client::Settings;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::time::EventTime;

use crate::support::edge::{PATIENCE, wait_for};
use crate::support::in_process::{InProcess, cluster};
use crate::support::zones::{rectangle, t};

const HOUR: i64 = 3_600_000;

fn write(settings: &Settings, topic: &str, stamp: i64, value: Option<&str>) {
    let writer = TopicWriter::new(settings).unwrap();
    let record = Outgoing {
        topic,
        partition: Some(PartitionId(0)),
        key: Some(b"a"),
        value: value.map(str::as_bytes),
        timestamp: Some(stamp),
        ..Outgoing::default()
    };
    assert!(writer.send(&record, 0).unwrap());
    let receipt = writer.receipt(PATIENCE).expect("acknowledged");
    assert!(receipt.outcome.is_ok(), "{receipt:?}");
}

/// (value, at, flags) of every enriched record.
fn enriched(daemon: &InProcess) -> Vec<(String, i64, Option<String>)> {
    let settings = daemon.settings();
    let admin = Admin::new(&settings, PATIENCE).unwrap();
    let mut records = Vec::new();
    TopicReader::all(&settings, &admin, "telemetry.enriched")
        .unwrap()
        .read_all(PATIENCE, |record| {
            let header = |name: &str| {
                let found = record.headers.iter().find(|(known, _)| *known == name)?;
                Some(String::from_utf8_lossy(found.1?).into_owned())
            };
            records.push((
                String::from_utf8_lossy(record.value.unwrap()).into_owned(),
                header("ringfence-at").unwrap().parse().unwrap(),
                header("ringfence-flags"),
            ));
        })
        .unwrap();
    records
}

/// The zone `a` from five hours ago until it was deleted three hours ago; then one event for each of `hours` from now.
fn matched(
    tune: impl FnOnce(&mut Config, i64),
    hours: &[i64],
) -> (i64, Vec<(String, i64, Option<String>)>) {
    let now = Clock::wall().millis();
    let cluster = cluster(1);
    let settings = Settings::new(&cluster.bootstrap_servers(), "ringfence");
    let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
    // Before it starts: read live, changes of hours ago would be late ones.
    write(&settings, "zones", now - 5 * HOUR, Some(&zone));
    write(&settings, "zones", now - 3 * HOUR, None);
    let mut daemon = InProcess::start(cluster, |config| tune(config, now));
    daemon.wait_ready();
    wait_for("the zones are read", || {
        daemon.status()["gate"]["changes"]["accepted"] == 2
    });
    for hour in hours {
        let ts = now + hour * HOUR;
        let event = format!(r#"{{"id":"v","ts":{ts},"lat":0.5,"lon":0.5}}"#);
        write(&settings, "telemetry", now, Some(&event));
    }
    let mut records = Vec::new();
    wait_for("all events are there", || {
        records = enriched(&daemon);
        records.len() == hours.len()
    });
    daemon.stop().unwrap();
    (now, records)
}

fn zones_of(value: &str) -> &str {
    value.rsplit_once("\"zones\":").unwrap().1
}

#[test]
fn every_event_is_matched_within_the_bounds_and_says_when() {
    // Stored years ago or an hour ahead of the clock: each at the bound that it passes, settled, with no flag.
    let bounds = |config: &mut Config, now: i64| {
        config.gate.match_from = Some(t(now - 4 * HOUR));
        config.gate.match_until = Some(t(now - 2 * HOUR));
    };
    let (now, records) = matched(bounds, &[-20_000, -4, -3, 0, 1]);
    let expected = [
        (-4, "[\"a\"]}"),
        (-4, "[\"a\"]}"),
        (-3, "[]}"),
        (-2, "[]}"),
        (-2, "[]}"),
    ];
    for ((value, at, flags), (hour, zones)) in records.iter().zip(expected) {
        assert_eq!(*at, now + hour * HOUR, "{value}");
        assert_eq!(zones_of(value), zones, "{value}");
        assert_eq!(*flags, None, "{value}");
    }
}

#[test]
fn equal_bounds_match_all_events_at_one_instant() {
    let bounds = |config: &mut Config, now: i64| {
        config.gate.match_from = Some(t(now - 4 * HOUR));
        config.gate.match_until = config.gate.match_from;
    };
    let (now, records) = matched(bounds, &[-20_000, -2, 1]);
    for (value, at, flags) in &records {
        assert_eq!((*at, flags), (now - 4 * HOUR, &None), "{value}");
        assert_eq!(zones_of(value), "[\"a\"]}", "{value}");
    }
}

#[test]
fn a_match_until_below_the_floor_is_answered_late_at_the_floor() {
    let bounds = |config: &mut Config, now: i64| {
        config.gate.match_until = Some(t(now - 6 * HOUR));
    };
    let (now, records) = matched(bounds, &[0]);
    let (value, at, flags) = &records[0];
    // The floor is the first valid_from.
    assert_eq!(
        (*at, flags.as_deref()),
        (now - 5 * HOUR, Some("late")),
        "{value}"
    );
    assert_eq!(zones_of(value), "[\"a\"]}");
}

#[test]
fn a_bound_above_what_is_settled_at_start_is_refused_by_name() {
    let later = |config: &mut Config, key: &str| {
        let at = Some(Clock::wall().plus(Duration::from_secs(600)));
        match key {
            "match_from" => config.gate.match_from = at,
            _ => config.gate.match_until = at,
        }
    };
    for key in ["match_from", "match_until"] {
        let mut daemon = InProcess::start(cluster(1), |config| later(config, key));
        wait_for("it ends", || daemon.is_over());
        let error = daemon.take_end().unwrap_err().to_string();
        assert!(error.contains(&format!("gate.{key}")), "{error}");
        assert!(
            error.contains("later than what is known of the zones"),
            "{error}"
        );
    }
    // A bound that is settled by then is none too early: the start waits for nothing.
    let mut daemon = InProcess::start(cluster(1), |config| {
        config.gate.match_until = Some(EventTime::clamped(0));
    });
    daemon.wait_ready();
    daemon.stop().unwrap();
}
