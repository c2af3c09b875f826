//! Reads a telemetry record's value: when and where, and where the enriched field goes (DESIGN 3).
//!
//! [`Fields`] is compiled once from the configured JSON pointers; [`Fields::decode`] makes one strict pass over the
//! value and allocates nothing for a good record.
//!
//! | a record is refused for | before |
//! |---|---|
//! | `null_value`, `empty_value`, `too_large` | any look at its bytes |
//! | `not_json`, `too_deep`, then `not_an_object` | any field |
//! | `duplicate_key`, then time, latitude, longitude, id | |

use std::fmt;

use crate::codec::instant;
use crate::codec::json;
use crate::codec::pointer::{Layouts, PathId, Paths, Pointer, PointerError, Slot};
use crate::codec::splice::{FieldNames, Splice};
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::{Event, RecordTimestamp};
use crate::time::EventTime;
use crate::zone::ZoneText;

/// Slots on the stack for the usual configuration: the document, the fields, the enriched field and its properties.
const SLOTS_FEW: usize = 12;
/// Slots on the stack at most: bounds how many names the pointers may have together.
const SLOTS_MAX: usize = 64;

/// The value of `telemetry.time` that stands for the Kafka timestamp.
pub const TIME_OF_RECORD: &str = "record";

/// What is read of a telemetry record, as it is configured.
#[derive(Clone, Debug)]
pub struct FieldRules<'a> {
    /// Pointer to the entity's id; empty = not read.
    pub id: &'a str,
    /// Pointer to the event's time, or [`TIME_OF_RECORD`].
    pub time: &'a str,
    /// Pointer to the latitude.
    pub lat: &'a str,
    /// Pointer to the longitude.
    pub lon: &'a str,
    /// The name of the enriched field, a member of the value itself.
    pub field: &'a str,
    /// Whether zone properties are added beside the ids, as `<field>_properties`.
    pub with_properties: bool,
    /// The longest value that is read, in bytes.
    pub max_bytes: usize,
}

impl Default for FieldRules<'_> {
    fn default() -> Self {
        Self {
            id: "/id",
            time: "/ts",
            lat: "/lat",
            lon: "/lon",
            field: "zones",
            with_properties: false,
            max_bytes: 1_048_576,
        }
    }
}

/// A configured field that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldsError {
    /// A key of `[telemetry]` is no pointer.
    Pointer {
        /// The key.
        key: &'static str,
        /// Why.
        error: PointerError,
    },
    /// Two keys of `[telemetry]` read one place, or one inside the other.
    Overlap {
        /// One key.
        key: &'static str,
        /// The other.
        other: &'static str,
    },
    /// The enriched field would overwrite what this key of `[telemetry]` reads.
    Overwrites {
        /// The key.
        key: &'static str,
    },
    /// All pointers together have too many names.
    TooMany,
}

impl FieldsError {
    /// The configuration's keys that it is about, whole.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        let whole = |key: &&'static str| match *key {
            "id" => "telemetry.id",
            "time" => "telemetry.time",
            "lat" => "telemetry.lat",
            _ => "telemetry.lon",
        };
        match self {
            Self::Pointer { key, .. } => vec![whole(key)],
            Self::Overlap { key, other } => vec![whole(key), whole(other)],
            Self::Overwrites { key } => vec!["enriched.field", whole(key)],
            Self::TooMany => ["id", "time", "lat", "lon"].iter().map(whole).collect(),
        }
    }
}

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer { key, error } => write!(f, "`telemetry.{key}`: {error}"),
            Self::Overlap { key, other } => {
                write!(
                    f,
                    "`telemetry.{key}` and `telemetry.{other}` read the same member"
                )
            }
            Self::Overwrites { key } => {
                write!(
                    f,
                    "`enriched.field` would overwrite what `telemetry.{key}` reads"
                )
            }
            Self::TooMany => {
                write!(
                    f,
                    "the pointers of `[telemetry]` have more than {SLOTS_MAX} names together"
                )
            }
        }
    }
}

impl std::error::Error for FieldsError {}

#[derive(Clone, Debug)]
struct Field {
    path: PathId,
    pointer: Box<str>,
}

/// The configured fields, compiled.
#[derive(Clone, Debug)]
pub struct Fields {
    paths: Paths,
    id: Option<Field>,
    /// `None` = the record's timestamp.
    time: Option<Field>,
    lat: Field,
    lon: Field,
    field: PathId,
    properties: Option<PathId>,
    names: FieldNames,
    max_bytes: usize,
}

