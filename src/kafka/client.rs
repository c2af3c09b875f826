//! The settings of every client, from the maps `[kafka]`, `[kafka.consumer]`, `[kafka.zones]`, `[kafka.producer]`.
//!
//! Any librdkafka property may stand there but those on which a promise of Ringfence rests
//! ([`crate::config::librdkafka::OWNED`]). What is set here is either such a promise, and wins, or a default that was
//! measured (RDKAFKA, "recommended configuration").

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::EdgeError;
use super::transaction::CALL_MAX;
use crate::clock::Clock;

/// librdkafka properties by name.
pub type Properties = BTreeMap<String, String>;

/// Who commits the offsets of a telemetry consumer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CommitBy {
    /// The client, those that are stored, so often.
    Interval(Duration),
    /// The producer, in its transactions.
    Transaction,
}

/// The properties of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[kafka]`: for all clients.
    pub common: Properties,
    /// `[kafka.consumer]`: for the telemetry consumers.
    pub consumer: Properties,
    /// `[kafka.zones]`: for the two clients of the zone reader.
    pub zones: Properties,
    /// `[kafka.producer]`: for the producers.
    pub producer: Properties,
}

impl From<&crate::config::Kafka> for Settings {
    fn from(kafka: &crate::config::Kafka) -> Self {
        let owned = |properties: &crate::config::librdkafka::Properties| {
            properties
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        Self {
            common: owned(kafka.common()),
            consumer: owned(&kafka.consumer()),
            zones: owned(&kafka.zones()),
            producer: owned(&kafka.producer()),
        }
    }
}

impl Settings {
    /// Settings with no more than the addresses of a cluster and the name of the group.
    #[must_use]
    pub fn new(bootstrap_servers: &str, group: &str) -> Self {
        let common = [
            ("bootstrap.servers", bootstrap_servers),
            ("group.id", group),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            common: common.into(),
            ..Self::default()
        }
    }

    /// The consumer group of the workers.
    #[must_use]
    pub fn group(&self) -> &str {
        self.common
            .get("group.id")
            .map_or("ringfence", String::as_str)
    }

    /// Whether telemetry consumers follow the classic group protocol, not that of KIP-848.
    #[must_use]
    pub fn is_classic(&self) -> bool {
        let own = self.consumer.get("group.protocol");
        let protocol = own.or_else(|| self.common.get("group.protocol"));
        protocol.map(String::as_str) != Some("consumer")
    }

    /// A telemetry consumer: a member of the group; only what is stored, or in a transaction, is committed.
    #[must_use]
    pub fn telemetry_consumer(&self, offsets: CommitBy) -> ClientConfig {
        let (commits, every) = match offsets {
            CommitBy::Interval(every) => ("true", every),
            CommitBy::Transaction => ("false", Duration::from_secs(1)),
        };
        let commit_ms = every.as_millis().max(1).to_string();
        let mut config = ClientConfig::new();
        set(
            &mut config,
            &[
                ("group.id", "ringfence"),
                // A topic that gets partitions is seen in seconds; by default in five minutes.
                ("topic.metadata.refresh.interval.ms", "5000"),
                // A full queue is looked at again so soon; by default after a second, in which it runs empty (0.04 of 1.7 M
                // records/s: RDKAFKA 0.4).
                ("fetch.queue.backoff.ms", "2"),
                // So long a broker may hold back the answer for partitions where nothing is new: what resumes beside idle ones
                // waits for it.
                ("fetch.wait.max.ms", "100"),
                // What one answer brings, compressed, and what waits in the queue beside it: bounds of memory (I7). For speed they
                // are wide enough: with 5,000 queued, and with fetches of 1 or 2 MB, an event cost as much (0.99 to 1.00 of the CPU
                // in 16 rounds of `end_to_end`).
                ("fetch.max.bytes", "16777216"),
                ("queued.min.messages", "50000"),
                ("queued.max.messages.kbytes", "16384"),
            ],
        );
        if self.is_classic() {
            // With the default of 3 s a rebalance takes a heartbeat longer (KAFKA 4). Of the new protocol (KIP-848) the
            // broker decides these, and the client refuses them.
            set(
                &mut config,
                &[
                    ("heartbeat.interval.ms", "500"),
                    ("session.timeout.ms", "10000"),
                ],
            );
        }
        let mut config = self.finish(
            config,
            &self.consumer,
            &[
                ("enable.auto.commit", commits),
                ("auto.commit.interval.ms", &commit_ms),
                ("enable.auto.offset.store", "false"),
                // Where to start is decided at each assignment; whatever else asks for a reset is out of range.
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "false"),
                ("isolation.level", "read_committed"),
                ("allow.auto.create.topics", "false"),
            ],
        );
        if self.is_classic() {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        config
    }

