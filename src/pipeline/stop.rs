//! Why a worker must stop: it met what it can neither write nor commit past.

use std::fmt;

use crate::partition::RecordPosition;
use crate::pipeline::repair::Refusal;
use crate::rejection::Rejection;

/// What made the engine stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A record is to be dead-lettered and there is no dead-letter topic.
    NoDeadLetterTopic(Rejection),
    /// An output was not delivered, and the client has given up on it.
    DeliveryFailed,
    /// The broker refused an output, and its dead letter too, however short.
    Refused(Refusal),
    /// A worker cannot own so many partitions.
    TooManyPartitions,
}

/// Why, and at which telemetry record. It stays uncommitted, so a restart reads it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What happened.
    pub reason: StopReason,
    /// Where.
    pub position: RecordPosition,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position;
        match &self.reason {
            StopReason::NoDeadLetterTopic(rejection) => write!(
                f,
                "telemetry record {position} is invalid ({rejection}) and `dead_letter.topic` is empty: name a topic, \
                 or set `telemetry.on_invalid` to `forward` or `drop`"
            ),
            StopReason::DeliveryFailed => write!(
                f,
                "the output of telemetry record {position} was not delivered"
            ),
            StopReason::Refused(refusal) => write!(
                f,
                "the broker refused the output of telemetry record {position} and its dead letter too ({}): see the \
                 properties of both topics; a restart reads the record again",
                match refusal {
                    Refusal::TooLarge => "`max.message.bytes`",
                    Refusal::Invalid => "its timestamp, or no key on a compacted topic",
                }
            ),
            StopReason::TooManyPartitions => write!(
                f,
                "partition {} is one more than a worker can own ({}): run more workers",
                position.partition,
                crate::enriched::Token::SLOTS
            ),
        }
    }
}
