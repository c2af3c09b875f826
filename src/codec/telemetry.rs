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
use crate::codec::pointer::{PathId, Paths, Pointer, PointerError, Slot};
use crate::codec::splice::{FieldNames, Splice};
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::{Event, RecordTimestamp};
use crate::time::EventTime;

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

impl fmt::Display for FieldsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer { key, error } => write!(f, "`telemetry.{key}`: {error}"),
            Self::Overlap { key, other } => {
                write!(f, "`telemetry.{key}` and `telemetry.{other}` read the same member")
            }
            Self::Overwrites { key } => {
                write!(f, "`enriched.field` would overwrite what `telemetry.{key}` reads")
            }
            Self::TooMany => {
                write!(f, "the pointers of `[telemetry]` have more than {SLOTS_MAX} names together")
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
                Field { path, pointer: paths.pointer(path).into() }
            })
        });
        let (id, time) = (fields.next().flatten(), fields.next().flatten());
        let (lat, lon) = (fields.next().flatten(), fields.next().flatten());
        drop(fields);
        let names = FieldNames::new(rules.field, rules.with_properties);
        let field = paths.add(&Pointer::of(&[rules.field]));
        let properties =
            names.properties_name().map(|name| paths.add(&Pointer::of(&[name.as_str()])));
        if paths.slot_count() > SLOTS_MAX {
            problems.push(FieldsError::TooMany);
        }
        match (lat, lon) {
            (Some(lat), Some(lon)) if problems.is_empty() => {
                let max_bytes = rules.max_bytes.min(u32::MAX as usize);
                Ok(Self { paths, id, time, lat, lon, field, properties, names, max_bytes })
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
            self.decode_with::<SLOTS_FEW>(value, timestamp)
        } else {
            self.decode_with::<SLOTS_MAX>(value, timestamp)
        }
    }

    fn decode_with<const SLOTS: usize>(
        &self,
        value: &[u8],
        timestamp: RecordTimestamp,
    ) -> Result<Decoded, Rejection> {
        let text = json::utf8(value)?;
        let mut slots = [None; SLOTS];
        let scanned = self.paths.scan(text, &mut slots)?;
        if scanned.kind != json::Kind::Object {
            return Err(Rejection::new(
                RejectionReason::NotAnObject,
                format!("the value is {}", scanned.kind.name()),
            ));
        }
        if let Some(twice) = scanned.duplicate {
            return Err(Rejection::new(
                RejectionReason::DuplicateKey,
                format!("`{}` is named twice", self.paths.pointer(twice)),
            ));
        }
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

    fn time(
        &self,
        text: &str,
        slots: &[Option<Slot>],
        timestamp: RecordTimestamp,
    ) -> Result<EventTime, Rejection> {
        match &self.time {
            Some(field) => instant::read(text, present(slots, field)?, &field.pointer),
            None => timestamp.instant().ok_or_else(|| {
                Rejection::new(RejectionReason::NoTimestamp, "the record has no timestamp")
            }),
        }
    }

    /// The entity's id. No answer depends on it (the entity of a record is its key), so a record without one, or with
    /// null, is matched like any other; but where it stands it must be an id: a string or an integer.
    fn entity(&self, slots: &[Option<Slot>]) -> Result<Option<Slot>, Rejection> {
        let Some(field) = &self.id else { return Ok(None) };
        match Paths::slot(slots, field.path) {
            Some(slot) if slot.kind.is_string() || slot.kind == json::Kind::Integer => {
                Ok(Some(slot))
            }
            None | Some(Slot { kind: json::Kind::Null, .. }) => Ok(None),
            Some(slot) => Err(Rejection::new(
                RejectionReason::WrongType,
                format!("`{}` is {}, not a string or an integer", field.pointer, slot.kind.name()),
            )),
        }
    }

    /// Writes the enriched value to `out`, which is cleared before; see [`Splice::write`].
    pub fn splice<'z>(
        &self,
        value: &[u8],
        splice: &Splice,
        zones: impl Iterator<Item = &'z crate::zone::Zone> + Clone,
        out: &mut Vec<u8>,
    ) {
        splice.write(value, &self.names, zones, out);
    }
}

fn present(slots: &[Option<Slot>], field: &Field) -> Result<Slot, Rejection> {
    Paths::slot(slots, field.path).ok_or_else(|| {
        Rejection::new(RejectionReason::MissingField, format!("`{}` is absent", field.pointer))
    })
}

fn coordinate(
    text: &str,
    slots: &[Option<Slot>],
    field: &Field,
    bound: f64,
) -> Result<f64, Rejection> {
    let slot = present(slots, field)?;
    if !slot.kind.is_number() {
        return Err(Rejection::new(
            RejectionReason::WrongType,
            format!("`{}` is {}, not a number", field.pointer, slot.kind.name()),
        ));
    }
    // The scanner let only numbers through that std reads, and std rounds correctly.
    let degrees: f64 = slot.text(text).parse().unwrap_or(f64::NAN);
    if degrees.abs() <= bound {
        Ok(degrees)
    } else {
        Err(Rejection::new(
            RejectionReason::CoordinateRange,
            format!("`{}` is outside -{bound} to {bound}", field.pointer),
        ))
    }
}

/// Pointers that read one place, or that the enriched field would overwrite.
fn clashes(
    parsed: &[(&'static str, Option<Pointer>)],
    rules: &FieldRules<'_>,
) -> Vec<FieldsError> {
    let mut problems = Vec::new();
    let names = FieldNames::new(rules.field, rules.with_properties);
    for (at, (key, pointer)) in parsed.iter().enumerate() {
        let Some(pointer) = pointer else { continue };
        for (other_key, other) in &parsed[at + 1..] {
            let Some(other) = other else { continue };
            if pointer.names().starts_with(other.names())
                || other.names().starts_with(pointer.names())
            {
                problems.push(FieldsError::Overlap { key, other: other_key });
            }
        }
        let first = &pointer.names()[0];
        if first == rules.field || Some(first) == names.properties_name().as_ref() {
            problems.push(FieldsError::Overwrites { key });
        }
    }
    problems
}
