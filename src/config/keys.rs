//! The table of configuration keys: name, kind, default, unit and reason, each declared once. The loader reads by it,
//! `config/ringfence.toml`, `config schema` and the README's table are rendered from it, and tests compare them.
//! Deliberately absent: librdkafka's own properties (see [`super::librdkafka`]).

/// What a key holds, and within which bounds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A non-empty text.
    Text,
    /// The name of a Kafka topic; where `optional`, empty = none.
    Topic {
        /// Whether `""` is allowed.
        optional: bool,
    },
    /// A JSON pointer (RFC 6901) to a field; where `record`, also the word `record`.
    Pointer {
        /// Whether the Kafka timestamp may be named instead.
        record: bool,
    },
    /// One of a closed set of words.
    Choice(&'static [&'static str]),
    /// A whole number in `min..=max`; the key's unit says of what.
    Number {
        /// The least value allowed.
        min: u64,
        /// The greatest value allowed.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// A list of texts, none empty, none twice.
    Names,
    /// RFC 3339 or epoch milliseconds.
    Instant,
    /// `address:port`.
    Address,
}

/// The value that holds where none is set.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Default {
    /// A text, word, topic, pointer or address.
    Text(&'static str),
    /// A number.
    Number(u64),
    /// A flag.
    Flag(bool),
    /// An empty list.
    NoNames,
    /// Nothing: the key has no effect unless set.
    Unset,
}

/// One configuration key.
#[derive(Copy, Clone, Debug)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds unless it is set.
    pub default: Default,
    /// The unit of its number, or `""`.
    pub unit: &'static str,
    /// What it does and why its default is what it is: one line.
    pub reason: &'static str,
}

impl Key {
    /// The section before the dot.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within its section.
    #[must_use]
    pub fn leaf(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(_, leaf)| leaf)
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;

const fn text(name: &'static str, default: &'static str, reason: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Text,
        default: Default::Text(default),
        unit: "",
        reason,
    }
}

const fn topic(
    name: &'static str,
    default: &'static str,
    optional: bool,
    reason: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Topic { optional },
        default: Default::Text(default),
        unit: "",
        reason,
    }
}

const fn pointer(
    name: &'static str,
    default: &'static str,
    record: bool,
    reason: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Pointer { record },
        default: Default::Text(default),
        unit: "",
        reason,
    }
}

/// A closed set; the first word is the default.
const fn choice(name: &'static str, words: &'static [&'static str], reason: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Choice(words),
        default: Default::Text(words[0]),
        unit: "",
        reason,
    }
}

const fn number(
    name: &'static str,
    default: u64,
    (min, max): (u64, u64),
    unit: &'static str,
    reason: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Number { min, max },
        default: Default::Number(default),
        unit,
        reason,
    }
}

const fn flag(name: &'static str, default: bool, reason: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Flag,
        default: Default::Flag(default),
        unit: "",
        reason,
    }
}

const fn instant(name: &'static str, reason: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Instant,
        default: Default::Unset,
        unit: "RFC 3339 or ms",
        reason,
    }
}

