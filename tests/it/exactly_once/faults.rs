//! What a worker of `exactly_once` outlives by itself, under a steady stream: refused records, brokers that do not answer,
//! outputs that cannot be delivered. And what it ends with, and names, as no try helps.

use std::time::Duration;

use ringfence::kafka::admin::End;
use ringfence::partition::PartitionId;

use super::{Once, PATIENCE, committed, large_event, wait_consumed, wall_ms};
use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::{Cluster, bootstrap, free_ports};
use crate::support::stage::Beside;
use crate::torture::proxy::Proxy;

/// Longer than a worker tries at first (twice the time-out of a transaction), and then anything may stand still before
/// `/livez` says so (60 s).
const OUTAGE: Duration = Duration::from_secs(95);

/// A broker that wakes works off what its sockets hold, and a group may wait out a rebalance time-out
/// (`max.poll.interval.ms`, five minutes) for members of which only a late request is left.
const AFTER_FREEZE: Duration = Duration::from_secs(420);

fn aborted(daemon: &Daemon) -> usize {
    daemon.log().matches("transaction aborted").count()
}

/// So many events a second until it is told to end.
fn stream(once: &Once, rate: &str, invalid: &str) -> Beside {
    let world = [
        "--rate",
        rate,
        "--zone-rate",
        "5",
        "--invalid",
        invalid,
        "--for",
        "10m",
    ];
    once.stage.beside("simulate", &world)
}

/// Ends the stream and the process, and has all of it audited.
fn assert_clean(once: &Once, mut stream: Beside, mut daemon: Daemon) {
    stream.stop();
    stream.wait_written(PATIENCE);
    once.stage.wait_committed(once.stage.group(), PATIENCE);
    daemon.stop();
    let report = once.stage.verify(&["--exactly-once"]);
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(report["findings"].get("duplicate"), None, "{report:#}");
}

#[test]
fn fs_35_fs_41_refused_records_amid_a_steady_stream_are_dead_lettered_without_a_restart() {
    let Some(once) = Once::new("stream", 8_000) else {
        return;
    };
    let daemon = once.start("one", "one");
    let stream = stream(&once, "1000", "0");
    wait_consumed(&daemon);
    once.set_of_enriched("max.message.bytes", "20000");
    for round in 1..=6 {
        let large = (Some(round % 2), "large".to_owned(), large_event());
        once.stage.write("telemetry", [large]);
        eventually("the refused record is dead-lettered", PATIENCE, || {
            let large = daemon.metric("ringfence_records_dead_lettered_total", "too_large")?;
            (large >= f64::from(round)).then_some(())
        });
        let before = committed(&daemon);
        eventually("and it goes on", PATIENCE, || {
            (committed(&daemon) >= before + 5.0).then_some(())
        });
    }
    assert!(aborted(&daemon) >= 6, "{}", daemon.log());
    assert!(!daemon.log().contains("made anew"), "{}", daemon.log());
    assert_clean(&once, stream, daemon);
}

/// A broker, and a process that reaches it through a proxy; the test itself does not.
struct Proxied {
    cluster: Cluster,
    proxy: Proxy,
    once: Once,
    daemon: Daemon,
}

impl Proxied {
    fn start(name: &str, transaction_timeout_ms: u32) -> Option<Self> {
        bootstrap()?;
        let port = free_ports(4);
        let cluster = Cluster::start_at(port, 1, Some(port + 3), "");
        let proxy = Proxy::start(port + 3, cluster.behind_proxy(1, 1));
        let once = Once::on(cluster.address(), name, transaction_timeout_ms);
        let through = format!("kafka.bootstrap.servers=127.0.0.1:{}", proxy.port());
        let mut daemon = once
            .stage
            .daemon_with("one", &["delivery.instance=one", &through]);
        daemon.wait_ready();
        Some(Self {
            cluster,
            proxy,
            once,
            daemon,
        })
    }
}

#[test]
fn fs_34_ends_of_transactions_whose_answers_are_lost_double_and_lose_nothing() {
    let Some(mut all) = Proxied::start("lost-ends", 8_000) else {
        return;
    };
    all.proxy.cut_ends(10);
    eventually("ten answers are lost", PATIENCE, || {
        all.once.produce(200);
        (all.proxy.ends_to_cut() == 0).then_some(())
    });
    all.once.assert_each_once();
    all.daemon.stop();
}

#[test]
fn fs_33_fs_34_a_coordinator_killed_while_an_end_is_under_way_doubles_and_loses_nothing() {
    let Some(mut all) = Proxied::start("killed-end", 8_000) else {
        return;
    };
    let stage = &all.once.stage;
    let topics = ["enriched", "dead"].map(|suffix| stage.topic(suffix));
    for round in 1..=3 {
        all.proxy.stall_ends(true);
        all.once.produce(500);
        eventually("an end is under way", PATIENCE, || {
            (all.proxy.stalled_ends() >= round).then_some(())
        });
        all.cluster.end(1, "KILL");
        all.proxy.stall_ends(false);
        all.cluster.up();
        eventually("the broker answers", PATIENCE, || {
            let admin = &all.once.stage.admin;
            let answers = |topic: &String| {
                let ids = admin.existing(topic)?.ids();
                admin.offsets(topic, &ids, End::Log)?;
                admin.offsets(topic, &ids, End::Stable)
            };
            topics
                .iter()
                .all(|topic| answers(topic).is_ok())
                .then_some(())
        });
        all.once.assert_each_once();
    }
    all.daemon.stop();
}

