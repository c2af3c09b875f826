//! The producer of a worker: records go in with their tokens, acknowledgements come back through a bounded queue.
//!
//! Delivery reports are taken by the worker's thread itself, those of one answer of a broker at once.
//!
//! Order beyond a refused batch (I8) rests on two things: `enable.gapless.guarantee` lets the client give up at the gap
//! instead of numbering what follows anew, and the broker refuses what is under way already, as its sequence number does
//! not follow. The broker can do so only once it knows the producer: so of each partition the first record goes alone.

mod reports;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use self::reports::{Acks, Context, FirstUndelivered, Reported, Undelivered, classify};
use super::EdgeError;
use super::client::{Logged, create};
use super::ffi::{HeaderLists, Headers, Produced, ProducerTopic, ReportingProducer, flush};
use super::linger::{self, Lingering};
use crate::codec::headers::{ALL, USUAL, UsualValues};
use crate::enriched::{DeadLetter, OriginalHeaders, Output, Token};
use crate::partition::PartitionId;
use crate::pipeline::transaction::NextOutputs;
use crate::pipeline::{AckResult, Sink};
use crate::telemetry::HeaderRef;
use crate::time::EventTime;

/// An acknowledgement: of which output, and how it went.
pub type Ack = (Token, AckResult);

/// What it means that the client did not take an output. Once an output of a transaction has failed the client takes no
/// more of it, so that says nothing of this one (`State`); elsewhere it is an error of ours.
fn not_taken(code: RDKafkaErrorCode, sending: SendMode) -> AckResult {
    match code {
        RDKafkaErrorCode::State if sending == SendMode::Transactions => AckResult::Abandoned,
        _ => classify(code),
    }
}

/// A record that cannot be sent yet: in a lane that is not open, or of the next transaction.
struct Waiting {
    to: To,
    partition: Option<PartitionId>,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    timestamp: Option<i64>,
    headers: Option<Headers>,
}

impl Waiting {
    fn new(to: To, record: &Produced<'_>, headers: Option<Headers>) -> Self {
        Self {
            to,
            partition: record.partition,
            key: record.key.map(Box::from),
            value: record.value.map(Box::from),
            timestamp: record.timestamp,
            headers,
        }
    }
}

/// The way to one partition of the enriched topic.
#[derive(Default)]
enum Lane {
    /// Nothing was sent.
    #[default]
    Closed,
    /// The broker does not know this producer there: its first record is under way, the others wait for its answer.
    Opening(Token, VecDeque<(Token, Waiting)>),
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

/// Which topic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum To {
    Enriched,
    DeadLetter,
}

/// A producer and the topics that it writes to, found with the first record for each.
struct Way {
    // Declared, so dropped, before the producer.
    enriched: Option<ProducerTopic<Context>>,
    dead_letter: Option<ProducerTopic<Context>>,
    /// Where the linger is not the client's to time.
    _lingering: Option<Lingering>,
    lists: Lists,
    producer: ReportingProducer<Context>,
}

/// The headers of records of which there is nothing out of the ordinary to say, in either form.
struct Lists {
    several: HeaderLists<{ USUAL.len() }>,
    one: HeaderLists<1>,
}

impl Lists {
    fn new() -> Self {
        Self {
            several: HeaderLists::new(USUAL),
            one: HeaderLists::new([ALL]),
        }
    }

    fn lend(&mut self, partition: PartitionId, opaque: usize, values: UsualValues<'_>) -> Headers {
        match values {
            UsualValues::Several(values) => self.several.lend(partition, opaque, values),
            UsualValues::One(value) => self.one.lend(partition, opaque, value),
        }
    }

    fn give_back(&mut self, partition: PartitionId, opaque: usize, headers: Option<Headers>) {
        // A record's opaque is known to one of the two at most: it was lent one list.
        let left = self.several.give_back(partition, opaque, headers);
        drop(self.one.give_back(partition, opaque, left));
    }

    fn forget_lent(&mut self) {
        self.several.forget_lent();
        self.one.forget_lent();
    }

    fn not_sent(&mut self, partition: PartitionId, opaque: usize) {
        self.several.not_sent(partition, opaque);
        self.one.not_sent(partition, opaque);
    }
}

/// The outputs of one worker.
pub struct Outbox {
    way: Way,
    acks: Acks,
    /// Acknowledgements that were taken from `acks` all at once.
    taken: VecDeque<Reported>,
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
    /// Outputs of the open transaction whose acknowledgements were not taken yet.
    unacknowledged: usize,
    next: NextOutputs<Waiting>,
    /// The first record that the client refused to take, with why: the worker stops.
    refused: Option<EdgeError>,
}