    /// These, for a static member of the group (KIP-345): it keeps its partitions over a restart.
    #[must_use]
    pub fn for_static_member(&self, id: &str) -> Self {
        let mut settings = self.clone();
        let name = "group.instance.id".to_owned();
        settings.consumer.insert(name, id.to_owned());
        settings
    }

    /// The zones consumer: assigned by hand, from the start, never committing.
    #[must_use]
    pub fn zones_consumer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        set(
            &mut config,
            &[
                // librdkafka assigns nothing without a group id; an assigned consumer has no part in the group.
                ("group.id", "ringfence"),
                ("fetch.queue.backoff.ms", "2"),
                // The end of a partition is told by an empty answer: so long the proof of a quiet one waits at most.
                ("fetch.wait.max.ms", "20"),
                ("queued.min.messages", "20000"),
                ("queued.max.messages.kbytes", "16384"),
            ],
        );
        self.finish(
            config,
            &self.zones,
            &[
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                // A position out of range is a stop (DESIGN 4), never a silent jump.
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
                ("isolation.level", "read_committed"),
                ("allow.auto.create.topics", "false"),
            ],
        )
    }

    /// The client that is only asked for end offsets and metadata.
    #[must_use]
    pub fn asker(&self) -> ClientConfig {
        let mut config = self.finish(
            ClientConfig::new(),
            &self.zones,
            &[
                ("isolation.level", "read_uncommitted"),
                ("enable.auto.commit", "false"),
                ("allow.auto.create.topics", "false"),
            ],
        );
        // Without a group no coordinator is looked for.
        config.remove("group.id");
        config
    }

    /// A consumer for tools, assigned by hand: it reads what is there and leaves no trace.
    #[must_use]
    pub fn tool_consumer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        set(
            &mut config,
            &[
                ("group.id", "ringfence"),
                ("fetch.queue.backoff.ms", "2"),
                ("fetch.wait.max.ms", "50"),
                ("queued.max.messages.kbytes", "32768"),
            ],
        );
        self.finish(
            config,
            &Properties::new(),
            &[
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "earliest"),
                ("enable.partition.eof", "false"),
                ("isolation.level", "read_committed"),
                ("allow.auto.create.topics", "false"),
            ],
        )
    }

    /// A producer whose queue takes `in_flight_max` records of `in_flight_max_bytes` in all.
    #[must_use]
    pub fn producer(&self, in_flight_max: usize, in_flight_max_bytes: usize) -> ClientConfig {
        let mut config = ClientConfig::new();
        set(
            &mut config,
            &[
                // A tenth of the gate's margin: a batch of some size, and little beside what an event waits for anyhow. A worker
                // times it itself (`linger`).
                ("linger.ms", "20"),
                // A quarter of the bytes to send, to replicate and to keep, for a quarter of an event's CPU here (benches/README.md).
                ("compression.type", "lz4"),
                // The largest record that a topic of the defaults may hold, and 1 MiB for what is added (INTERFACE).
                ("message.max.bytes", "17825792"),
            ],
        );
        // The bound is the pipeline's; the queue has twice the room, so that it is never what refuses a record.
        let messages = in_flight_max
            .saturating_mul(2)
            .clamp(1_000, 10_000_000)
            .to_string();
        let kbytes = (in_flight_max_bytes / 512)
            .clamp(65_536, 2_097_151)
            .to_string();
        let mut config = self.finish(
            config,
            &self.producer,
            &[
                ("enable.idempotence", "true"),
                ("acks", "all"),
                ("message.timeout.ms", "0"),
                // As Java clients do, so that keyed records meet their like.
                ("partitioner", "murmur2_random"),
                ("queue.buffering.max.messages", &messages),
                ("queue.buffering.max.kbytes", &kbytes),
                ("allow.auto.create.topics", "false"),
            ],
        );
        // A producer has no group, and librdkafka says so at each start.
        config.remove("group.id");
        config
    }

    /// [`Self::producer`], transactional under this id, and what its transactions time out after.
    #[must_use]
    pub fn transactional_producer(
        &self,
        in_flight_max: usize,
        in_flight_max_bytes: usize,
        transactional_id: &str,
    ) -> ClientConfig {
        let mut config = self.producer(in_flight_max, in_flight_max_bytes);
        let timeout = self.transaction_timeout();
        // `send_offsets_to_transaction` heeds no other bound (KAFKA 0.4), and the client wants it within the transaction's.
        let socket_timeout = CALL_MAX.min(timeout).as_millis().to_string();
        // An output that cannot be delivered is to fail while the coordinator still waits for us: the abort then says why,
        // where an expired transaction only looks like another producer of our name (KAFKA 0.2).
        let message_timeout = (timeout / 2).as_millis().max(1).to_string();
        let timeout = timeout.as_millis().to_string();
        set(
            &mut config,
            &[
                ("transactional.id", transactional_id),
                ("transaction.timeout.ms", &timeout),
                ("message.timeout.ms", &message_timeout),
                ("socket.timeout.ms", &socket_timeout),
            ],
        );
        config
    }

    /// `transaction.timeout.ms` of `[kafka.producer]`, else 10 s, as Kafka Streams has it: for so long a transaction that a
    /// crash left open can hold back the readers of committed records.
    #[must_use]
    pub fn transaction_timeout(&self) -> Duration {
        self.millis(&self.producer, "transaction.timeout.ms", 10_000)
    }

    /// `session.timeout.ms` of the telemetry consumers. In the new group protocol it is the brokers' to say: their default.
    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        let default = if self.is_classic() { 10_000 } else { 45_000 };
        self.millis(&self.consumer, "session.timeout.ms", default)
    }

    fn millis(&self, own: &Properties, name: &str, default: u64) -> Duration {
        let set = own.get(name).or_else(|| self.common.get(name));
        // A text that is no number is librdkafka's to refuse.
        Duration::from_millis(set.and_then(|text| text.parse().ok()).unwrap_or(default))
    }

    /// A producer for tools; unlike the daemon's it gives up after a while.
    #[must_use]
    pub fn tool_producer(&self) -> ClientConfig {
        let mut config = self.producer(100_000, 64 << 20);
        config.set("message.timeout.ms", "60000");
        config
    }

    /// The client of the admin calls.
    #[must_use]
    pub fn admin(&self) -> ClientConfig {
        let mut config = self.finish(ClientConfig::new(), &Properties::new(), &[]);
        config.remove("group.id");
        config
    }

    fn finish(
        &self,
        mut config: ClientConfig,
        own: &Properties,
        promised: &[(&str, &str)],
    ) -> ClientConfig {
        set(
            &mut config,
            &[
                ("client.id", "ringfence"),
                // The default of 60 s is how long a lost answer blocks a partition (RDKAFKA 8).
                ("socket.timeout.ms", "10000"),
                ("reconnect.backoff.ms", "50"),
                ("reconnect.backoff.max.ms", "1000"),
            ],
        );
        for (name, value) in self.common.iter().chain(own) {
            config.set(name, value);
        }
        set(&mut config, promised);
        // Whoever sets `debug` wants to see it (with `-v`: all of it is logged as debugging).
        let is_debugged = config.get("debug").is_some_and(|what| !what.is_empty());
        config.set_log_level(if is_debugged {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Warning
        });
        config
    }
}