/// What a good record says.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Decoded {
    /// When and where.
    pub event: Event,
    /// Where the enriched field goes; for [`Fields::splice`] with the same value.
    pub splice: Splice,
    /// Where the entity's id stands in the value, if it has one.
    pub id: Option<Slot>,
}

impl Fields {
    /// Compiles the configured fields.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn new(rules: &FieldRules<'_>) -> Result<Self, Vec<FieldsError>> {
        let mut problems = Vec::new();
        let mut parsed: Vec<(&'static str, Option<Pointer>)> = Vec::new();
        let configured = [
            ("id", rules.id, rules.id.is_empty()),
            ("time", rules.time, rules.time == TIME_OF_RECORD),
            ("lat", rules.lat, false),
            ("lon", rules.lon, false),
        ];
        for (key, text, absent) in configured {
            let pointer = if absent {
                None
            } else {
                Pointer::parse(text)
                    .map_err(|error| problems.push(FieldsError::Pointer { key, error }))
                    .ok()
            };
            parsed.push((key, pointer));
        }
        problems.extend(clashes(&parsed, rules));

        let mut paths = Paths::new();
        let mut fields = parsed.iter().map(|(_, pointer)| {
            pointer.as_ref().map(|pointer| {
                let path = paths.add(pointer);
                Field {
                    path,
                    pointer: paths.pointer(path).into(),
                }
            })
        });
        let (id, time) = (fields.next().flatten(), fields.next().flatten());
        let (lat, lon) = (fields.next().flatten(), fields.next().flatten());
        drop(fields);
        let names = FieldNames::new(rules.field, rules.with_properties);
        let field = paths.add(&Pointer::of(&[rules.field]));
        let properties = names
            .properties_name()
            .map(|name| paths.add(&Pointer::of(&[name.as_str()])));
        if paths.slot_count() > SLOTS_MAX {
            problems.push(FieldsError::TooMany);
        }
        match (lat, lon) {
            (Some(lat), Some(lon)) if problems.is_empty() => {
                let max_bytes = rules.max_bytes.min(u32::MAX as usize);
                Ok(Self {
                    paths,
                    id,
                    time,
                    lat,
                    lon,
                    field,
                    properties,
                    names,
                    max_bytes,
                })
            }
            _ => Err(problems),
        }
    }

    /// Reads a record's value; `None` = null.
    ///
    /// # Errors
    /// The rule that the record broke.
    pub fn decode(
        &self,
        value: Option<&[u8]>,
        timestamp: RecordTimestamp,
    ) -> Result<Decoded, Rejection> {
        self.decode_capped(None, value, timestamp)
    }

    /// Reads a record's value as [`Self::decode`] does, at a third of the cost where it is laid out like one of the last that
    /// were read with these `layouts`, which are of these fields alone.
    ///
    /// # Errors
    /// The rule that the record broke.
    pub fn decode_by(
        &self,
        layouts: &mut Layouts,
        value: Option<&[u8]>,
        timestamp: RecordTimestamp,
    ) -> Result<Decoded, Rejection> {
        self.decode_capped(Some(layouts), value, timestamp)
    }

    #[inline]
    fn decode_capped(
        &self,
        layouts: Option<&mut Layouts>,
        value: Option<&[u8]>,
        timestamp: RecordTimestamp,
    ) -> Result<Decoded, Rejection> {
        let Some(value) = value else {
            return Err(Rejection::new(RejectionReason::NullValue, ""));
        };
        if value.is_empty() {
            return Err(Rejection::new(RejectionReason::EmptyValue, ""));
        }
        if value.len() > self.max_bytes {
            return Err(Rejection::new(
                RejectionReason::TooLarge,
                format!("{} bytes, at most {} are read", value.len(), self.max_bytes),
            ));
        }
        if self.paths.slot_count() <= SLOTS_FEW {
            self.decode_with::<SLOTS_FEW>(layouts, value, timestamp)
        } else {
            self.decode_with::<SLOTS_MAX>(layouts, value, timestamp)
        }
    }

