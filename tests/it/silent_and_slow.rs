//! Partitions that say nothing and brokers that cannot be asked, on a real Kafka: the first hold nothing back, the second
//! hold the gate and are named (issue 3, "holds when" 4; FS-18), and cost no record (FS-66).

use std::collections::BTreeSet;
use std::time::Duration;

use ringfence::partition::PartitionId;
use serde_json::Value;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::Cluster;
use crate::support::stage::Stage;
use crate::support::zones::rectangle;

const LIMIT: Duration = Duration::from_secs(60);

/// One zone is written before the first event and none after it: its partition is silent for a minute, the other three
/// never have a record.
#[test]
fn a_minute_of_silence_and_partitions_without_any_record_make_nothing_unsettled() {
    let Some(stage) = Stage::new("silent-minute", "") else {
        return;
    };
    stage.create_topics(4, &[]);
    let arguments = [
        ["--zones", "1"],
        ["--zone-rate", "0"],
        ["--rate", "400"],
        ["--for", "65s"],
    ];
    let mut simulation = stage.beside("simulate", &arguments.concat());
    let mut daemon = stage.daemon("run");
    daemon.wait_ready();
    let summary = simulation.wait_written(Duration::from_secs(120));
    assert_eq!(summary["zone_changes"], 1, "{summary}");
    stage.wait_committed(stage.group(), LIMIT);
    let slow = daemon.metric("ringfence_records_flagged_total", "");
    daemon.stop();
    let report = stage.verify(&[]);
    eprintln!("{report:#}");
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(
        report["flags"],
        serde_json::json!({}),
        "not one record is flagged"
    );
    assert_eq!(slow.unwrap_or(0.0), 0.0, "and the process says so too");
    assert_eq!(report["judged"], summary["events"], "{report:#}");
    assert_eq!(report["jigsaw_checked"], summary["events"], "{report:#}");
}

/// The partitions in `/v1/status` `.gate.held_by`.
fn held_by(daemon: &Daemon) -> Option<BTreeSet<i64>> {
    let status = daemon.status()?;
    let held = status["gate"]["held_by"].as_array()?;
    held.iter().map(|held| held["partition"].as_i64()).collect()
}

fn gate_held(daemon: &Daemon, partition: i64) -> Option<f64> {
    daemon.metric("ringfence_gate_held", &format!("partition=\"{partition}\""))
}

fn as_of(status: &Value) -> Option<String> {
    Some(status["gate"]["as_of"].as_str()?.to_owned())
}

#[test]
fn fs_18_a_frozen_leader_of_zone_partitions_holds_the_gate_and_is_named_until_it_wakes() {
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let stage = Stage::on(cluster.address(), "frozen", "");
    // One replica each: nobody else can answer for what the frozen broker has.
    stage.create_topics(4, &["--replication", "1"]);
    let zones = stage
        .admin
        .existing(&stage.topic("zones"))
        .expect("a topic");
    let led_by_two = zones
        .partitions
        .iter()
        .filter(|(_, leader)| *leader == Some(2));
    let frozen: BTreeSet<i64> = led_by_two
        .map(|(PartitionId(id), _)| i64::from(*id))
        .collect();
    assert!(!frozen.is_empty() && frozen.len() < 4, "{zones:?}");
    let arguments = [["--rate", "500"], ["--zone-rate", "20"], ["--for", "45s"]];
    let mut simulation = stage.beside("simulate", &arguments.concat());
    let mut daemon = stage.daemon("run");
    daemon.wait_ready();
    eventually("the gate is open", LIMIT, || {
        held_by(&daemon).filter(BTreeSet::is_empty)
    });

    cluster.signal(2, "STOP");
    eventually("the frozen partitions are named", LIMIT, || {
        (held_by(&daemon)? == frozen).then_some(())
    });
    for partition in 0..4 {
        let expected = f64::from(u8::from(frozen.contains(&partition)));
        eventually("the metric names them", LIMIT, || {
            (gate_held(&daemon, partition)? == expected).then_some(())
        });
    }
    // On a busy machine a partition may first be held by an end that was answered before the freeze and is not read yet.
    eventually("they are held for want of an answer", LIMIT, || {
        let status = daemon.status()?;
        let held_by = status["gate"]["held_by"].as_array()?;
        let is_silent = |held: &serde_json::Value| {
            let since = held["since"].as_str().expect("an instant");
            assert!(since.parse::<jiff::Timestamp>().is_ok(), "{held}");
            held["cause"] == "no_answer"
        };
        (held_by.len() == frozen.len() && held_by.iter().all(is_silent)).then_some(())
    });
    let held_at = daemon.status().and_then(|status| as_of(&status));
    // What comes meanwhile waits for its turn, then goes out as it may: matched at the gate, flagged.
    eventually("events are unsettled", LIMIT, || {
        daemon
            .metric("ringfence_records_flagged_total", "flag=\"unsettled\"")
            .filter(|count| *count > 0.0)
    });
    let held_still = daemon.status().and_then(|status| as_of(&status));
    assert!(
        held_at.is_some() && held_at == held_still,
        "the gate stands"
    );

    cluster.signal(2, "CONT");
    eventually("the gate is open again", LIMIT, || {
        held_by(&daemon).filter(BTreeSet::is_empty)
    });
    eventually("the metric too", LIMIT, || {
        frozen
            .iter()
            .all(|partition| gate_held(&daemon, *partition) == Some(0.0))
            .then_some(())
    });
    let summary = simulation.wait_written(Duration::from_secs(120));
    stage.wait_committed(stage.group(), Duration::from_secs(120));
    daemon.stop();
    let report = stage.verify(&[]);
    eprintln!("{summary}\n{report:#}");
    // Moves whose one half was held up by the frozen broker are clipped, and excused; all else is as ever.
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["judged"], summary["events"], "{report:#}");
    let unsettled = report["flags"]["unsettled"].as_u64().expect("some were");
    assert!(
        unsettled < summary["events"].as_u64().expect("a count") / 2,
        "{report:#}"
    );
}

