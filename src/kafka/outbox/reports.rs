//! What comes back from the client: the reports of deliveries, as acknowledgements for the worker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;

use super::Ack;
use crate::clock::Clock;
use crate::enriched::Token;
use crate::kafka::client::Logged;
use crate::kafka::ffi::{Headers, Report, Reports};
use crate::kafka::timestamp_of;
use crate::metrics::OBSERVED_EVERY;
use crate::partition::PartitionId;
use crate::pipeline::{AckResult, Refusal};
use crate::telemetry::RecordTimestamp;

/// An acknowledgement as the client reports it.
pub(super) struct Reported {
    pub(super) ack: Ack,
    pub(super) partition: PartitionId,
    /// The headers that the record had.
    pub(super) headers: Option<Headers>,
}

/// The way of acknowledgements from whoever serves the reports to the engine.
///
/// Bounded by what is in flight, as each output is acknowledged once and counts as in flight until the worker has taken
/// its acknowledgement (I7).
#[derive(Clone, Default)]
pub(super) struct Acks(Arc<Mutex<VecDeque<Reported>>>);

impl Acks {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<Reported>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output that the client gave up on, or never took.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct Undelivered {
    pub(in crate::kafka) token: Token,
    pub(in crate::kafka) topic: String,
    pub(in crate::kafka) error: KafkaError,
}

/// The first one since it was last asked for: what follows it fails for its sake.
#[derive(Clone, Default)]
pub(super) struct FirstUndelivered(Arc<Mutex<Option<Undelivered>>>);

impl FirstUndelivered {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Undelivered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, token: Token, topic: &str, code: RDKafkaErrorCode) {
        self.lock().get_or_insert_with(|| Undelivered {
            token,
            topic: topic.to_owned(),
            error: KafkaError::MessageProduction(code),
        });
    }
}

pub(in crate::kafka) struct Context {
    pub(super) logged: Logged,
    pub(super) acks: Acks,
    pub(super) undelivered: FirstUndelivered,
    pub(super) end_to_end: ::metrics::Histogram,
}

impl Context {
    fn delivered(&self, token: usize, timestamp: impl FnOnce() -> RecordTimestamp) -> Ack {
        if token.is_multiple_of(OBSERVED_EVERY)
            && let Some(stamped) = timestamp().instant()
        {
            // `since` is zero for stamps ahead of our clock.
            self.end_to_end
                .record(Clock::wall().since(stamped).as_secs_f64());
        }
        (Token::from_raw(token), AckResult::Delivered)
    }

    fn not_delivered(&self, token: usize, code: RDKafkaErrorCode, topic: &str) -> Ack {
        // The engine only hears that it failed; a purge is our own doing.
        if !is_purge(code) {
            let what = format!("a record for topic `{topic}` was not delivered");
            self.logged
                .error(KafkaError::MessageProduction(code), &what);
        }
        let ack = (Token::from_raw(token), classify(code));
        if ack.1 == AckResult::Failed {
            self.undelivered.note(ack.0, topic, code);
        }
        ack
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    /// Only while the crate flushes, before a commit and at the producer's end.
    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let (ack, message) = match result {
            Ok(message) => (
                self.delivered(token, || timestamp_of(message.timestamp())),
                message,
            ),
            Err((error, message)) => {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown);
                (self.not_delivered(token, code, message.topic()), message)
            }
        };
        self.acks.lock().push_back(Reported {
            ack,
            partition: PartitionId(message.partition()),
            headers: None,
        });
    }
}

impl Reports for Context {
    fn delivered<'e>(&self, reports: impl ExactSizeIterator<Item = Report<'e>>) {
        let acks = reports.map(|report| Reported {
            ack: match report.error() {
                None => self.delivered(report.opaque(), || report.timestamp()),
                Some(code) => self.not_delivered(report.opaque(), code, &report.topic()),
            },
            partition: report.partition(),
            headers: report.take_headers(),
        });
        self.acks.lock().extend(acks);
    }
}

fn is_purge(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight
    )
}

/// What an error of a delivery means. The client retries what is worth it without end (`message.timeout.ms = 0`), so
/// whatever comes here is final.
pub(super) fn classify(code: RDKafkaErrorCode) -> AckResult {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            AckResult::Refused(Refusal::TooLarge)
        }
        // Brokers before 2.4 say `InvalidMessage` where later ones say `InvalidRecord`.
        Code::InvalidTimestamp | Code::InvalidRecord | Code::InvalidMessage => {
            AckResult::Refused(Refusal::Invalid)
        }
        // The producer itself has failed, or was given up at a gap.
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidProducerEpoch
        | Code::UnknownProducerId => AckResult::Abandoned,
        _ => AckResult::Failed,
    }
}
