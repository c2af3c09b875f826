//! Where a test of whole processes on a real Kafka plays: topics, a group, a folder and a configuration file of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::kafka::admin::{Admin, End, TopicSpec};
use ringfence::kafka::client::Settings;
use ringfence::kafka::reader::TopicReader;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use serde_json::Value;

use super::daemon::{Daemon, binary, eventually, ringfence, ringfence_ok, signal};
use super::kafka::bootstrap;

/// The real cluster may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A record as a test looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Empty where it is null, too.
    pub(crate) value: Vec<u8>,
    pub(crate) is_null: bool,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Record {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Topics and a group of one test; the topics are deleted when it ends.
pub(crate) struct Stage {
    pub(crate) admin: Admin,
    pub(crate) config: PathBuf,
    settings: Settings,
    folder: tempfile::TempDir,
    name: String,
    created: RefCell<Vec<String>>,
}

impl Stage {
    /// On the shared Kafka; `None` = there is none. `extra` is added to the configuration file.
    pub(crate) fn new(name: &str, extra: &str) -> Option<Self> {
        bootstrap().map(|address| Self::on(address, name, extra))
    }

    /// On the Kafka at this address.
    pub(crate) fn on(address: &str, name: &str, extra: &str) -> Self {
        let consumer = "\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"\n";
        Self::with_consumer(address, name, consumer, extra)
    }

    /// On the Kafka at this address, with these lines of `[kafka.consumer]`.
    pub(crate) fn with_consumer(address: &str, name: &str, consumer: &str, extra: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = format!("{name}-{}", std::process::id());
        let config = folder.path().join("ringfence.toml");
        let text = format!(
            "[kafka]\n\"bootstrap.servers\" = \"{address}\"\n\"group.id\" = \"{name}\"\n\n[kafka.consumer]\n{consumer}\n\
             [telemetry]\ntopic = \"{name}.telemetry\"\n\n[zones]\ntopic = \"{name}.zones\"\n\n\
             [enriched]\ntopic = \"{name}.enriched\"\n\n[dead_letter]\ntopic = \"{name}.dead\"\n\n\
             [workers]\ncount = 1\n\n[shutdown]\ndrain_timeout_ms = 5_000\n\n{extra}\n",
        );
        std::fs::write(&config, text).expect("the folder is writable");
        let settings = Settings::new(address, &name);
        let admin = Admin::new(&settings, Duration::from_secs(20)).expect("plain settings");
        let created = ["telemetry", "zones", "enriched", "dead"]
            .map(|topic| format!("{name}.{topic}"))
            .into();
        Self {
            admin,
            config,
            settings,
            folder,
            name,
            created: RefCell::new(created),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The group that its configuration names.
    pub(crate) fn group(&self) -> &str {
        &self.name
    }

    pub(crate) fn topic(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    /// Makes a topic as a test needs it, without replicas.
    pub(crate) fn create(&self, suffix: &str, partitions: i32, properties: &[(&str, &str)]) {
        self.create_replicated(suffix, partitions, 1, properties);
    }

    /// Makes a topic with replicas.
    pub(crate) fn create_replicated(
        &self,
        suffix: &str,
        partitions: i32,
        replication: i32,
        properties: &[(&str, &str)],
    ) {
        let name = self.topic(suffix);
        let properties = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let spec = TopicSpec {
            name: name.clone(),
            partitions,
            replication: Some(replication),
            properties,
        };
        self.admin
            .create_topic(&spec, false)
            .expect("the topic is created");
        self.created.borrow_mut().push(name);
    }

    /// `topics create`, with 4 zone partitions.
    pub(crate) fn create_topics(&self, partitions: i32, more: &[&str]) {
        let partitions = partitions.to_string();
        let mut arguments = vec!["topics", "create", "--zone-partitions", "4"];
        arguments.extend(["--partitions", &partitions]);
        arguments.extend(more);
        // A broker that a machine full of tests starves answers too late for the command; a topic that is there stays.
        let is_done = |_| ringfence(&self.config, &arguments).status.success();
        if !(0..2).any(is_done) {
            ringfence_ok(&self.config, &arguments);
        }
    }

    /// Starts `ringfence run`.
    pub(crate) fn daemon(&self, name: &str) -> Daemon {
        self.daemon_with(name, &[])
    }

    /// Starts `ringfence run` with other values for some keys (`key=value`).
    pub(crate) fn daemon_with(&self, name: &str, values: &[&str]) -> Daemon {
        Daemon::start_with(&self.config, self.path(), name, values)
    }

    /// The same, with more in its environment.
    pub(crate) fn daemon_in(
        &self,
        name: &str,
        values: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Daemon {
        Daemon::start_in(&self.config, self.path(), name, values, environment)
    }

    /// Starts a command beside the test, with a report as JSON.
    pub(crate) fn beside(&self, command: &str, arguments: &[&str]) -> Beside {
        let file = |name: String| {
            let path = self.path().join(name);
            let file = std::fs::File::create(&path).expect("the folder is writable");
            (file, path)
        };
        let (out, report) = file(format!("{command}.json"));
        let (err, log) = file(format!("{command}.log"));
        let child = Command::new(binary())
            .arg("-c")
            .arg(&self.config)
            .args(["--json", command])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary starts");
        Beside { child, report, log }
    }

    /// What `verify` says, with these arguments; it may have found something.
    pub(crate) fn verify(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = ["--json", "verify"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let output = ringfence(&self.config, &arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| {
            panic!(
                "{why}: {}\n{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Writes records (partition or by key; key; value) and waits until the cluster has them.
    pub(crate) fn write(
        &self,
        suffix: &str,
        records: impl IntoIterator<Item = (Option<i32>, String, String)>,
    ) {
        let topic = self.topic(suffix);
        let writer = TopicWriter::new(&self.settings).expect("plain settings");
        let (mut sent, mut acknowledged) = (0, 0);
        let mut receipt = || {
            let receipt = writer.receipt(PATIENCE).expect("acknowledged");
            receipt.outcome.expect("written");
            acknowledged += 1;
            acknowledged
        };
        for (partition, key, value) in records {
            let record = Outgoing {
                topic: &topic,
                partition: partition.map(PartitionId),
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..Outgoing::default()
            };
            while !writer
                .send(&record, sent)
                .expect("a record that can be sent")
            {
                receipt();
            }
            sent += 1;
        }
        while sent > 0 && receipt() < sent {}
    }

    /// All that a topic holds now, per partition in order.
    pub(crate) fn read(&self, suffix: &str) -> Vec<Record> {
        let mut records = Vec::new();
        let topic = self.topic(suffix);
        let reader = TopicReader::all(&self.settings, &self.admin, &topic).expect("a topic");
        reader
            .read_all(PATIENCE, |record| {
                let text = |value: Option<&[u8]>| {
                    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
                };
                records.push(Record {
                    value: record.value.unwrap_or_default().to_vec(),
                    is_null: record.value.is_none(),
                    headers: record
                        .headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), text(*value)))
                        .collect(),
                });
            })
            .expect("the topic can be read");
        records
    }

    /// How many offsets of a topic's partitions hold no record any more: what compaction took.
    pub(crate) fn gaps(&self, suffix: &str) -> i64 {
        let topic = self.topic(suffix);
        let ids = self.admin.existing(&topic).expect("a topic").ids();
        let ranges = self.admin.offsets(&topic, &ids, End::Stable).expect("ends");
        let offsets: i64 = ranges.iter().map(|(_, range)| range.to.0).sum();
        let (mut records, reader) = (
            0,
            TopicReader::ranges(&self.settings, &topic, &ranges).expect("a topic"),
        );
        reader
            .read_all(PATIENCE, |_| records += 1)
            .expect("the topic can be read");
        offsets - records
    }

    /// Waits until this configuration's group has committed the telemetry topic to its ends.
    pub(crate) fn wait_committed(&self, group: &str, limit: Duration) {
        eventually("the group has committed to the ends", limit, || {
            self.has_committed(group).then_some(())
        });
    }

    /// Whether the group has committed the telemetry topic to its ends; an answer that does not come is a no.
    pub(crate) fn has_committed(&self, group: &str) -> bool {
        let settings = Settings::new(&self.settings.common["bootstrap.servers"], group);
        let admin = Admin::new(&settings, Duration::from_secs(20)).expect("plain settings");
        let topic = self.topic("telemetry");
        let ask = || {
            let ids = admin.existing(&topic).ok()?.ids();
            let committed: BTreeMap<_, _> =
                admin.committed(&topic, &ids).ok()?.into_iter().collect();
            let ends = admin.offsets(&topic, &ids, End::Stable).ok()?;
            Some(ends.iter().all(|(id, range)| {
                range.to.0 == 0 || committed.get(id).copied().flatten() == Some(range.to)
            }))
        };
        ask() == Some(true)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for topic in self.created.borrow().iter() {
            drop(self.admin.delete_topic(topic));
        }
    }
}

/// Writes so many events of now, over two partitions.
pub(crate) fn write_events(settings: &Settings, topic: &str, count: usize) {
    let writer = TopicWriter::new(settings).unwrap();
    let now = Clock::wall().millis();
    for number in 0..count {
        let value = format!(r#"{{"id":"v","ts":{now},"lat":0.5,"lon":0.5,"n":{number}}}"#);
        let event = Outgoing {
            topic,
            partition: Some(PartitionId((number % 2) as i32)),
            value: Some(value.as_bytes()),
            ..Outgoing::default()
        };
        assert!(writer.send(&event, number).unwrap());
    }
    for _ in 0..count {
        assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
    }
}

/// A command that runs beside the test; killed when dropped.
pub(crate) struct Beside {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Beside {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last whole line that it has reported so far, and how many those are.
    pub(crate) fn reported(&self) -> Option<(usize, Value)> {
        let text = std::fs::read_to_string(&self.report).unwrap_or_default();
        let whole = &text[..=text.rfind('\n')?];
        let last = serde_json::from_str(whole.lines().last()?).expect("reports are JSON");
        Some((whole.lines().count(), last))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end; gives its exit and its report.
    pub(crate) fn wait(&mut self, limit: Duration) -> (ExitStatus, Value) {
        let status = eventually("the command beside ends", limit, || {
            self.child.try_wait().expect("the child can be waited for")
        });
        let report = self.reported();
        let (_, report) = report.unwrap_or_else(|| panic!("{status}: {}", self.log()));
        (status, report)
    }

    /// Waits for its end, which must be a good one; gives its report.
    pub(crate) fn wait_ok(&mut self, limit: Duration) -> Value {
        let (status, report) = self.wait(limit);
        assert!(status.success(), "{status}: {report:#} {}", self.log());
        report
    }

    /// Waits for the end of `simulate`, which must have written all it meant to; gives its summary. On a busy machine a
    /// change may come later than the instant it names: it says so, and is excused by the audit.
    pub(crate) fn wait_written(&mut self, limit: Duration) -> Value {
        let (status, summary) = self.wait(limit);
        let clipped = summary["clipped"].as_u64().expect("a count");
        assert_eq!(summary["failed"], 0, "{summary}");
        assert_eq!(status.code(), Some(i32::from(clipped > 0)), "{summary}");
        summary
    }

    /// Asks it to end by SIGTERM.
    pub(crate) fn stop(&self) {
        signal(self.child.id(), "TERM");
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
