//! What `check` asks beside the topics: what this principal may do, and whether the brokers tell the largest timestamps.
//!
//! What a cluster does not tell is said to be untold, never taken for a yes.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::EdgeError;
use super::client::{Logged, PlainConsumer, Settings, create};
use super::ffi::{AdminQueue, AnswerBody, ListedOffset, OffsetSpec, Operation};
use crate::clock::Clock;
use crate::partition::PartitionId;
use crate::time::EventTime;

/// How long the brokers are given to tell the largest timestamps: at 500 records/s each question is answered with 30 %
/// (DESIGN 4), while a dead replica keeps it unanswered for longer than this.
const LARGEST_WITHIN: Duration = Duration::from_secs(5);
/// Between two questions of one kind.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a principal may do to a topic or with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// These operations; none = not even to describe it.
    Told(Vec<Operation>),
    /// The cluster does not tell: the mock, or brokers before 2.3.
    Untold,
}

/// Whether the brokers tell which record has the largest timestamp (KIP-734).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargestStamps {
    /// Of every partition with records.
    Told,
    /// They cannot look up timestamps.
    Unknown,
    /// Not of these partitions, asked again and again.
    Unanswered(Vec<PartitionId>),
    /// No partition has a record, so it does not show.
    Empty,
}

/// Asks, and waits for each answer.
pub struct Questions {
    queue: AdminQueue<Logged>,
    timeout: Duration,
    next_tag: std::cell::Cell<usize>,
}

impl Questions {
    /// A client with these settings; no answer is waited for longer than `timeout`.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(settings: &Settings, timeout: Duration) -> Result<Self, EdgeError> {
        let client: PlainConsumer = create(&settings.asker(), Logged::default())?;
        Ok(Self {
            queue: AdminQueue::new(Arc::new(client)),
            timeout,
            next_tag: std::cell::Cell::new(0),
        })
    }

    /// What may be done to `topic`.
    ///
    /// # Errors
    /// The topic is not there, or the cluster is in no state to answer.
    pub fn allowed_on_topic(&self, topic: &str) -> Result<Allowed, EdgeError> {
        let answer = self.ask(|queue, timeout, tag| queue.ask_topic(topic, true, timeout, tag));
        let answer = answer.map(|body| match body {
            AnswerBody::Topic(topic) => topic.allowed,
            AnswerBody::Group(_) | AnswerBody::Offsets(_) => None,
        });
        allowed(
            answer,
            &format!("ask for the permissions on topic `{topic}`"),
        )
    }

    /// What may be done with the consumer group `group`.
    ///
    /// # Errors
    /// The cluster is in no state to answer.
    pub fn allowed_on_group(&self, group: &str) -> Result<Allowed, EdgeError> {
        let doing = format!("ask for the permissions on group `{group}`");
        let begun = Clock::mono();
        loop {
            let answer = self.ask(|queue, timeout, tag| queue.ask_group(group, timeout, tag));
            let answer = answer.map(|body| match body {
                AnswerBody::Group(allowed) => allowed,
                AnswerBody::Topic(_) | AnswerBody::Offsets(_) => None,
            });
            match allowed(answer, &doing) {
                // The first question about any group makes the broker load its coordinator.
                Err(error) if error.is_retryable() && Clock::mono().since(begun) < self.timeout => {
                    std::thread::park_timeout(AGAIN_AFTER);
                }
                answer => return answer,
            }
        }
    }

    /// Whether the brokers tell the largest timestamps of these partitions, of which at least one exists.
    ///
    /// # Errors
    /// They answer nothing at all.
    pub fn largest_stamps(
        &self,
        topic: &str,
        partitions: &[PartitionId],
    ) -> Result<LargestStamps, EdgeError> {
        let starts = self.listed(topic, partitions, OffsetSpec::Earliest)?;
        let ends = self.listed(topic, partitions, OffsetSpec::Latest)?;
        let mut open: Vec<PartitionId> = partitions
            .iter()
            .copied()
            .filter(|id| offset_of(&starts, *id) < offset_of(&ends, *id))
            .collect();
        if open.is_empty() {
            return Ok(LargestStamps::Empty);
        }
        // As the daemon finds it out: a cluster that finds no record at or after 1970 looks up no timestamps.
        let first = OffsetSpec::At(EventTime::clamped(0));
        match self.listed(topic, &open, first) {
            Ok(found) if found.iter().any(|listed| matches!(listed.offset, Ok(None))) => {
                return Ok(LargestStamps::Unknown);
            }
            Ok(_) => {}
            Err(error) if is_unsupported(&error) => return Ok(LargestStamps::Unknown),
            Err(error) => return Err(error),
        }
        let begun = Clock::mono();
        loop {
            let largest = self.listed(topic, &open, OffsetSpec::MaxTimestamp)?;
            open.retain(|id| offset_of(&largest, *id).is_none());
            if open.is_empty() {
                return Ok(LargestStamps::Told);
            }
            if Clock::mono().since(begun) >= LARGEST_WITHIN {
                return Ok(LargestStamps::Unanswered(open));
            }
            std::thread::park_timeout(AGAIN_AFTER);
        }
    }

    fn listed(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        spec: OffsetSpec,
    ) -> Result<Vec<ListedOffset>, EdgeError> {
        let doing = || format!("ask for the offsets of topic `{topic}`");
        let answer = self.ask(|queue, timeout, tag| {
            queue.ask_offsets(topic, partitions, spec, timeout, tag);
        });
        match answer {
            Ok(AnswerBody::Offsets(offsets)) => Ok(offsets),
            Ok(AnswerBody::Topic(_) | AnswerBody::Group(_)) => Err(EdgeError::TimedOut(doing())),
            Err(code) => Err(EdgeError::cluster(doing())(KafkaError::Global(code))),
        }
    }

    fn ask(
        &self,
        question: impl FnOnce(&AdminQueue<Logged>, Duration, usize),
    ) -> Result<AnswerBody, RDKafkaErrorCode> {
        let tag = self.next_tag.get();
        self.next_tag.set(tag + 1);
        question(&self.queue, self.timeout, tag);
        // librdkafka answers every question, at the latest that its time is over.
        while let Some(answer) = self.queue.answer(self.timeout + self.timeout) {
            if answer.tag == tag {
                return answer.body;
            }
        }
        Err(RDKafkaErrorCode::OperationTimedOut)
    }
}

fn offset_of(listed: &[ListedOffset], partition: PartitionId) -> Option<crate::partition::Offset> {
    listed
        .iter()
        .find(|one| one.partition == partition)?
        .offset
        .ok()?
}

fn is_unsupported(error: &EdgeError) -> bool {
    matches!(error, EdgeError::Cluster { source, .. } if source.rdkafka_error_code().is_some_and(|code| {
        matches!(code, RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion)
    }))
}

fn allowed(
    answer: Result<Option<Vec<Operation>>, RDKafkaErrorCode>,
    doing: &str,
) -> Result<Allowed, EdgeError> {
    use RDKafkaErrorCode as Code;
    match answer {
        Ok(Some(operations)) => Ok(Allowed::Told(operations)),
        Ok(None)
        | Err(Code::OperationTimedOut | Code::UnsupportedFeature | Code::UnsupportedVersion) => {
            Ok(Allowed::Untold)
        }
        Err(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed,
        ) => Ok(Allowed::Told(Vec::new())),
        // Not `AdminOp`: rdkafka tells no code of that, and whether to ask again hangs on it.
        Err(code) => Err(EdgeError::cluster(doing)(KafkaError::Global(code))),
    }
}
