//! librdkafka's embedded mock cluster: for `demo`, and for tests that inject errors.
//!
//! It has CreateTime stamps only, keeps 5 MiB a partition, and knows neither transactions, compaction nor time
//! look-ups (RDKAFKA 9).

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{Producer, ThreadedProducer};

use super::EdgeError;
use super::ffi::{self, MockTuning};

/// A mock cluster that lives as long as this value.
pub struct EmbeddedCluster {
    // Its thread serves the log queue, which would grow for ever otherwise.
    owner: ThreadedProducer<DefaultProducerContext>,
}

impl EmbeddedCluster {
    /// Starts `brokers` mock brokers on ports of their own, tuned so that groups form at once.
    ///
    /// # Errors
    /// Where librdkafka cannot start them.
    pub fn start(brokers: u16) -> Result<Self, EdgeError> {
        let owner = ClientConfig::new()
            .set("test.mock.num.brokers", brokers.to_string())
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Error)
            .create()
            .map_err(EdgeError::cluster("start the mock cluster"))?;
        let cluster = Self { owner };
        cluster.tune(MockTuning::GroupInitialRebalanceDelay(
            Duration::from_millis(100),
        ));
        Ok(cluster)
    }

    /// The safe controls of the cluster: topics, errors, leaders, brokers up and down.
    ///
    /// # Panics
    /// Never: the owner was made with mock brokers.
    #[must_use]
    pub fn controls(&self) -> MockCluster<'_, DefaultProducerContext> {
        self.owner
            .client()
            .mock_cluster()
            .expect("the owner was made with mock brokers")
    }

    /// The address for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap_servers(&self) -> String {
        self.controls().bootstrap_servers()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// Where it exists already.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), EdgeError> {
        self.controls()
            .create_topic(name, partitions, 1)
            .map_err(EdgeError::cluster(format!(
                "create the mock topic `{name}`"
            )))
    }

    /// Sets what the safe controls do not reach.
    pub fn tune(&self, tuning: MockTuning) {
        let tuned = ffi::tune_mock(self.owner.client(), tuning);
        debug_assert!(tuned, "the owner was made with mock brokers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mock_cluster_has_an_address_and_takes_topics() {
        let cluster = EmbeddedCluster::start(2).unwrap();
        assert_eq!(cluster.bootstrap_servers().split(',').count(), 2);
        cluster.create_topic("t", 3).unwrap();
        assert!(cluster.create_topic("t", 3).is_err());
    }
}