impl Outbox {
    /// A producer with these settings for the two topics.
    ///
    /// # Errors
    /// [`EdgeError::Settings`].
    pub fn new(
        config: &ClientConfig,
        enriched_topic: &str,
        dead_letter_topic: Option<&str>,
    ) -> Result<Self, EdgeError> {
        let acks = Acks::default();
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
            way: Way::new(&batches, &acks, &undelivered)?,
            acks,
            undelivered,
            taken: VecDeque::new(),
            batches,
            enriched_topic: enriched_topic.to_owned(),
            dead_letter_topic: dead_letter_topic.map(str::to_owned),
            sending,
            lanes: Vec::new(),
            opening: 0,
            own_acks: VecDeque::new(),
            unacknowledged: 0,
            next: NextOutputs::default(),
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
        self.way = Way::new(config, &self.acks, &self.undelivered)?;
        self.lanes.clear();
        self.opening = 0;
        Ok(())
    }

    /// The producer, for its transactions.
    pub(super) fn producer(&self) -> &Arc<BaseProducer<Context>> {
        self.way.producer.base()
    }

    /// Outputs of the open transaction that are not acknowledged, or whose acknowledgement was not taken yet: also those of
    /// partitions that were given back since. (Kept for transactions only.)
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// From here on outputs wait for the next transaction: the open one has all of its own.
    pub(super) fn fill_next(&mut self) {
        self.next.fill();
    }

    /// Whether outputs wait for the next transaction.
    pub(super) fn is_filling_next(&self) -> bool {
        self.next.is_filled()
    }

    /// Sends what has waited for the transaction that is open now, as far as its ownership lasts.
    pub(super) fn begin_next(&mut self, is_owned: impl Fn(Token) -> bool) {
        for (token, waiting) in self.next.begin(is_owned) {
            self.unacknowledged += 1;
            self.send_waiting(token, waiting);
        }
    }

    /// Gives up what waits for the next transaction.
    pub(super) fn abort_next(&mut self) {
        self.next.abort();
    }

    /// Takes the reports at hand from the client, which waits for that at an abort.
    pub(super) fn serve(&mut self) {
        self.way.producer.serve();
    }

    /// Waits for acknowledgements, at most so long; what lingers in the client is sent at once.
    pub(super) fn wait(&self, at_most: Duration) {
        if self.producer().in_flight_count() > 0 {
            flush(self.producer(), at_most);
        } else {
            std::thread::park_timeout(at_most);
        }
    }

    /// The next acknowledgement at hand.
    pub fn ack(&mut self) -> Option<Ack> {
        if let Some(ack) = self.own_acks.pop_front() {
            self.acknowledged();
            return Some(ack);
        }
        if self.taken.is_empty() {
            self.way.producer.serve();
            // Two buffers in turn: neither is allocated anew.
            std::mem::swap(&mut self.taken, &mut self.acks.lock());
        }
        let Reported {
            ack,
            partition,
            headers,
        } = self.taken.pop_front()?;
        let opaque = ack.0.into_raw();
        self.way.lists.give_back(partition, opaque, headers);
        self.acknowledged();
        if self.opening > 0 {
            self.open_lane(ack);
        }
        Some(ack)
    }

    fn acknowledged(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        if self.unacknowledged == 0 {
            self.way.lists.forget_lent();
        }
    }

    /// Whatever the answer to a lane's first record is, the broker has given it: the others follow.
    fn open_lane(&mut self, (token, result): Ack) {
        let of_first = |lane: &Lane| matches!(lane, Lane::Opening(first, _) if *first == token);
        let Some(place) = self.lanes.iter().position(of_first) else {
            return;
        };
        let lane = std::mem::replace(&mut self.lanes[place], Lane::Open);
        self.opening -= 1;
        let Lane::Opening(_, waiting) = lane else {
            unreachable!("it was just seen");
        };
        for (token, one) in waiting {
            if result == AckResult::Delivered {
                self.send_waiting(token, one);
            } else {
                // The producer has given up: they must not pass the gap.
                self.own_acks.push_back((token, AckResult::Abandoned));
            }
        }
    }

    fn send_waiting(&mut self, token: Token, waiting: Waiting) {
        let record = Produced {
            opaque: token.into_raw(),
            partition: waiting.partition,
            key: waiting.key.as_deref(),
            value: waiting.value.as_deref(),
            timestamp: waiting.timestamp,
        };
        self.send(waiting.to, &record, waiting.headers);
    }

    /// Why an output could not even be queued, if one could not.
    pub fn take_refusal(&mut self) -> Option<EdgeError> {
        self.refused.take()
    }

    /// The first output that failed since this was last asked, for the reason of a broken transaction.
    pub(super) fn take_undelivered(&self) -> Option<Undelivered> {
        self.undelivered.lock().take()
    }

