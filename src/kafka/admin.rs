//! Blocking questions to the cluster: topics, their configuration, their offsets; and making topics.
//!
//! For commands and for the checks before `run`; the running daemon asks without waiting ([`super::ffi::AdminQueue`]).

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as RawOffset, TopicPartitionList};

use super::EdgeError;
use super::client::{Logged, PlainConsumer, Settings, create};
use crate::clock::Clock;
use crate::partition::{Offset, OffsetRange, PartitionId};

/// The partitions of a topic in order, each with its leader's id, if it has one.
pub type Partitions = Vec<(PartitionId, Option<i32>)>;

/// The topic `name` in an answer; `None` where there is none, or one that has no partitions yet.
pub(super) fn topic_in<'m>(
    metadata: &'m Metadata,
    name: &str,
) -> Result<Option<&'m MetadataTopic>, KafkaError> {
    let found = metadata.topics().iter().find(|topic| topic.name() == name);
    match found.and_then(MetadataTopic::error) {
        None => Ok(found.filter(|topic| !topic.partitions().is_empty())),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
    }
}

/// The partitions of a topic.
pub(super) fn partitions_in(topic: &MetadataTopic) -> Partitions {
    let of = |partition: &MetadataPartition| {
        let leader = Some(partition.leader()).filter(|id| *id >= 0);
        (PartitionId(partition.id()), leader)
    };
    let mut partitions: Partitions = topic.partitions().iter().map(of).collect();
    partitions.sort_unstable();
    partitions
}

/// The offset that an answer gives for each of `partitions`; `None` where it says that there is none.
fn offsets_in(
    answer: &TopicPartitionList,
    topic: &str,
    partitions: &[PartitionId],
    doing: &str,
) -> Result<Vec<(PartitionId, Option<Offset>)>, EdgeError> {
    let of = |partition: &PartitionId| {
        let element = answer
            .find_partition(topic, partition.0)
            .ok_or_else(|| EdgeError::TimedOut(doing.to_owned()))?;
        element.error().map_err(EdgeError::cluster(doing))?;
        let offset = match element.offset() {
            RawOffset::Offset(offset) => Some(Offset(offset)),
            _ => None,
        };
        Ok((*partition, offset))
    };
    partitions.iter().map(of).collect()
}

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its partitions in order, each with its leader's id, if it has one.
    pub partitions: Partitions,
    /// The least number of replicas of a partition.
    pub replication: usize,
}

impl Topic {
    /// The ids of its partitions, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<PartitionId> {
        self.partitions.iter().map(|(id, _)| *id).collect()
    }
}

/// One property of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicProperty {
    /// Its value; `None` where the broker keeps it to itself.
    pub value: Option<String>,
    /// Whether it was set for this topic, rather than inherited.
    pub is_set: bool,
}

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: i32,
    /// Its number of replicas; `None` = the broker's default.
    pub replication: Option<i32>,
    /// Its properties.
    pub properties: Vec<(String, String)>,
}

/// Which end of a partition is meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// What `read_committed` consumers may read up to: before the first open transaction.
    Stable,
    /// The log end offset.
    Log,
}

/// Asks the cluster and waits for the answer.
pub struct Admin {
    client: AdminClient<Logged>,
    asker: PlainConsumer,
    member: PlainConsumer,
    timeout: Duration,
    /// Whether the cluster is librdkafka's mock, once known.
    is_embedded: std::cell::OnceCell<bool>,
}

/// How long a cluster may take to tell a topic's configuration.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(3);

