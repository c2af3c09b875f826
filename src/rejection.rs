//! Why a record was refused: a value, never an error. The reasons are a closed set, as they are metric labels and
//! the `ringfence-error-reason` header (DESIGN 3); add to them, never rename one.

use std::fmt;

/// Declares the closed set once: the variant, its stable text and its meaning.
macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $text:literal,)*) => {
        /// The closed set of reasons for which a record is refused.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RejectionReason { $($(#[$meta])* $name,)* }

        impl RejectionReason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text of the reason: metric label and header value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    // Bytes and JSON, of both topics.
    /// The value is null where a value is needed (telemetry only: a null zone record is a delete).
    NullValue = "null_value",
    /// The value has no bytes.
    EmptyValue = "empty_value",
    /// The value is longer than the topic's `max_bytes`, or would outgrow the output topic's limit.
    TooLarge = "too_large",
    /// The value is not JSON (RFC 8259), not UTF-8, or has more after its end.
    NotJson = "not_json",
    /// The JSON nests deeper than 128 levels.
    TooDeep = "too_deep",
    /// The JSON value is not an object.
    NotAnObject = "not_an_object",
    /// A member that a pointer reads is named twice.
    DuplicateKey = "duplicate_key",
    /// A field that is needed is absent.
    MissingField = "missing_field",
    /// A field has another JSON type than it must have.
    WrongType = "wrong_type",
    /// A time is no instant, or outside the years 0001 to 9999.
    TimeRange = "time_range",
    /// A position outside |lat| ≤ 90, |lon| ≤ 180, or not finite.
    CoordinateRange = "coordinate_range",
    // Telemetry.
    /// The event is older than the floor and `gate.on_late` is `dead_letter`.
    Late = "late",
    /// The broker refused the enriched record: its timestamp, or no key on a compacted topic.
    BrokerRefused = "broker_refused",
    // Zone changes.
    /// The record has no timestamp, so no commit time.
    NoTimestamp = "no_timestamp",
    /// The record has no key, or one that is not UTF-8: its zone is unknown.
    NoKey = "no_key",
    /// The record's key differs from the zone id of its value.
    KeyMismatch = "key_mismatch",
    /// The zone id is neither a string nor an integer, or is empty.
    InvalidId = "invalid_id",
    /// The value is not a GeoJSON Feature (RFC 7946) and not `{"id":…, "deleted": true}`.
    NotAFeature = "not_a_feature",
    /// The geometry is absent, or of a type other than Polygon, MultiPolygon or Point with `radius_m`.
    GeometryType = "geometry_type",
    /// `properties.radius_m` is absent, not finite, not positive or greater than half the earth's circumference.
    InvalidRadius = "invalid_radius",
    /// A position of the geometry has fewer than two numbers, or one that is not a number.
    InvalidPosition = "invalid_position",
    /// More vertices than `zones.max_vertices`.
    TooManyVertices = "too_many_vertices",
    /// More parts (polygons and holes) than `zones.max_parts`.
    TooManyParts = "too_many_parts",
    /// The geometry has no polygon or a polygon no ring.
    EmptyGeometry = "empty_geometry",
    /// A ring has fewer than four positions, or fewer than three that differ.
    RingTooShort = "ring_too_short",
    /// The first and last position of a ring differ (and it encloses no pole).
    RingNotClosed = "ring_not_closed",
    /// A ring crosses or touches itself.
    SelfIntersection = "self_intersection",
    /// A ring has no area (a spike, or all positions on one line).
    RingWithoutArea = "ring_without_area",
    /// A hole is not inside its outer ring.
    HoleOutside = "hole_outside",
    /// Rings of one polygon cross, overlap, or share more than single points.
    RingsIntersect = "rings_intersect",
    /// The interior of a polygon is not connected.
    InteriorDisconnected = "interior_disconnected",
    /// Polygons of a MultiPolygon overlap or share a border line.
    PartsOverlap = "parts_overlap",
    /// A ring encloses a pole in a way that has no one reading.
    AmbiguousPole = "ambiguous_pole",
    /// `on_invalid = "repair"` was asked for and did not give a valid area.
    RepairFailed = "repair_failed",
    /// `effective_at` is more than `gate.max_schedule_ms` after the commit time.
    ScheduleRange = "schedule_range",
    /// The index could not be built with this change (three tries, then bisected).
    BuildFailed = "build_failed",
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The longest detail that is kept, in bytes (INTERFACE: `ringfence-error-detail`).
pub const DETAIL_BYTES_MAX: usize = 512;

/// A refused record: why, and what a person needs to mend it. It never quotes the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which rule the record broke.
    pub reason: RejectionReason,
    /// Where and how, at most [`DETAIL_BYTES_MAX`] bytes, without payload.
    pub detail: Box<str>,
}

impl Rejection {
    /// A rejection with its detail, cut to [`DETAIL_BYTES_MAX`] at a character's border.
    #[must_use]
    pub fn new(reason: RejectionReason, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            let mut end = DETAIL_BYTES_MAX;
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            detail.truncate(end);
        }
        Self {
            reason,
            detail: detail.into_boxed_str(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{}", self.reason)
        } else {
            write!(f, "{}: {}", self.reason, self.detail)
        }
    }
}