/// Every key there is, in the order of the file.
pub const KEYS: &[Key] = &[
    topic(
        "telemetry.topic",
        "telemetry",
        false,
        "where the events are read",
    ),
    pointer(
        "telemetry.id",
        "/id",
        false,
        "JSON pointer to the entity's id: a string or an integer, if it is there; no answer depends on it",
    ),
    pointer(
        "telemetry.time",
        "/ts",
        true,
        "JSON pointer to the event's time, epoch ms or RFC 3339; \"record\" = the Kafka timestamp",
    ),
    pointer(
        "telemetry.lat",
        "/lat",
        false,
        "JSON pointer to degrees north",
    ),
    pointer(
        "telemetry.lon",
        "/lon",
        false,
        "JSON pointer to degrees east",
    ),
    choice(
        "telemetry.on_invalid",
        &["dead_letter", "forward", "drop"],
        "an event that cannot be read: to the dead-letter topic, or on unchanged and flagged invalid, or dropped and counted",
    ),
    choice(
        "telemetry.start",
        &["earliest", "latest"],
        "where a partition starts that has no committed offset; earliest loses nothing",
    ),
    choice(
        "telemetry.on_out_of_range",
        &["stop", "earliest", "latest"],
        "a committed offset that the log no longer has: records were lost unread, so the default stops; the others are counted",
    ),
    number(
        "telemetry.max_bytes",
        MIB,
        (1_024, 64 * MIB),
        "bytes",
        "a longer event is invalid; Kafka's own default limit",
    ),
    topic(
        "zones.topic",
        "zones",
        false,
        "where the zone changes are read",
    ),
    choice(
        "zones.on_invalid",
        &["reject", "repair"],
        "a shape that is not valid: to the dead-letter topic (the zone's previous version stays, as long as the topic is sure to hold it), or repaired with the same even-odd area",
    ),
    number(
        "zones.max_vertices",
        1_000_000,
        (4, 100_000_000),
        "vertices",
        "a zone with more is rejected before any costly work",
    ),
    number(
        "zones.max_parts",
        10_000,
        (1, 10_000_000),
        "polygons and holes",
        "a zone with more is rejected before any costly work",
    ),
    number(
        "zones.max_bytes",
        16 * MIB,
        (1_024, GIB),
        "bytes",
        "a longer zone change is rejected; `topics create` sets the topic's limit to fit",
    ),
    flag(
        "zones.allow_empty",
        false,
        "start with no zone in force; off, as an empty topic is most often a wrong name",
    ),
    topic(
        "enriched.topic",
        "telemetry.enriched",
        false,
        "where the enriched events go",
    ),
    text(
        "enriched.field",
        "zones",
        "the member that is added to each event (replaced where it exists)",
    ),
    Key {
        name: "enriched.properties",
        kind: Kind::Names,
        default: Default::NoNames,
        unit: "",
        reason: "zone properties to add beside the ids, in `<field>_properties`",
    },
    flag(
        "enriched.headers",
        true,
        "ringfence-at, -as-of, -source, -flags; `verify` and readers that drop duplicates need them",
    ),
    choice(
        "enriched.header_form",
        &["several", "one"],
        "one = all of them in one header `ringfence`, as `at=…;as-of=…;source=…;flags=…`",
    ),
    choice(
        "enriched.partition",
        &["auto", "same", "key"],
        "the output partition: auto = the source's number where the counts are equal, else by key as Java clients do",
    ),
    topic(
        "dead_letter.topic",
        "telemetry.dead-letter",
        true,
        "where refused records go; \"\" = none: then an invalid record stops the worker",
    ),
    number(
        "dead_letter.breaker_percent",
        50,
        (0, 99),
        "percent",
        "more invalid records than this of a partition's last `breaker_records` hold it, as a bad deploy upstream must not drain it into the dead letters; 0 = never",
    ),
    number(
        "dead_letter.breaker_records",
        1_000,
        (10, 1_000_000),
        "records",
        "how many records of a partition are judged together",
    ),
    number(
        "dead_letter.breaker_retry_ms",
        30_000,
        (100, 3_600_000),
        "ms",
        "a held partition lets up to 32 records through after this time, and goes on if few enough are invalid; else the wait doubles, up to 16 times",
    ),
    choice(
        "gate.match",
        &["event", "latest"],
        "match at the event's own time, or at the newest settled instant (no wait, no replay promise)",
    ),
    number(
        "gate.settle_margin_ms",
        250,
        (0, MINUTE),
        "ms",
        "how far a broker's clock may be behind ours, with append and replication; grows by itself after a violation",
    ),
    number(
        "gate.settle_margin_max_ms",
        2_000,
        (0, 10 * MINUTE),
        "ms",
        "how far the margin may grow by itself",
    ),
    choice(
        "gate.proof",
        &["end", "marker"],
        "how a zone partition is proven read: by its end offset, or by markers written to the zones topic (LogAppendTime, needs \
         the right to write; exact whatever brokers and clocks do)",
    ),
    number(
        "gate.proof_interval_ms",
        50,
        (5, MINUTE),
        "ms",
        "how often end offsets are asked for, one request per broker; or a marker written per partition, then rather 1_000",
    ),
    number(
        "gate.max_wait_ms",
        5_000,
        (0, 60 * MINUTE),
        "ms",
        "an event waits so long for its instant to settle; then it is matched at as_of, flagged unsettled",
    ),
    number(
        "gate.max_ahead_ms",
        500,
        (0, DAY),
        "ms",
        "an event further ahead of the clock does not wait: it would be in vain",
    ),
    choice(
        "gate.on_stall",
        &["unsettled", "wait"],
        "when max_wait_ms is over: answer and flag, or wait for ever",
    ),
    choice(
        "gate.on_late",
        &["floor", "dead_letter"],
        "an event older than exact answers reach: matched at the floor and flagged late, or refused",
    ),
    number(
        "gate.max_schedule_ms",
        3 * DAY,
        (0, 365 * DAY),
        "ms",
        "how far ahead an effective_at may lie; the zones topic must keep changes at least so long",
    ),
    number(
        "gate.history_bytes",
        512 * MIB,
        (0, 1 << 40),
        "bytes",
        "what ended zone versions may take; beyond it the oldest go and the floor rises",
    ),
    instant(
        "gate.match_from",
        "no event is matched at an earlier instant (reprocessing)",
    ),
    instant(
        "gate.match_until",
        "no event is matched at a later instant (reprocessing)",
    ),
    instant("gate.floor", "never answer for instants before it"),
    Key {
        name: "gate.create_time_margin_ms",
        kind: Kind::Number { min: 1, max: DAY },
        default: Default::Unset,
        unit: "ms",
        reason: "only for a zones topic with CreateTime stamps: replaces settle_margin_ms; every event waits so long",
    },
    flag(
        "gate.allow_short_lag",
        false,
        "run although the zones topic's compaction lag is below max_schedule_ms; replays may then differ",
    ),
    number(
        "gate.staging_max",
        10_000,
        (1, 10_000_000),
        "changes",
        "changes read and not yet built; when full the zone partitions pause",
    ),
    number(
        "gate.staging_max_bytes",
        256 * MIB,
        (MIB, 1 << 40),
        "bytes",
        "the same in bytes; one oversized change is always admitted",
    ),
    choice(
        "index.engine",
        &["tiles", "rtree"],
        "the index: tiles of lon and lat, or an R*-tree over envelopes with exact predicates; the same answers, the tiles much faster",
    ),
    number(
        "index.max_live_snapshots",
        8,
        (2, 1_000),
        "snapshots",
        "above it promotion waits for readers; bounds memory",
    ),
    choice(
        "delivery.mode",
        &["at_least_once", "exactly_once"],
        "exactly_once: outputs, dead letters and offsets in one transaction per worker and commit_ms; readers need read_committed",
    ),
    Key {
        name: "delivery.instance",
        kind: Kind::Text,
        default: Default::Unset,
        unit: "",
        reason: "the stable name of this process, unlike any other's; exactly_once needs it for its transactional ids",
    },
    flag(
        "delivery.static_member",
        false,
        "static membership (KIP-345) by delivery.instance: a restart within the session timeout moves no partition; one that stops for good keeps its partitions waiting so long",
    ),
    number(
        "delivery.commit_ms",
        100,
        (10, MINUTE),
        "ms",
        "how often acknowledged offsets are committed; what a crash repeats, or how long a transaction is",
    ),
    number(
        "delivery.in_flight_max",
        100_000,
        (1, 10_000_000),
        "records a worker",
        "output sent and not yet acknowledged; when full the worker takes no more",
    ),
    number(
        "delivery.in_flight_max_bytes",
        64 * MIB,
        (MIB, 1 << 40),
        "bytes a worker",
        "the same in bytes",
    ),
    number(
        "delivery.hold_max",
        200_000,
        (1, 10_000_000),
        "records a worker",
        "events waiting for their instant to settle; a stall over 1 s pauses their partitions",
    ),
    number(
        "delivery.hold_max_bytes",
        128 * MIB,
        (MIB, 1 << 40),
        "bytes a worker",
        "the same in bytes",
    ),
    number(
        "workers.count",
        0,
        (0, 1_024),
        "threads",
        "consumers of this process, each a member of the group; 0 = the cores",
    ),
    Key {
        name: "http.listen",
        kind: Kind::Address,
        default: Default::Text("127.0.0.1:9464"),
        unit: "",
        reason: "health, metrics and status; port 0 = any, printed; a taken port is an error",
    },
    number(
        "shutdown.drain_timeout_ms",
        10_000,
        (0, 10 * MINUTE),
        "ms",
        "how long output in flight is waited for at a stop or a revoke; at most the session timeout (10 s unless set); 10 s later the process ends, whatever its brokers do",
    ),
];

/// The key with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The sections in the order of the file, without `kafka`.
pub fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter()
        .map(Key::section)
        .filter(move |section| std::mem::replace(&mut last, section) != *section)
}
