//! `exactly_once` on a real Kafka (the mock stores no transactional offsets and fences nobody): FS-13, FS-31 to FS-41.
//!
//! What a reader of committed records sees is looked at as a whole: each source once, in order, whatever was done to the
//! processes and their broker meanwhile.

mod doubts;
mod faults;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use ringfence::clock::Clock;
use ringfence::kafka::admin::End;
use ringfence::partition::PartitionId;

use crate::support::daemon::{Daemon, eventually};
use crate::support::kafka::{Cluster, bootstrap};
use crate::support::stage::Stage;
use crate::support::zones::rectangle;

const PATIENCE: Duration = Duration::from_secs(120);

/// A stage whose processes run in `exactly_once`.
struct Once {
    address: String,
    stage: Stage,
    written: usize,
}

impl Once {
    fn new(name: &str, transaction_timeout_ms: u32) -> Option<Self> {
        bootstrap().map(|address| Self::on(address, name, transaction_timeout_ms))
    }

    /// Two telemetry partitions, and one zone over (0,0) to (1,1).
    fn on(address: &str, name: &str, transaction_timeout_ms: u32) -> Self {
        let extra = format!(
            "[kafka.producer]\n\"transaction.timeout.ms\" = \"{transaction_timeout_ms}\"\n\n\
             [delivery]\nmode = \"exactly_once\"\ninstance = \"unnamed\"\n"
        );
        let stage = Stage::on(address, &format!("once-{name}"), &extra);
        stage.create_topics(2, &[]);
        let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
        stage.write("zones", [(None, "a".to_owned(), zone)]);
        Self {
            address: address.to_owned(),
            stage,
            written: 0,
        }
    }

    /// Starts the process of this name and waits until it is ready.
    fn start(&self, instance: &str, log: &str) -> Daemon {
        let name = format!("delivery.instance={instance}");
        let mut daemon = self.stage.daemon_with(log, &[&name]);
        daemon.wait_ready();
        daemon
    }

