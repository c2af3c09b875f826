//! Defects planted between Ringfence and its audit, without any defect in Ringfence: a relay copies the enriched topic to
//! one of its own, commits for a group of its own what it has copied, and on the way does one thing wrong.
//!
//! An audit over the relay's topic and group must find just that; over a relay that does nothing wrong, nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, OwnedMessage};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use ringfence::codec::headers;

use super::stage::Stage;
use super::zones::rectangle;

/// It does it after so many outputs.
const AFTER: usize = 300;
/// For so long a commit stands before its outputs come: an audit asks for commits every second or two.
const COMMITTED_EARLY: Duration = Duration::from_secs(8);
/// The zone of [`Plant::PromotedTooEarly`], over all that `simulate` drives in.
const ZONE: &str = "planted";
/// So many outputs lack it, although it was in force.
const EARLY: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Lost,
    Doubled,
    Swapped,
    /// A zone that does not cover the position.
    WrongZone,
    /// Outputs of instants at which a change was in force, without it: as if a proof had counted too early.
    PromotedTooEarly,
    CommitPastAcknowledged,
}

impl Plant {
    pub(crate) const ALL: [Self; 6] = [
        Self::Lost,
        Self::Doubled,
        Self::Swapped,
        Self::WrongZone,
        Self::PromotedTooEarly,
        Self::CommitPastAcknowledged,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Swapped => "swapped",
            Self::WrongZone => "wrong_zone",
            Self::PromotedTooEarly => "promoted_too_early",
            Self::CommitPastAcknowledged => "commit_past_acknowledged",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}

/// A relay at work; it ends when dropped.
pub(crate) struct Relay {
    /// The stage's configuration with the relay's topic and group.
    pub(crate) config: PathBuf,
    pub(crate) group: String,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts one beside the stage's processes, over the topics that `create_topics` made.
    pub(crate) fn start(
        stage: &Stage,
        address: &str,
        replication: i32,
        plant: Option<Plant>,
    ) -> Self {
        let name = plant.map_or("faithful", Plant::name);
        let partitions = stage.admin.existing(&stage.topic("enriched"));
        let partitions = partitions.expect("a topic").ids().len();
        let suffix = format!("enriched-{name}");
        stage.create_replicated(
            &suffix,
            i32::try_from(partitions).expect("few"),
            replication,
            &[],
        );
        let group = format!("{}-{name}", stage.group());
        let text = std::fs::read_to_string(&stage.config).expect("the stage has a configuration");
        let text = text
            .replace(
                &format!("\"group.id\" = \"{}\"", stage.group()),
                &format!("\"group.id\" = \"{group}\""),
            )
            .replace(&stage.topic("enriched"), &stage.topic(&suffix));
        let config = stage.path().join(format!("{name}.toml"));
        std::fs::write(&config, text).expect("the folder is writable");
        let mut work = Work::new(stage, address, &group, &stage.topic(&suffix), plant);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                work.turn();
            }
        });
        Self {
            config,
            group,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A telemetry record.
type SourcePosition = (i32, i64);

/// An output on its way.
struct Copied {
    source: SourcePosition,
    message: OwnedMessage,
}

/// The relay itself: one turn after the other.
struct Work {
    consumer: BaseConsumer,
    producer: ThreadedProducer<DefaultProducerContext>,
    telemetry: String,
    zones: String,
    enriched: String,
    to: String,
    plant: Option<Plant>,
    seen: usize,
    /// What is still to be done wrong.
    left: usize,
    has_zone: bool,
    held: Option<Copied>,
    /// What was copied behind a gap, and where the gap begins.
    finished: BTreeMap<i32, (i64, BTreeSet<i64>)>,
    /// Commits that were made too early: no lower one follows.
    early: BTreeMap<i32, i64>,
}

fn text_of<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a str> {
    let header = message
        .headers()?
        .iter()
        .find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

impl Work {
    fn new(stage: &Stage, address: &str, group: &str, to: &str, plant: Option<Plant>) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("log_level", "0")
            .create()
            .expect("a consumer");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("log_level", "0")
            .create()
            .expect("a producer");
        let mut assigned = TopicPartitionList::new();
        for suffix in ["enriched", "dead"] {
            let topic = stage.topic(suffix);
            for id in stage.admin.existing(&topic).expect("a topic").ids() {
                let added = assigned.add_partition_offset(&topic, id.0, Offset::Beginning);
                added.expect("a place to begin");
            }
        }
        consumer.assign(&assigned).expect("an assignment");
        Self {
            consumer,
            producer,
            telemetry: stage.topic("telemetry"),
            zones: stage.topic("zones"),
            enriched: stage.topic("enriched"),
            to: to.to_owned(),
            plant,
            seen: 0,
            left: match plant {
                None => 0,
                Some(Plant::PromotedTooEarly) => EARLY,
                Some(_) => 1,
            },
            has_zone: false,
            held: None,
            finished: BTreeMap::new(),
            early: BTreeMap::new(),
        }
    }

    fn turn(&mut self) {
        let mut done = Vec::new();
        let mut wait = Duration::from_millis(100);
        // Errors are brokers that are away.
        while let Some(polled) = self.consumer.poll(wait) {
            wait = Duration::ZERO;
            let Ok(message) = polled else { break };
            let message = message.detach();
            if message.topic() == self.enriched {
                let source = text_of(&message, headers::SOURCE).and_then(|source| {
                    let (partition, offset) = source.split_once(':')?;
                    Some((partition.parse().ok()?, offset.parse().ok()?))
                });
                let source = source.expect("an output has its source");
                let copied = Copied { source, message };
                done.extend(self.copy(copied));
            } else if text_of(&message, headers::ERROR_TOPIC) == Some(&self.telemetry) {
                let number = |name| text_of(&message, name).and_then(|text| text.parse().ok());
                let partition: i64 = number(headers::ERROR_PARTITION).expect("a place");
                let offset = number(headers::ERROR_OFFSET).expect("a place");
                done.push((i32::try_from(partition).expect("small"), offset));
            }
            if done.len() >= 1_000 {
                break;
            }
        }
        if done.is_empty() {
            return;
        }
        self.producer.flush(PATIENCE).expect("the brokers answer");
        self.commit(&done);
    }

    /// Sends it, or does what is to be done wrong; gives what needs no more.
    fn copy(&mut self, copied: Copied) -> Vec<SourcePosition> {
        self.seen += 1;
        let source = copied.source;
        let plant = self.plant.filter(|_| self.seen > AFTER);
        if let Some(held) = self.held.take() {
            if held.source.0 == source.0 {
                self.send(&copied.message, None);
                self.send(&held.message, None);
                return vec![held.source, source];
            }
            self.held = Some(held);
        }
        let value = copied.message.payload().unwrap_or_default();
        let value = String::from_utf8_lossy(value).into_owned();
        match plant {
            Some(Plant::PromotedTooEarly) if !self.has_zone => self.write_zone(),
            Some(Plant::CommitPastAcknowledged) if self.left > 0 => {
                self.left = 0;
                self.commit_early(source.0);
            }
            Some(plant) if self.left > 0 => {
                let other = match plant {
                    Plant::WrongZone => wrong_zone(&value),
                    Plant::PromotedTooEarly => without_zone(&value),
                    _ => None,
                };
                match plant {
                    Plant::Lost => {
                        self.left = 0;
                        return vec![source];
                    }
                    Plant::Doubled => {
                        self.left = 0;
                        self.send(&copied.message, None);
                    }
                    Plant::Swapped => {
                        self.left = 0;
                        self.held = Some(copied);
                        return Vec::new();
                    }
                    _ => {
                        if let Some(other) = other {
                            self.left -= 1;
                            self.send(&copied.message, Some(&other));
                            return vec![source];
                        }
                    }
                }
            }
            _ => {}
        }
        self.send(&copied.message, None);
        vec![source]
    }

    fn send(&self, message: &OwnedMessage, other: Option<&str>) {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.to).partition(message.partition());
        record.key = message.key();
        record.payload = other.map(str::as_bytes).or(message.payload());
        record.timestamp = message.timestamp().to_millis();
        record.headers = message.headers().cloned();
        while let Err((error, again)) = self.producer.send(record) {
            let code = error.rdkafka_error_code();
            assert_eq!(code, Some(rdkafka::error::RDKafkaErrorCode::QueueFull));
            std::thread::park_timeout(Duration::from_millis(10));
            record = again;
        }
    }

    fn write_zone(&mut self) {
        self.has_zone = true;
        let value = rectangle(ZONE, -99.0, 29.0, -96.0, 32.0, "");
        let record = BaseRecord::<str, str>::to(&self.zones)
            .key(ZONE)
            .payload(&value);
        self.producer.send(record).expect("a queue with room");
    }

    /// Commits what nobody has answered for yet, and lets it stand before the outputs follow.
    fn commit_early(&mut self, partition: i32) {
        let ends = self
            .consumer
            .fetch_watermarks(&self.telemetry, partition, PATIENCE);
        let (_, end) = ends.expect("the brokers answer");
        self.early.insert(partition, end);
        self.commit_offsets([(partition, end)]);
        std::thread::park_timeout(COMMITTED_EARLY);
    }

    fn commit(&mut self, done: &[SourcePosition]) {
        for (partition, offset) in done {
            let (next, behind) = self.finished.entry(*partition).or_default();
            behind.insert(*offset);
            while behind.remove(next) {
                *next += 1;
            }
        }
        let early = &self.early;
        let offsets: Vec<_> = self
            .finished
            .iter()
            .map(|(partition, (next, _))| (*partition, *next))
            .filter(|(partition, next)| early.get(partition).is_none_or(|early| next > early))
            .collect();
        self.commit_offsets(offsets);
    }

    fn commit_offsets(&self, offsets: impl IntoIterator<Item = SourcePosition>) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in offsets {
            let added = list.add_partition_offset(&self.telemetry, partition, Offset::Offset(next));
            added.expect("an offset");
        }
        // A coordinator that is away: the next commit says it again.
        drop(self.consumer.commit(&list, CommitMode::Sync));
    }
}

/// One id too many: of the zone elsewhere that a stage has from the start.
fn wrong_zone(value: &str) -> Option<String> {
    let ids = "\"zones\":[\"";
    let is_found = value.contains(ids);
    is_found.then(|| value.replacen(ids, "\"zones\":[\"elsewhere\",\"", 1))
}

/// The planted zone is not among them.
fn without_zone(value: &str) -> Option<String> {
    let id = format!("\"{ZONE}\"");
    let forms = [format!("{id},"), format!(",{id}"), id];
    let form = forms.iter().find(|form| value.contains(*form))?;
    Some(value.replacen(form.as_str(), "", 1))
}
