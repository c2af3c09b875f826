//! The producer of a worker: records go in with their tokens, acknowledgements come back through a bounded queue.
//!
//! Delivery reports are served by librdkafka's own polling thread (RDKAFKA 7: the quickest safe way), which only pushes
//! `(token, result)`; the worker's thread does all the accounting.
//!
//! Order beyond a refused batch (I8) rests on two things: `enable.gapless.guarantee` lets the client give up at the gap
//! instead of numbering what follows anew, and the broker refuses what is under way already, as its sequence number does
//! not follow. The broker can do so only once it knows the producer: so of each partition the first record goes alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::pipeline::{AckResult, Refusal, Sink};
use crate::time::EventTime;

/// An acknowledgement: of which output, and how it went.
pub type Ack = (Token, AckResult);

pub(super) struct Reports {
    logged: Logged,
    acks: Arc<ArrayQueue<Ack>>,
    undelivered: FirstUndelivered,
    end_to_end: ::metrics::Histogram,
}

/// An output that the client gave up on, or never took.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) token: Token,
    pub(super) topic: String,
    pub(super) error: KafkaError,
}

/// The first one since it was last asked for: what follows it fails for its sake.
type FirstUndelivered = Arc<Mutex<Option<Undelivered>>>;

fn note(first: &FirstUndelivered, token: Token, topic: &str, error: &KafkaError) {
    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
    first.get_or_insert_with(|| Undelivered {
        token,
        topic: topic.to_owned(),
        error: error.clone(),
    });
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
            Err((error, message)) => {
                let result = classify(error);
                // The engine only hears that it failed; a purge is our own doing.
                if !is_purge(error) {
                    let what =
                        format!("a record for topic `{}` was not delivered", message.topic());
                    self.logged.error(error.clone(), &what);
                }
                if result == AckResult::Failed {
                    note(
                        &self.undelivered,
                        Token::from_raw(token),
                        message.topic(),
                        error,
                    );
                }
                result
            }
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

fn is_purge(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
    )
}

/// What an error of a delivery means. The client retries what is worth it without end (`message.timeout.ms = 0`), so
/// whatever comes here is final.
fn classify(error: &KafkaError) -> AckResult {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => {
            AckResult::Refused(Refusal::TooLarge)
        }
        // Brokers before 2.4 say `InvalidMessage` where later ones say `InvalidRecord`.
        Some(Code::InvalidTimestamp | Code::InvalidRecord | Code::InvalidMessage) => {
            AckResult::Refused(Refusal::Invalid)
        }
        // The producer itself has failed, or was given up at a gap.
        Some(
            Code::PurgeQueue
            | Code::PurgeInflight
            | Code::Fatal
            | Code::GaplessGuarantee
            | Code::OutOfOrderSequenceNumber
            | Code::InvalidProducerEpoch
            | Code::UnknownProducerId,
        ) => AckResult::Abandoned,
        _ => AckResult::Failed,
    }
}

/// What it means that the client did not take an output. Once an output of a transaction has failed the client takes no
/// more of it, so that says nothing of this one (`State`); elsewhere it is an error of ours.
fn not_taken(error: &KafkaError, sending: SendMode) -> AckResult {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::State) if sending == SendMode::Transactions => AckResult::Abandoned,
        _ => classify(error),
    }
}

/// A record in a lane that is not open yet.
struct Waiting {
    token: Token,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    timestamp: Option<EventTime>,
    headers: Option<OwnedHeaders>,
}

/// The way to one partition of the enriched topic.
#[derive(Default)]
enum Lane {
    /// Nothing was sent.
    #[default]
    Closed,
    /// The broker does not know this producer there: its first record is under way, the others wait for its answer.
    Opening(Token, VecDeque<Waiting>),
    Open,
}

/// What keeps the order behind a refusal (I8).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum SendMode {
    /// The producer gives up at the gap.
    Batches,
    /// Nothing is ever under way behind a record.
    OneByOne,
    /// The transaction is aborted, all of it.
    Transactions,
}

