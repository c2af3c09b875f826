//! The producer of a worker: records go in with their tokens, acknowledgements come back through a bounded queue.
//!
//! Delivery reports are served by librdkafka's own polling thread (RDKAFKA 7: the quickest safe way), which only pushes
//! `(token, result)`; the worker's thread does all the accounting.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::EdgeError;
use super::client::{Logged, create};
use super::writer::owned_headers;
use crate::clock::Clock;
use crate::enriched::{DeadLetter, Output, Token};
use crate::partition::PartitionId;
use crate::pipeline::{AckResult, Sink};
use crate::time::EventTime;

/// An acknowledgement: of which output, and how it went.
pub type Ack = (Token, AckResult);

struct Reports {
    logged: Logged,
    acks: Arc<ArrayQueue<Ack>>,
    end_to_end: ::metrics::Histogram,
}

/// One acknowledgement in so many is timed: a clock read for each would cost more than it tells.
const TIMED_EVERY: usize = 64;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logged.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let result = match result {
            Ok(message) => {
                if token.is_multiple_of(TIMED_EVERY)
                    && let Some(stamped) = super::timestamp_of(message.timestamp()).instant()
                {
                    // `since` is zero for stamps ahead of our clock.
                    self.end_to_end
                        .record(Clock::wall().since(stamped).as_secs_f64());
                }
                AckResult::Delivered
            }
            Err((error, _)) => classify(error),
        };
        let mut ack = (Token::from_raw(token), result);
        // Twice the bound of what is in flight fits, so it is full only while the worker does not turn: wait for it,
        // as an acknowledgement that is lost would stop the commits of its partition for ever.
        while let Err(back) = self.acks.push(ack) {
            ack = back;
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// What an error of a delivery means. The client retries what is worth it without end (`message.timeout.ms = 0`), so
/// whatever comes here is final.
fn classify(error: &KafkaError) -> AckResult {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => AckResult::TooLarge,
        _ => AckResult::Failed,
    }
}

/// The outputs of one worker.
pub struct Outbox {
    producer: ThreadedProducer<Reports>,
    acks: Arc<ArrayQueue<Ack>>,
    enriched_topic: String,
    dead_letter_topic: Option<String>,
    /// The first record that the client refused to take, with why: the worker stops.
    refused: Option<EdgeError>,
}

impl Outbox {
    /// A producer with these settings for the two topics; at most `in_flight_max` outputs are in flight.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(
        config: &ClientConfig,
        in_flight_max: usize,
        enriched_topic: &str,
        dead_letter_topic: Option<&str>,
    ) -> Result<Self, EdgeError> {
        let acks = Arc::new(ArrayQueue::new(in_flight_max.saturating_mul(2).max(1_024)));
        let context = Reports {
            logged: Logged::default(),
            acks: Arc::clone(&acks),
            end_to_end: crate::metrics::END_TO_END_LATENCY.histogram(),
        };
        Ok(Self {
            producer: create(config, context)?,
            acks,
            enriched_topic: enriched_topic.to_owned(),
            dead_letter_topic: dead_letter_topic.map(str::to_owned),
            refused: None,
        })
    }

    /// The next acknowledgement at hand.
    #[must_use]
    pub fn ack(&self) -> Option<Ack> {
        self.acks.pop()
    }

    /// Why an output could not even be queued, if one could not.
    pub fn take_refusal(&mut self) -> Option<EdgeError> {
        self.refused.take()
    }

    /// Gives up whatever is still in flight: for the end of the process, after the drain.
    pub fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    fn send(&mut self, record: BaseRecord<'_, [u8], [u8], usize>) {
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                // The queue takes twice what the pipeline lets in flight; should it be full all the same, the
                // producer's own threads make room. Nothing is dropped, order is kept (FS-40).
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = back;
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err((error, back)) => {
                    let ack = (Token::from_raw(back.delivery_opaque), classify(&error));
                    if ack.1 == AckResult::Failed {
                        let doing = format!("write to topic `{}`", back.topic);
                        self.refused.get_or_insert(EdgeError::Cluster {
                            doing,
                            source: error,
                        });
                    }
                    // The engine hears of it as of any other acknowledgement, once it has noted the output as sent.
                    self.acks.push(ack).ok();
                    return;
                }
            }
        }
    }
}

fn record<'a>(
    topic: &'a str,
    token: Token,
    partition: Option<PartitionId>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    timestamp: Option<EventTime>,
    headers: Option<OwnedHeaders>,
) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut record = BaseRecord::with_opaque_to(topic, token.into_raw());
    record.partition = partition.map(|partition| partition.0);
    record.key = key;
    record.payload = value;
    record.timestamp = timestamp.map(EventTime::millis);
    record.headers = headers;
    record
}

impl Sink for Outbox {
    fn enriched(&mut self, output: Output<'_>) {
        let added = output.added.into_iter().flat_map(|added| added.iter());
        let headers = owned_headers(
            output
                .headers
                .iter()
                .chain(added.map(|(name, value)| (name, Some(value)))),
        );
        let topic = std::mem::take(&mut self.enriched_topic);
        self.send(record(
            &topic,
            output.token,
            Some(output.partition),
            output.key,
            output.value,
            output.timestamp,
            headers,
        ));
        self.enriched_topic = topic;
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        let added = letter.added.iter().map(|(name, value)| (name, Some(value)));
        let headers = owned_headers(letter.headers.iter().chain(added));
        let topic = self
            .dead_letter_topic
            .take()
            .expect("the engine makes no dead letter without a topic for it");
        self.send(record(
            &topic,
            letter.token,
            None,
            letter.key,
            letter.value,
            letter.timestamp,
            headers,
        ));
        self.dead_letter_topic = Some(topic);
    }
}