impl Admin {
    /// Clients with these settings; no call waits longer than `timeout`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(settings: &Settings, timeout: Duration) -> Result<Self, EdgeError> {
        Ok(Self {
            client: create(&settings.admin(), Logged::default())?,
            asker: create(&settings.asker(), Logged::default())?,
            member: create(&settings.tool_consumer(), Logged::default())?,
            timeout,
            is_embedded: std::cell::OnceCell::new(),
        })
    }

    /// The topic `name`, or `None` where there is none.
    ///
    /// # Errors
    /// No answer, or one that is neither.
    pub fn topic(&self, name: &str) -> Result<Option<Topic>, EdgeError> {
        let doing = || format!("ask for topic `{name}`");
        let metadata = self
            .asker
            .fetch_metadata(Some(name), self.timeout)
            .map_err(EdgeError::cluster(doing()))?;
        // The consumer's own log and error queue is served here, else it grows.
        drop(self.asker.poll(Duration::ZERO));
        let found = topic_in(&metadata, name).map_err(EdgeError::cluster(doing()))?;
        let Some(topic) = found else {
            return Ok(None);
        };
        let replication = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min();
        Ok(Some(Topic {
            partitions: partitions_in(topic),
            replication: replication.unwrap_or(0),
        }))
    }

    /// The topic `name`.
    ///
    /// # Errors
    /// [`EdgeError::NoSuchTopic`], or no answer.
    pub fn existing(&self, name: &str) -> Result<Topic, EdgeError> {
        self.topic(name)?
            .ok_or_else(|| EdgeError::NoSuchTopic(name.to_owned()))
    }

    /// How many brokers the cluster has.
    ///
    /// # Errors
    /// No answer.
    pub fn broker_count(&self) -> Result<usize, EdgeError> {
        let metadata = self
            .asker
            .fetch_metadata(None, self.timeout)
            .map_err(EdgeError::cluster("ask for the brokers"))?;
        Ok(metadata.brokers().len())
    }

    /// Whether the cluster is librdkafka's mock: by its name. That one never compacts, and never says so.
    ///
    /// # Errors
    /// No answer.
    pub fn is_embedded(&self) -> Result<bool, EdgeError> {
        if let Some(known) = self.is_embedded.get() {
            return Ok(*known);
        }
        let id = self.asker.client().fetch_cluster_id(self.timeout);
        let id = id.ok_or_else(|| EdgeError::TimedOut("ask for the cluster's id".to_owned()))?;
        Ok(*self
            .is_embedded
            .get_or_init(|| id.starts_with("mockCluster")))
    }

    /// The properties of a topic by name; `None` where the cluster does not tell (the mock, or no permission).
    ///
    /// # Errors
    /// No answer.
    pub fn properties(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, TopicProperty>>, EdgeError> {
        let doing = format!("ask for the configuration of topic `{name}`");
        let Some(resource) = self.described(ResourceSpecifier::Topic(name), &doing)? else {
            return Ok(None);
        };
        Ok(Some(
            resource
                .entries
                .into_iter()
                .map(|entry| {
                    let is_set = entry.source == rdkafka::admin::ConfigSource::DynamicTopic;
                    (
                        entry.name,
                        TopicProperty {
                            value: entry.value,
                            is_set,
                        },
                    )
                })
                .collect(),
        ))
    }

    /// A property of the brokers, as one of them has it; `None` where the cluster does not tell.
    ///
    /// # Errors
    /// No answer.
    pub fn broker_property(&self, name: &str) -> Result<Option<String>, EdgeError> {
        let doing = "ask for the configuration of a broker";
        let metadata = self
            .asker
            .fetch_metadata(None, self.timeout)
            .map_err(EdgeError::cluster(doing))?;
        let Some(broker) = metadata.brokers().first() else {
            return Ok(None);
        };
        let resource = self.described(ResourceSpecifier::Broker(broker.id()), doing)?;
        let entries = resource.into_iter().flat_map(|resource| resource.entries);
        Ok(entries
            .filter(|entry| entry.name == name)
            .find_map(|entry| entry.value))
    }

    fn described(
        &self,
        what: ResourceSpecifier<'_>,
        doing: &str,
    ) -> Result<Option<ConfigResource>, EdgeError> {
        // librdkafka waits for a broker that knows the question, and no mock does. Of others silence is no answer.
        if self.is_embedded()? {
            return Ok(None);
        }
        let patience = self.timeout.min(DESCRIBE_PATIENCE);
        let options = AdminOptions::new().request_timeout(Some(patience));
        let resource = match wait(self.client.describe_configs(&[what], &options)) {
            Ok(mut answers) => match answers.pop() {
                Some(Ok(resource)) => resource,
                Some(Err(
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed,
                ))
                | None => return Ok(None),
                Some(Err(code)) => {
                    return Err(EdgeError::cluster(doing)(KafkaError::AdminOp(code)));
                }
            },
            Err(error) => return Err(EdgeError::cluster(doing)(error)),
        };
        // Without the permission librdkafka hands out a resource without entries, and no error (seen on Kafka 4.1).
        Ok(Some(resource).filter(|resource| !resource.entries.is_empty()))
    }

    /// Makes a topic; `only_check` asks the cluster whether it would.
    ///
    /// # Errors
    /// What the cluster says against it.
    pub fn create_topic(&self, spec: &TopicSpec, only_check: bool) -> Result<(), EdgeError> {
        let doing = format!("create topic `{}`", spec.name);
        let mut topic = NewTopic::new(
            &spec.name,
            spec.partitions,
            TopicReplication::Fixed(spec.replication.unwrap_or(-1)),
        );
        for (name, value) in &spec.properties {
            topic = topic.set(name, value);
        }
        let options = self
            .options()
            .validate_only(only_check)
            .operation_timeout(Some(self.timeout));
        self.one(&doing, wait(self.client.create_topics(&[topic], &options)))?;
        if !only_check {
            self.await_topic(spec);
        }
        Ok(())
    }

    /// The controller answers before all brokers have heard of a topic: what comes next would be told that there is none.
    fn await_topic(&self, spec: &TopicSpec) {
        let begun = Clock::mono();
        while Clock::mono().since(begun) < self.timeout {
            if let Ok(Some(topic)) = self.topic(&spec.name)
                && i32::try_from(topic.partitions.len()) == Ok(spec.partitions)
            {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// What the cluster says against it.
    pub fn delete_topic(&self, name: &str) -> Result<(), EdgeError> {
        let options = self.options().operation_timeout(Some(self.timeout));
        self.one(
            &format!("delete topic `{name}`"),
            wait(self.client.delete_topics(&[name], &options)),
        )
    }

    /// Raises the number of partitions of a topic.
    ///
    /// # Errors
    /// What the cluster says against it.
    pub fn set_partition_count(&self, name: &str, count: usize) -> Result<(), EdgeError> {
        let partitions = rdkafka::admin::NewPartitions::new(name, count);
        let options = self.options().operation_timeout(Some(self.timeout));
        self.one(
            &format!("give topic `{name}` {count} partitions"),
            wait(self.client.create_partitions(&[partitions], &options)),
        )
    }

    /// What the log of each of `partitions` holds.
    ///
    /// # Errors
    /// No answer for one of them.
    pub fn offsets(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        end: End,
    ) -> Result<Vec<(PartitionId, OffsetRange)>, EdgeError> {
        let client = match end {
            End::Stable => &self.member,
            End::Log => &self.asker,
        };
        let starts = self.listed(client, topic, partitions, RawOffset::Beginning)?;
        let ends = self.listed(client, topic, partitions, RawOffset::End)?;
        Ok(partitions
            .iter()
            .zip(starts.into_iter().zip(ends))
            // Between the two questions retention may have moved the start past the end that was asked for first.
            .map(|(partition, (from, to))| {
                (
                    *partition,
                    OffsetRange {
                        from: from.min(to),
                        to,
                    },
                )
            })
            .collect())
    }

    /// One ListOffsets request to each leader (KAFKA 0.10).
    fn listed(
        &self,
        client: &PlainConsumer,
        topic: &str,
        partitions: &[PartitionId],
        which: RawOffset,
    ) -> Result<Vec<Offset>, EdgeError> {
        let doing = || format!("ask for the offsets of topic `{topic}`");
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic, partition.0, which)
                .map_err(EdgeError::cluster(doing()))?;
        }
        let answer = client
            .offsets_for_times(list, self.timeout)
            .map_err(EdgeError::cluster(doing()))?;
        offsets_in(&answer, topic, partitions, &doing())?
            .into_iter()
            .map(|(_, offset)| offset.ok_or_else(|| EdgeError::TimedOut(doing())))
            .collect()
    }

    /// What the group has committed of each of `partitions`, if anything.
    ///
    /// # Errors
    /// No answer.
    pub fn committed(
        &self,
        topic: &str,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Option<Offset>)>, EdgeError> {
        committed(&self.member, topic, partitions, self.timeout)
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout))
    }

    #[allow(clippy::unused_self)]
    fn one(
        &self,
        doing: &str,
        answer: Result<Vec<rdkafka::admin::TopicResult>, KafkaError>,
    ) -> Result<(), EdgeError> {
        match answer.map_err(EdgeError::cluster(doing))?.pop() {
            Some(Err((_, code))) => Err(EdgeError::cluster(doing)(KafkaError::AdminOp(code))),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// What the group of `consumer` has committed of each of `partitions`, if anything.
pub(crate) fn committed<C: rdkafka::consumer::ConsumerContext>(
    consumer: &rdkafka::consumer::BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
) -> Result<Vec<(PartitionId, Option<Offset>)>, EdgeError> {
    let doing = || format!("ask for the committed offsets of topic `{topic}`");
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(topic, partition.0);
    }
    let answer = consumer
        .committed_offsets(list, timeout)
        .map_err(EdgeError::cluster(doing()))?;
    offsets_in(&answer, topic, partitions, &doing())
}

/// Waits for one of rdkafka's futures, which are completed by a thread of its own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::mock::EmbeddedCluster;

    #[test]
    fn topics_and_their_ends_are_told() {
        let cluster = EmbeddedCluster::start(2).unwrap();
        cluster.create_topic("there", 3).unwrap();
        let admin = Admin::new(
            &Settings::new(&cluster.bootstrap_servers(), "g"),
            Duration::from_secs(10),
        )
        .unwrap();
        let topic = admin.existing("there").unwrap();
        assert_eq!(
            topic.ids(),
            [PartitionId(0), PartitionId(1), PartitionId(2)]
        );
        let nothing = OffsetRange {
            from: Offset(0),
            to: Offset(0),
        };
        for end in [End::Log, End::Stable] {
            let offsets = admin.offsets("there", &topic.ids(), end).unwrap();
            assert_eq!(
                offsets,
                topic
                    .ids()
                    .into_iter()
                    .map(|id| (id, nothing))
                    .collect::<Vec<_>>()
            );
        }
        assert_eq!(
            admin.committed("there", &[PartitionId(1)]).unwrap(),
            [(PartitionId(1), None)]
        );
    }

    #[test]
    fn a_topic_that_is_not_there_is_named() {
        let cluster = EmbeddedCluster::start(1).unwrap();
        let admin = Admin::new(
            &Settings::new(&cluster.bootstrap_servers(), "g"),
            Duration::from_secs(10),
        )
        .unwrap();
        let error = admin.existing("absent").unwrap_err();
        assert!(error.to_string().contains("`absent`"), "{error}");
    }
}