/// Lets no batch outgrow what its topic takes: a broker judges the batch, not its records. What the configuration says
/// is left as it is.
pub fn cap_batches(config: &mut ClientConfig, topic_max_bytes: usize) {
    // librdkafka's own default.
    const BATCH_SIZE: usize = 1_000_000;
    if config.get("batch.size").is_none() {
        let bytes = topic_max_bytes.clamp(1, BATCH_SIZE).to_string();
        config.set("batch.size", &bytes);
    }
}

fn set(config: &mut ClientConfig, properties: &[(&str, &str)]) {
    for (name, value) in properties {
        config.set(*name, *value);
    }
}

/// How often one and the same complaint of a client is logged at most: with brokers away librdkafka repeats it ten
/// times a second (KAFKA 0.12).
const QUIET: Duration = Duration::from_secs(10);

/// Takes the logs and errors of a client into ours, at a bearable rate.
#[derive(Debug, Default)]
pub struct Logged {
    last: Mutex<BTreeMap<String, (Instant, u64)>>,
}

impl Logged {
    /// Whether to log this complaint now, with how many like it were kept back.
    fn admits(&self, what: &str) -> Option<u64> {
        let now = Clock::instant();
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match last.get_mut(what) {
            Some((at, kept_back)) if now.duration_since(*at) < QUIET => {
                *kept_back += 1;
                None
            }
            Some((at, kept_back)) => {
                *at = now;
                Some(std::mem::take(kept_back))
            }
            None => {
                // Complaints of one client are few kinds; a bound all the same.
                if last.len() >= 64 {
                    last.clear();
                }
                last.insert(what.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                if let Some(kept_back) = self.admits(facility) {
                    tracing::warn!(target: "ringfence::kafka", facility, kept_back, "{message}");
                }
            }
            RDKafkaLogLevel::Warning => {
                tracing::info!(target: "ringfence::kafka", facility, "{message}")
            }
            _ => tracing::debug!(target: "ringfence::kafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // An end of partition is an event of the zone reader, an out-of-range offset one of the workers.
        let code = error.rdkafka_error_code();
        if matches!(
            code,
            Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset)
        ) {
            return;
        }
        let what = code.map_or_else(|| error.to_string(), |code| format!("{code:?}"));
        if let Some(kept_back) = self.admits(&what) {
            tracing::warn!(target: "ringfence::kafka", error = %what, kept_back, "{reason}");
        }
    }
}

impl ConsumerContext for Logged {}

/// A consumer without group life: for asking, and for reading partitions assigned by hand.
pub type PlainConsumer = BaseConsumer<Logged>;

/// Makes a client, naming the property that librdkafka refuses.
///
/// # Errors
/// [`EdgeError::Settings`].
pub fn create<C: ClientContext, T: rdkafka::config::FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, EdgeError> {
    config.create_with_context(context).map_err(|error| {
        EdgeError::Settings(match error {
            KafkaError::ClientConfig(_, what, name, _) => format!("`{name}`: {what}"),
            KafkaError::ClientCreation(what) => what,
            other => other.to_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_says_wins_over_defaults_but_not_over_promises() {
        let mut settings = Settings::new("broker:1", "mine");
        settings
            .consumer
            .insert("fetch.wait.max.ms".into(), "7".into());
        settings
            .consumer
            .insert("isolation.level".into(), "read_uncommitted".into());
        let config = settings.telemetry_consumer(CommitBy::Interval(Duration::from_millis(100)));
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("group.id"), Some("mine"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(
            settings.zones_consumer().get("fetch.wait.max.ms"),
            Some("20")
        );
    }

    #[test]
    fn batches_stay_below_what_the_topic_takes_unless_the_configuration_says_otherwise() {
        let mut settings = Settings::new("broker:1", "mine");
        for (topic_max_bytes, batch_size) in [(50_000, "50000"), (2_000_000, "1000000")] {
            let mut config = settings.producer(1, 1);
            cap_batches(&mut config, topic_max_bytes);
            assert_eq!(config.get("batch.size"), Some(batch_size));
        }
        settings.producer.insert("batch.size".into(), "7".into());
        let mut config = settings.producer(1, 1);
        cap_batches(&mut config, 50_000);
        assert_eq!(config.get("batch.size"), Some("7"));
    }

    #[test]
    fn the_asker_belongs_to_no_group_and_reads_uncommitted_ends() {
        let config = Settings::new("broker:1", "mine").asker();
        assert_eq!(config.get("group.id"), None);
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
    }

    #[test]
    fn every_promise_is_refused_in_the_configuration() {
        let settings = Settings::new("broker:1", "g");
        let promised = [
            (
                settings.telemetry_consumer(CommitBy::Interval(Duration::from_millis(100))),
                "partition.assignment.strategy",
            ),
            (
                settings.telemetry_consumer(CommitBy::Interval(Duration::from_millis(100))),
                "auto.offset.reset",
            ),
            (settings.zones_consumer(), "enable.partition.eof"),
            (settings.zones_consumer(), "isolation.level"),
            (settings.producer(1, 1), "message.timeout.ms"),
            (settings.producer(1, 1), "partitioner"),
        ];
        for (config, property) in promised {
            assert!(config.get(property).is_some(), "{property}");
            assert!(
                crate::config::librdkafka::refusal("kafka", property).is_some(),
                "{property}"
            );
        }
    }

    #[test]
    fn librdkafka_takes_all_settings() {
        let settings = Settings::new("127.0.0.1:1", "g");
        for config in [
            settings.telemetry_consumer(CommitBy::Interval(Duration::from_millis(100))),
            settings.zones_consumer(),
            settings.asker(),
            settings.tool_consumer(),
        ] {
            let consumer: Result<PlainConsumer, _> = create(&config, Logged::default());
            assert!(consumer.is_ok(), "{:?}", consumer.err());
        }
        let mut short = settings.clone();
        short
            .producer
            .insert("transaction.timeout.ms".into(), "2000".into());
        for config in [
            settings.producer(100_000, 64 << 20),
            settings.transactional_producer(100_000, 64 << 20, "once"),
            short.transactional_producer(100_000, 64 << 20, "once"),
            settings.tool_producer(),
        ] {
            let producer: Result<rdkafka::producer::BaseProducer, _> = config.create();
            assert!(producer.is_ok(), "{:?}", producer.err());
        }
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_named() {
        let mut settings = Settings::new("127.0.0.1:1", "g");
        settings
            .common
            .insert("fetch.wiat.max.ms".into(), "1".into());
        let made: Result<PlainConsumer, _> = create(&settings.asker(), Logged::default());
        let text = made
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(text.contains("fetch.wiat.max.ms"), "{text}");
    }

    #[test]
    fn the_same_complaint_is_logged_once_in_a_while() {
        let logged = Logged::default();
        assert_eq!(logged.admits("AllBrokersDown"), Some(0));
        assert_eq!(logged.admits("AllBrokersDown"), None);
        assert_eq!(logged.admits("other"), Some(0));
    }
}
