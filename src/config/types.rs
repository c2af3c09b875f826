//! The configuration as the rest of the process reads it: a struct a section, a word a closed enum. What each key
//! means stands in [`super::keys`], once. Deliberately absent: reading and checking.

use std::time::Duration;

use super::librdkafka::Properties;
use crate::codec::headers::HeaderForm;
use crate::codec::telemetry::{FieldRules, Fields, FieldsError};
use crate::codec::zone_change::ZoneRules;
use crate::geometry::{OnInvalid, ShapeRules};
use crate::time::EventTime;

/// Declares a word of the configuration: an enum, with the text of each variant.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            /// The word of the configuration file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub(super) fn of(word: &str) -> Self {
                match word {
                    $($text => Self::$variant,)*
                    other => unreachable!("`{other}` passed the table of keys"),
                }
            }
        }
    };
}

words! {
    /// What becomes of an event that cannot be read.
    OnInvalidEvent {
        /// To the dead-letter topic.
        DeadLetter = "dead_letter",
        /// On unchanged, flagged `invalid`.
        Forward = "forward",
        /// Dropped and counted.
        Drop = "drop",
    }
}
words! {
    /// An end of a log.
    LogEnd {
        /// The oldest record.
        Earliest = "earliest",
        /// Behind the newest record.
        Latest = "latest",
    }
}
words! {
    /// What to do where a committed offset is no longer in the log.
    OnOutOfRange {
        /// Stop with an error.
        Stop = "stop",
        /// Go on with the oldest record, counted.
        Earliest = "earliest",
        /// Go on behind the newest record, counted.
        Latest = "latest",
    }
}
words! {
    /// How the output partition is chosen.
    OutputPartition {
        /// The source's number where the counts are equal, else by key.
        Auto = "auto",
        /// The source's number.
        Same = "same",
        /// By key (murmur2).
        Key = "key",
    }
}
words! {
    /// In how many headers an enriched event says what it says of itself.
    EnrichedHeaders {
        /// A header each.
        Several = "several",
        /// All in one.
        One = "one",
    }
}
words! {
    /// The instant an event is matched at.
    MatchMode {
        /// Its own time.
        Event = "event",
        /// The newest settled instant.
        Latest = "latest",
    }
}
words! {
    /// How a zone partition is proven read.
    ProofKind {
        /// By its end offset.
        End = "end",
        /// By markers that are written to the topic.
        Marker = "marker",
    }
}
words! {
    /// What to do with an event whose instant did not settle in time.
    OnStall {
        /// Match at `as_of`, flagged.
        Unsettled = "unsettled",
        /// Wait for ever.
        Wait = "wait",
    }
}
words! {
    /// What to do with an event older than the floor.
    OnLate {
        /// Match at the floor, flagged `late`.
        Floor = "floor",
        /// To the dead-letter topic.
        DeadLetter = "dead_letter",
    }
}
words! {
    /// The index.
    Engine {
        /// Tiles of lon and lat.
        Tiles = "tiles",
        /// R*-tree over envelopes.
        Rtree = "rtree",
    }
}

/// The whole configuration. Fields are named as the keys, without units; `keys::KEYS` says what each means.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Config {
    pub kafka: Kafka,
    pub telemetry: Telemetry,
    pub zones: Zones,
    pub enriched: Enriched,
    pub dead_letter: DeadLetter,
    pub gate: Gate,
    pub index: Index,
    pub delivery: Delivery,
    pub workers: Workers,
    pub http: Http,
    pub shutdown: Shutdown,
}

/// librdkafka properties, by client.
#[derive(Clone, Debug)]
pub struct Kafka {
    pub(super) common: Properties,
    pub(super) consumer: Properties,
    pub(super) zones: Properties,
    pub(super) producer: Properties,
}

impl Kafka {
    /// For clients of neither kind: admin, queries.
    #[must_use]
    pub const fn common(&self) -> &Properties {
        &self.common
    }

    /// For telemetry consumers: `[kafka]` with `[kafka.consumer]` upon it.
    #[must_use]
    pub fn consumer(&self) -> Properties {
        self.common.overlaid(&self.consumer)
    }

    /// For the clients of the zones topic: `[kafka]` with `[kafka.zones]` upon it.
    #[must_use]
    pub fn zones(&self) -> Properties {
        self.common.overlaid(&self.zones)
    }

    /// For producers: `[kafka]` with `[kafka.producer]` upon it.
    #[must_use]
    pub fn producer(&self) -> Properties {
        self.common.overlaid(&self.producer)
    }

    /// The brokers to begin with.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        self.common.get("bootstrap.servers").unwrap_or_default()
    }

    /// The consumer group of all workers.
    #[must_use]
    pub fn group_id(&self) -> &str {
        self.common.get("group.id").unwrap_or_default()
    }

    /// Sets a property of all clients: for commands that bring their own cluster.
    pub fn set_common(&mut self, name: &str, value: &str) {
        self.common.set(name, value);
    }
}

