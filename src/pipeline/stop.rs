//! Why a worker must stop: it met what it can neither write nor commit past.

use std::fmt;

use crate::partition::RecordPosition;
use crate::rejection::Rejection;

/// What made the engine stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A record is to be dead-lettered and there is no dead-letter topic.
    NoDeadLetterTopic(Rejection),
    /// An output was not delivered, and the client has given up on it.
    DeliveryFailed,
    /// The broker refused an output as too large, although it is within the limit that was read at start.
    RefusedAsTooLarge,
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
            StopReason::RefusedAsTooLarge => write!(
                f,
                "the output of telemetry record {position} was refused as too large: the topic's \
                 `max.message.bytes` was lowered, a restart reads it again"
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