    fn decode_with<const SLOTS: usize>(
        &self,
        layouts: Option<&mut Layouts>,
        value: &[u8],
        timestamp: RecordTimestamp,
    ) -> Result<Decoded, Rejection> {
        let text = json::utf8(value)?;
        let mut slots = [None; SLOTS];
        let scanned = match layouts {
            Some(layouts) => layouts.scan_object(&self.paths, text, &mut slots)?,
            None => self.paths.scan_object(text, &mut slots)?,
        };
        let event = Event {
            time: self.time(text, &slots, timestamp)?,
            lat: coordinate(text, &slots, &self.lat, 90.0)?,
            lon: coordinate(text, &slots, &self.lon, 180.0)?,
        };
        let id = self.entity(&slots)?;
        let splice = Splice::new(
            &scanned,
            Paths::slot(&slots, self.field),
            self.properties.and_then(|path| Paths::slot(&slots, path)),
        );
        Ok(Decoded { event, splice, id })
    }

    #[inline(always)]
    fn time(
        &self,
        text: &str,
        slots: &[Option<Slot>],
        timestamp: RecordTimestamp,
    ) -> Result<EventTime, Rejection> {
        match &self.time {
            Some(field) => match Paths::slot(slots, field.path) {
                Some(slot) => instant::read(text, slot, &field.pointer),
                None => Err(absent(field)),
            },
            None => timestamp.instant().ok_or_else(|| {
                Rejection::new(RejectionReason::NoTimestamp, "the record has no timestamp")
            }),
        }
    }

    /// The entity's id. No answer depends on it (the entity of a record is its key), so a record without one, or with
    /// null, is matched like any other; but where it stands it must be an id: a string or an integer.
    #[inline(always)]
    fn entity(&self, slots: &[Option<Slot>]) -> Result<Option<Slot>, Rejection> {
        let Some(field) = &self.id else {
            return Ok(None);
        };
        match Paths::slot(slots, field.path) {
            Some(slot) if slot.kind.is_string() || slot.kind == json::Kind::Integer => {
                Ok(Some(slot))
            }
            None
            | Some(Slot {
                kind: json::Kind::Null,
                ..
            }) => Ok(None),
            Some(slot) => Err(of_another_type(field, slot, "a string or an integer")),
        }
    }

    /// Whether outputs say something of the zones' properties.
    #[must_use]
    pub fn with_properties(&self) -> bool {
        self.names.with_properties()
    }

    /// Writes the enriched value to `out`, which is cleared before; see [`Splice::write`].
    pub fn splice<'z>(
        &self,
        value: &[u8],
        splice: &Splice,
        zones: impl Iterator<Item = ZoneText<'z>> + Clone,
        out: &mut Vec<u8>,
    ) {
        splice.write(value, &self.names, zones, out);
    }
}

#[inline(always)]
fn coordinate(
    text: &str,
    slots: &[Option<Slot>],
    field: &Field,
    bound: f64,
) -> Result<f64, Rejection> {
    let Some(slot) = Paths::slot(slots, field.path) else {
        return Err(absent(field));
    };
    if !slot.kind.is_number() {
        return Err(of_another_type(field, slot, "a number"));
    }
    // The scanner let only numbers through that a float holds.
    let degrees = json::Scanner::standing_at(text, slot.range().start)
        .take_decimal()
        .unwrap_or_else(|| json::number(slot.text(text)).unwrap_or(f64::NAN));
    if degrees.abs() <= bound {
        Ok(degrees)
    } else {
        Err(out_of_range(field, bound))
    }
}

// What a record is refused for is told apart from the way of a good one, which is the shorter for it.

#[cold]
fn absent(field: &Field) -> Rejection {
    Rejection::new(
        RejectionReason::MissingField,
        format!("`{}` is absent", field.pointer),
    )
}

#[cold]
fn of_another_type(field: &Field, slot: Slot, wanted: &str) -> Rejection {
    Rejection::new(
        RejectionReason::WrongType,
        format!("`{}` is {}, not {wanted}", field.pointer, slot.kind.name()),
    )
}

#[cold]
fn out_of_range(field: &Field, bound: f64) -> Rejection {
    Rejection::new(
        RejectionReason::CoordinateRange,
        format!("`{}` is outside -{bound} to {bound}", field.pointer),
    )
}

