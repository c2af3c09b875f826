//! What the witness must know of the configuration to say what an output must be.

use std::time::Duration;

use crate::codec::zone_change::ZoneRules;
use crate::time::EventTime;

use super::Pointers;

/// How events are matched (`gate.match`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// At their own time.
    Event,
    /// At `as_of`.
    Latest,
}

/// The configuration as far as it decides what is right.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Name of the telemetry topic, as dead letters carry it.
    pub telemetry_topic: String,
    /// Name of the zones topic.
    pub zones_topic: String,
    /// Where the telemetry's fields are.
    pub pointers: Pointers,
    /// Values longer than this are refused.
    pub telemetry_bytes_max: usize,
    /// The enriched field.
    pub field: String,
    /// Zone properties that are carried beside the ids.
    pub properties: Vec<String>,
    /// How the codec judges zone records.
    pub zone_rules: ZoneRules,
    /// Whether invalid shapes are repaired: then borders are not judged.
    pub repair: bool,
    /// An `effective_at` later than this after the commit time is refused.
    pub max_schedule: Duration,
    /// When a refused change ends its zone: the compaction lag of a compacted topic, else never.
    pub compaction_lag: Option<Duration>,
    /// How events are matched.
    pub matching: Matching,
    /// `gate.match_from`.
    pub match_from: Option<EventTime>,
    /// `gate.match_until`.
    pub match_until: Option<EventTime>,
    /// `gate.max_ahead_ms`.
    pub max_ahead: Duration,
    /// `gate.on_late = "dead_letter"`.
    pub late_is_dead_lettered: bool,
    /// Invalid telemetry is in no output (`on_invalid = "drop"`, or a worker that stops).
    pub invalid_is_dropped: bool,
    /// Invalid telemetry is forwarded (`on_invalid = "forward"`).
    pub invalid_is_forwarded: bool,
    /// Whether a duplicate fails the verdict.
    pub exactly_once: bool,
    /// Judge from the start of each partition, not from its first output.
    pub from_log_start: bool,
    /// How many judged records of a partition are kept to compare duplicates with.
    pub keep: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            telemetry_topic: "telemetry".into(),
            zones_topic: "zones".into(),
            pointers: Pointers::new("/id", "/ts", "/lat", "/lon"),
            telemetry_bytes_max: 1_048_576,
            field: "zones".into(),
            properties: Vec::new(),
            zone_rules: ZoneRules::new(crate::geometry::ShapeRules::default(), 16_777_216, &[]),
            repair: false,
            max_schedule: Duration::from_secs(3 * 86_400),
            compaction_lag: None,
            matching: Matching::Event,
            match_from: None,
            match_until: None,
            max_ahead: Duration::from_millis(500),
            late_is_dead_lettered: false,
            invalid_is_dropped: false,
            invalid_is_forwarded: false,
            exactly_once: false,
            from_log_start: false,
            keep: 2_000,
        }
    }
}
