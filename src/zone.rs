//! Domain values of the zones side: a zone's identity, one state of it, and a change as it was read from the log.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;

use crate::geometry::Area;
use crate::partition::RecordPosition;
use crate::telemetry::OwnedRecord;
use crate::time::EventTime;

/// The id of a zone: a non-empty string; integers in shortest decimal, so 7 and "7" are one zone (DESIGN 3).
///
/// Ordered by code point, which for UTF-8 is byte order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(Arc<str>);

impl ZoneId {
    /// The id with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ZoneId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZoneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What one upsert says of a zone: immutable, shared by every version and snapshot that holds it.
#[derive(Debug)]
pub struct Zone {
    /// The zone's id.
    pub id: ZoneId,
    /// The id as a JSON string, quotes and escapes included, ready to be spliced. The version table has a copy of a short one,
    /// which is what the hot path reads.
    pub id_json: CompactString,
    /// Where it is.
    pub area: Area,
    /// The configured `enriched.properties` that the zone has, as a JSON object with each value's bytes as they stand in
    /// the record, ready to be spliced; `None` where it has none of them.
    pub properties_json: Option<Box<str>>,
    /// The zone's own version number, carried and checked, never decisive.
    pub version: Option<i64>,
}

impl Zone {
    /// What an output says of it.
    #[must_use]
    pub fn text(&self) -> ZoneText<'_> {
        ZoneText {
            id_json: self.id_json.as_bytes(),
            properties_json: self.properties_json.as_deref(),
        }
    }
}

/// What an output says of a zone.
#[derive(Copy, Clone, Debug)]
pub struct ZoneText<'z> {
    /// [`Zone::id_json`].
    pub id_json: &'z [u8],
    /// [`Zone::properties_json`]; `None` also where outputs say nothing of properties.
    pub properties_json: Option<&'z str>,
}

/// What a change does to its zone.
#[derive(Clone, Debug)]
pub enum ZoneChange {
    /// The zone is as the record says.
    Upsert(Arc<Zone>),
    /// The zone is gone.
    Remove,
}

/// A change as decoded from a record's value and key, before time rules are applied to it.
#[derive(Clone, Debug)]
pub struct DecodedChange {
    /// The zone it changes.
    pub zone_id: ZoneId,
    /// What it does.
    pub change: ZoneChange,
    /// When it asks to act; `None` = at its commit time.
    pub effective_at: Option<EventTime>,
    /// When the zone ends by itself (exclusive); only upserts carry it.
    pub expires_at: Option<EventTime>,
    /// The zone's own version number, of removals too.
    pub version: Option<i64>,
}

/// A change accepted from the log: ordered, timed, not yet visible (DESIGN 4).
#[derive(Clone, Debug)]
pub struct StagedChange {
    /// The zone it changes.
    pub zone_id: ZoneId,
    /// What it does.
    pub change: ZoneChange,
    /// The record it came from.
    pub position: RecordPosition,
    /// The record's Kafka timestamp, as it stands.
    pub commit_time: EventTime,
    /// max(`effective_at`, commit time): from here on it rules, until a later change does.
    pub valid_from: EventTime,
    /// The zone ends here (exclusive). An upsert with `expires_at` ≤ `valid_from` acts as a removal.
    pub expires_at: Option<EventTime>,
    /// What it occupies while staged, in bytes; `record` is counted.
    pub bytes: usize,
    /// The record as it came, kept until the change is built: a change that cannot be is dead-lettered, and reading the
    /// record again could find it compacted away. Staging bounds it, which has always counted its bytes.
    pub record: Option<Arc<OwnedRecord>>,
}

impl StagedChange {
    /// What orders the changes of one zone: log order inside a partition; commit time, partition, offset across two
    /// (DESIGN 3: a zone lives in one partition; found in two, they are ordered so, and counted).
    #[must_use]
    pub fn order(&self) -> ChangeOrder {
        ChangeOrder {
            commit_time: self.commit_time,
            position: self.position,
        }
    }
}

/// The place of a change among those of its zone. Within one partition offsets alone decide.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChangeOrder {
    /// The change's commit time.
    pub commit_time: EventTime,
    /// The change's record.
    pub position: RecordPosition,
}

impl ChangeOrder {
    /// Whether this change rules over `other` where both are in effect.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        if self.position.partition == other.position.partition {
            self.position.offset > other.position.offset
        } else {
            (self.commit_time, self.position) > (other.commit_time, other.position)
        }
    }
}