/// Pointers that read one place, or that the enriched field would overwrite.
fn clashes(parsed: &[(&'static str, Option<Pointer>)], rules: &FieldRules<'_>) -> Vec<FieldsError> {
    let mut problems = Vec::new();
    let names = FieldNames::new(rules.field, rules.with_properties);
    for (at, (key, pointer)) in parsed.iter().enumerate() {
        let Some(pointer) = pointer else { continue };
        for (other_key, other) in &parsed[at + 1..] {
            let Some(other) = other else { continue };
            if pointer.names().starts_with(other.names())
                || other.names().starts_with(pointer.names())
            {
                problems.push(FieldsError::Overlap {
                    key,
                    other: other_key,
                });
            }
        }
        let first = &pointer.names()[0];
        if first == rules.field || Some(first) == names.properties_name().as_ref() {
            problems.push(FieldsError::Overwrites { key });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rejection::RejectionReason as Reason;

    const NONE: RecordTimestamp = RecordTimestamp::Missing;

    fn fields(rules: &FieldRules<'_>) -> Fields {
        Fields::new(rules).unwrap()
    }

    fn decode(value: &str) -> Result<Decoded, Reason> {
        fields(&FieldRules::default())
            .decode(Some(value.as_bytes()), NONE)
            .map_err(|rejection| rejection.reason)
    }

    fn event(time: i64, lat: f64, lon: f64) -> Event {
        Event {
            time: EventTime::clamped(time),
            lon,
            lat,
        }
    }

    #[test]
    fn fields_are_read_in_any_order_among_others() {
        for value in [
            r#"{"id":"b1","ts":5,"lat":30.25,"lon":-97.75}"#,
            r#"{"lon":-97.75,"speed":{"lat":1,"ts":[]},"lat":30.25,"x":null,"ts":5}"#,
            "{\n\t\"l\\u0061t\" : 30.25 ,\r\n \"ts\":\"1970-01-01T00:00:00.005Z\",\"lon\":-9775e-2 }\n",
        ] {
            assert_eq!(
                decode(value).unwrap().event,
                event(5, 30.25, -97.75),
                "{value}"
            );
        }
    }

    #[test]
    fn nested_fields_and_array_elements_are_read() {
        let rules = FieldRules {
            id: "/vehicle/id",
            time: "/at/0",
            lat: "/pos/c~1s/1",
            lon: "/pos/c~1s/0",
            ..FieldRules::default()
        };
        let value = br#"{"pos":{"x":1,"c/s":[-97.5,30.5,9]},"vehicle":{"id":7},"at":[5,6]}"#;
        let decoded = fields(&rules).decode(Some(value), NONE).unwrap();
        assert_eq!(decoded.event, event(5, 30.5, -97.5));
        let id = decoded.id.unwrap();
        assert_eq!(&value[id.range()], b"7");
    }

    #[test]
    fn more_pointers_than_the_small_stack_holds_are_read() {
        let deep = |last: &str| format!("/a/b/c/d/e/f/g/h/{last}");
        let (lat, lon) = (deep("lat"), deep("lon"));
        let rules = FieldRules {
            lat: &lat,
            lon: &lon,
            ..FieldRules::default()
        };
        let open = "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":";
        let value = format!("{open}{{\"lat\":1,\"lon\":2}}}}}}}}}}}}}}}},\"ts\":3}}");
        let decoded = fields(&rules).decode(Some(value.as_bytes()), NONE).unwrap();
        assert_eq!(decoded.event, event(3, 1.0, 2.0));
    }

    #[test]
    fn the_time_of_the_record_is_used_where_configured() {
        let fields = fields(&FieldRules {
            time: TIME_OF_RECORD,
            ..FieldRules::default()
        });
        let value = Some(br#"{"lat":1,"lon":2,"ts":"any","ts":"twice"}"#.as_slice());
        for timestamp in [
            RecordTimestamp::Create(EventTime::clamped(9)),
            RecordTimestamp::LogAppend(EventTime::clamped(9)),
        ] {
            assert_eq!(
                fields.decode(value, timestamp).unwrap().event.time,
                EventTime::clamped(9)
            );
        }
        assert_eq!(
            fields.decode(value, NONE).unwrap_err().reason,
            Reason::NoTimestamp
        );
    }

    #[test]
    fn each_way_to_be_wrong_has_its_reason() {
        for (value, reason) in [
            ("", Reason::EmptyValue),
            (" ", Reason::NotJson),
            ("hello", Reason::NotJson),
            (r#"{"ts":1,"lat":NaN,"lon":2}"#, Reason::NotJson),
            (r#"{"ts":1,"lat":1,"lon":2}{"#, Reason::NotJson),
            (r#"{"ts":1,"lat":1e400,"lon":2}"#, Reason::NotJson),
            ("\u{feff}{\"ts\":1,\"lat\":1,\"lon\":2}", Reason::NotJson),
            ("null", Reason::NotAnObject),
            (r#"[{"ts":1,"lat":1,"lon":2}]"#, Reason::NotAnObject),
            ("{}", Reason::MissingField),
            (r#"{"ts":1,"lon":2}"#, Reason::MissingField),
            (r#"{"lat":1,"lon":2}"#, Reason::MissingField),
            (r#"{"ts":1,"lat":"1","lon":2}"#, Reason::WrongType),
            (r#"{"ts":1,"lat":null,"lon":2}"#, Reason::WrongType),
            (r#"{"ts":1,"lat":[1],"lon":2}"#, Reason::WrongType),
            (r#"{"ts":null,"lat":1,"lon":2}"#, Reason::WrongType),
            (r#"{"ts":true,"lat":1,"lon":2}"#, Reason::WrongType),
            (r#"{"ts":"yesterday","lat":1,"lon":2}"#, Reason::TimeRange),
            (r#"{"ts":1e300,"lat":1,"lon":2}"#, Reason::TimeRange),
            (
                r#"{"ts":1,"lat":90.00000000000001421,"lon":2}"#,
                Reason::CoordinateRange,
            ),
            (r#"{"ts":1,"lat":-91,"lon":2}"#, Reason::CoordinateRange),
            (r#"{"ts":1,"lat":1,"lon":180.5}"#, Reason::CoordinateRange),
            (r#"{"ts":1,"lat":1,"lon":2,"lat":1}"#, Reason::DuplicateKey),
            (
                r#"{"ts":1,"lat":1,"lon":2,"\u006cat":1}"#,
                Reason::DuplicateKey,
            ),
            (
                r#"{"id":1,"id":1,"ts":1,"lat":1,"lon":2}"#,
                Reason::DuplicateKey,
            ),
            (
                r#"{"zones":1,"ts":1,"lat":1,"lon":2,"zone\u0073":1}"#,
                Reason::DuplicateKey,
            ),
            (r#"{"id":{},"ts":1,"lat":1,"lon":2}"#, Reason::WrongType),
            (r#"{"id":1.5,"ts":1,"lat":1,"lon":2}"#, Reason::WrongType),
        ] {
            assert_eq!(decode(value).unwrap_err(), reason, "{value}");
        }
        let null = fields(&FieldRules::default()).decode(None, NONE);
        assert_eq!(null.unwrap_err().reason, Reason::NullValue);
    }

    /// Records that this document stands in: as a member's value, first and last, deeper in an array, and as a name.
    fn records_around(document: &[u8]) -> [Vec<u8>; 4] {
        let around =
            |before: &str, after: &str| [before.as_bytes(), document, after.as_bytes()].concat();
        [
            around(r#"{"x":"#, r#","ts":5,"lat":1.5,"lon":2}"#),
            around(r#"{"ts":5,"lat":1.5,"lon":2,"x":"#, "}"),
            around(r#"{"ts":5,"x":{"lat":[0,"#, r#"]},"lat":1.5,"lon":2}"#),
            // The whole document as a member's name, where it is a string.
            around(r#"{"ts":5,"lat":1.5,"lon":2,"#, ":0}"),
        ]
    }

    #[test]
    fn a_record_around_each_document_of_the_corpus_is_judged_as_serde_json_judges_it() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/json");
        let fields = fields(&FieldRules::default());
        let (mut taken, mut refused) = (0, 0);
        for entry in std::fs::read_dir(corpus).unwrap() {
            let path = entry.unwrap().path();
            for value in records_around(&std::fs::read(&path).unwrap()) {
                let ours = fields.decode(Some(&value), NONE);
                let theirs = serde_json::from_slice::<serde_json::Value>(&value);
                match (&ours, &theirs) {
                    (Ok(decoded), Ok(_)) => {
                        assert_eq!(decoded.event, event(5, 1.5, 2.0), "{path:?}");
                        taken += 1;
                    }
                    (Err(rejection), Err(_)) => {
                        let reasons = [Reason::NotJson, Reason::TooDeep];
                        assert!(reasons.contains(&rejection.reason), "{path:?}: {rejection}");
                        refused += 1;
                    }
                    _ => panic!("{path:?}: ours {ours:?}, theirs {theirs:?}"),
                }
            }
        }
        assert!(
            taken > 100 && refused > 300,
            "{taken} taken, {refused} refused"
        );
    }

    #[test]
    fn bounds_and_zero_are_positions() {
        for (lat, lon) in [
            ("90", "180"),
            ("-90.0", "-180.0"),
            ("0", "0"),
            ("-0", "-0.0"),
        ] {
            assert!(decode(&format!("{{\"ts\":1,\"lat\":{lat},\"lon\":{lon}}}")).is_ok());
        }
    }

    #[test]
    fn a_record_without_an_id_or_with_null_is_matched_all_the_same() {
        for value in [
            r#"{"ts":1,"lat":1,"lon":2}"#,
            r#"{"id":null,"ts":1,"lat":1,"lon":2}"#,
        ] {
            assert_eq!(decode(value).unwrap().id, None, "{value}");
        }
    }

    #[test]
    fn members_that_no_pointer_reads_may_be_named_twice() {
        assert!(
            decode(
                r#"{"x":1,"ts":1,"lat":1,"x":1,"lon":2,"zones_properties":1,"zones_properties":2}"#
            )
            .is_ok()
        );
    }

    #[test]
    fn a_value_over_max_bytes_is_refused_before_it_is_looked_at() {
        let fields = fields(&FieldRules {
            max_bytes: 10,
            ..FieldRules::default()
        });
        let reason = |value: &[u8]| fields.decode(Some(value), NONE).unwrap_err().reason;
        assert_eq!(reason(&[0xff; 11]), Reason::TooLarge);
        assert_eq!(reason(&[0xff; 10]), Reason::NotJson);
    }

    #[test]
    fn every_problem_of_a_configuration_is_reported_at_once() {
        let rules = FieldRules {
            id: "id",
            time: "/a/b",
            lat: "/a",
            lon: "/zones/0",
            ..FieldRules::default()
        };
        assert_eq!(
            Fields::new(&rules).unwrap_err(),
            [
                FieldsError::Pointer {
                    key: "id",
                    error: PointerError::NoSlash
                },
                FieldsError::Overlap {
                    key: "time",
                    other: "lat"
                },
                FieldsError::Overwrites { key: "lon" },
            ]
        );
        let long = "/x".repeat(30);
        let (lat, lon) = (format!("{long}/lat"), format!("/y{long}/lon"));
        let rules = FieldRules {
            lat: &lat,
            lon: &lon,
            ..FieldRules::default()
        };
        assert_eq!(Fields::new(&rules).unwrap_err(), [FieldsError::TooMany]);
        assert!(
            Fields::new(&FieldRules {
                id: "",
                ..FieldRules::default()
            })
            .is_ok()
        );
    }

    #[test]
    fn no_detail_quotes_the_payload() {
        for value in [
            r#"{"secret":"hunter2","ts":"hunter2","lat":1,"lon":2}"#,
            r#"{"secret":"hunter2","ts":1,"lat":"hunter2","lon":2}"#,
            r#"{"secret":"hunter2" hunter2"#,
        ] {
            let rejection = fields(&FieldRules::default())
                .decode(Some(value.as_bytes()), NONE)
                .unwrap_err();
            assert!(!rejection.to_string().contains("hunter2"), "{rejection}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn numbers_are_read_with_the_bits_that_serde_json_gives(
            text in prop_oneof![
                (-90.0..90.0).prop_map(|n: f64| n.to_string()),
                r"-?[1-8]?[0-9]\.[0-9]{1,40}",
                r"-?[1-8]\.[0-9]{1,25}[eE][-+]?[01]",
                r"-?0\.[0-9]{1,30}e-[0-9]{1,3}",
            ],
        ) {
            let value = format!("{{\"ts\":1,\"lat\":{text},\"lon\":{text}}}");
            let theirs: serde_json::Value = serde_json::from_str(&value).unwrap();
            let theirs = theirs["lat"].as_f64().unwrap();
            let ours = decode(&value).unwrap().event;
            prop_assert_eq!(ours.lat.to_bits(), theirs.to_bits());
            prop_assert_eq!(ours.lon.to_bits(), theirs.to_bits());
        }

        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(fields(&FieldRules::default()).decode(Some(&value), NONE).is_err());
        }
    }
}