/// `[telemetry]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Telemetry {
    pub topic: String,
    pub id: String,
    /// A pointer, or `record`.
    pub time: String,
    pub lat: String,
    pub lon: String,
    pub on_invalid: OnInvalidEvent,
    pub start: LogEnd,
    pub on_out_of_range: OnOutOfRange,
    pub max_bytes: usize,
}

/// `[zones]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Zones {
    pub topic: String,
    pub on_invalid: OnInvalid,
    pub max_vertices: usize,
    pub max_parts: usize,
    pub max_bytes: usize,
    pub allow_empty: bool,
}

/// `[enriched]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Enriched {
    pub topic: String,
    pub field: String,
    pub properties: Vec<String>,
    pub headers: bool,
    pub header_form: EnrichedHeaders,
    pub partition: OutputPartition,
}

impl Enriched {
    /// How an enriched record says what it says of itself; `None` = not at all.
    #[must_use]
    pub fn added_headers(&self) -> Option<HeaderForm> {
        self.headers.then_some(match self.header_form {
            EnrichedHeaders::Several => HeaderForm::Several,
            EnrichedHeaders::One => HeaderForm::One,
        })
    }
}

/// `[dead_letter]`
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// `None` = none: then an invalid record stops the worker.
    pub topic: Option<String>,
    /// More invalid records than this share hold a partition; 0 = never.
    pub breaker_percent: u32,
    /// Records of a partition that are judged together.
    pub breaker_records: u32,
    /// How long a partition is held before it is tried again.
    pub breaker_retry: Duration,
}

/// `[gate]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Gate {
    pub match_mode: MatchMode,
    pub settle_margin: Duration,
    pub settle_margin_max: Duration,
    pub proof: ProofKind,
    pub proof_interval: Duration,
    pub max_wait: Duration,
    pub max_ahead: Duration,
    pub on_stall: OnStall,
    pub on_late: OnLate,
    pub max_schedule: Duration,
    pub history_bytes: usize,
    pub match_from: Option<EventTime>,
    pub match_until: Option<EventTime>,
    pub floor: Option<EventTime>,
    pub create_time_margin: Option<Duration>,
    pub allow_short_lag: bool,
    pub staging_max: usize,
    pub staging_max_bytes: usize,
}

/// `[index]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Index {
    pub engine: Engine,
    pub max_live_snapshots: usize,
}

words! {
    /// What a crash may do to the output.
    DeliveryMode {
        /// Nothing lost, some of it twice.
        AtLeastOnce = "at_least_once",
        /// Nothing lost, nothing twice, for readers of committed records.
        ExactlyOnce = "exactly_once",
    }
}

/// `[delivery]`
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "`keys::KEYS` is the one place that says what a key means"
)]
pub struct Delivery {
    pub mode: DeliveryMode,
    pub instance: Option<String>,
    pub static_member: bool,
    pub commit_interval: Duration,
    pub in_flight_max: usize,
    pub in_flight_max_bytes: usize,
    pub hold_max: usize,
    pub hold_max_bytes: usize,
}

/// `[workers]`
#[derive(Clone, Debug)]
pub struct Workers {
    /// 0 = the cores; [`Workers::threads`] resolves it.
    pub count: usize,
}

impl Workers {
    /// How many workers to start.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.count {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count,
        }
    }
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// `address:port`; port 0 = any.
    pub listen: String,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long output in flight is waited for.
    pub drain_timeout: Duration,
}

impl Config {
    /// What is read of a telemetry record.
    #[must_use]
    pub fn field_rules(&self) -> FieldRules<'_> {
        FieldRules {
            id: &self.telemetry.id,
            time: &self.telemetry.time,
            lat: &self.telemetry.lat,
            lon: &self.telemetry.lon,
            field: &self.enriched.field,
            with_properties: !self.enriched.properties.is_empty(),
            max_bytes: self.telemetry.max_bytes,
        }
    }

    /// The telemetry fields, compiled.
    ///
    /// # Errors
    /// None for a configuration that `load` gave: it has tried.
    pub fn fields(&self) -> Result<Fields, Vec<FieldsError>> {
        Fields::new(&self.field_rules())
    }

    /// How shapes of zones are judged.
    #[must_use]
    pub const fn shape_rules(&self) -> ShapeRules {
        ShapeRules {
            on_invalid: self.zones.on_invalid,
            vertices_max: self.zones.max_vertices,
            parts_max: self.zones.max_parts,
        }
    }

    /// How zone records are judged.
    #[must_use]
    pub fn zone_rules(&self) -> ZoneRules {
        ZoneRules::new(
            self.shape_rules(),
            self.zones.max_bytes,
            &self.enriched.properties,
        )
    }
}
