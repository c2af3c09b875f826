//! Against a real Kafka: the daemon's own processes, end to end. The address comes from `RINGFENCE_TEST_KAFKA`;
//! without it the tests say so and pass, as `scripts/test` always sets it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ringfence::kafka::admin::{Admin, TopicSpec};
use ringfence::kafka::client::Settings;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;

use crate::support::daemon::{Daemon, eventually};
use crate::support::zones::rectangle;

const LIMIT: Duration = Duration::from_secs(60);

/// Topics and a group of one test; the topics are deleted when it ends.
struct World {
    settings: Settings,
    admin: Admin,
    name: String,
    folder: tempfile::TempDir,
    partitions: i32,
}

impl World {
    fn new(test: &str, partitions: i32) -> Option<Self> {
        let Ok(address) = std::env::var("RINGFENCE_TEST_KAFKA") else {
            println!("RINGFENCE_TEST_KAFKA is not set: not run");
            return None;
        };
        let name = format!("{test}-{}", std::process::id());
        let settings = Settings::new(&address, &name);
        let admin = Admin::new(&settings, Duration::from_secs(20)).unwrap();
        let world = Self {
            settings,
            admin,
            name,
            folder: tempfile::tempdir().unwrap(),
            partitions,
        };
        world.create(
            "zones",
            2,
            &[
                ("cleanup.policy", "compact"),
                ("message.timestamp.type", "LogAppendTime"),
                ("min.compaction.lag.ms", "604800000"),
            ],
        );
        for topic in ["telemetry", "enriched", "dead"] {
            world.create(topic, partitions, &[]);
        }
        Some(world)
    }

    fn create(&self, topic: &str, partitions: i32, properties: &[(&str, &str)]) {
        let properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let spec = TopicSpec {
            name: self.topic(topic),
            partitions,
            replication: Some(1),
            properties,
        };
        self.admin.create_topic(&spec, false).unwrap();
    }

    fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.name)
    }

    fn config(&self) -> PathBuf {
        let path = self.folder.path().join("ringfence.toml");
        let text = format!(
            "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"{}\"\n[telemetry]\ntopic = \"{}\"\n\
             [zones]\ntopic = \"{}\"\n[enriched]\ntopic = \"{}\"\n[dead_letter]\ntopic = \"{}\"\n[workers]\ncount = 1\n",
            self.settings.common["bootstrap.servers"],
            self.name,
            self.topic("telemetry"),
            self.topic("zones"),
            self.topic("enriched"),
            self.topic("dead")
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn daemon(&self, name: &str) -> Daemon {
        Daemon::start(&self.config(), self.folder.path(), name)
    }

    fn write(&self, records: &[(String, i32, String, String)]) {
        let writer = TopicWriter::new(&self.settings).unwrap();
        for (tag, (topic, partition, key, value)) in records.iter().enumerate() {
            let record = Outgoing {
                topic,
                partition: Some(PartitionId(*partition)),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..Outgoing::default()
            };
            assert!(writer.send(&record, tag).unwrap());
        }
        for _ in records {
            assert!(writer.receipt(LIMIT).expect("acknowledged").outcome.is_ok());
        }
    }

    /// One zone, in partition 0: partition 1 never has a record.
    fn zone(&self) {
        self.write(&[(
            self.topic("zones"),
            0,
            "a".into(),
            rectangle("a", 0.0, 0.0, 1.0, 1.0, ""),
        )]);
    }

    /// Events of now, spread over the partitions.
    fn events(&self, numbers: std::ops::Range<usize>) {
        let now = ringfence::clock::Clock::wall().millis();
        let records: Vec<_> = numbers
            .map(|number| {
                let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5,"n":{number}}}"#);
                (
                    self.topic("telemetry"),
                    (number % self.partitions as usize) as i32,
                    "v".to_owned(),
                    value,
                )
            })
            .collect();
        self.write(&records);
    }

    /// The sources of the enriched topic, and how many stand there twice. Every value must name the zone, unflagged.
    fn enriched(&self) -> (BTreeSet<String>, usize) {
        let reader =
            TopicReader::all(&self.settings, &self.admin, &self.topic("enriched")).unwrap();
        let (mut sources, mut twice) = (BTreeSet::new(), 0);
        reader
            .read_all(LIMIT, |record| {
                let value = std::str::from_utf8(record.value.unwrap()).unwrap();
                assert!(value.ends_with(r#","zones":["a"]}"#), "{value}");
                assert!(
                    record
                        .headers
                        .iter()
                        .all(|(name, _)| *name != "ringfence-flags"),
                    "flagged: {:?}",
                    record.headers
                );
                let (_, source) = record
                    .headers
                    .iter()
                    .find(|(name, _)| *name == "ringfence-source")
                    .unwrap();
                twice += usize::from(
                    !sources.insert(String::from_utf8_lossy(source.unwrap()).into_owned()),
                );
            })
            .unwrap();
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

impl Drop for World {
    fn drop(&mut self) {
        for topic in ["zones", "telemetry", "enriched", "dead"] {
            drop(self.admin.delete_topic(&self.topic(topic)));
        }
    }
}

#[test]
fn events_are_enriched_with_a_zone_partition_that_never_had_a_record() {
    let Some(world) = World::new("silent", 4) else {
        return;
    };
    world.zone();
    let mut daemon = world.daemon("one");
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

#[test]
fn one_of_two_processes_killed_loses_nothing() {
    let Some(world) = World::new("kill", 4) else {
        return;
    };
    world.zone();
    let (mut first, mut second) = (world.daemon("one"), world.daemon("two"));
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
    let mut daemon = world.daemon("one");
    daemon.wait_ready();
    world.admin.delete_topic(&world.topic("zones")).unwrap();
    eventually("the topic can be made again", LIMIT, || {
        let spec = TopicSpec {
            name: world.topic("zones"),
            partitions: 2,
            replication: Some(1),
            properties: Vec::new(),
        };
        world.admin.create_topic(&spec, false).ok()
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
    let mut daemon = world.daemon("one");
    daemon.wait_ready();
    world
        .admin
        .set_partition_count(&world.topic("zones"), 3)
        .unwrap();
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
    world.admin.delete_topic(&world.topic("enriched")).unwrap();
    eventually("it is gone", LIMIT, || {
        world
            .admin
            .topic(&world.topic("enriched"))
            .ok()?
            .is_none()
            .then_some(())
    });
    let output = crate::support::daemon::ringfence(
        &world.config(),
        &["--set", "http.listen=127.0.0.1:0", "run"],
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(&world.topic("enriched")) && text.contains("topics create"),
        "{text}"
    );
}
