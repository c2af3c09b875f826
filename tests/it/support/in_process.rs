//! A daemon in the test's own process, on mock brokers whose faults the test controls.

use std::thread::JoinHandle;
use std::time::Duration;

use ringfence::config::Config;
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::partition::PartitionId;
use ringfence::run::{Handle, RunError, run};
use serde_json::Value;

use super::edge::{PATIENCE, wait_for};

/// The daemon and its cluster: topics of the default names, with two partitions each.
pub(crate) struct InProcess {
    pub(crate) handle: Handle,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    // After the thread: a daemon without its cluster drains for long.
    pub(crate) cluster: EmbeddedCluster,
}

/// The topics with their default names.
pub(crate) const TOPICS: [&str; 4] = [
    "telemetry",
    "telemetry.enriched",
    "telemetry.dead-letter",
    "zones",
];

/// Mock brokers with the four topics.
pub(crate) fn cluster(brokers: u16) -> EmbeddedCluster {
    let cluster = EmbeddedCluster::start(brokers).unwrap();
    for topic in TOPICS {
        cluster.create_topic(topic, 2).unwrap();
    }
    cluster
}

impl InProcess {
    /// Starts it; `tune` changes its configuration.
    pub(crate) fn start(cluster: EmbeddedCluster, tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::defaults();
        config
            .kafka
            .set_common("bootstrap.servers", &cluster.bootstrap_servers());
        config.http.listen = "127.0.0.1:0".to_owned();
        config.zones.allow_empty = true;
        config.workers.count = 1;
        config.gate.create_time_margin = Some(Duration::from_millis(250));
        tune(&mut config);
        let handle = Handle::new();
        let running = handle.clone();
        let thread = std::thread::spawn(move || run(&config, &running));
        Self {
            handle,
            thread: Some(thread),
            cluster,
        }
    }

    pub(crate) fn wait_ready(&mut self) {
        let handle = self.handle.clone();
        wait_for("the daemon is ready", || {
            assert!(!self.is_over(), "{:?}", self.take_end());
            handle.is_ready()
        });
    }

    pub(crate) fn status(&self) -> Value {
        self.handle.status().unwrap_or_default()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How it ended; waits for it.
    pub(crate) fn take_end(&mut self) -> Result<(), RunError> {
        self.thread
            .take()
            .expect("asked once")
            .join()
            .expect("the daemon does not panic")
    }

    pub(crate) fn stop(mut self) -> Result<(), RunError> {
        self.handle.stop();
        self.take_end()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.cluster.bootstrap_servers(), "ringfence")
    }

    /// [`write_to`] its cluster.
    pub(crate) fn write<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (i32, &'a str, String)>,
    ) {
        write_to(&self.cluster, topic, records);
    }
}

/// Writes (partition, key, value) to a topic, and waits for the acknowledgements.
pub(crate) fn write_to<'a>(
    cluster: &EmbeddedCluster,
    topic: &str,
    records: impl IntoIterator<Item = (i32, &'a str, String)>,
) {
    let settings = Settings::new(&cluster.bootstrap_servers(), "ringfence");
    let writer = TopicWriter::new(&settings).unwrap();
    let mut sent = 0;
    for (partition, key, value) in records {
        let record = Outgoing {
            topic,
            partition: Some(PartitionId(partition)),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[("source", Some(b"test"))],
            ..Outgoing::default()
        };
        assert!(writer.send(&record, sent).unwrap());
        sent += 1;
    }
    for _ in 0..sent {
        let receipt = writer.receipt(PATIENCE).expect("acknowledged");
        assert!(receipt.outcome.is_ok(), "{receipt:?}");
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