/// Its successor has the name by now: to register it would fence that one.
#[test]
fn fs_32_a_zombie_that_had_not_registered_its_name_yet_does_not_do_so_when_it_wakes() {
    // The session of the stage's members, and some.
    const STOPPED_MS: u128 = 8_000;
    let Some(once) = Once::new("unborn", 8_000) else {
        return;
    };
    let topic = once.stage.topic("telemetry");
    once.stage.admin.delete_topic(&topic).expect("deleted");
    let mut zombie = once.stage.daemon_with("zombie", &["delivery.instance=one"]);
    eventually("it waits for its topic", PATIENCE, || {
        zombie.log().contains("does not exist").then_some(())
    });
    zombie.signal("STOP");
    let stopped_at = wall_ms();
    eventually("it is stopped for long", PATIENCE, || {
        (wall_ms() - stopped_at > STOPPED_MS).then_some(())
    });
    once.stage.create("telemetry", 2, &[]);
    zombie.signal("CONT");
    assert_eq!(zombie.wait_exit(PATIENCE).code(), Some(1));
    assert!(zombie.log().contains("stood still"), "{}", zombie.log());
}

#[test]
fn fs_80_a_broker_that_freezes_for_longer_than_a_transaction_lives_ends_nothing_and_livez_stays() {
    // As many connections as are tried meanwhile: with its 50 the first answer after the freeze may wait for a repeated SYN.
    let Some(cluster) = Cluster::start_with(1, "socket.listen.backlog.size=1000") else {
        return;
    };
    let mut once = Once::on(cluster.address(), "frozen", 8_000);
    let mut daemon = once.start("one", "one");
    once.produce(1_000);
    wait_consumed(&daemon);
    cluster.signal(1, "STOP");
    let frozen_at = wall_ms();
    eventually("the outage is over", OUTAGE * 2, || {
        let (code, body) = daemon.get("/livez")?;
        assert_eq!(code, 200, "a probe would kill it: {body} {}", daemon.log());
        assert!(daemon.ended().is_none(), "{}", daemon.log());
        (wall_ms() - frozen_at > OUTAGE.as_millis()).then_some(())
    });
    cluster.signal(1, "CONT");
    let telemetry = once.stage.topic("telemetry");
    eventually("the broker answers again", AFTER_FREEZE, || {
        let offsets = once
            .stage
            .admin
            .offsets(&telemetry, &[PartitionId(0)], End::Log);
        offsets.ok()
    });
    once.produce(1_000);
    once.assert_each_once_within(AFTER_FREEZE);
    daemon.stop();
}

#[test]
fn fs_80_outputs_that_no_broker_takes_for_long_are_waited_for_by_the_same_process() {
    let Some(mut all) = Proxied::start("unwritable", 4_000) else {
        return;
    };
    all.once.produce(100);
    all.once.assert_each_once();
    // As from a partition without a leader; everything else is answered.
    all.proxy.stall_output(true);
    all.once.produce(1_000);
    let daemon = &mut all.daemon;
    // More than a worker may have in a row, and than it may be made anew, for any other reason.
    eventually("transaction after transaction is aborted", PATIENCE, || {
        let (code, body) = daemon.get("/livez")?;
        assert_eq!(code, 200, "a probe would kill it: {body} {}", daemon.log());
        assert!(daemon.ended().is_none(), "{}", daemon.log());
        (aborted(daemon) > 12).then_some(())
    });
    let log = daemon.log();
    assert!(!log.contains("made anew"), "{log}");
    let named = format!(
        "to topic `{}` was not delivered",
        all.once.stage.topic("enriched")
    );
    assert!(log.contains(&named), "an abort says of what: {log}");
    all.proxy.cut();
    all.proxy.stall_output(false);
    all.once.assert_each_once();
    all.daemon.stop();
}

#[test]
fn fs_43_a_dead_letter_topic_deleted_amid_a_stream_ends_the_process_which_names_topic_and_record() {
    let Some(once) = Once::new("gone", 8_000) else {
        return;
    };
    let mut daemon = once.start("one", "one");
    let stream = stream(&once, "300", "0.02");
    eventually("a dead letter", PATIENCE, || {
        daemon
            .metric("ringfence_records_dead_lettered_total", "")
            .filter(|count| *count > 0.0)
    });
    let topic = once.stage.topic("dead");
    once.stage.admin.delete_topic(&topic).expect("deleted");
    let status = daemon.wait_exit(PATIENCE);
    let log = daemon.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let error = log.lines().find(|line| line.starts_with("error: "));
    let error = error.unwrap_or_else(|| panic!("no reason: {log}"));
    assert!(
        error.contains(&topic) && error.contains("telemetry record "),
        "{error}"
    );
    assert!(!error.contains("ence"), "nobody else is to blame: {error}");
    drop(stream);
}