/// The telemetry partitions that a process owns.
fn owned(daemon: &Daemon) -> Option<BTreeSet<i32>> {
    let status = daemon.status()?;
    let mut owned = BTreeSet::new();
    for worker in status["workers"].as_array()? {
        for partition in worker["partitions"].as_array()? {
            owned.insert(i32::try_from(partition["partition"].as_i64()?).ok()?);
        }
    }
    Some(owned)
}

/// Its new owner has nothing committed to begin at, and cannot ask where its log begins: it goes on with the others.
#[test]
fn fs_66_a_telemetry_partition_without_a_leader_keeps_no_process_from_the_others() {
    const PARTITIONS: i32 = 4;
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    let stage = Stage::on(cluster.address(), "leaderless", "");
    let zones = [("message.timestamp.type", "LogAppendTime")];
    stage.create("telemetry", PARTITIONS, &[]);
    stage.create_replicated("zones", 1, 2, &zones);
    stage.create_replicated("enriched", PARTITIONS, 2, &[]);
    stage.create_replicated("dead", 1, 2, &[]);
    let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
    stage.write("zones", [(None, "a".to_owned(), zone)]);
    let telemetry = stage.topic("telemetry");
    let leaders = stage
        .admin
        .existing(&telemetry)
        .expect("a topic")
        .partitions;
    let led_by = |node: i32| {
        let led = leaders
            .iter()
            .filter(move |(_, leader)| *leader == Some(node));
        led.map(|(id, _)| id.0).collect::<BTreeSet<i32>>()
    };
    let (awake, frozen) = (led_by(1), led_by(2));
    assert!(!awake.is_empty() && !frozen.is_empty(), "{leaders:?}");
    let mut daemons = ["one", "two"].map(|name| stage.daemon(name));
    daemons.iter_mut().for_each(Daemon::wait_ready);
    let shares = eventually("both own some", LIMIT, || {
        let shares = [owned(&daemons[0])?, owned(&daemons[1])?];
        let all = shares.iter().map(BTreeSet::len).sum::<usize>();
        (all == PARTITIONS as usize && shares.iter().all(|share| !share.is_empty()))
            .then_some(shares)
    });

    cluster.signal(2, "STOP");
    eventually("the frozen broker is given up", LIMIT, || {
        let now = stage.admin.existing(&telemetry).ok()?.partitions;
        now.iter()
            .all(|(id, leader)| frozen.contains(&id.0) == leader.is_none())
            .then_some(())
    });
    let gone = usize::from(shares[0].is_disjoint(&frozen));
    daemons[gone].signal("KILL");
    let stays = &mut daemons[1 - gone];
    eventually("the other owns all", LIMIT, || {
        (owned(stays)?.len() == PARTITIONS as usize).then_some(())
    });
    let events = |partitions: &BTreeSet<i32>| {
        let now = ringfence::clock::Clock::wall().millis();
        let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5}}"#);
        let each = partitions
            .iter()
            .flat_map(|id| std::iter::repeat_n(*id, 50));
        let events = each.map(|id| (Some(id), "v".to_owned(), value.clone()));
        stage.write("telemetry", events);
    };
    events(&awake);
    eventually("what can be read is enriched", LIMIT, || {
        (stays.metric("ringfence_records_enriched_total", "")? >= 50.0 * awake.len() as f64)
            .then_some(())
    });

    cluster.signal(2, "CONT");
    events(&frozen);
    stage.wait_committed(stage.group(), LIMIT);
    stays.stop();
    let report = stage.verify(&[]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["judged"], 50 * PARTITIONS, "{report:#}");
}
