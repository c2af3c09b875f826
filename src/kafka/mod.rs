//! The only home of rdkafka: client settings, readers, producers, the zone reader and the worker loop.
//!
//! It moves bytes and reports events; every decision is the gate's or the pipeline's, whose inputs and effects it
//! translates. Offsets are "the next one to read" from here inwards; rdkafka's own words differ and stay here.

pub mod admin;
mod calls;
pub mod client;
pub mod ends;
pub mod ffi;
mod linger;
pub mod member;
pub mod mock;
pub mod outbox;
pub mod permission;
pub mod reader;
pub mod refusal;
mod transaction;
pub mod worker;
mod worker_error;
mod worker_window;
pub mod writer;
pub mod zones;

use std::fmt;

use rdkafka::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::telemetry::RecordTimestamp;
use crate::time::EventTime;

/// The version of librdkafka, as number and text.
#[must_use]
pub fn version() -> (i32, String) {
    rdkafka::util::get_rdkafka_version()
}

/// What went wrong between us and the cluster.
#[derive(Clone, Debug)]
pub enum EdgeError {
    /// A client could not be made: a property that librdkafka refuses.
    Settings(String),
    /// The topic does not exist.
    NoSuchTopic(String),
    /// The cluster did not do what it was asked to.
    Cluster {
        /// What was asked.
        doing: String,
        /// What came back.
        source: KafkaError,
    },
    /// No answer in time.
    TimedOut(String),
}

impl EdgeError {
    pub(crate) fn cluster(doing: impl Into<String>) -> impl FnOnce(KafkaError) -> Self {
        let doing = doing.into();
        move |source| Self::Cluster { doing, source }
    }

    /// Whether asking again later may do.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Settings(_) => false,
            Self::NoSuchTopic(_) | Self::TimedOut(_) => true,
            Self::Cluster { source, .. } => code_of(source).is_some_and(is_transient),
        }
    }

    /// Whether a topic was to have more replicas than there are brokers.
    #[must_use]
    pub fn lacks_brokers(&self) -> bool {
        matches!(self, Self::Cluster { source, .. } if code_of(source) == Some(RDKafkaErrorCode::InvalidReplicationFactor))
    }

    /// Whether another member of the group has this one's name. That may be another process, or what the coordinator still
    /// holds of this one after an outage in which it was not heard of (KAFKA 0.9).
    #[must_use]
    pub fn is_fenced_member(&self) -> bool {
        matches!(
            self,
            Self::Cluster {
                source: KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId),
                ..
            }
        )
    }

    /// Whether the group does not know this member, or not any more.
    pub(crate) fn is_refused_member(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(self, Self::Cluster { source, .. } if matches!(
            code_of(source),
            Some(
                Code::IllegalGeneration
                    | Code::UnknownMemberId
                    | Code::FencedInstanceId
                    | Code::StaleMemberEpoch
            )
        ))
    }

    /// Whether the group was between two generations, or the client a step behind it: it takes commits again once its
    /// members have joined anew. Not from one whose partitions are lost (FS-14).
    pub(crate) fn is_rebalancing(&self) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(self, Self::Cluster { source, .. }
            if matches!(code_of(source), Some(Code::RebalanceInProgress | Code::IllegalGeneration)))
    }
}

impl fmt::Display for EdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(what) => write!(f, "kafka settings: {what}"),
            Self::NoSuchTopic(topic) => {
                write!(
                    f,
                    "topic `{topic}` does not exist; `ringfence topics create` makes it"
                )
            }
            Self::Cluster { doing, source } => match code_of(source) {
                Some(code) => write!(f, "{doing}: {code}"),
                None => write!(f, "{doing}: {source}"),
            },
            Self::TimedOut(doing) => {
                write!(f, "{doing}: no answer in time; is the cluster reachable?")
            }
        }
    }
}

impl std::error::Error for EdgeError {}

/// Whether an error is the weather of a cluster: brokers away, leaders moving, groups turning.
#[must_use]
pub fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            // The client forgets a broker that the cluster has left out, and the questions that it had for it.
            | Code::DestroyBroker
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::UnknownLeaderEpoch
            | Code::FencedLeaderEpoch
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::KafkaStorageError
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::PollExceeded
            | Code::AssignmentLost
            | Code::NoOffset
    )
}

/// The code of an error. rdkafka tells none of `AdminOp`, and whether to ask again hangs on it.
fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// The timestamp of a record from its milliseconds; one outside the years 0001 to 9999 is as good as none.
fn record_timestamp(
    millis: i64,
    kind: Option<fn(EventTime) -> RecordTimestamp>,
) -> RecordTimestamp {
    match (kind, EventTime::from_millis(millis)) {
        // Kafka writes -1 for "none"; an instant before 1970 is no broker's or client's stamp.
        (Some(kind), Some(instant)) if millis >= 0 => kind(instant),
        _ => RecordTimestamp::Missing,
    }
}

pub(crate) fn timestamp_of(timestamp: Timestamp) -> RecordTimestamp {
    match timestamp {
        Timestamp::NotAvailable => RecordTimestamp::Missing,
        Timestamp::CreateTime(millis) => record_timestamp(millis, Some(RecordTimestamp::Create)),
        Timestamp::LogAppendTime(millis) => {
            record_timestamp(millis, Some(RecordTimestamp::LogAppend))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_a_broken_connection_ended_is_asked_again() {
        let error = |code| EdgeError::cluster("ask")(KafkaError::AdminOp(code));
        assert!(error(RDKafkaErrorCode::BrokerTransportFailure).is_retryable());
        assert!(error(RDKafkaErrorCode::DestroyBroker).is_retryable());
        assert!(!error(RDKafkaErrorCode::TopicAuthorizationFailed).is_retryable());
    }
}