    /// Gives up whatever is still in flight: for the end of the process, after the drain.
    pub fn purge(&self) {
        self.producer()
            .purge(PurgeConfig::default().queue().inflight());
    }

    fn lane(&mut self, partition: PartitionId) -> &mut Lane {
        let place = usize::try_from(partition.0).expect("an output has a partition");
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, Lane::default);
        }
        &mut self.lanes[place]
    }

    /// To the client, or to those that wait for the next transaction.
    fn hand_over(&mut self, to: To, record: &Produced<'_>, headers: Option<Headers>) {
        if self.next.is_filled() {
            let token = Token::from_raw(record.opaque);
            self.next.push(token, Waiting::new(to, record, headers));
        } else {
            self.unacknowledged += 1;
            self.send(to, record, headers);
        }
    }

    fn send(&mut self, to: To, record: &Produced<'_>, mut headers: Option<Headers>) {
        loop {
            let error = match self.produce(to, record, &mut headers) {
                Ok(()) => return,
                // The queue takes twice what the pipeline lets in flight; should it be full all the same, what is
                // delivered meanwhile makes room. Nothing is dropped, order is kept (FS-40).
                Err(RDKafkaErrorCode::QueueFull) => {
                    self.way.producer.serve();
                    std::thread::park_timeout(Duration::from_millis(1));
                    continue;
                }
                Err(error) => error,
            };
            let token = Token::from_raw(record.opaque);
            let ack = (token, not_taken(error, self.sending));
            if ack.1 == AckResult::Failed && self.sending == SendMode::Transactions {
                // The abort of its transaction says why.
                self.undelivered.note(token, self.topic_name(to), error);
            } else if ack.1 == AckResult::Failed {
                let doing = format!("write to topic `{}`", self.topic_name(to));
                self.refused.get_or_insert(EdgeError::Cluster {
                    doing,
                    source: KafkaError::MessageProduction(error),
                });
            }
            if let Some(partition) = record.partition {
                self.way.lists.not_sent(partition, record.opaque);
            }
            // The engine hears of it as of any other acknowledgement, once it has noted the output as sent.
            self.own_acks.push_back(ack);
            return;
        }
    }

    fn produce(
        &mut self,
        to: To,
        record: &Produced<'_>,
        headers: &mut Option<Headers>,
    ) -> Result<(), RDKafkaErrorCode> {
        let known = match to {
            To::Enriched => &self.way.enriched,
            To::DeadLetter => &self.way.dead_letter,
        };
        if let Some(topic) = known {
            return topic.produce(record, headers);
        }
        let topic = self.way.producer.topic(self.topic_name(to));
        let known = match to {
            To::Enriched => &mut self.way.enriched,
            To::DeadLetter => &mut self.way.dead_letter,
        };
        *known = topic;
        match known {
            Some(topic) => topic.produce(record, headers),
            None => Err(RDKafkaErrorCode::InvalidTopic),
        }
    }

    fn topic_name(&self, to: To) -> &str {
        match to {
            To::Enriched => &self.enriched_topic,
            To::DeadLetter => self
                .dead_letter_topic
                .as_deref()
                .expect("the engine makes no dead letter without a topic for it"),
        }
    }
}

impl Way {
    fn new(
        config: &ClientConfig,
        acks: &Acks,
        undelivered: &FirstUndelivered,
    ) -> Result<Self, EdgeError> {
        let mut config = config.clone();
        let linger = linger::take(&mut config);
        let context = Context {
            logged: Logged::default(),
            acks: acks.clone(),
            undelivered: undelivered.clone(),
            end_to_end: crate::metrics::END_TO_END_LATENCY.histogram(),
        };
        let producer = ReportingProducer::new(create(&config, context)?);
        let start = |linger| Lingering::start(Arc::clone(producer.base()), linger);
        let lingering = linger
            .map(start)
            .transpose()
            .map_err(|error| EdgeError::Settings(format!("no thread for the linger: {error}")))?;
        Ok(Self {
            enriched: None,
            dead_letter: None,
            _lingering: lingering,
            lists: Lists::new(),
            producer,
        })
    }
}

/// The record's own headers, then ours; `None` where there is none, so that records without cost nothing.
fn headers<'a>(
    own: OriginalHeaders<'a>,
    added: impl ExactSizeIterator<Item = HeaderRef<'a>>,
) -> Option<Headers> {
    let count = own.iter().count() + added.len();
    (count > 0).then(|| Headers::new(count, own.iter().chain(added)))
}

/// The headers of an output, in a list of its own.
fn headers_of(output: &Output<'_>) -> Option<Headers> {
    let Some(added) = output.added else {
        return headers(output.headers, std::iter::empty());
    };
    let added = added.iter().map(|(name, value)| (name, Some(value)));
    headers(output.headers, added)
}

