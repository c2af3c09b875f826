//! Against a real Kafka: the daemon's own processes, end to end, each test one thing of the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use ringfence::kafka::admin::TopicSpec;
use ringfence::partition::{Offset, PartitionId};

use crate::support::daemon::{eventually, ringfence};
use crate::support::stage::Stage;
use crate::support::zones::rectangle;

const LIMIT: Duration = Duration::from_secs(60);

/// A stage with a zones topic of two partitions, and what the tests here write and read.
struct World {
    stage: Stage,
    partitions: i32,
}

impl World {
    fn new(test: &str, partitions: i32) -> Option<Self> {
        let stage = Stage::new(test, "")?;
        stage.create(
            "zones",
            2,
            &[
                ("cleanup.policy", "compact"),
                ("message.timestamp.type", "LogAppendTime"),
                ("min.compaction.lag.ms", "604800000"),
            ],
        );
        for topic in ["telemetry", "enriched", "dead"] {
            stage.create(topic, partitions, &[]);
        }
        Some(Self { stage, partitions })
    }

    /// One zone, in partition 0: partition 1 never has a record.
    fn zone(&self) {
        let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
        self.stage.write("zones", [(Some(0), "a".to_owned(), zone)]);
    }

    /// Events of now, spread over the partitions.
    fn events(&self, numbers: std::ops::Range<usize>) {
        let now = ringfence::clock::Clock::wall().millis();
        let events = numbers.map(|number| {
            let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5,"n":{number}}}"#);
            let partition = (number % self.partitions as usize) as i32;
            (Some(partition), "v".to_owned(), value)
        });
        self.stage.write("telemetry", events);
    }

    /// The sources of the enriched topic, and how many stand there twice. Every value must name the zone, unflagged.
    fn enriched(&self) -> (BTreeSet<String>, usize) {
        let (mut sources, mut twice) = (BTreeSet::new(), 0);
        for record in self.stage.read("enriched") {
            let value = String::from_utf8(record.value.clone()).unwrap();
            assert!(value.ends_with(r#","zones":["a"]}"#), "{value}");
            assert_eq!(record.header("ringfence-flags"), None, "{record:?}");
            let source = record.header("ringfence-source").unwrap();
            twice += usize::from(!sources.insert(source.to_owned()));
        }
        (sources, twice)
    }

    fn wait_enriched(&self, count: usize) -> usize {
        eventually("all events are enriched", LIMIT, || {
            let (sources, twice) = self.enriched();
            (sources.len() >= count).then_some((sources.len(), twice))
        })
        .1
    }
}

#[test]
fn events_are_enriched_with_a_zone_partition_that_never_had_a_record() {
    let Some(world) = World::new("silent", 4) else {
        return;
    };
    world.zone();
    let mut daemon = world.stage.daemon("one");
    daemon.wait_ready();
    // Events from before the floor are flagged `late`: these come after it.
    world.events(0..500);
    assert_eq!(world.wait_enriched(500), 0);
    daemon.signal("TERM");
    let log = eventually("it drains", LIMIT, || {
        Some(daemon.log()).filter(|log| log.contains("drained"))
    });
    assert!(!log.contains("ERROR"), "{log}");
}

/// Where `latest` begins is settled when a partition is first given to anybody, and not again by whoever is next.
#[test]
fn a_start_at_the_log_end_is_kept_over_a_stop_or_kill_before_anything_of_it_is_committed() {
    for (mode, signal) in [
        ("at_least_once", "TERM"),
        ("exactly_once", "TERM"),
        ("at_least_once", "KILL"),
        ("exactly_once", "KILL"),
    ] {
        let Some(world) = World::new(&format!("latest-{mode}-{signal}"), 2) else {
            return;
        };
        world.zone();
        // From before the start: not to be seen.
        world.events(0..10);
        let mode = format!("delivery.mode={mode}");
        let values = [
            "telemetry.start=latest",
            "delivery.instance=one",
            // Nothing is finished before the process ends.
            "gate.max_wait_ms=60000",
            "gate.settle_margin_ms=2000",
            &mode,
        ];
        let mut first = world.stage.daemon_with("first", &values);
        eventually("it has its partitions", LIMIT, || {
            first.log().contains(" assigned partitions=").then_some(())
        });
        let telemetry = world.stage.topic("telemetry");
        eventually("where it begins is committed", LIMIT, || {
            let ids = [PartitionId(0), PartitionId(1)];
            let committed = world.stage.admin.committed(&telemetry, &ids).ok()?;
            let all = committed.iter().all(|(_, at)| *at == Some(Offset(5)));
            all.then_some(())
        });
        world.events(10..20);
        first.signal(signal);
        first.wait_exit(LIMIT);
        world.events(20..30);
        let mut second = world.stage.daemon_with("second", &values);
        second.wait_ready();
        assert_eq!(world.wait_enriched(20), 0, "{mode} {signal}");
        second.stop();
        assert_eq!(world.enriched().0.len(), 20, "{mode} {signal}");
    }
}

#[test]
fn one_of_two_processes_killed_loses_nothing() {
    let Some(world) = World::new("kill", 4) else {
        return;
    };
    world.zone();
    let (mut first, mut second) = (world.stage.daemon("one"), world.stage.daemon("two"));
    first.wait_ready();
    second.wait_ready();
    world.events(0..1_000);
    second.signal("KILL");
    world.events(1_000..2_000);
    world.wait_enriched(2_000);
    assert_eq!(world.enriched().0.len(), 2_000);
}

#[test]
fn fs_63_a_zones_topic_that_is_made_again_stops_the_daemon_and_says_so() {
    let Some(world) = World::new("again", 2) else {
        return;
    };
    world.zone();
    let mut daemon = world.stage.daemon("one");
    daemon.wait_ready();
    let (admin, topic) = (&world.stage.admin, world.stage.topic("zones"));
    admin.delete_topic(&topic).unwrap();
    eventually("the topic can be made again", LIMIT, || {
        let spec = TopicSpec {
            name: topic.clone(),
            partitions: 2,
            replication: Some(1),
            properties: Vec::new(),
        };
        admin.create_topic(&spec, false).ok()
    });
    eventually("the daemon says so", LIMIT, || {
        let log = daemon.log();
        (log.contains("made again") && log.contains("error:")).then_some(())
    });
}

#[test]
fn a_new_zones_partition_is_read_from_its_start() {
    let Some(world) = World::new("grow", 2) else {
        return;
    };
    world.zone();
    let mut daemon = world.stage.daemon("one");
    daemon.wait_ready();
    let topic = world.stage.topic("zones");
    world.stage.admin.set_partition_count(&topic, 3).unwrap();
    eventually("the gate has three partitions and is open", LIMIT, || {
        let status = daemon.status()?;
        let gate = &status["gate"];
        let count = gate["partitions"].as_array()?.len();
        (count == 3 && gate["starting_over"] == false && gate["degraded"] == false).then_some(())
    });
}

#[test]
fn missing_topics_are_named() {
    let Some(world) = World::new("missing", 1) else {
        return;
    };
    let (admin, topic) = (&world.stage.admin, world.stage.topic("enriched"));
    admin.delete_topic(&topic).unwrap();
    eventually("it is gone", LIMIT, || {
        admin.topic(&topic).ok()?.is_none().then_some(())
    });
    let output = ringfence(
        &world.stage.config,
        &["--set", "http.listen=127.0.0.1:0", "run"],
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&topic) && text.contains("topics create"),
        "{text}"
    );
}