    /// Writes so many events more; every tenth is invalid. Offsets are contiguous in each of the two partitions.
    fn produce(&mut self, count: usize) {
        let wall = wall_ms();
        let numbers = self.written..self.written + count;
        let records = numbers.map(|number| {
            let value = if number % 10 == 9 {
                format!("invalid {number}")
            } else {
                format!(r#"{{"id":"v","ts":{wall},"lat":0.5,"lon":0.5,"n":{number}}}"#)
            };
            (Some((number % 2) as i32), "v".to_owned(), value)
        });
        self.stage.write("telemetry", records);
        self.written += count;
    }

    /// Gives the enriched topic another property, behind the back of whoever writes to it.
    fn set_of_enriched(&self, name: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .create()
            .expect("an admin client");
        let topic = self.stage.topic("enriched");
        let resource = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(name, value);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(admin.alter_configs([&resource], &AdminOptions::new()))
            .expect("altered");
    }

    /// What a reader of committed records sees of each source partition: enriched and dead letters together, by offset.
    fn sources(&self) -> BTreeMap<i32, Vec<i64>> {
        let mut all: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for suffix in ["enriched", "dead"] {
            let mut of_topic: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
            for (partition, offset) in self.sources_of(suffix) {
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

    fn sources_of(&self, suffix: &str) -> Vec<(i32, i64)> {
        let records = self.stage.read(suffix);
        let source_of = |record: &crate::support::stage::Record| {
            let (partition, offset) = match record.header("ringfence-source") {
                Some(source) => source.split_once(':').expect("partition:offset"),
                None => (
                    record.header("ringfence-error-partition").expect("named"),
                    record.header("ringfence-error-offset").expect("named"),
                ),
            };
            (
                partition.parse().expect("a number"),
                offset.parse().expect("a number"),
            )
        };
        records.iter().map(source_of).collect()
    }

    /// Whether some of the output is not yet for readers of committed records.
    fn has_open_transaction(&self) -> bool {
        let topic = self.stage.topic("enriched");
        let ids = [PartitionId(0), PartitionId(1)];
        let ends = |end| {
            let offsets = self.stage.admin.offsets(&topic, &ids, end);
            let offsets = offsets.expect("the broker answers");
            offsets.iter().map(|(_, range)| range.to.0).sum::<i64>()
        };
        ends(End::Stable) < ends(End::Log)
    }

    /// Waits until all that was written is there, then asserts that each source is, once.
    fn assert_each_once(&self) {
        self.assert_each_once_within(PATIENCE);
    }

    fn assert_each_once_within(&self, patience: Duration) {
        let expected: BTreeMap<i32, Vec<i64>> = (0..2)
            .map(|partition| (partition, (0..(self.written as i64 / 2)).collect()))
            .collect();
        let seen = eventually("all output is committed", patience, || {
            let seen = self.sources();
            (seen.values().map(Vec::len).sum::<usize>() >= self.written).then_some(seen)
        });
        assert!(
            seen == expected,
            "lost or doubled: {}",
            difference(&seen, &expected)
        );
    }
}

/// An event of 60 kB that cannot be compressed.
fn large_event() -> String {
    let mut noise = 88_172_645_463_325_252_u64;
    let text: String = (0..60_000)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            char::from(b'A' + (noise % 26) as u8)
        })
        .collect();
    format!(r#"{{"id":"v","ts":1,"lat":0.5,"lon":0.5,"text":"{text}"}}"#)
}

fn difference(seen: &BTreeMap<i32, Vec<i64>>, expected: &BTreeMap<i32, Vec<i64>>) -> String {
    let mut text = String::new();
    for (partition, expected) in expected {
        let seen = seen.get(partition).cloned().unwrap_or_default();
        let doubled: Vec<_> = seen
            .windows(2)
            .filter(|two| two[0] == two[1])
            .map(|two| two[0])
            .collect();
        let lost: Vec<_> = expected
            .iter()
            .filter(|offset| seen.binary_search(offset).is_err())
            .collect();
        text += &format!("partition {partition}: doubled {doubled:?}, lost {lost:?}; ");
    }
    text
}

#[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
fn wall_ms() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis()
}

fn wait_consumed(daemon: &Daemon) {
    eventually("it consumes", PATIENCE, || {
        daemon
            .metric("ringfence_records_consumed_total", "")
            .filter(|count| *count > 0.0)
    });
}

fn committed(daemon: &Daemon) -> f64 {
    daemon
        .metric("ringfence_transactions_total", "committed")
        .unwrap_or(0.0)
}

#[test]
fn fs_31_fs_37_killed_again_and_again_each_record_is_seen_once_and_nobody_waits_for_the_dead() {
    // Far longer than the test: whatever is seen in time was ended by the successor, not by the coordinator.
    let Some(mut once) = Once::new("kills", 600_000) else {
        return;
    };
    for round in 0..6 {
        let mut daemon = once.start("one", &format!("round-{round}"));
        for _ in 0..4 {
            once.produce(500);
        }
        // Somewhere amid its transactions: as soon as it has consumed some of these records.
        wait_consumed(&daemon);
        daemon.signal("KILL");
        daemon.wait_exit(Duration::from_secs(10));
    }
    let mut last = once.start("one", "last");
    once.assert_each_once();
    last.stop();
    once.assert_each_once();
}

#[test]
fn fs_38_two_processes_of_one_name_end_with_one_that_says_it_is_fenced() {
    let Some(mut once) = Once::new("name", 8_000) else {
        return;
    };
    let mut first = once.start("same", "first");
    once.produce(100);
    once.assert_each_once();
    let second = once.start("same", "second");
    // The first one hears of it with its next transaction.
    eventually("the first one is fenced", PATIENCE, || {
        once.produce(20);
        first.log().contains("fenced").then_some(())
    });
    assert_eq!(first.wait_exit(Duration::from_secs(20)).code(), Some(1));
    once.assert_each_once();
    assert!(!second.log().contains("fenced"));
}

#[test]
fn fs_32_a_zombie_ends_with_a_clear_message_and_nothing_of_it_is_seen() {
    const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
    // Kafka's default; the broker of these tests looks more often.
    const CLEANUP_INTERVAL: Duration = Duration::from_secs(10);
    // What a busy machine takes for the rest: starting a process, the output itself.
    const SLACK: Duration = Duration::from_secs(10);
    let Some(mut once) = Once::new("zombie", 8_000) else {
        return;
    };
    let mut zombie = once.start("zombie", "zombie");
    once.produce(1_000);
    wait_consumed(&zombie);
    zombie.signal("STOP");
    let stopped = Clock::mono();
    once.produce(1_000);
    let _heir = once.start("heir", "heir");
    once.assert_each_once();
    // The transaction that the zombie left open is ended by the coordinator, and nothing else is waited for.
    let blocked = Clock::mono().since(stopped);
    eprintln!("all output is seen {blocked:?} after the process stood still");
    let bound = TRANSACTION_TIMEOUT + CLEANUP_INTERVAL;
    assert!(blocked < bound + SLACK, "{blocked:?}");
    zombie.signal("CONT");
    assert_eq!(zombie.wait_exit(Duration::from_secs(30)).code(), Some(1));
    assert!(zombie.log().contains("stood still"), "{}", zombie.log());
    once.produce(100);
    once.assert_each_once();
}

#[test]
fn fs_13_fs_39_members_that_come_and_go_amid_transactions_double_and_lose_nothing() {
    let Some(mut once) = Once::new("members", 8_000) else {
        return;
    };
    let first = once.start("first", "first");
    once.produce(500);
    wait_consumed(&first);
    for round in 0..4 {
        let mut second = once.start("second", &format!("second-{round}"));
        // It has a partition, and transactions of its own.
        eventually("the second one commits", PATIENCE, || {
            once.produce(50);
            (committed(&second) > 0.0).then_some(())
        });
        once.produce(500);
        if round % 2 == 0 {
            second.stop();
        } else {
            second.signal("KILL");
            second.wait_exit(Duration::from_secs(10));
        }
        once.produce(500);
    }
    once.assert_each_once();
    // With nothing to write there is nothing to commit (FS-39).
    let before = eventually("the transactions have ended", PATIENCE, || {
        let in_flight = first.metric("ringfence_records_in_flight", "")?;
        (in_flight == 0.0).then(|| committed(&first))
    });
    let rounds = |daemon: &Daemon| {
        daemon
            .metric("ringfence_as_of_timestamp_seconds", "")
            .unwrap_or(0.0)
    };
    let begun = rounds(&first);
    eventually("three seconds of it pass", PATIENCE, || {
        (rounds(&first) > begun + 3.0).then_some(())
    });
    assert!(committed(&first) <= before + 1.0, "no empty transactions");
}

#[test]
fn fs_33_fs_34_a_coordinator_that_freezes_or_is_killed_amid_transactions_costs_time_only() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let mut once = Once::on(cluster.address(), "coordinator", 8_000);
    let daemon = once.start("one", "one");
    for round in 0..3 {
        once.produce(1_000);
        let before = committed(&daemon);
        eventually("it commits", PATIENCE, || {
            (committed(&daemon) > before).then_some(())
        });
        // Some transaction is open or ends just now: its call gets no answer for longer than it waits (FS-33).
        cluster.signal(1, "STOP");
        eventually("nothing is answered for seconds", PATIENCE, || {
            let as_of = daemon.metric("ringfence_as_of_timestamp_seconds", "")?;
            (wall_ms() as f64 / 1e3 > as_of + 4.0).then_some(())
        });
        cluster.signal(1, "CONT");
        once.produce(500);
        if round > 0 {
            // The answer to a commit may be lost for good (FS-34).
            cluster.signal(1, "KILL");
            cluster.up();
        }
    }
    once.produce(500);
    once.assert_each_once();
}

#[test]
fn fs_35_a_transaction_that_the_coordinator_gave_up_is_read_again_by_the_same_process() {
    let Some(mut once) = Once::new("expired", 2_000) else {
        return;
    };
    let mut daemon = once.stage.daemon_with(
        "one",
        &[
            "delivery.instance=one",
            "kafka.consumer.session.timeout.ms=60000",
        ],
    );
    daemon.wait_ready();
    // Until it stands still with a transaction open.
    eventually("a transaction is open", PATIENCE, || {
        once.produce(500);
        daemon.signal("STOP");
        let is_open = once.has_open_transaction();
        if !is_open {
            daemon.signal("CONT");
        }
        is_open.then_some(())
    });
    eventually("the coordinator has ended it", PATIENCE, || {
        (!once.has_open_transaction()).then_some(())
    });
    daemon.signal("CONT");
    once.produce(1_000);
    once.assert_each_once();
    daemon.stop();
    assert!(daemon.log().contains("it is made anew"), "{}", daemon.log());
}

#[test]
fn fs_41_a_record_that_the_broker_refuses_is_dead_lettered_and_the_others_are_seen_once() {
    let Some(mut once) = Once::new("large", 8_000) else {
        return;
    };
    let daemon = once.start("one", "one");
    once.produce(100);
    once.assert_each_once();
    // Lowered behind the daemon's back: what it measured at its start lets the record through.
    once.set_of_enriched("max.message.bytes", "20000");
    once.stage
        .write("telemetry", [(Some(0), "v".to_owned(), large_event())]);
    once.written += 1;
    once.produce(99);
    once.assert_each_once();
    assert!(
        once.sources_of("dead").contains(&(0, 50)),
        "the refused record is a dead letter"
    );
    assert!(daemon.metric("ringfence_transactions_total", "aborted") > Some(0.0));
}