/// The outputs of one worker.
pub struct Outbox {
    producer: ThreadedProducer<Reports>,
    acks: Arc<ArrayQueue<Ack>>,
    undelivered: FirstUndelivered,
    batches: ClientConfig,
    enriched_topic: String,
    dead_letter_topic: Option<String>,
    sending: SendMode,
    lanes: Vec<Lane>,
    /// How many lanes are opening; with none nothing is looked up per acknowledgement.
    opening: usize,
    /// Acknowledgements that are not the client's: of what it never got.
    own_acks: VecDeque<Ack>,
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
        let mut batches = config.clone();
        let sending = if config.get("transactional.id").is_some() {
            // A gap would be fatal to the producer, where an abort mends it.
            SendMode::Transactions
        } else {
            batches.set("enable.gapless.guarantee", "true");
            SendMode::Batches
        };
        let undelivered = FirstUndelivered::default();
        Ok(Self {
            producer: producer(&batches, &acks, &undelivered)?,
            acks,
            undelivered,
            batches,
            enriched_topic: enriched_topic.to_owned(),
            dead_letter_topic: dead_letter_topic.map(str::to_owned),
            sending,
            lanes: Vec::new(),
            opening: 0,
            own_acks: VecDeque::new(),
            refused: None,
        })
    }

    /// Gives up what is in flight, and goes on with a producer that sends each record in a request of its own, one
    /// request at a time. A refusal is then of that record alone, and what follows it goes on.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn send_one_by_one(&mut self) -> Result<(), EdgeError> {
        let mut config = self.batches.clone();
        config
            .set("enable.gapless.guarantee", "false")
            .set("batch.num.messages", "1")
            .set("max.in.flight.requests.per.connection", "1");
        self.sending = SendMode::OneByOne;
        self.start_again(&config)
    }

    /// Goes on with a producer that sends batches.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn send_batches(&mut self) -> Result<(), EdgeError> {
        let config = self.batches.clone();
        self.sending = SendMode::Batches;
        self.start_again(&config)
    }

    fn start_again(&mut self, config: &ClientConfig) -> Result<(), EdgeError> {
        self.purge();
        self.producer = producer(config, &self.acks, &self.undelivered)?;
        self.lanes.clear();
        self.opening = 0;
        Ok(())
    }

    /// The producer, for its transactions.
    pub(super) fn producer(&self) -> &ThreadedProducer<Reports> {
        &self.producer
    }

    /// Outputs that the client has and has not reported on.
    pub(super) fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// The next acknowledgement at hand.
    pub fn ack(&mut self) -> Option<Ack> {
        let ack = self.own_acks.pop_front().or_else(|| self.acks.pop())?;
        if self.opening > 0 {
            self.open_lane(ack);
        }
        Some(ack)
    }

    /// Whatever the answer to a lane's first record is, the broker has given it: the others follow.
    fn open_lane(&mut self, (token, result): Ack) {
        let of_first = |lane: &Lane| matches!(lane, Lane::Opening(first, _) if *first == token);
        let Some(place) = self.lanes.iter().position(of_first) else {
            return;
        };
        let partition = PartitionId(i32::try_from(place).expect("a partition number"));
        let lane = std::mem::replace(&mut self.lanes[place], Lane::Open);
        self.opening -= 1;
        let Lane::Opening(_, waiting) = lane else {
            unreachable!("it was just seen");
        };
        let topic = std::mem::take(&mut self.enriched_topic);
        for one in waiting {
            if result == AckResult::Delivered {
                self.send(record(
                    &topic,
                    one.token,
                    Some(partition),
                    one.key.as_deref(),
                    one.value.as_deref(),
                    one.timestamp,
                    one.headers,
                ));
            } else {
                // The producer has given up: they must not pass the gap.
                self.own_acks.push_back((one.token, AckResult::Abandoned));
            }
        }
        self.enriched_topic = topic;
    }

    /// Why an output could not even be queued, if one could not.
    pub fn take_refusal(&mut self) -> Option<EdgeError> {
        self.refused.take()
    }

    /// The first output that failed since this was last asked, for the reason of a broken transaction.
    pub(super) fn take_undelivered(&self) -> Option<Undelivered> {
        let mut first = self
            .undelivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.take()
    }

    /// Gives up whatever is still in flight: for the end of the process, after the drain.
    pub fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    fn lane(&mut self, partition: PartitionId) -> &mut Lane {
        let place = usize::try_from(partition.0).expect("an output has a partition");
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, Lane::default);
        }
        &mut self.lanes[place]
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
                    let token = Token::from_raw(back.delivery_opaque);
                    let ack = (token, not_taken(&error, self.sending));
                    if ack.1 == AckResult::Failed && self.sending == SendMode::Transactions {
                        // The abort of its transaction says why.
                        note(&self.undelivered, token, back.topic, &error);
                    } else if ack.1 == AckResult::Failed {
                        let doing = format!("write to topic `{}`", back.topic);
                        self.refused.get_or_insert(EdgeError::Cluster {
                            doing,
                            source: error,
                        });
                    }
                    // The engine hears of it as of any other acknowledgement, once it has noted the output as sent.
                    self.own_acks.push_back(ack);
                    return;
                }
            }
        }
    }
}

fn producer(
    config: &ClientConfig,
    acks: &Arc<ArrayQueue<Ack>>,
    undelivered: &FirstUndelivered,
) -> Result<ThreadedProducer<Reports>, EdgeError> {
    let context = Reports {
        logged: Logged::default(),
        acks: Arc::clone(acks),
        undelivered: Arc::clone(undelivered),
        end_to_end: crate::metrics::END_TO_END_LATENCY.histogram(),
    };
    create(config, context)
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
        if self.sending == SendMode::Batches {
            match self.lane(output.partition) {
                Lane::Open => {}
                Lane::Opening(_, waiting) => {
                    waiting.push_back(Waiting {
                        token: output.token,
                        key: output.key.map(Box::from),
                        value: output.value.map(Box::from),
                        timestamp: output.timestamp,
                        headers,
                    });
                    return;
                }
                lane @ Lane::Closed => {
                    *lane = Lane::Opening(output.token, VecDeque::new());
                    self.opening += 1;
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fs_35_what_a_broken_transaction_does_not_take_is_given_up_with_it_and_stops_nothing() {
        let state = KafkaError::MessageProduction(RDKafkaErrorCode::State);
        assert_eq!(
            not_taken(&state, SendMode::Transactions),
            AckResult::Abandoned
        );
        assert_eq!(not_taken(&state, SendMode::Batches), AckResult::Failed);
        let large = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!(
            not_taken(&large, SendMode::Transactions),
            AckResult::Refused(Refusal::TooLarge)
        );
    }
}