impl Outbox {
    /// The headers of an output that is sent at once, in a list that other records had, where it says nothing out of the
    /// ordinary.
    fn lend_headers(&mut self, output: &Output<'_>) -> Option<Headers> {
        let values = output.added?.usual()?;
        (output.headers.is_empty() && !self.next.is_filled()).then(|| {
            let opaque = output.token.into_raw();
            self.way.lists.lend(output.partition, opaque, values)
        })
    }
}

impl Sink for Outbox {
    fn enriched(&mut self, output: Output<'_>) {
        let record = Produced {
            opaque: output.token.into_raw(),
            partition: Some(output.partition),
            key: output.key,
            value: output.value,
            timestamp: output.timestamp.map(EventTime::millis),
        };
        if self.sending == SendMode::Batches {
            match self.lane(output.partition) {
                Lane::Open => {}
                Lane::Opening(_, waiting) => {
                    let one = Waiting::new(To::Enriched, &record, headers_of(&output));
                    waiting.push_back((output.token, one));
                    return;
                }
                lane @ Lane::Closed => {
                    *lane = Lane::Opening(output.token, VecDeque::new());
                    self.opening += 1;
                }
            }
        }
        let lent = self.lend_headers(&output);
        let headers = lent.or_else(|| headers_of(&output));
        self.hand_over(To::Enriched, &record, headers);
    }

    fn dead_letter(&mut self, letter: DeadLetter<'_>) {
        let added = letter.added.iter().map(|(name, value)| (name, Some(value)));
        let record = Produced {
            opaque: letter.token.into_raw(),
            partition: None,
            key: letter.key,
            value: letter.value,
            timestamp: letter.timestamp.map(EventTime::millis),
        };
        self.hand_over(To::DeadLetter, &record, headers(letter.headers, added));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Refusal;

    #[test]
    fn fs_35_what_a_broken_transaction_does_not_take_is_given_up_with_it_and_stops_nothing() {
        let state = RDKafkaErrorCode::State;
        assert_eq!(
            not_taken(state, SendMode::Transactions),
            AckResult::Abandoned
        );
        assert_eq!(not_taken(state, SendMode::Batches), AckResult::Failed);
        let large = RDKafkaErrorCode::MessageSizeTooLarge;
        assert_eq!(
            not_taken(large, SendMode::Transactions),
            AckResult::Refused(Refusal::TooLarge)
        );
    }

    #[test]
    fn a_list_of_either_form_comes_back_for_the_next_record_of_that_form() {
        const PARTITION: PartitionId = PartitionId(0);
        let forms = [
            UsualValues::Several([b"1", b"2", b"0:3"]),
            UsualValues::One([b"at=1;as-of=2;source=0:3"]),
        ];
        let mut lists = Lists::new();
        let mut opaques = 0..;
        let mut lend = |lists: &mut Lists| {
            forms.map(|values| {
                let opaque = opaques.next().unwrap();
                (opaque, lists.lend(PARTITION, opaque, values))
            })
        };
        let mut come_back = |lists: &mut Lists| {
            let lent = lend(lists);
            let identities = lent.each_ref().map(|(_, headers)| headers.identity());
            for (opaque, headers) in lent {
                lists.give_back(PARTITION, opaque, Some(headers));
            }
            let again = lend(lists);
            assert_eq!(
                again.each_ref().map(|(_, headers)| headers.identity()),
                identities
            );
            again
        };
        // What was not sent is not in the way of what is sent next.
        for (opaque, _) in come_back(&mut lists) {
            lists.not_sent(PARTITION, opaque);
        }
        come_back(&mut lists);
    }

    #[test]
    fn what_an_abort_reports_out_of_order_is_in_no_later_records_way() {
        const PARTITION: PartitionId = PartitionId(0);
        let mut config = ClientConfig::new();
        config.set("transactional.id", "t");
        let mut outbox = Outbox::new(&config, "enriched", None).unwrap();
        let lend = |outbox: &mut Outbox, number| {
            outbox.unacknowledged += 1;
            let values = UsualValues::One([b"at=1;as-of=2;source=0:3"]);
            Reported {
                ack: (Token::from_raw(number), AckResult::Delivered),
                partition: PARTITION,
                headers: Some(outbox.way.lists.lend(PARTITION, number, values)),
            }
        };
        let [first, second] = [1, 2].map(|number| lend(&mut outbox, number));
        for reported in [second, first] {
            outbox.acks.lock().push_back(reported);
            assert!(outbox.ack().is_some());
        }
        let next = lend(&mut outbox, 3);
        let left = outbox.way.lists.one.give_back(PARTITION, 3, next.headers);
        assert!(left.is_none(), "it is kept for another record");
    }
}
